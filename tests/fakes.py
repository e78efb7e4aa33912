"""Stand-ins for tests: a reactor for code with real threads, and a spool in memory."""

from __future__ import annotations

import math
import queue
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.interfaces import IQueue, ISpool
from mta.mail import Envelope
from mta.queued import IContent, IDraft, Message, Progress, Settlement, State
from mta.spool import queue_id
from mta.spool.content import MemoryContent

T = TypeVar("T")

NEAR = 0.01  # seconds
DEADLINE = 30.0  # seconds that a loaded machine may take for one step in a thread


class ThreadClock(Clock):
    """A clock that also takes calls from threads, and makes them while `wait` waits."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[IReadDescriptor] = []
        self._calls: queue.Queue[tuple[Callable[..., Any], Any, Any]] = queue.Queue()

    def callFromThread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Threads call this."""
        self._calls.put((function, args, kwargs))

    def addReader(self, reader: IReadDescriptor) -> None:
        """Remember who wants to read."""
        self.readers.append(reader)

    def removeReader(self, reader: IReadDescriptor) -> None:
        """Forget it."""
        self.readers.remove(reader)

    def wait(self, work: Deferred[T] | Coroutine[Deferred[Any], Any, T]) -> T:
        """Return the result of `work`, or raise its failure, as soon as threads have done it."""
        deferred = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)
        results: list[Any] = []
        deferred.addBoth(results.append)
        while not results:
            self.pump()
        if isinstance(results[0], Failure):
            results[0].raiseException()
        result: T = results[0]
        return result

    def pump(self) -> None:
        """Make one call that a thread asked for; AssertionError when there is none in time.

        The moment passes for which code waits on purpose before it asks a thread.
        """
        times = [call.getTime() for call in self.getDelayedCalls()]
        first = min(times, default=math.inf)
        self.advance(max(0.0, first - self.seconds()) if first <= self.seconds() + NEAR else 0.0)
        try:
            function, args, kwargs = self._calls.get(timeout=DEADLINE)
        except queue.Empty:
            raise AssertionError("no thread reported anything") from None
        function(*args, **kwargs)


