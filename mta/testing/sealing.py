"""An opener of sealed mail whose seal is the case of letters."""

from __future__ import annotations

from zope.interface import implementer

from mta.interfaces import ISealOpener, ISealOpening, NotOpened
from mta.session import Origin

BROKEN = b"!"  # can't be opened


@implementer(ISealOpening)
class _Swapped:
    """Content whose capital letters stand for small ones, and vice versa."""

    def __init__(self) -> None:
        self._last = b""

    def add(self, octets: bytes) -> bytes:
        """Keep the last octet until the end."""
        if BROKEN in octets:
            raise NotOpened("it is damaged")
        ready, self._last = (self._last + octets)[:-1], (self._last + octets)[-1:]
        return ready.swapcase()

    def end(self) -> bytes:
        """Return the last octet; there must be one."""
        if not self._last:
            raise NotOpened("it is cut off")
        return self._last.swapcase()


@implementer(ISealOpener)
class FakeSealOpener:
    """Opens what one peer has sealed.  `failures`: peer and reason of what could not be."""

    def __init__(self, peer: str) -> None:
        self.failures: list[tuple[str, str]] = []
        self.header_sizes: list[int] = []
        self._peer = peer

    def has_key(self, peer: str) -> bool:
        """Tell whether it is that peer."""
        return peer == self._peer

    def opening(self, peer: str, header_size: int) -> ISealOpening:
        """Begin with a message."""
        self.header_sizes.append(header_size)
        return _Swapped()

    async def failed(self, peer: str, origin: Origin, reason: str) -> None:
        """Remember it."""
        self.failures.append((peer, reason))
