"""The opening of what peers have sealed for us."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from twisted.logger import Logger
from zope.interface import implementer

from mta.interfaces import IPostmaster, ISealOpener, ISealOpening
from mta.sealing.agefile import Opening
from mta.sealing.keys import PrivateKey, private_keys
from mta.session import Origin
from mta.settings import DAY, Peer


@implementer(ISealOpening)
class ContentOpening:
    """One message on its way to being opened.

    It has a sealed header section of so many octets, and a sealed body behind it.
    """

    def __init__(self, keys: Sequence[PrivateKey], header_size: int) -> None:
        self._keys = keys
        self._left = header_size  # octets of the header section that are still to come
        self._file = Opening(keys)

    def add(self, octets: bytes) -> bytes:
        """See `ISealOpening.add`."""
        if not self._left:
            return self._file.add(octets)
        own, rest = octets[: self._left], octets[self._left :]
        self._left -= len(own)
        ready = self._file.add(own)
        if not self._left:
            ready += self._file.end()
            self._file = Opening(self._keys)
            ready += self._file.add(rest)
        return ready

    def end(self) -> bytes:
        """See `ISealOpening.end`."""
        return self._file.end()


@implementer(ISealOpener)
class SealOpener:
    """Has the private keys, by the peers that seal to them.

    The postmaster is told once a day and peer of what can't be opened.  `now`: seconds, of any
    clock that runs.
    """

    log = Logger()

    def __init__(
        self,
        keys: Mapping[str, Sequence[PrivateKey]],
        postmaster: IPostmaster,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = keys
        self._postmaster = postmaster
        self._now = now
        self._told: dict[str, float] = {}

    def has_key(self, peer: str) -> bool:
        """See `ISealOpener.has_key`."""
        return peer in self._keys

    def opening(self, peer: str, header_size: int) -> ISealOpening:
        """See `ISealOpener.opening`."""
        return ContentOpening(self._keys[peer], header_size)

    async def failed(self, peer: str, origin: Origin, reason: str) -> None:
        """See `ISealOpener.failed`."""
        named = f"message {origin.told_id}" if origin.told_id else "a message"
        self.log.error(
            "{peer}: {named} can't be opened, and waits there: {reason}",
            peer=peer,
            named=named,
            reason=reason,
        )
        now = self._now()
        if now < self._told.get(peer, -DAY) + DAY:
            return
        self._told[peer] = now
        await self._postmaster.tell(
            f"sealed mail of {peer} can't be opened",
            f"{peer} keeps {named} for us, sealed, and it can't be opened here: {reason}.\n\n"
            f"It waits at {peer}, and is offered again. Where its key is missing, add the key to"
            f" the file of peers.{peer}.seal.key, from the backup, and reload. Others may be"
            " concerned as well; the log names each.",
        )


def key_rings(peers: Iterable[Peer]) -> Mapping[str, Sequence[PrivateKey]]:
    """The private keys for the mail of these peers.  Raises SealKeyFault."""
    return {
        peer.name: private_keys(Path(peer.seal)) for peer in peers if peer.seal and peer.connect
    }
