"""Hands deliveries to the agents: bounded in all and per hop, fair between hops and senders.

A destination is one hop with the deliveries that wait for it.  A visit is one call of a delivery
agent, which draws deliveries until none is left: one connection carries many messages.  A visit
that has a connection rests there for a moment before it ends, and new mail wakes it: resting
visits are the cache of connections.  A hop that can't be reached is left alone for a while, and
then probed by one message; it slows no other.  Destinations without mail are forgotten.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Mapping, Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mta.interfaces import IAttempts, IDeliveryAgent
from mta.mail import NULL_PATH, Agent, Hop, Outcome, Status
from mta.queue.back_off import BackOffs
from mta.queue.bell import Bell
from mta.queue.noted import NoAttempts, Noted
from mta.queue.rounds import FAULT, words
from mta.queue.shares import Lines, Places, ProvenHops, Share
from mta.queue.visit import LOCAL, Destination, Ripening, Visit
from mta.queued import Delivery, HopFailure, Pressure
from mta.settings import Queue

COMPANY = 100  # deliveries that wait in memory while one probes their hop
SHARE = 50  # deliveries of one visit while other hops wait for a free place
FIRST_VISITS = 2  # to a hop that has not taken anything yet
REMOTE = frozenset({Agent.MX, Agent.SMTP, Agent.LMTP})
PROBE = 15.0  # seconds after which it is looked whether a probe has ended; its hop may be back
LOCAL_VISITS = 2  # while one batch is written, the next one is gathered
_TAKEN = (Status.DELIVERED, Status.RELAYED)
RIPENING = 0.005  # seconds in which more must come for fewer to wait longer


class Destinations:
    """All hops that mail waits for.

    `settled` is called with the outcomes of each delivery that was added, or `returned` with one
    that was not attempted as we stop or it was withdrawn, or `left` with one whose attempt was cut
    off, so that nobody knows what came of it.  None may add deliveries.  `pressure` is told
    whether hops wait for a place.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        settled: Callable[[Delivery, Sequence[Outcome]], None],
        returned: Callable[[Delivery], None],
        left: Callable[[Delivery], None],
        pressure: Pressure | None = None,
        attempts: IAttempts | None = None,
    ) -> None:
        self._attempts = attempts or NoAttempts()
        self._clock = clock
        self._settled = settled
        self._returned = returned
        self._left = left
        self._destinations: dict[Hop, Destination] = {}
        self._users: dict[str, set[Hop]] = {}  # the hops with a log-in, few: the configuration's
        self._lines: Lines[Destination] = Lines()  # those that want a visit, in turn
        self._local_line: deque[Destination] = deque()
        self._down = BackOffs(clock)
        self._visits: set[Visit] = set()
        self._places = Places()
        self._proven = ProvenHops()
        self._pressure = pressure or Pressure()
        self._resting: OrderedDict[Visit, None] = OrderedDict()  # since longest first
        self._dispatching = False
        self._stopped = False
        self._quiet = Bell(clock)

    def use(self, agents: Mapping[Agent, IDeliveryAgent], settings: Queue) -> None:
        """Go by this configuration from now on."""
        self._agents = agents
        self._settings = settings

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
            if hop.user:
                self._users.setdefault(str(hop), set()).add(hop)
            first = min(FIRST_VISITS, self._most_visits(hop))
            destination = self._destinations[hop] = Destination(hop, first)
        destination.put(delivery)
        self._queue_up(destination)

    def dispatch(self) -> None:
        """Begin visits, as far as mail waits and limits allow, each hop in its turn."""
        if self._dispatching:
            return  # a visit that ended at once
        self._dispatching = True
        try:
            while (destination := self._next_in_line()) and not self._stopped:
                destination.in_line = False
                if self._wants_visit(destination):
                    self._visit(destination)
                    self._queue_up(destination)
        finally:
            self._dispatching = False
        self._pressure.is_scarce = len(self._lines) > 0

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

    def waits(self) -> Mapping[str, float]:
        """The hops for which it is no use to look at more mail, and for how many seconds.

        They are down, and left alone or being probed.  Each is named as the history names it, which
        does not tell two users of one host apart: such hops are left out.
        """
        found: dict[str, float] = {}
        for hop in self._down:
            wait = self._down.left(hop) or (PROBE if hop in self._destinations else 0.0)
            if wait and hop.agent in REMOTE and len(self._users.get(str(hop), ())) <= 1:
                found[str(hop)] = wait
        return found

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

    def may_take(self, visit: Visit) -> bool:
        """Whether there is mail for a visit, and it should go on."""
        destination = visit.destination
        if self._stopped or not destination.waiting:
            return False
        if destination.hop in self._down:
            return not visit.in_turn  # one message probes the hop
        if self._is_used_up(visit):
            return False
        others_wait = len(self._lines) > destination.in_line and not destination.is_local
        if visit.in_turn >= SHARE and others_wait and not self._has_room_for(destination):
            return False
        return len(destination.visits) <= destination.limit

    def return_unsent(self, visit: Visit, delivery: Delivery) -> None:
        """Leave a delivery to another visit."""
        if self._stopped:
            self._returned(delivery)
        else:
            visit.destination.put_back([delivery])

    def seconds(self) -> float:
        """The time on our clock."""
        return self._clock.seconds()

    def arrived(self, visit: Visit) -> None:
        """A visit asks for mail for the first time, or for the first time since it rested."""
        visit.destination.arriving -= 1

    async def rest(self, visit: Visit) -> None:
        """Return when there is mail for a visit that has none, or it should end."""
        destination = visit.destination
        is_one_too_many = len(destination.visits) > destination.limit
        is_down = destination.hop in self._down
        if self._stopped or is_down or is_one_too_many or self._is_used_up(visit):
            return
        if len(self._resting) >= self._settings.concurrency:
            next(iter(self._resting)).wake()
        destination.resting.append(visit)
        self._resting[visit] = None
        self._places.leave(visit)
        self._queue_up(destination)
        self.dispatch()  # its place is free
        try:
            await visit.sleep(self._settings.connection_idle)
        finally:
            self._rise(visit)

    def record(self, visit: Visit, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """Pass outcomes on, and learn from them how much their hop can bear."""
        destination = visit.destination
        if any(outcome.remote or outcome.status is not Status.DEFERRED for outcome in outcomes):
            self._down.answered(destination.hop)
        if any(outcome.status in _TAKEN for outcome in outcomes):
            self._proven.took_mail(destination.hop)
            if visit in self._places:
                self._places.take(visit, Share.PROVEN)
        if any(outcome.throttles for outcome in outcomes):
            destination.limit = max(1, destination.limit // 2)
        elif any(outcome.status is not Status.DEFERRED for outcome in outcomes):
            destination.limit = min(destination.limit + 1, self._most_visits(destination.hop))
        self._queue_up(destination)
        self._settled(delivery, outcomes)
        self.dispatch()

    # --- visits

    def _share(self, destination: Destination) -> Share:
        """The kind of hop that a destination is at this time."""
        if destination.hop in self._down and destination.hop.agent is Agent.MX:
            return Share.DOWN
        if destination.hop in self._proven:
            return Share.PROVEN
        notices = destination.waiting.of(NULL_PATH)
        return Share.NOTICES if notices == len(destination.waiting) else Share.NEW

    def _has_room_for(self, destination: Destination) -> bool:
        return self._places.has_room(self._share(destination), self._settings.concurrency)

    def _next_in_line(self) -> Destination | None:
        """The destination that can have its visit now."""
        if self._local_line:
            return self._local_line.popleft()
        return self._lines.take(self._places, self._settings.concurrency)

    def _is_used_up(self, visit: Visit) -> bool:
        """Whether the connection of a visit has carried enough, or is old."""
        age = self._clock.seconds() - visit.began
        settings = self._settings
        is_old = visit.handed > 0 and age >= settings.connection_age
        return is_old or visit.handed >= settings.connection_messages

    def _most_visits(self, hop: Hop) -> int:
        most, places = self._settings.per_destination, self._settings.concurrency
        if hop.agent in LOCAL:
            return min(most, LOCAL_VISITS)
        return min(most, max(1, places - places // 4))  # one alone may not have all of them

    def _wants_visit(self, destination: Destination) -> bool:
        limit = 1 if destination.hop in self._down else destination.limit
        awake = len(destination.visits) - len(destination.resting)
        coming_for = destination.arriving * destination.batch
        return len(destination.waiting) > coming_for and awake < limit

    def _queue_up(self, destination: Destination) -> None:
        if destination.in_line or not self._wants_visit(destination):
            return
        if len(destination.waiting) >= destination.batch:
            self._end_ripening(destination)
            destination.in_line = True
            if destination.is_local:
                self._local_line.append(destination)
            else:
                self._lines.put(destination, self._share(destination))
        elif destination.ripening is None:
            timer = self._clock.callLater(RIPENING, self._ripen, destination)
            destination.ripening = Ripening(timer, len(destination.waiting))

    def _ripen(self, destination: Destination) -> None:
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

    def _end_ripening(self, destination: Destination) -> None:
        if destination.ripening is not None:
            destination.ripening.timer.cancel()
            destination.ripening = None

    def _visit(self, destination: Destination) -> None:
        """Wake the visit that rests there, or begin one."""
        if destination.resting:
            visit = destination.resting[-1]
            self._rise(visit)
            visit.has_arrived = False
            visit.in_turn = 0
            destination.arriving += 1
            visit.wake()
            return
        visit = Visit(self, destination, self._clock)
        self._visits.add(visit)
        if not destination.is_local:
            self._places.take(visit, self._share(destination))
        destination.visits.add(visit)
        destination.arriving += 1
        visit.running = Deferred.fromCoroutine(self._deliver(visit))
        visit.running.addErrback(self._failed, visit)
        visit.running.addBoth(self._ended, visit)

    def _rise(self, visit: Visit) -> None:
        """It rests no longer, if it did."""
        if visit in self._resting:
            del self._resting[visit]
            visit.destination.resting.remove(visit)
            self._places.take(visit, self._share(visit.destination))

    async def _deliver(self, visit: Visit) -> None:
        hop = visit.destination.hop
        source = Noted(visit, self._attempts)
        try:
            await self._agents[hop.agent].deliver(hop, source)
        finally:
            source.close()

    def _failed(self, failure: Failure, visit: Visit) -> None:
        """The outermost place for what an agent raises: a bug in one must not stop the rest."""
        if failure.check(CancelledError) and self._stopped:
            for delivery in visit.leave():
                self._left(delivery)
        elif isinstance(failure.value, HopFailure):
            self._hop_failed(visit, failure.value.outcome)
        else:
            hop = visit.destination.hop
            self.log.failure("{hop} failed by a fault of ours", failure, hop=str(hop))

    def _ended(self, _: object, visit: Visit) -> None:
        destination = visit.destination
        # Neither mail that was lost sight of, nor an agent that takes none, may go round for ever.
        if not visit.handed and not visit.was_dismissed and destination.waiting:
            self._hop_failed(visit, FAULT)
        for delivery in visit.leave():
            self._settled(delivery, [FAULT] * len(delivery.targets))
        self._visits.discard(visit)
        self._places.leave(visit)
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

    def _hop_failed(self, visit: Visit, outcome: Outcome) -> None:
        destination = visit.destination
        unsettled = visit.leave()
        destination.limit = max(1, destination.limit // 2)
        others = len(destination.visits) - 1
        if others and not self._stopped:
            # The hop may only want fewer connections: the last visit to fail decides.
            destination.limit = min(destination.limit, others)
            destination.put_back(unsettled)
            return
        self._proven.failed(destination.hop)
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
