"""Errors of a conversation, by whose fault they are."""

from __future__ import annotations

from mta.mail import Reply


class Refusal(Exception):
    """A command is refused, by the grammar or by policy.

    `reply` is what the client is told, after `delay` seconds where that is the greeting.
    `is_error`: it counts as one of the client's errors, whatever the reply is.
    """

    def __init__(self, reply: Reply, *, is_error: bool = False, delay: float = 0.0) -> None:
        super().__init__(reply)
        self.reply = reply
        self.is_error = is_error
        self.delay = delay


class PeerFault(Exception):
    """The peer broke the protocol.

    Its replies or commands can't be understood any more.
    """


class LocalFault(Exception):
    """We were about to send what the protocol does not allow."""


class UnsendableMessage(Exception):
    """A peer can't be given a message in any form.

    `reply` says why, as if the peer had refused the message.
    """

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self.reply = reply