@implementer(IDraft)
class FakeDraft:
    """Content in memory.  `failure`, where set, is raised by `write`."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.id = queue_id.encode(number)
        self.data = b""
        self.discarded = False
        self.failure: OSError | None = None

    async def write(self, piece: bytes) -> None:
        """Append octets."""
        if self.failure:
            raise self.failure
        self.data += piece

    def discard(self) -> None:
        """Remember that it was discarded."""
        self.discarded = True


@dataclass
class _Place:
    """Where a message stands in the fake spool."""

    message: Message
    due: float
    leased: bool


@implementer(ISpool, IQueue)
class FakeSpool:
    """A spool in memory, with one owner.  `now`: seconds since the epoch.

    Commits and settlements are done at once; between `pause` and `resume` they wait.  What is
    put into `failure` is raised by the next ones until it is None again.
    """

    def __init__(self, now: Callable[[], float] = lambda: 0.0) -> None:
        self.failure: OSError | None = None
        self.drafts: list[FakeDraft] = []
        self.settlements: list[Settlement] = []
        self._now = now
        self._ids = queue_id.QueueIds(now)
        self._places: dict[str, _Place] = {}
        self._waiting: list[Deferred[None]] | None = None

    # --- what tests ask and do

    @property
    def messages(self) -> list[Message]:
        """Everything in the spool, oldest first."""
        return [self._places[name].message for name in sorted(self._places)]

    def due(self, name: str) -> float:
        """When a message is due, or when its lease ends."""
        return self._places[name].due

    def is_leased(self, name: str) -> bool:
        """Whether a message is being worked on."""
        return self._places[name].leased

    def pause(self) -> None:
        """Let commits wait from now on."""
        self._waiting = []

    def resume(self) -> None:
        """Do what waits, in order, and everything after it at once."""
        waiting, self._waiting = self._waiting or [], None
        for deferred in waiting:
            deferred.callback(None)

    def put(
        self, envelope: Envelope, content: bytes, due: float = 0.0, recovered: bool = False
    ) -> Message:
        """Put a message into the spool that nobody has leased."""
        message = replace(self._message(self._ids.next(), envelope, content), recovered=recovered)
        self._places[message.id] = _Place(message, due, leased=False)
        return message

    # --- ISpool

    def draft(self) -> FakeDraft:
        """Somewhere to write content that arrives."""
        self.drafts.append(FakeDraft(self._ids.next()))
        return self.drafts[-1]

    async def commit(self, draft: IDraft, envelope: Envelope) -> Message:
        """Keep a message, leased."""
        await self._turn()
        assert isinstance(draft, FakeDraft)
        return self._keep(self._message(draft.number, envelope, draft.data))

    # --- IQueue

    async def lease_due(self, limit: int) -> Sequence[Message]:
        """Lease what is due."""
        places = [
            place
            for place in self._places.values()
            if place.due <= self._now() and not place.leased
        ]
        return self._lease(sorted(places, key=lambda place: place.due)[:limit])

    async def lease_held(
        self, peer: str, domains: Collection[str], limit: int
    ) -> Sequence[Message]:
        """Lease what waits for a peer."""
        places = [
            self._places[message.id]
            for message in self.messages
            if not self._places[message.id].leased
            and any(_waits_for(progress, peer, domains) for progress in message.progress)
        ]
        return self._lease(places[:limit])

    async def count_held(self, peer: str, domains: Collection[str], most: int) -> int:
        """How many messages wait for a peer."""
        waiting = [
            message
            for message in self.messages
            if any(_waits_for(progress, peer, domains) for progress in message.progress)
        ]
        return min(len(waiting), most)

    async def next_due(self) -> float | None:
        """When the next message is due."""
        return min((place.due for place in self._places.values() if not place.leased), default=None)

    async def postpone(
        self, dues: Mapping[str, float], warn_after: float, give_up_after: float
    ) -> Mapping[str, int]:
        """Put off nothing: little waits here."""
        return {}

    async def settle(self, settlement: Settlement) -> Sequence[Message]:
        """Record an attempt."""
        await self._turn()
        self.settlements.append(settlement)
        if all(progress.state is State.DONE for progress in settlement.progress):
            self._places.pop(settlement.id, None)
        elif place := self._places.get(settlement.id):
            place.message = replace(
                place.message,
                progress=settlement.progress,
                attempts=settlement.attempts,
                warned=settlement.warned,
            )
            place.due, place.leased = settlement.due, False
        return [
            self._keep(self._message(self._ids.next(), notice.envelope, notice.content))
            for notice in settlement.notices
        ]

    async def remove(self, ids: Collection[str], delay: float) -> None:
        """Forget messages."""
        await self._turn()
        for name in ids:
            self._places.pop(name, None)

    async def lease(self, ids: Collection[str]) -> Sequence[Message]:
        """Lease what nobody works on."""
        places = [self._places[name] for name in ids if name in self._places]
        return self._lease([place for place in places if not place.leased])

    async def recalled(self, ids: Collection[str]) -> Collection[str]:
        """What somebody took out of `_places`."""
        return [name for name in ids if name not in self._places]

    async def release(self, dues: Mapping[str, float]) -> None:
        """Give up leases."""
        for name, due in dues.items():
            if place := self._places.get(name):
                place.due, place.leased = max(due, self._now()), False

    async def _turn(self) -> None:
        turn: Deferred[None] = succeed(None)
        if self._waiting is not None:
            turn = Deferred()
            self._waiting.append(turn)
        await turn
        if self.failure:
            raise self.failure

    def _message(self, number: int, envelope: Envelope, data: bytes) -> Message:
        content: IContent = MemoryContent(data, data.isascii())
        return Message(
            id=queue_id.encode(number),
            arrived=queue_id.arrival(number),
            envelope=envelope,
            content=content,
            progress=tuple(map(Progress, envelope.recipients)),
        )

    def _keep(self, message: Message) -> Message:
        self._places[message.id] = _Place(message, self._now(), leased=True)
        return message

    def _lease(self, places: Sequence[_Place]) -> Sequence[Message]:
        for place in places:
            place.leased = True
        return [place.message for place in places]


def _waits_for(progress: Progress, peer: str, domains: Collection[str]) -> bool:
    domain = progress.domain
    return (
        progress.state is State.HELD
        and progress.peer == peer
        and any(
            wanted in (domain, ".") or (wanted.startswith(".") and domain.endswith(wanted))
            for wanted in domains
        )
    )
