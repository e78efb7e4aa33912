"""The runner: takes every message from its 250 to its last outcome.

One round of attempts routes what is open, groups it by hop, hands it to the destinations, and,
when the last delivery has come back, records all of it in one commit.  Fresh messages start from
memory; all others are leased from the spool in portions, so a long queue costs disk and not
memory.  What a crowded hop can't take yet goes back there, until the hop has room.
"""

from __future__ import annotations

import random as chance
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mta.interfaces import (
    IAttempts,
    IDeliveryAgent,
    IDeliveryMeter,
    IHeldMailWatch,
    INotices,
    IQueue,
    IRouter,
)
from mta.mail import Agent, Hop, Mailbox, Outcome
from mta.queue.batch import Batch
from mta.queue.bell import Bell
from mta.queue.destinations import Destinations
from mta.queue.held import HeldMail
from mta.queue.leases import PORTION, Leases
from mta.queue.links import Links
from mta.queue.noted import NoAttempts, noted
from mta.queue.outcome_log import OutcomeLog
from mta.queue.pauses import Pauses
from mta.queue.recorder import Recorder
from mta.queue.rounds import (
    CROWDED,
    FAULT,
    FORWARD_LOOP,
    Report,
    Round,
    Verdict,
    fault_in,
    held_for,
    is_all_delivered,
    judge,
    plan,
)
from mta.queue.schedule import Schedule
from mta.queue.visit import LOCAL
from mta.queue.window import Surplus, Window
from mta.queued import Delivery, Message, Notice, Pressure, State, Target
from mta.settings import HOUR, MIB, Peer, Queue
from mta.smtp.forwarding import forwarded, has_forwarded

T = TypeVar("T")

PATIENCE = 0.1  # seconds until it is recorded that mail lies in a Maildir
PUT_OFF = 600.0  # seconds until mail for a crowded hop is looked at again, room or not
PUT_OFF_MORE = 0.01  # seconds, for each message that waits for that hop already
POSTPONE_PAUSE = 0.05  # seconds between portions of mail that is put off: others want to commit
FEW_POSTPONED = 100  # of one portion: the rest may as well be leased
CLOCK_TOLERANCE = 60.0  # seconds; less is how a clock is set right
COMMIT_GRACE = 5.0  # seconds that `stop` gives to what is being recorded


@dataclass(frozen=True, slots=True)
class RunnerConfig:
    """What the configuration says of deliveries."""

    router: IRouter
    agents: Mapping[Agent, IDeliveryAgent]
    notices: INotices
    settings: Queue
    peers: Mapping[str, Peer]
    held_mail_watch: IHeldMailWatch


