"""The status of each peer, in small files in the spool.

It is for users to look at: what became of the exchanges.  Losing one loses no mail, so they are
replaced whole and never synced.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from mta.files import atomic_write, create, give_to_folder_owner, locked, stamp
from mta.session import LinkKind

FOLDER = "peers"
LOCK = "lock"  # the file that is locked while a status is replaced
_MARKS = {LinkKind.MAIN: ".link", LinkKind.QUICK: ".quick"}  # the ends of the names of their files
MAX_EXCHANGES = 10  # of each peer that are kept: a screenful


def _known(form: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of these values that a dataclass has."""
    names = {each.name for each in fields(form)}
    return {name: value for name, value in values.items() if name in names}


@dataclass(frozen=True, slots=True)
class EndedExchange:
    """An exchange that is over.

    It `ended` at a time since the epoch, and `lasted` so many seconds.  `sent` and `received` count
    its messages; `error` is empty where it went well.
    """

    ended: float
    lasted: float
    sent: int = 0
    received: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """The exchanges with a peer.  Times are in seconds since the epoch, None: never.

    `sent` and `received` count messages of the last one; `last_error` is empty where it went well,
    and is of the time `error_at`.  `failing_since`: when exchanges began to fail, and `next_try`
    when the next one is due then.  `exchanges` are the last ones, newest first.  `round_trip`:
    seconds, on the link that stands or the last one.  `counts` are those of `IPeerMeter`.
    `obstacle`: why mail waits although the link stands, a line for the operator; empty: nothing.
    """

    last_exchange: float | None = None
    last_error: str = ""
    sent: int = 0
    received: int = 0
    error_at: float | None = None
    failing_since: float | None = None
    next_try: float | None = None
    exchanges: Sequence[EndedExchange] = ()
    round_trip: float | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    obstacle: str = ""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> PeerStatus:
        """The status with these values, of another version perhaps.  Raises TypeError."""
        status = cls(**_known(cls, values))
        kept: Sequence[Any] = status.exchanges
        exchanges = tuple(EndedExchange(**_known(EndedExchange, each)) for each in kept)
        return replace(status, exchanges=exchanges, counts=dict(status.counts))

    def after(self, exchange: EndedExchange) -> PeerStatus:
        """The status when another exchange has ended."""
        return replace(self, exchanges=(exchange, *self.exchanges[: MAX_EXCHANGES - 1]))

    def plus(self, added: Mapping[str, int]) -> PeerStatus:
        """The status with these counts added to those that are there."""
        return replace(self, counts=dict(Counter(self.counts) + Counter(added)))


class PeerStatusFiles:
    """The files in a spool folder.  All methods block.  `now`: seconds since the epoch."""

    def __init__(self, spool: Path, now: Callable[[], float] = time.time) -> None:
        self._folder = spool / FOLDER
        self._now = now

    def read(self, peer: str) -> PeerStatus:
        """The status of a peer, an empty one where there is none.  Raises OSError."""
        try:
            return PeerStatus.of(json.loads(self._path(peer).read_text()))
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            return PeerStatus()

    def link_since(self, peer: str, kind: LinkKind = LinkKind.MAIN) -> float | None:
        """The time since which a link of a kind stands.

        In seconds since the epoch; None: none does.  Raises OSError.
        """
        try:
            descriptor = os.open(self._mark(peer, kind), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.fstat(descriptor).st_mtime
        finally:
            os.close(descriptor)
        return None

    def stamp(self, peer: str) -> object:
        """A sign of the last change of a status, or link begun."""
        return tuple(map(stamp, (self._path(peer), *(self._mark(peer, kind) for kind in LinkKind))))

    def update(self, peer: str, **changes: Any) -> None:
        """Replace some values of a status.  Raises OSError."""
        self._replace(peer, lambda status: self._changed(status, changes))

    def end_exchange(self, peer: str, exchange: EndedExchange, **changes: Any) -> None:
        """Keep an exchange that is over, and replace some values, too.  Raises OSError."""
        changes = {"last_error": exchange.error, **changes}
        self._replace(peer, lambda status: self._changed(status.after(exchange), changes))

    def count(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        """Add to the counts of peers, by their names.  Raises OSError."""
        for peer, added in counts.items():
            self._replace(peer, partial(PeerStatus.plus, added=added))

    def _changed(self, status: PeerStatus, changes: Mapping[str, Any]) -> PeerStatus:
        if "last_error" in changes:
            now = self._now() if changes["last_error"] else None
            times = {"error_at": now, "failing_since": now and (status.failing_since or now)}
            changes = {**times, "next_try": None, **changes}
        return replace(status, **changes)

    def _replace(self, peer: str, change: Callable[[PeerStatus], PeerStatus]) -> None:
        """Replace a status by another, while no other process does."""
        self._make_folder()
        with locked(create(self._folder / LOCK, os.O_RDWR)):
            text = json.dumps(asdict(change(self.read(peer))))
            atomic_write(self._path(peer), text.encode(), durable=False)

    def mark_link(self, peer: str, kind: LinkKind = LinkKind.MAIN) -> int:
        """Mark that a link stands, until the descriptor is closed.

        That ends with the process at the latest, however it ends.  Raises OSError.
        """
        self._make_folder()
        descriptor = create(self._mark(peer, kind), os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            os.utime(descriptor)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _make_folder(self) -> None:
        if not self._folder.exists():
            self._folder.mkdir(mode=0o700, exist_ok=True)
            give_to_folder_owner(self._folder)

    def _path(self, peer: str) -> Path:
        return self._folder / f"{peer}.json"

    def _mark(self, peer: str, kind: LinkKind) -> Path:
        return self._folder / f"{peer}{_MARKS[kind]}"
