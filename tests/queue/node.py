"""A process with a runner on a spool, and peers and hosts that do as a test says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from mta.interfaces import IAttempts, IDeliveryAgent, IHeldSource, IMailSource, INotices
from mta.mail import Agent, Hop, Mailbox, Outcome, Reply, Status
from mta.metrics import NullMeter
from mta.queue.config import RunnerConfig
from mta.queue.runner import Runner
from mta.queue.waiting_line import WaitingLine
from mta.queued import EVERYWHERE, Delivery, Message, Notice
from mta.settings import Peer, Queue
from mta.testing import FakeHeldMailWatch, FakeRouter

OUTSIDE = Mailbox("carol", "outside.example")  # a host takes it
OFFICE = Mailbox("bob", "office.example")  # it waits for the office
HOPS = {
    OUTSIDE.domain: Hop(Agent.MX, OUTSIDE.domain),
    OFFICE.domain: Hop(Agent.HOLD, "office"),
}
YES = Outcome(Status.RELAYED, Reply(250, "2.0.0", ("OK",)), "mx.example")
LATER = Outcome(Status.DEFERRED, Reply(451, "4.3.0", ("Try later",)), "mx.example")
NO = Outcome(Status.FAILED, Reply(550, "5.1.1", ("No such user",)), "mx.example")
SILENCE = "silence"
ANSWERS = {"yes": YES, "later": LATER, "no": NO}
LINGER = 600.0  # seconds that a link stands
PEERS = {"office": Peer("office", domains=(OFFICE.domain,))}
SETTINGS = Queue()

Copy = tuple[str, Mailbox]  # a message, and one of its recipients


def copies_of(delivery: Delivery) -> Sequence[Copy]:
    """The copies that a delivery is to make."""
    return [(delivery.message.id, target.address) for target in delivery.targets]


@implementer(INotices)
class NoNotices:
    """Writes none: their senders have no reverse-path."""

    async def notice(self, message: Message, reports: Any, expires: float) -> Notice | None:
        """See `INotices.notice`."""
        return None


@dataclass
class World:
    """Hosts outside and the office: what they took, or refused for good, and what hosts say now."""

    answer: str = "yes"
    taken: Counter[Copy] = field(default_factory=Counter)
    refused: set[Copy] = field(default_factory=set)

    def decide(self, delivery: Delivery, answer: str) -> Sequence[Outcome]:
        """Take a delivery, put it off, or refuse it; returns the outcome for each target."""
        copies = copies_of(delivery)
        if answer == "yes":
            self.taken.update(copies)
        elif answer == "no":
            self.refused.update(copies)
        return [ANSWERS[answer]] * len(copies)


@implementer(IDeliveryAgent)
class WorldAgent:
    """Hands mail to the hosts outside."""

    def __init__(self, world: World) -> None:
        self.silent: list[Deferred[None]] = []  # a host in each, which has not answered yet
        self._world = world

    async def deliver(self, hop: Hop, mail: IMailSource) -> None:
        """See `IDeliveryAgent.deliver`."""
        while (delivery := await mail.next()) is not None:
            if self._world.answer == SILENCE:
                self.silent.append(Deferred())
                await self.silent[-1]
            mail.report(delivery, self._world.decide(delivery, self._world.answer))

    def speak(self) -> None:
        """Let all hosts answer that have not."""
        silent, self.silent = self.silent, []
        for host in silent:
            host.callback(None)


@implementer(IAttempts)
class Attempts:
    """The notes of a process on what it tries.  What is `over` writes none."""

    def __init__(self, spool: Any) -> None:
        self.is_over = not hasattr(spool, "begin_attempt")
        self._spool = spool

    def begin_attempt(self, id: str) -> bool:
        """See `IAttempts.begin_attempt`."""
        return self.is_over or self._spool.begin_attempt(id)

    def end_attempt(self, id: str) -> None:
        """See `IAttempts.end_attempt`."""
        if not self.is_over:
            self._spool.end_attempt(id)


class Node:
    """A process.  Its clock stands still once it is dead, so that nothing it meant to do is done.

    `out`: what is with the office, and not settled.
    """

    def __init__(self, case: Any, world: World) -> None:
        self.spool = case.process()
        self.clock = Clock()
        self.source: IHeldSource | None = None
        self.out: list[Delivery] = []
        self._case = case
        self.attempts = Attempts(self.spool)
        self.runner = Runner(
            self.spool,
            self.clock,
            NullMeter(),
            now=self.spool.now,
            random=lambda: 0.5,
            attempts=self.attempts,
        )
        self.hosts = WorldAgent(world)
        agents: Mapping[Agent, IDeliveryAgent] = dict.fromkeys(Agent, self.hosts)
        router, watch = FakeRouter(HOPS), FakeHeldMailWatch()
        self.runner.use(RunnerConfig(router, agents, NoNotices(), SETTINGS, PEERS, watch))
        self.runner.start()

    # --- the office

    def connect(self) -> None:
        """The office turns a connection to this process."""
        self.leave()
        self.source = self.runner.open_held("office", [EVERYWHERE], LINGER)

    def leave(self) -> None:
        """The office is gone, perhaps in the middle of something."""
        if self.source is not None:
            self.source.close()
        self.source, self.out = None, []

    def with_office(self) -> Sequence[Delivery]:
        """Return what is with the office, or kept for it by the source."""
        line = WaitingLine() if self.source is None else self.source._ready  # type: ignore[attr-defined]
        return (*self.out, *line._urgent, *line._others)

    # --- rest

    def hear(self) -> None:
        """Do what other processes, or the spool, have asked for."""
        for what in self._case.heard(self.spool):
            if what == "wake":
                self.runner.wake()
            elif what == "recall":
                self.runner.recall()

    @property
    def under_way(self) -> Sequence[str]:
        """The ids of what it tries at this moment."""
        return [*self.runner._active._attempts]

    @property
    def is_at_rest(self) -> bool:
        """Tell whether it waits for time, for others, or for mail."""
        runner = self.runner
        under_way = {delivery.message.id for delivery in self.out}
        return bool(
            runner._leases.is_asleep
            and not (runner._fresh or runner._delivered or runner._unwanted or runner._tasks)
            and (self.hosts.silent or len(runner._active) <= len(under_way) + self._kept)
        )

    def __str__(self) -> str:
        runner = self.runner
        return (
            f"asleep {runner._leases.is_asleep}, fresh {len(runner._fresh)}, delivered"
            f" {len(runner._delivered)}, unwanted {len(runner._unwanted)}, tasks"
            f" {len(runner._tasks)}, active {len(runner._active)}, out {len(self.out)}, kept"
            f" {self._kept}, silent {len(self.hosts.silent)}"
        )

    @property
    def _kept(self) -> int:
        """What the source keeps for the office, which has not asked for it yet."""
        source: Any = self.source
        return 0 if source is None else len(source._ready)
