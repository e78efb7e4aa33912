"""Sealed mail: encrypted where it waits, and opened where it is for."""

from __future__ import annotations

from zope.interface import Interface

from mta.session import Origin


class NotOpened(Exception):
    """Sealed content can't be opened.

    The text says why, in words for people.
    """


class ISealOpening(Interface):
    """The content of one sealed message, opened while it comes."""

    def add(octets: bytes) -> bytes:
        """Take the next octets; return what is ready of the content.  Raises NotOpened."""

    def end() -> bytes:
        """Return the rest of the content.  Raises NotOpened."""


class ISealOpener(Interface):
    """Opens what peers have sealed for us."""

    def has_key(peer: str) -> bool:
        """Tell whether we have a key for what this peer seals."""

    def opening(peer: str, header_size: int) -> ISealOpening:
        """Begin with a message whose sealed header section has so many octets."""

    async def failed(peer: str, origin: Origin, reason: str) -> None:
        """Tell the postmaster that a message could not be opened.

        It waits at the peer.
        """