class Runner:
    """Works off one process's share of the spool, once `use` has told it how.

    At most `max_messages` messages with `max_octets` octets of content are under way; what is
    accepted beyond that waits in the spool.  `now` gives seconds since the epoch,
    `random` numbers from 0 up to 1.
    """

    log = Logger()

    _config: RunnerConfig
    _schedule: Schedule

    def __init__(
        self,
        queue: IQueue,
        clock: IReactorTime,
        meter: IDeliveryMeter,
        *,
        now: Callable[[], float] = time.time,
        random: Callable[[], float] = chance.random,
        max_messages: int = 1000,
        max_octets: int = 64 * MIB,
        pressure: Pressure | None = None,
        attempts: IAttempts | None = None,
    ) -> None:
        self._queue = queue
        self._attempts = attempts or NoAttempts()
        self._clock = clock
        self._meter = meter
        self._now = now
        self._random = random
        self._window = Window(max_messages, max_octets)
        self._surplus = Surplus()
        self._fetching: set[Hop] = set()
        self._futile = 0  # messages that were leased and could not be tried
        self._told = OutcomeLog(clock)
        self._pauses = Pauses(clock)
        self._recorder = Recorder(queue, self._pauses, clock)
        self._leases = Leases(queue, clock, now, self._pauses, self._free)
        self._fresh: Batch[Message] = Batch(clock, self._begin_all)
        self._done: Batch[Round] = Batch(clock, self._remove_all)
        self._unwanted: Batch[tuple[str, float]] = Batch(clock, self._release_all)
        self._destinations = Destinations(
            clock,
            self._tried,
            self._returned,
            self._left,
            pressure,
            self._attempts,
        )
        self._rounds: dict[str, Round] = {}
        self._links = Links(clock)
        self._running: set[Deferred[None]] = set()
        self._leasing: Deferred[None] | None = None
        self._wall_offset = now() - clock.seconds()
        self._stopped = False
        self._quiet = Bell(clock)

    # --- for the service

    def start(self) -> None:
        """Begin to lease what waits in the spool."""
        self._leasing = Deferred.fromCoroutine(self._lease())

    async def stop(self, grace: float) -> None:
        """End deliveries, the running ones after at most `grace` seconds, and all leases."""
        self._stopped = True
        end = self._clock.seconds() + grace
        self._pauses.stop()
        self._leases.wake()
        self._fresh.flush()
        self._links.retire()
        await self._destinations.stop(grace)
        await self._links.stop(end)
        if self._leasing is not None:
            await self._leasing
        self._told.waiting.tell()
        self._unwanted.flush()
        self._done.flush()
        end = self._clock.seconds() + COMMIT_GRACE
        while self._running and (left := end - self._clock.seconds()) > 0:
            await self._quiet.wait(left)

    def use(self, config: RunnerConfig) -> None:
        """Go by this configuration, from the next round of each message on."""
        self._config = config
        self._schedule = Schedule(config.settings, config.peers, self._random)
        self._destinations.use(config.agents, config.settings)
        self._links.retire()  # who turned a connection may have other rights now, and comes again

    def accept(self, message: Message) -> None:
        """Take a message that was just committed, and is leased to us unless it is on hold.

        All that came by the end of this turn of the reactor is begun together.
        """
        if message.on_hold:
            self.log.info(
                "{queue_id} is on hold: new mail is, {filter}",
                queue_id=message.id,
                filter=message.on_hold,
            )
            return
        self._fresh.add(message)

    @property
    def is_idle(self) -> bool:
        """Whether all that was due has been taken on, and nothing is under way."""
        return self._leases.is_asleep and not (self._rounds or self._fresh or self._running)

    async def held_is_recorded(self, peer: str, longest: float) -> None:
        """Return when mail for a peer that was accepted is known to be held for it.

        At the latest after `longest` seconds: the spool may be out of order.
        """
        self._fresh.flush()
        recorded: list[Deferred[None]] = []
        for round in self._rounds.values():
            if round.recording is not None and round.holds_for(peer):
                recorded.append(Deferred())
                round.recording.addBoth(_passed_on, recorded[-1])
        with suppress(TimeoutError):
            await DeferredList(recorded, consumeErrors=True).addTimeout(longest, self._clock)

    def wake(self) -> None:
        """Somebody else put mail into the spool, or made some due."""
        self._leases.wake()
        self._links.wake()

    def retry(self) -> None:
        """A person wants mail tried now: no hop is left alone any longer."""
        self._destinations.probe()

    def recall(self) -> None:
        """A person removed mail or put some on hold: begin none of it any more."""
        self._spawn(self._recall())

    # --- for turned connections

    def held(self, peer: str, domains: Collection[str], linger: float = 0.0) -> HeldMail:
        """The mail held for a peer, for one connection, which must `close` it at its end.

        `linger`: seconds that it waits for new mail.  An older source of the same peer hands
        out no more.
        """
        source = self._links.add(
            peer,
            lambda: HeldMail(
                peer,
                domains,
                linger,
                queue=self._queue,
                clock=self._clock,
                begin=self._begin_for,
                settled=self._settled,
                spawn=self._spawn,
                closed=self._links.remove,
                attempts=self._attempts,
            ),
        )
        if self._stopped:
            source.retire()
        return source

    # --- taking messages in

    async def _lease(self) -> None:
        """Begin what is due, for as long as we run."""
        async for portion in self._leases.portions():
            before = self._futile
            try:
                self._fresh.flush(*portion)
                self._leases.is_futile = self._futile - before > PORTION // 2
                if self._leases.is_futile:
                    await self._postpone()
            except OSError as error:
                self.log.error("the spool can't be read: {error}", error=str(error))
            except Exception:  # noqa: BLE001 - outermost, as in `Leases.portions`
                self.log.failure("what was leased can't be begun")

    def _free(self) -> int:
        """How many more messages there is room for."""
        return self._window.room - len(self._fresh)

    def _look_at_wall_clock(self) -> None:
        """Where it was set, let no message that is under way be older or younger for that.

        Of what waits in the spool, the spool takes care.
        """
        offset = self._now() - self._clock.seconds()
        jumped, self._wall_offset = offset - self._wall_offset, offset
        if abs(jumped) > CLOCK_TOLERANCE:
            for round in self._rounds.values():
                message = round.message
                round.message = replace(message, arrived=message.arrived + jumped)

    async def _postpone(self) -> None:
        """Put off what is due for hops that are down, without looking at each message."""
        settings = self._schedule.settings
        while not self._stopped and (waits := self._destinations.waits()):
            now = self._now()
            counts = await self._queue.postpone(
                {hop: now + wait for hop, wait in waits.items()},
                settings.warn_after,
                settings.give_up_after,
            )
            self._told.waiting.add(counts)
            if sum(counts.values()) < FEW_POSTPONED:
                return
            await self._pauses.wait(POSTPONE_PAUSE)

    def _begin_all(self, messages: Sequence[Message]) -> None:
        """Begin what came in, as far as there is room."""
        self._look_at_wall_clock()
        for message in messages:
            if self._stopped or self._window.is_full_for(message):
                self._unwanted.add((message.id, 0.0))
            else:
                self._begin(message)
        self._destinations.dispatch()

    # --- one round

    async def _begin_for(self, message: Message, source: HeldMail) -> None:
        """Begin a message that a source leased: it has by then what it is to hand out."""
        for forwarding in self._begin(message, source):
            await forwarding

    def _begin(self, message: Message, source: HeldMail | None = None) -> Sequence[Deferred[None]]:
        """Route a message and let it wait for its hops; `source` leased it for its peer.

        Returns what still goes on: looks for loops in what is forwarded.
        """
        round = self._rounds[message.id] = Round(message, source)
        self._window.enter(message)
        targets: list[Target] = []
        try:
            targets, round.reports = plan(message, self._config.router)
        except Exception:  # noqa: BLE001 - outermost for the router: a bug in it defers one message
            self.log.failure("{queue_id} can't be routed", queue_id=message.id)
            round.reports = fault_in(message)
        groups: dict[tuple[Hop, Mailbox | None], list[Target]] = {}
        links: dict[Hop, HeldMail] = {}
        for target in targets:
            hop = target.hop
            if hop.agent is Agent.HOLD:
                link = self._links.taking(target, source)
                if link is None:
                    round.report(target, held_for(hop.next_hop))
                    continue
                links[hop] = link
            groups.setdefault((hop, target.forwarder), []).append(target)
        round.outstanding = len(groups)
        if not groups:
            self._conclude(round)
        forwarding = []
        for (hop, forwarder), group in groups.items():
            delivery = Delivery(message, tuple(group))
            if forwarder is None:
                self._hand_over(delivery, links.get(hop))
            else:
                looking = self._forward(delivery, forwarder, links.get(hop))
                forwarding.append(self._spawn(looking))
        if source is not None:
            self._destinations.dispatch()
        return forwarding

    def _hand_over(self, delivery: Delivery, link: HeldMail | None) -> None:
        """Let a delivery wait for its hop, or for the turned connection that it goes out on."""
        hop = delivery.targets[0].hop
        if link is not None:
            link.give(delivery)
        elif self._window.is_crowded(hop, delivery.message) or self._destinations.is_crowded(hop):
            self._put_delivery_off(delivery)
        else:
            self._window.begin(delivery)
            self._destinations.add(hop, delivery)

    async def _recall(self) -> None:
        recalled = await self._recorder.recalled(list(self._rounds))
        self._destinations.withdraw(recalled)
        self._links.withdraw(recalled)

    async def _forward(self, delivery: Delivery, forwarder: Mailbox, link: HeldMail | None) -> None:
        """Hand over mail that an address of ours sends on, where it does not go in a circle."""
        message, targets = delivery.message, delivery.targets
        try:
            with noted(self._attempts, [message.id]):
                is_loop = await has_forwarded(forwarder, message.content)
        except OSError as error:
            self.log.error(
                "{queue_id} can't be read: {error}", queue_id=message.id, error=str(error)
            )
            self._settled(delivery, [FAULT] * len(targets))
            return
        if is_loop:
            self._settled(delivery, [FORWARD_LOOP] * len(targets))
            return
        reverse_path = self._config.router.rewritten(message.envelope.reverse_path, forwarder)
        self._hand_over(Delivery(forwarded(message, forwarder, reverse_path), targets), link)
        self._destinations.dispatch()

    def _settled(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        round = self._rounds[delivery.message.id]
        for target, outcome in zip(delivery.targets, outcomes, strict=True):
            round.report(target, outcome)
        self._came_back(round)

    def _tried(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        self._window.end(delivery)
        self._futile += any(outcome.wait for outcome in outcomes)
        self._settled(delivery, outcomes)
        self._fetch_surplus(delivery.targets[0].hop)

    def _returned(self, delivery: Delivery) -> None:
        self._window.end(delivery)
        self._give_up_round(delivery)

    def _left(self, delivery: Delivery) -> None:
        """What became of a delivery is not known: whoever tries it next has to look."""
        self._rounds[delivery.message.id].is_doubtful = True
        self._returned(delivery)

    def _give_up_round(self, delivery: Delivery) -> None:
        """A delivery is not tried in this round."""
        round = self._rounds[delivery.message.id]
        round.untried.update(each.number for target in delivery.targets for each in target.served)
        self._came_back(round)

    def _came_back(self, round: Round) -> None:
        round.outstanding -= 1
        if not round.outstanding:
            self._conclude(round)

    def _conclude(self, round: Round) -> None:
        if round.reports and is_all_delivered(round):
            self._tell(round.message, round.reports)
            self._done.add(round)
        elif round.reports or not round.untried:
            round.recording = self._spawn(self._record(round))
        else:
            self._drop(round)
            if round.is_doubtful:
                return  # the spool's end frees it, as one whose owner may have delivered it
            self._unwanted.add((round.message.id, round.later))
            self._remember(round)

    def _remove_all(self, done: Sequence[Round]) -> None:
        """Nothing is left to do for these messages."""
        self._spawn(self._record_removals(done))

    async def _record_removals(self, done: Sequence[Round]) -> None:
        """Where a repeated delivery would find the first one, nobody has to hurry."""
        ids = [round.message.id for round in done]
        can_wait = all(target.hop.agent in LOCAL for round in done for target, _ in round.reports)
        patience = PATIENCE if can_wait and not self._stopped else 0.0
        try:
            removed = await self._recorder.remove(ids, patience)
        finally:
            for round in done:
                self._forget(round)
        if removed:
            for id in ids:
                self.log.info("{queue_id} removed", queue_id=id)

    async def _record(self, round: Round) -> None:
        """Commit what a round changed, and take in the notices that came of it."""
        self._look_at_wall_clock()
        message = round.message
        try:
            verdict = judge(round, self._schedule, self._now())
            self._tell(message, verdict.news)
            with noted(self._attempts, [message.id]):
                notices = await self._write_notices(message, verdict)
            settlement = replace(verdict.settlement, notices=notices)
            recorded = await self._recorder.settle(settlement)
        finally:
            self._forget(round)
        if recorded is None:
            return
        for notice in recorded:
            self.log.info(
                "{queue_id} is a notice about {about}, for <{forward_path}>",
                queue_id=notice.id,
                about=message.id,
                forward_path=str(notice.envelope.recipients[0].forward_path),
            )
            self.accept(notice)
        if verdict.is_done:
            self.log.info("{queue_id} removed", queue_id=message.id)
        else:
            self._remember(round)
            self._leases.wake_for(settlement.due)
        for progress in settlement.progress:
            if progress.state is State.HELD and progress.peer:
                self._links.mail_came(progress.peer, round.leased_by)
                if round.leased_by is None:
                    self._config.held_mail_watch.mail_came(progress.peer)

    async def _write_notices(self, message: Message, verdict: Verdict) -> tuple[Notice, ...]:
        notices = []
        for reports in (verdict.failed, verdict.delayed, verdict.succeeded):
            if reports:
                notice = await self._config.notices.notice(message, reports, verdict.expires)
                if notice is not None:
                    notices.append(notice)
        return tuple(notices)

    # --- back into the spool, untried

    def _put_delivery_off(self, delivery: Delivery) -> None:
        """Its hop has its share of the window: the message waits in the spool."""
        message, hop = delivery.message, delivery.targets[0].hop
        now = self._now()
        wait = min(PUT_OFF + PUT_OFF_MORE * self._surplus.of(hop), HOUR)
        round = self._rounds[message.id]
        round.crowded = hop
        self._futile += 1
        if now - message.arrived >= HOUR:
            # Its history says why, its sender is warned in time, and some day it is given up.
            self._settled(delivery, [replace(CROWDED, wait=wait)] * len(delivery.targets))
        else:
            round.later = now + wait
            self._give_up_round(delivery)

    def _fetch_surplus(self, hop: Hop) -> None:
        """Take back what was put off, where its hop has room now."""
        if self._stopped or hop in self._fetching or not self._surplus.of(hop):
            return
        if self._destinations.is_down(hop):
            self._surplus.forget(hop)
        elif space := self._window.space(hop):
            self._fetching.add(hop)
            self._spawn(self._fetch(hop, min(space, PORTION)))

    async def _fetch(self, hop: Hop, most: int) -> None:
        """Lease some of what was put off.  It is due some time anyway, so failures are borne."""
        self._unwanted.flush()  # which may be the same
        messages: Sequence[Message] = ()
        try:
            messages = await self._queue.lease(self._surplus.take(hop, most))
        except OSError as error:
            self.log.error("the spool can't be read: {error}", error=str(error))
        finally:
            self._fetching.discard(hop)
        for message in messages:
            self.accept(message)
        if not self._surplus.of(hop):
            self._leases.wake()  # more may be due
        elif not messages:
            self._fetch_surplus(hop)

    def _remember(self, round: Round) -> None:
        """What a crowded hop could not take is fetched when it has room."""
        if round.crowded is not None:
            self._surplus.put(round.crowded, round.message)

    def _release_all(self, unwanted: Sequence[tuple[str, float]]) -> None:
        """Give up leases; each message is due at its time."""
        self._spawn(self._release(dict(unwanted)))

    async def _release(self, dues: Mapping[str, float]) -> None:
        await self._recorder.release(dues)
        if not self._stopped and min(dues.values()) <= self._now():
            self._leases.wake()

    def _drop(self, round: Round) -> None:
        """The message is out of our hands; it may be in them again, in a newer round."""
        if self._rounds.get(round.message.id) is round:
            del self._rounds[round.message.id]
        self._window.leave(round.message)

    def _forget(self, round: Round) -> None:
        """The message is out of our hands, and others may have its room."""
        had_room = self._window.has_ample_room
        self._drop(round)
        if not had_room and self._window.has_ample_room:
            self._leases.wake()

    # --- the rest

    def _tell(self, message: Message, news: Sequence[Report]) -> None:
        """Tell the log, and whoever counts."""
        for target, outcome in news:
            self._meter.attempted(target.hop, outcome)
        self._told.tell(message, news, self._now())

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> Deferred[None]:
        running = Deferred.fromCoroutine(coroutine)
        self._running.add(running)
        running.addErrback(self._broken)
        running.addBoth(self._ran, running)
        return running

    def _ran(self, _: object, running: Deferred[None]) -> None:
        self._running.discard(running)
        if self._stopped and not self._running:
            self._quiet.ring()

    def _broken(self, failure: Failure) -> None:
        """The outermost place for bugs of our own: the mail stays leased, and in the spool."""
        self.log.failure("the runner failed", failure)


def _passed_on(result: T, to: Deferred[None]) -> T:
    """Let another Deferred fire as well."""
    to.callback(None)
    return result
