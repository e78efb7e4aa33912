"""The sessions of delivery agents: their mail, and their end.

A session whose agent has a connection is idle for a moment before it ends, and new mail resumes
it: idle sessions are the connection cache.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import closing

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mta.interfaces import IAttempts, IDeliveryAgent
from mta.mail import Agent, Hop, Outcome, Status
from mta.queue.back_off import BackOffs
from mta.queue.concurrency import Concurrency
from mta.queue.delivery_session import DeliverySession
from mta.queue.destination import Destination
from mta.queue.event import Event
from mta.queue.interfaces import IDeliveryResults, ISessionWatch
from mta.queue.noted import NotedSource
from mta.queue.outcomes import FAULT, printable
from mta.queued import Delivery, HopFailure
from mta.settings import Queue

MAX_IN_ROW = 50  # deliveries of a session while other hops wait: its connection has paid off
_TAKEN = (Status.DELIVERED, Status.RELAYED)


class Sessions:
    """Runs the delivery agents.

    `results` hears what became of each delivery, `watch` of each change that may let another
    session begin.
    """

    log = Logger()

    _agents: Mapping[Agent, IDeliveryAgent]
    _settings: Queue

    def __init__(
        self,
        clock: IReactorTime,
        results: IDeliveryResults,
        watch: ISessionWatch,
        down: BackOffs,
        concurrency: Concurrency,
        attempts: IAttempts,
    ) -> None:
        self._clock = clock
        self._results = results
        self._watch = watch
        self._down = down
        self._concurrency = concurrency
        self._attempts = attempts
        self._running: set[DeliverySession] = set()
        self._idle: OrderedDict[DeliverySession, None] = OrderedDict()  # the longest idle first
        self._stopped = False
        self._ended = Event(clock)

    # --- for the destinations

    def use(self, agents: Mapping[Agent, IDeliveryAgent], settings: Queue) -> None:
        """Go by this configuration from now on."""
        self._agents = agents
        self._settings = settings

    def begin(self, destination: Destination) -> None:
        """Resume an idle session of a destination, or begin one."""
        destination.starting += 1
        if destination.idle:
            session = destination.idle[-1]
            self._end_idle(session)
            session.has_started = False
            session.handed_in_row = 0
            session.resume()
            return
        session = DeliverySession(self, destination, self._clock)
        self._running.add(session)
        self._concurrency.take_place(session)
        destination.sessions.add(session)
        session.running = Deferred.fromCoroutine(self._run(session))

    async def stop(self, timeout: float) -> None:
        """Let all sessions end, and cancel them after `timeout` seconds."""
        self._stopped = True
        for session in list(self._idle):
            session.resume()
        end = self._clock.seconds() + timeout
        while self._running and (left := end - self._clock.seconds()) > 0:
            await self._ended.wait(left)
        for session in list(self._running):
            session.cancel()

    # --- for the sessions

    def may_take(self, session: DeliverySession) -> bool:
        """Tell whether a session has mail, and should go on."""
        destination = session.destination
        if self._stopped or not destination.waiting:
            return False
        if destination.hop in self._down:
            return not session.handed_in_row  # one message probes the hop
        if session.is_used_up(self._settings):
            return False
        if session.handed_in_row >= MAX_IN_ROW and self._concurrency.must_yield(destination):
            return False
        return len(destination.sessions) <= destination.limit

    async def idle(self, session: DeliverySession) -> None:
        """Return when there is mail for a session, or it should end."""
        destination = session.destination
        has_too_many = len(destination.sessions) > destination.limit
        is_down = destination.hop in self._down
        if self._stopped or is_down or has_too_many or session.is_used_up(self._settings):
            return
        if len(self._idle) >= self._settings.concurrency:
            next(iter(self._idle)).resume()
        destination.idle.append(session)
        self._idle[session] = None
        self._concurrency.leave_place(session)
        self._watch.changed(destination)  # its place is free
        try:
            await session.resumed(self._settings.connection_idle)
        finally:
            self._end_idle(session)

    def return_unsent(self, session: DeliverySession, delivery: Delivery) -> None:
        """Leave a delivery to another session."""
        if self._stopped:
            self._results.not_attempted(delivery)
        else:
            session.destination.put_back([delivery])

    def report(
        self, session: DeliverySession, delivery: Delivery, outcomes: Sequence[Outcome]
    ) -> None:
        """Pass outcomes on, and adapt the number of sessions."""
        destination = session.destination
        if any(outcome.remote or outcome.status is not Status.DEFERRED for outcome in outcomes):
            self._down.answered(destination.hop)
        if any(outcome.status in _TAKEN for outcome in outcomes):
            self._concurrency.took_mail(session)
        if any(outcome.throttles for outcome in outcomes):
            destination.throttled()
        elif any(outcome.status is not Status.DEFERRED for outcome in outcomes):
            destination.answered(self._settings)
        self._results.report(delivery, outcomes)
        self._watch.changed(destination)

    # --- one session

    async def _run(self, session: DeliverySession) -> None:
        """Run a session, from its first delivery to what its end means."""
        hop = session.destination.hop
        try:
            with closing(NotedSource(session, self._attempts)) as source:
                await self._agents[hop.agent].deliver(hop, source)
        except HopFailure as failure:
            self._hop_failed(session, failure.outcome)
        except Exception as error:  # noqa: BLE001 - outermost for the agents: others go on
            if isinstance(error, CancelledError) and self._stopped:
                for delivery in session.take_unreported():
                    self._results.outcome_unknown(delivery)
            else:
                self.log.failure("{hop} failed by a fault of ours", hop=str(hop))
        self._end(session)

    def _end(self, session: DeliverySession) -> None:
        destination = session.destination
        # Neither mail that was lost sight of, nor an agent that takes none, may go round for ever.
        if not session.handed and not session.was_declined and destination.waiting:
            self._hop_failed(session, FAULT)
        for delivery in session.take_unreported():
            self._results.report(delivery, [FAULT] * len(delivery.targets))
        self._running.discard(session)
        self._concurrency.leave_place(session)
        destination.sessions.discard(session)
        if not session.has_started:
            destination.starting -= 1
        if self._stopped and not self._running:
            self._ended.set()
        self._watch.changed(destination)

    def _end_idle(self, session: DeliverySession) -> None:
        """Give a session its place back, if it is idle."""
        if session in self._idle:
            del self._idle[session]
            session.destination.idle.remove(session)
            self._concurrency.take_place(session)

    def _hop_failed(self, session: DeliverySession, outcome: Outcome) -> None:
        """Apply a failure to all that waits for a hop.

        Not while another session still stands.
        """
        destination = session.destination
        unreported = session.take_unreported()
        destination.throttled()
        others = len(destination.sessions) - 1
        if others and not self._stopped:
            # The hop may only want fewer connections: the last session to fail decides.
            destination.limit = min(destination.limit, others)
            destination.put_back(unreported)
            return
        self._concurrency.failed(destination.hop)
        if outcome.status is Status.DEFERRED:
            self._leave_alone(destination.hop, outcome)
        waiting = destination.waiting.take_all()
        # Where none was taken, it was for the sake of the first that the hop was tried.
        tried = len(unreported) or 1
        for number, delivery in enumerate([*unreported, *waiting]):
            untried = self._down.outcome(destination.hop) if number >= tried else None
            self._results.report(delivery, [untried or outcome] * len(delivery.targets))

    def _leave_alone(self, hop: Hop, outcome: Outcome) -> None:
        self.log.warn(
            "{hop} is left alone for {seconds:.0f} s: {reply}",
            hop=str(hop),
            seconds=self._down.failed(hop, outcome),
            reply=printable(outcome.reply),
            remote=outcome.remote,
        )
