"""The seams between the spool and its database.

`mta.spool.process_spool` and its parts go by these alone; each kind of database fulfils them in
its own way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zope.interface import Interface

from mta.interfaces import ISpool

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from mta.mail import Envelope
    from mta.queued import Entry, Filter, Message, Notice
    from mta.session import Origin
    from mta.spool.drafts import Draft, Incoming
    from mta.spool.holds import StandingHold
    from mta.spool.jobs import Job
    from mta.spool.leases import Waiting
    from mta.spool.listing import Listed
    from mta.spool.loading import Loaded
    from mta.spool.rows import Arrival


class IBatchWriter(Interface):
    """The connection that commits, in the thread of a committer.  Everything blocks."""

    def open(owner: int) -> None:
        """Open the database for an owner.  Raises SpoolUnusable or OSError."""

    def commit(jobs: Sequence[Job]) -> Sequence[Any]:
        """Commit all together, or each by itself where one may have failed.

        Returns the result of each job, in order: a Failure where nothing of it was done.
        """

    def close() -> None:
        """Close the database."""


class IClaims(Interface):
    """Claims messages for one owner.

    All raise OSError.  `suspects`: messages that others died on may be tried, one at a time.
    """

    async def due(now: float, limit: int, *, suspects: bool) -> Loaded:
        """Claim messages that are due, the longest overdue first."""

    async def free(numbers: Sequence[int], *, suspects: bool) -> Loaded:
        """Claim those of these messages that are free."""

    async def held(waiting: Waiting, limit: int, now: float, *, suspects: bool) -> Loaded:
        """Claim free messages that wait for a peer; see `IHeldLeases.lease_held`."""

    async def release(dues: Mapping[int, float]) -> None:
        """End leases that are still the owner's, with new due times."""

    async def postpone(
        now: float, dues: Mapping[str, float], warn_after: float, give_up_after: float
    ) -> Mapping[str, int]:
        """Put off messages that wait for these hops alone; see `IAttemptRecords.postpone`."""


class IHeldReading(Interface):
    """Reads what is held for peers.  All raise OSError."""

    async def count_held(peer: str, domains: Collection[str], limit: int) -> int:
        """Count the messages that wait for a peer, up to `limit`."""

    async def peers_with_mail(peers: Collection[str]) -> Collection[str]:
        """Those of these peers for which free messages wait."""

    def held_by_peer() -> Mapping[str, tuple[int, float]]:
        """The number of messages held for each peer, and the oldest's arrival.

        Blocks, and reads the whole queue, as `counts_by_state` does.
        """


class IReading(IHeldReading):
    """Reads what a process wants to know of the queue.  All raise OSError."""

    async def next_due(*, suspects: bool) -> float | None:
        """The due time of the first message to be tried, if any."""

    async def recalled(numbers: Collection[int]) -> Sequence[int]:
        """Those of our messages that are gone, on hold, or another's."""

    async def taken(keys: Collection[str]) -> Collection[str]:
        """Those of these keys by which mail of peers is remembered."""

    def counts_by_state() -> Mapping[str, tuple[int, float]]:
        """The number of messages in each state, and when the oldest came.

        Blocks.  Raises OSError at once where it is being counted already.
        """

    def close() -> None:
        """Close the connections."""


class IWaker(Interface):
    """Wakes the other processes on the spool."""

    def wake_others() -> None:
        """Tell them that mail is due, or held for a peer."""


class ISweeper(Interface):
    """Removes what removed messages leave outside of the database."""

    async def sweep() -> None:
        """Remove it, now or at a later call."""


class IAdmission(Interface):
    """Tells beforehand whether new mail can be taken in."""

    async def may_come(envelope: Envelope) -> bool:
        """Tell whether a message could be committed now, and not on hold.  Raises OSError."""


class IDrafts(Interface):
    """Makes drafts for one owner."""

    def begin(number: int, arriving: set[int]) -> Draft:
        """A draft of the message with this number; see `Draft`."""


