"""Hands deliveries to the agents: bounded in all and per hop, fair between hops and senders.

A destination is one hop with the deliveries that wait for it.  A visit is one call of a delivery
agent, which draws deliveries until none is left: one connection carries many messages.  A visit
that has a connection rests there for a moment before it ends, and new mail wakes it: resting
visits are the cache of connections.  A hop that can't be reached is left alone for a while, and
then probed by one message; it slows no other.  Destinations without mail are forgotten.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.interfaces import Delivery, HopFailure, IDeliveryAgent, IMailSource
from mta.mail import Agent, Hop, Outcome, Status
from mta.queue.back_off import BackOffs
from mta.queue.bell import Bell
from mta.queue.rounds import FAULT, words
from mta.queue.turns import Turns
from mta.settings import Queue

COMPANY = 100  # deliveries that wait in memory while one probes their hop
SHARE = 50  # deliveries of one visit while other hops wait for a free place
FIRST_VISITS = 2  # to a hop that has not taken anything yet
LOCAL = frozenset({Agent.MAILDIR, Agent.DISCARD, Agent.REJECT})
LOCAL_VISITS = 2  # while one batch is written, the next one is gathered
BATCH = 128  # deliveries that make a visit to Maildirs worth its syncs
RIPENING = 0.005  # seconds in which more must come for fewer to wait longer
MOST_RIPENINGS = 20


@dataclass(slots=True)
class _Ripening:
    """Mail for Maildirs that waits for more to share its syncs with.

    `seen` is how much it was when last looked at, `left` how often it may wait once more.
    """

    timer: IDelayedCall
    seen: int
    left: int = MOST_RIPENINGS


@dataclass(slots=True, eq=False)
class _Destination:
    """One hop, what waits for it, and who is at work on it.

    `limit` is how many visits it gets.  `arriving` counts the visits that have not asked for mail
    yet; `resting` are those without mail, the one that began to rest last at the end.
    """

    hop: Hop
    limit: int
    waiting: Turns[Delivery] = field(default_factory=Turns)
    visits: set[_Visit] = field(default_factory=set)
    resting: list[_Visit] = field(default_factory=list)
    arriving: int = 0
    in_line: bool = False
    ripening: _Ripening | None = None

    @property
    def is_local(self) -> bool:
        """Whether its mail leaves no process, and waits for nobody's answer."""
        return self.hop.agent in LOCAL

    @property
    def batch(self) -> int:
        """How many deliveries make a visit worth its cost."""
        return BATCH if self.hop.agent is Agent.MAILDIR else 1

    def put(self, delivery: Delivery) -> None:
        """Let a delivery wait behind those of its sender; senders take turns."""
        self.waiting.put(delivery.message.envelope.reverse_path, delivery)

    def put_back(self, deliveries: Iterable[Delivery]) -> None:
        """Let deliveries that were taken already be the next ones."""
        self.waiting.put_back(None, deliveries)


