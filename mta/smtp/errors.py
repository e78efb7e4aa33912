"""Whose fault it was: the three ways in which a conversation goes wrong."""

from __future__ import annotations

from mta.mail import Reply


class Refusal(Exception):
    """A command is refused, by the grammar or by policy; `reply` is what the client is told."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self.reply = reply


class PeerFault(Exception):
    """The peer broke the protocol, so that nothing it says can be understood any more."""


class LocalFault(Exception):
    """We were about to send what the protocol does not allow."""
