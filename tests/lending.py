"""Two processes of one relay in memory: one has the senders, the other one the office's link."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.task import Clock
from zope.interface import implementer

from mta.interfaces import IAcceptedMail
from mta.link import Link
from mta.mail import Agent
from mta.metrics import NullMeter
from mta.peers.announcements import Announcements
from mta.peers.borrower import BorrowerFactory
from mta.peers.lender import LinksElsewhere
from mta.queue.config import RunnerConfig
from mta.queue.pass_through import PassingSeams, PassThrough
from mta.queue.runner import Runner
from mta.queued import Message
from mta.session import Session
from mta.settings import HOUR, Queue
from mta.spool.lending import LentMail
from mta.testing import FakeHeldMailWatch, FakeNotices
from tests.passing import OctetWire, PassingCase


def in_thread(function: Any, *args: Any) -> Deferred[Any]:
    """Call a function at once."""
    return succeed(function(*args))


class Pipes:
    """The part of a reactor that connects the two, on a fake clock.

    `left`: the octets after which the next connection breaks.  `refuses`: nothing listens.
    """

    def __init__(self, clock: Clock, borrower: BorrowerFactory) -> None:
        self.wires: list[OctetWire] = []
        self.left: int | None = None
        self.refuses = False
        self._clock = clock
        self.borrower = borrower

    def seconds(self) -> float:
        """See `IReactorTime.seconds`."""
        return self._clock.seconds()

    def callLater(self, delay: float, call: Any, *args: Any, **keys: Any) -> IDelayedCall:
        """See `IReactorTime.callLater`."""
        return self._clock.callLater(delay, call, *args, **keys)

    def connectUNIX(self, path: str, factory: Any, **keys: Any) -> None:
        """See `IReactorUNIX.connectUNIX`."""
        if self.refuses:
            raise FileNotFoundError(path)
        address = cast(IAddress, None)
        loan, borrower = factory.buildProtocol(address), self.borrower.buildProtocol(address)
        wire = OctetWire(cast(Link, loan), cast(Link, borrower))
        wire.left = self.left
        self.wires.append(wire)

    def carry(self) -> bool:
        """Carry what there is; returns whether there was anything."""
        return bool(sum(wire.carry() for wire in self.wires))

    def carry_all(self) -> None:
        """Carry everything between the two, and nothing to the office."""
        while self.carry():
            pass

    def cut(self) -> None:
        """Break all connections."""
        for wire in self.wires:
            if not wire.is_cut:
                wire.cut()


class FakeAnnouncements:
    """Knows one other process with every link."""

    def find_borrower(self, peer: str) -> Path | None:
        """See `Announcements`."""
        return Path("/spool/peers/1.mail")


@implementer(IAcceptedMail)
class LendingProcess:
    """The process with the senders: a runner of its own on the shared spool."""

    def __init__(self, case: PassingCase) -> None:
        provider = case.provider
        mail = LentMail(in_thread)
        self.pipes = Pipes(
            provider.clock, BorrowerFactory(provider.runner.uncommitted.borrowed, mail)
        )
        self.runner = Runner(
            provider.spool, provider.clock, NullMeter(), now=provider.clock.seconds
        )
        self.runner.use(
            RunnerConfig(
                provider.router,
                {Agent.PIPE: provider.shelf},
                FakeNotices(),
                Queue(),
                {"office": provider.peer},
                FakeHeldMailWatch(),
            )
        )
        self.elsewhere = LinksElsewhere(cast(Announcements, FakeAnnouncements()), mail, self.pipes)
        self.runner.uncommitted.elsewhere = self.elsewhere
        seams = PassingSeams(
            provider.spool, self.runner.uncommitted, case.log, case.counts, provider.clock
        )
        passing = PassThrough({"office"}, provider.router, seams)
        provider.config = replace(provider.config, pass_through=passing, accepted_mail=self)

    def accepted(self, message: Message, session: Session) -> None:
        """See `IAcceptedMail.accepted`."""
        self.runner.accept(message)


class LendingCase(PassingCase):
    """Senders reach one process, and the link of the office the other one."""

    lender: LendingProcess

    def make(self, *, linger: float = HOUR, link: bool = True) -> None:
        """The two processes, the office, and its link."""
        super().make(linger=linger, link=link)
        self.lender = LendingProcess(self)

    def carry(self) -> None:
        """Carry everything there is, on all connections.

        What waits in the spool is looked for by the process with the link, as others wake it.
        """
        super().carry()
        if not hasattr(self, "lender"):
            return
        while self.lender.pipes.carry():
            self.provider.clock.advance(0)
            super().carry()
        self.provider.runner.wake()
        super().carry()
        while self.lender.pipes.carry():
            super().carry()

    def cut(self) -> None:
        """Break all connections."""
        super().cut()
        if hasattr(self, "lender"):
            self.lender.pipes.cut()

    @property
    def active(self) -> Sequence[int]:
        """The attempts under way in each process."""
        return len(self.provider.runner._active), len(self.lender.runner._active)