class Destinations:
    """All hops that mail waits for.

    `settled` is called with the outcomes of each delivery that was added, or `returned` with one
    that was not attempted as we stop or it was withdrawn, or `left` with one whose attempt was cut
    off, so that nobody knows what came of it.  None may add deliveries.
    """

    log = Logger()

    def __init__(
        self,
        agents: Mapping[Agent, IDeliveryAgent],
        settings: Queue,
        clock: IReactorTime,
        settled: Callable[[Delivery, Sequence[Outcome]], None],
        returned: Callable[[Delivery], None],
        left: Callable[[Delivery], None],
    ) -> None:
        self.agents = agents
        self.settings = settings
        self._clock = clock
        self._settled = settled
        self._returned = returned
        self._left = left
        self._destinations: dict[Hop, _Destination] = {}
        self._line: deque[_Destination] = deque()  # those that want a visit, in turn
        self._local_line: deque[_Destination] = deque()
        self._down = BackOffs(clock)
        self._visits: set[_Visit] = set()
        self._places: set[_Visit] = set()  # the visits that count
        self._resting: OrderedDict[_Visit, None] = OrderedDict()  # since longest first
        self._dispatching = False
        self._stopped = False
        self._quiet = Bell(clock)

    def add(self, hop: Hop, delivery: Delivery) -> None:
        """Let a delivery wait for its hop; `dispatch` sets it going."""
        if self._stopped:
            self._returned(delivery)
            return
        verdict = self._down.verdict(hop)
        if verdict is not None:
            self._settled(delivery, [verdict] * len(delivery.targets))
            return
        destination = self._destinations.get(hop)
        if destination is None:
            first = min(FIRST_VISITS, self._most_visits(hop))
            destination = self._destinations[hop] = _Destination(hop, first)
        destination.put(delivery)
        self._queue_up(destination)

    def dispatch(self) -> None:
        """Begin visits, as far as mail waits and limits allow, each hop in its turn."""
        if self._dispatching:
            return  # a visit that ended at once
        self._dispatching = True
        try:
            while (line := self._next_line()) and not self._stopped:
                destination = line.popleft()
                destination.in_line = False
                if self._wants_visit(destination):
                    self._visit(destination)
                    self._queue_up(destination)
        finally:
            self._dispatching = False

    def withdraw(self, ids: Collection[str]) -> None:
        """Return what waits of these messages; what a visit has taken goes on."""
        for destination in self._destinations.values():
            for delivery in destination.waiting.take_out(lambda each: each.message.id in ids):
                self._returned(delivery)

    def probe(self) -> None:
        """Let the next message for each hop that is left alone find out whether it is back."""
        self._down.probe()

    def is_crowded(self, hop: Hop) -> bool:
        """Whether so much waits for a hop's probe that the rest is better off in the spool."""
        destination = self._destinations.get(hop)
        return destination is not None and hop in self._down and len(destination.waiting) >= COMPANY

    def is_down(self, hop: Hop) -> bool:
        """Whether a hop could not be reached when it was last tried."""
        return hop in self._down

    async def stop(self, grace: float) -> None:
        """Return what waits, and let visits end for at most `grace` seconds; then cancel them."""
        self._stopped = True
        for destination in self._destinations.values():
            self._end_ripening(destination)
            for delivery in destination.waiting.take_all():
                self._returned(delivery)
        for visit in list(self._resting):
            visit.wake()
        end = self._clock.seconds() + grace
        while self._visits and (left := end - self._clock.seconds()) > 0:
            await self._quiet.wait(left)
        for visit in list(self._visits):
            visit.cancel()

    # --- for visits

    def may_take(self, visit: _Visit) -> bool:
        """Whether there is mail for a visit, and it should go on."""
        destination = visit.destination
        if self._stopped or not destination.waiting:
            return False
        if destination.hop in self._down:
            return not visit.in_turn  # one message probes the hop
        if self._is_used_up(visit):
            return False
        others_wait = len(self._line) > destination.in_line and not destination.is_local
        if visit.in_turn >= SHARE and others_wait and not self._has_place:
            return False
        return len(destination.visits) <= destination.limit

    def seconds(self) -> float:
        """The time on our clock."""
        return self._clock.seconds()

    def arrived(self, visit: _Visit) -> None:
        """A visit asks for mail for the first time, or for the first time since it rested."""
        visit.destination.arriving -= 1

    async def rest(self, visit: _Visit) -> None:
        """Return when there is mail for a visit that has none, or it should end."""
        destination = visit.destination
        is_one_too_many = len(destination.visits) > destination.limit
        is_down = destination.hop in self._down
        if self._stopped or is_down or is_one_too_many or self._is_used_up(visit):
            return
        if len(self._resting) >= self.settings.concurrency:
            next(iter(self._resting)).wake()
        destination.resting.append(visit)
        self._resting[visit] = None
        self._places.discard(visit)
        self._queue_up(destination)
        self.dispatch()  # its place is free
        try:
            await visit.sleep(self.settings.connection_idle)
        finally:
            self._rise(visit)

    def record(self, visit: _Visit, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """Pass outcomes on, and learn from them how much their hop can bear."""
        destination = visit.destination
        if any(outcome.remote or outcome.status is not Status.DEFERRED for outcome in outcomes):
            self._down.answered(destination.hop)
        if any(outcome.strains for outcome in outcomes):
            destination.limit = max(1, destination.limit // 2)
        elif any(outcome.status is not Status.DEFERRED for outcome in outcomes):
            destination.limit = min(destination.limit + 1, self._most_visits(destination.hop))
        self._queue_up(destination)
        self._settled(delivery, outcomes)
        self.dispatch()

    # --- visits

    @property
    def _has_place(self) -> bool:
        return len(self._places) < self.settings.concurrency

    def _next_line(self) -> deque[_Destination] | None:
        """The line whose first destination can have its visit now."""
        if self._local_line:
            return self._local_line
        return self._line if self._line and self._has_place else None

    def _is_used_up(self, visit: _Visit) -> bool:
        """Whether the connection of a visit has carried enough, or is old."""
        age = self._clock.seconds() - visit.began
        settings = self.settings
        is_old = visit.handed > 0 and age >= settings.connection_age
        return is_old or visit.handed >= settings.connection_messages

    def _most_visits(self, hop: Hop) -> int:
        most, places = self.settings.per_destination, self.settings.concurrency
        if hop.agent in LOCAL:
            return min(most, LOCAL_VISITS)
        return min(most, max(1, places - places // 4))  # one alone may not have all of them

    def _wants_visit(self, destination: _Destination) -> bool:
        limit = 1 if destination.hop in self._down else destination.limit
        awake = len(destination.visits) - len(destination.resting)
        coming_for = destination.arriving * destination.batch
        return len(destination.waiting) > coming_for and awake < limit

    def _queue_up(self, destination: _Destination) -> None:
        if destination.in_line or not self._wants_visit(destination):
            return
        if len(destination.waiting) >= destination.batch:
            self._end_ripening(destination)
            destination.in_line = True
            line = self._local_line if destination.is_local else self._line
            line.append(destination)
        elif destination.ripening is None:
            timer = self._clock.callLater(RIPENING, self._ripen, destination)
            destination.ripening = _Ripening(timer, len(destination.waiting))

    def _ripen(self, destination: _Destination) -> None:
        """Wait for more as long as more keeps coming."""
        ripening, waiting = destination.ripening, len(destination.waiting)
        assert ripening is not None
        if waiting > ripening.seen and ripening.left:
            ripening.seen = waiting
            ripening.left -= 1
            ripening.timer = self._clock.callLater(RIPENING, self._ripen, destination)
            return
        destination.ripening = None
        if self._wants_visit(destination) and not destination.in_line:
            destination.in_line = True
            self._local_line.append(destination)
            self.dispatch()

    def _end_ripening(self, destination: _Destination) -> None:
        if destination.ripening is not None:
            destination.ripening.timer.cancel()
            destination.ripening = None

    def _visit(self, destination: _Destination) -> None:
        """Wake the visit that rests there, or begin one."""
        if destination.resting:
            visit = destination.resting[-1]
            self._rise(visit)
            visit.has_arrived = False
            visit.in_turn = 0
            destination.arriving += 1
            visit.wake()
            return
        visit = _Visit(self, destination, self._clock)
        self._visits.add(visit)
        if not destination.is_local:
            self._places.add(visit)
        destination.visits.add(visit)
        destination.arriving += 1
        visit.running = Deferred.fromCoroutine(self._deliver(visit))
        visit.running.addErrback(self._failed, visit)
        visit.running.addBoth(self._ended, visit)

    def _rise(self, visit: _Visit) -> None:
        """It rests no longer, if it did."""
        if visit in self._resting:
            del self._resting[visit]
            visit.destination.resting.remove(visit)
            self._places.add(visit)

    async def _deliver(self, visit: _Visit) -> None:
        hop = visit.destination.hop
        await self.agents[hop.agent].deliver(hop, visit)

    def _failed(self, failure: Failure, visit: _Visit) -> None:
        """The outermost place for what an agent raises: a bug in one must not stop the rest."""
        if failure.check(CancelledError) and self._stopped:
            for delivery in visit.leave():
                self._left(delivery)
        elif isinstance(failure.value, HopFailure):
            self._hop_failed(visit, failure.value.outcome)
        else:
            hop = visit.destination.hop
            self.log.failure("{hop} failed by a fault of ours", failure, hop=str(hop))

    def _ended(self, _: object, visit: _Visit) -> None:
        destination = visit.destination
        # Neither mail that was lost sight of, nor an agent that takes none, may go round for ever.
        if not visit.handed and not visit.was_dismissed and destination.waiting:
            self._hop_failed(visit, FAULT)
        for delivery in visit.leave():
            self._settled(delivery, [FAULT] * len(delivery.targets))
        self._visits.discard(visit)
        self._places.discard(visit)
        destination.visits.discard(visit)
        if not visit.has_arrived:
            destination.arriving -= 1
        if destination.waiting:
            self._queue_up(destination)
        elif not destination.visits:
            self._end_ripening(destination)
            self._destinations.pop(destination.hop, None)
        if self._stopped and not self._visits:
            self._quiet.ring()
        self.dispatch()

    def _hop_failed(self, visit: _Visit, outcome: Outcome) -> None:
        destination = visit.destination
        unsettled = visit.leave()
        destination.limit = max(1, destination.limit // 2)
        others = len(destination.visits) - 1
        if others and not self._stopped:
            # The hop may only want fewer connections: the last visit to fail decides.
            destination.limit = min(destination.limit, others)
            destination.put_back(unsettled)
            return
        if outcome.status is Status.DEFERRED:
            self._leave_alone(destination.hop, outcome)
        waiting = destination.waiting.take_all()
        # Where none was taken, it was for the sake of the first that the hop was tried.
        tried = len(unsettled) or 1
        for number, delivery in enumerate([*unsettled, *waiting]):
            untried = self._down.verdict(destination.hop) if number >= tried else None
            self._settled(delivery, [untried or outcome] * len(delivery.targets))

    def _leave_alone(self, hop: Hop, outcome: Outcome) -> None:
        self.log.warn(
            "{hop} is left alone for {seconds:.0f} s: {reply}",
            hop=str(hop),
            seconds=self._down.failed(hop, outcome),
            reply=words(outcome.reply),
            remote=outcome.remote,
        )


@implementer(IMailSource)
class _Visit:
    """One visit of a delivery agent to a destination; `began`: seconds of the clock.

    `handed` counts the deliveries that it took, `in_turn` those since it rested.
    """

    def __init__(
        self, destinations: Destinations, destination: _Destination, clock: IReactorTime
    ) -> None:
        self.destination = destination
        self.running: Deferred[None] | None = None
        self.began = clock.seconds()
        self.handed = self.in_turn = 0
        self.has_arrived = False
        self.was_dismissed = False
        self._destinations = destinations
        self._bell = Bell(clock)
        self._taken: dict[int, Delivery] = {}  # a message may have several for one hop

    async def next(self) -> Delivery | None:
        """See `IMailSource.next`."""
        if not self.has_arrived:
            self.has_arrived = True
            self._destinations.arrived(self)
        if not self._destinations.may_take(self):
            self.was_dismissed = True
            return None
        delivery = self.destination.waiting.take()
        if not self.handed:
            self.began = self._destinations.seconds()  # hosts that said nothing don't count
        self.handed += 1
        self.in_turn += 1
        self._taken[id(delivery)] = delivery
        return delivery

    async def more(self) -> bool:
        """See `IMailSource.more`: it rests for a moment."""
        if not self._destinations.may_take(self):
            await self._destinations.rest(self)
        return self._destinations.may_take(self)

    def give_back(self, delivery: Delivery) -> None:
        """See `IMailSource.give_back`.  Raises ValueError for a delivery that is not out."""
        self._take_back(delivery)
        self.destination.put_back([delivery])

    def settle(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """See `IMailSource.settle`.  Raises ValueError for a delivery that is not out."""
        if len(outcomes) != len(delivery.targets):
            raise ValueError("one outcome for each target")
        self._take_back(delivery)
        self._destinations.record(self, delivery, outcomes)

    async def sleep(self, longest: float) -> None:
        """Return when somebody wakes it, at the latest after so many seconds."""
        await self._bell.wait(longest)

    def wake(self) -> None:
        """Let it look whether there is something to do."""
        self._bell.ring()

    def leave(self) -> list[Delivery]:
        """What was taken and not settled."""
        unsettled = list(self._taken.values())
        self._taken.clear()
        return unsettled

    def cancel(self) -> None:
        """End the visit now."""
        if self.running is not None:
            self.running.cancel()

    def _take_back(self, delivery: Delivery) -> None:
        if self._taken.pop(id(delivery), None) is None:
            raise ValueError("a delivery comes back once, from the visit that took it")