class IToolSpool(ISpool):
    """A spool for programs without a reactor.

    Each coroutine ends at once; messages are due, and not leased.
    """

    def arrival(incoming: Incoming) -> Arrival:
        """A message to be inserted, with its body.  Raises SpoolFull or OSError."""

    def restore(entries: Sequence[Entry]) -> None:
        """Put messages of another spool in, as they were, in one commit.

        Raises SpoolFull or OSError; then none is left behind.
        """

    def restore_taken(taken: Collection[tuple[str, int]]) -> None:
        """Remember what another spool did; see `mta.spool.taken`.  Raises OSError."""


class ISpoolTime(Interface):
    """The time of a spool."""

    def now() -> float:
        """Seconds since the epoch, as all processes on the spool have them.  Raises OSError."""


class IListing(ISpoolTime):
    """The queue as an operator lists it.

    Everything blocks, and raises OSError where the spool fails.
    """

    def find(wanted: Filter) -> Iterator[Listed]:
        """The messages that fit, oldest first, in portions."""

    def count(wanted: Filter) -> int:
        """Count the messages that fit."""

    def close() -> None:
        """Close the spool."""


class ILookTools(Interface):
    """The spool as a command looks at it; see `IListing`."""

    def listed(wanted: Filter) -> Iterator[Listed]:
        """The messages that fit in short, oldest first."""

    def find(wanted: Filter) -> Iterator[Entry]:
        """The messages that fit, oldest first; their content needs no reactor."""

    def count(wanted: Filter) -> int:
        """Count the messages that fit."""

    def count_held(peer: str) -> int:
        """Count the messages that wait for a peer."""

    def close() -> None:
        """Close the spool."""


class IChangeTools(Interface):
    """The spool as a command changes it; see `IListing`.

    Each change returns the ids of the messages that it concerned.
    """

    def in_portions() -> AbstractContextManager[Callable[[], None]]:
        """Wake the servers seldom during many changes, and at the end.

        Gives a function to be called between portions of them.
        """

    def hold(ids: Collection[str]) -> list[str]:
        """Put messages on hold until `release`.

        One under way is on hold when its attempt ends.
        """

    def release(ids: Collection[str]) -> list[str]:
        """Undo `hold`, and make free messages due now."""

    def retry(ids: Collection[str]) -> list[str]:
        """Make free messages due now that are not on hold."""

    def delete(ids: Collection[str]) -> list[str]:
        """Remove messages without a notice, leased ones, too."""


class IIntakeTools(Interface):
    """The spool as a command puts mail into it; see `IListing`."""

    def sync_spool() -> AbstractContextManager[IToolSpool]:
        """Be an owner with a way into the spool.  Raises OSError."""

    def enqueue(envelope: Envelope, pieces: Iterable[bytes], origin: Origin = ...) -> str:
        """Put a message into the spool, due now; returns its queue id.

        The content comes in pieces, with CRLF line ends.  It is on stable storage when this
        returns.  Raises SpoolFull or OSError; then nothing is left behind.
        """

    def taken() -> Collection[tuple[str, int]]:
        """The keys of what peers have brought, with times; see `mta.spool.taken`."""

    def bounce(bounced: Sequence[tuple[Message, Notice | None]]) -> list[str]:
        """Replace free messages by their notices, in one commit; returns which.

        A message that was attempted since it was read stays: what its notice says may be wrong.
        Raises SpoolFull or OSError; then nothing is changed.
        """


class ITools(ISpoolTime, ILookTools, IChangeTools, IIntakeTools):
    """The spool as commands use it."""


class IStandingHolds(Interface):
    """The standing holds of a spool.  Everything blocks.  All raise OSError."""

    def current() -> Sequence[StandingHold]:
        """The holds that stand now."""

    def which(envelope: Envelope) -> StandingHold | None:
        """The first that a message fits, if any."""

    def add(hold: StandingHold) -> None:
        """Add one, for all processes; nothing where it stands."""

    def lift(hold: StandingHold) -> bool:
        """Take one away; returns whether it stood."""
