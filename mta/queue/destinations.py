"""Hands deliveries to the agents.

Bounded in all and for each hop, fair between hops and senders.  A destination is one hop with the
deliveries that wait for it.  A session is one call of a delivery agent, which draws deliveries
until none is left: one connection carries many messages.  A hop that can't be reached is left alone
for a while, and then probed by one message; it slows no other.  Destinations without mail are
forgotten.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mta.interfaces import IAttempts, IDeliveryAgent
from mta.mail import Agent, Hop
from mta.queue.back_off import BackOffs
from mta.queue.batch_delay import BatchDelay
from mta.queue.concurrency import Concurrency
from mta.queue.destination import Destination, first_sessions
from mta.queue.interfaces import IDeliveryResults, ISessionWatch
from mta.queue.sessions import Sessions
from mta.queued import Delivery, Pressure
from mta.settings import Queue

MAX_BEHIND_PROBE = 100  # deliveries that wait in memory while one probes their hop
PROBE_TIME = 15.0  # seconds after which it is looked whether a probe has ended
REMOTE = frozenset({Agent.MX, Agent.SMTP, Agent.LMTP})


@implementer(ISessionWatch)
class Destinations:
    """The hops that mail waits for.

    `use` says by which agents it goes.  `results` hears what became of each delivery, and may add
    none then.  `pressure` is told whether hops wait for a place.
    """

    _settings: Queue

    def __init__(
        self,
        clock: IReactorTime,
        results: IDeliveryResults,
        pressure: Pressure,
        attempts: IAttempts,
    ) -> None:
        self._clock = clock
        self._results = results
        self._pressure = pressure
        self._destinations: dict[Hop, Destination] = {}
        self._users: dict[str, set[Hop]] = {}  # the hops with a log-in, few: the configuration's
        self._down = BackOffs(clock)
        self._concurrency = Concurrency(self._down)
        self._sessions = Sessions(clock, results, self, self._down, self._concurrency, attempts)
        self._is_dispatching = False
        self._stopped = False

    def use(self, agents: Mapping[Agent, IDeliveryAgent], settings: Queue) -> None:
        """Go by this configuration from now on."""
        self._settings = settings
        self._concurrency.max_places = settings.concurrency
        self._sessions.use(agents, settings)

    def add(self, hop: Hop, delivery: Delivery) -> None:
        """Let a delivery wait for its hop; `dispatch` sets it going."""
        if self._stopped:
            self._results.not_attempted(delivery)
            return
        left_alone = self._down.outcome(hop)
        if left_alone is not None:
            self._results.report(delivery, [left_alone] * len(delivery.targets))
            return
        destination = self._destinations.get(hop)
        if destination is None:
            destination = self._begin(hop)
        destination.put(delivery)
        self._line_up(destination)

    def dispatch(self) -> None:
        """Begin sessions, as far as mail waits and limits allow."""
        if self._is_dispatching:
            return  # a session that ended at once
        self._is_dispatching = True
        try:
            while not self._stopped and (destination := self._concurrency.next()):
                if self._wants_session(destination):
                    self._sessions.begin(destination)
                    self._line_up(destination)
        finally:
            self._is_dispatching = False
        self._pressure.is_scarce = self._concurrency.is_scarce

    def changed(self, destination: Destination) -> None:
        """See `ISessionWatch.changed`."""
        if destination.waiting:
            self._line_up(destination)
        elif not destination.sessions:
            self._forget(destination)
        self.dispatch()

    def withdraw(self, ids: Collection[str]) -> None:
        """Give back what waits of these messages.

        What a session has taken goes on.
        """
        for destination in self._destinations.values():
            for delivery in destination.waiting.take_out(lambda each: each.message.id in ids):
                self._results.not_attempted(delivery)

    async def stop(self, timeout: float) -> None:
        """Give back what waits, and end the sessions.

        They are cancelled after `timeout` seconds.
        """
        self._stopped = True
        for destination in self._destinations.values():
            if destination.batch_delay is not None:
                destination.batch_delay.stop()
            for delivery in destination.waiting.take_all():
                self._results.not_attempted(delivery)
        await self._sessions.stop(timeout)

    # --- hops that are down

    def probe(self) -> None:
        """Let the next message for each hop that is down try it."""
        self._down.probe()

    def is_down(self, hop: Hop) -> bool:
        """Tell whether a hop could not be reached lately."""
        return hop in self._down

    def is_crowded(self, hop: Hop) -> bool:
        """Tell whether too much waits for the probe of a hop."""
        if hop not in self._down:
            return False
        destination = self._destinations.get(hop)
        return destination is not None and len(destination.waiting) >= MAX_BEHIND_PROBE

    def waits(self) -> Mapping[str, float]:
        """The hops that are down, and seconds to leave their mail alone.

        They are left alone or being probed.  Each is named as the history names it, which
        does not tell two users of one host apart: such hops are left out.
        """
        found: dict[str, float] = {}
        for hop in self._down:
            wait = self._down.left(hop) or (PROBE_TIME if hop in self._destinations else 0.0)
            if wait and hop.agent in REMOTE and len(self._users.get(str(hop), ())) <= 1:
                found[str(hop)] = wait
        return found

    # --- destinations

    def _begin(self, hop: Hop) -> Destination:
        if hop.user:
            self._users.setdefault(str(hop), set()).add(hop)
        destination = Destination(hop, first_sessions(hop, self._settings))
        if hop.agent is Agent.MAILDIR:
            destination.batch_delay = BatchDelay(
                self._clock, destination.waiting, partial(self._flush_batch, destination)
            )
        self._destinations[hop] = destination
        return destination

    def _forget(self, destination: Destination) -> None:
        if destination.batch_delay is not None:
            destination.batch_delay.stop()
        self._destinations.pop(destination.hop, None)

    def _wants_session(self, destination: Destination) -> bool:
        return destination.wants_session(is_down=destination.hop in self._down)

    def _line_up(self, destination: Destination) -> None:
        """Let a destination wait for a session, once it is worth one."""
        if destination.in_line or not self._wants_session(destination):
            return
        delay = destination.batch_delay
        if delay is not None:
            if not delay.is_full:
                delay.start()
                return
            delay.stop()
        self._concurrency.line_up(destination)

    def _flush_batch(self, destination: Destination) -> None:
        """Let a destination have a session for what has gathered."""
        if self._wants_session(destination) and not destination.in_line:
            self._concurrency.line_up(destination)
            self.dispatch()
