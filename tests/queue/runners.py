"""A runner on a spool in memory, with agents that obey, and a clock that the test moves."""

from collections.abc import AsyncIterator

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mta.mail import (
    NULL_PATH,
    Agent,
    Hop,
    Mailbox,
    Outcome,
    Reply,
    Status,
)
from mta.metrics import NullMeter
from mta.queue.config import RunnerConfig
from mta.queue.runner import Runner
from mta.queued import Message, Settlement, State
from mta.settings import Peer, Queue
from mta.testing import (
    FakeAgent,
    FakeContent,
    FakeHeldMailWatch,
    FakeNotices,
    FakeRouter,
    MemorySpool,
)
from mta.testing import message as make_message

ARRIVED = 1_000_000.0
A, B = Hop(Agent.MX, "a.example"), Hop(Agent.MX, "b.example")
OFFICE = Hop(Agent.HOLD, "office")
HOPS = {"a.example": A, "b.example": B, "office.example": OFFICE, "s.example": A}
DELIVERED = Outcome(Status.DELIVERED, Reply(250, "2.0.0", ("OK",)))
RELAYED = Outcome(Status.RELAYED, Reply(250, "2.0.0", ("OK",)), "mx.example")
LATER = Outcome(Status.DEFERRED, Reply(451, "4.3.0", ("Try later",)), "mx.example")
UNREACHABLE = Outcome(Status.DEFERRED, Reply(451, "4.4.1", ("No answer",)))
NO = Outcome(Status.FAILED, Reply(550, "5.1.1", ("No such user",)), "mx.example")
NO_SUCH_USER = Reply(550, "5.1.1", ("No such user here",))


def message(id: str, *addresses: str, sender: str = "s@s.example", **more: object) -> Message:
    """A message as the spool gives it after commit."""
    return make_message(
        id,
        to=[mailbox(address) for address in addresses],
        reverse_path=mailbox(sender) if sender else NULL_PATH,
        **{"arrived": ARRIVED, **more},
    )


def mailbox(address: str) -> Mailbox:
    return Mailbox(*address.split("@"))


class RunnerTests(SynchronousTestCase):
    """A runner on a spool in memory, with agents that obey, and a clock that we turn."""

    settings = Queue()

    def setUp(self) -> None:
        self.peers = {"office": Peer("office", domains=("office.example",))}
        self.clock = Clock()
        self.queue = MemorySpool(self.now)
        self.router = FakeRouter(HOPS)
        self.agent = FakeAgent(RELAYED)
        self.notices = FakeNotices()
        self.watch = FakeHeldMailWatch()
        self.runner = self.make()

    def make(self, **limits: int) -> Runner:
        runner = Runner(
            self.queue, self.clock, NullMeter(), now=self.now, random=lambda: 0.5, **limits
        )
        runner.use(self.config(self.settings))
        return runner

    def config(self, settings: Queue) -> RunnerConfig:
        return RunnerConfig(
            self.router,
            dict.fromkeys(Agent, self.agent),
            self.notices,
            settings,
            self.peers,
            self.watch,
        )

    def now(self) -> float:
        return ARRIVED + self.clock.seconds()

    def accept(self, message: Message) -> None:
        self.runner.accept(self.queue.lend(message))
        self.clock.advance(0)

    def accept_address(self, id: str, *addresses: str, **more: object) -> None:
        self.accept(message(id, *addresses, **more))

    @property
    def last(self) -> Settlement:
        return self.queue.settlements[-1]

    def states(self) -> list[State]:
        return [progress.state for progress in self.last.progress]

    def run_until(self, seconds: float) -> None:
        """Turn the clock to an hour of the test, in steps as a reactor would."""
        while self.clock.seconds() < seconds:
            calls = [call.getTime() for call in self.clock.getDelayedCalls()]
            step = min([*calls, seconds]) - self.clock.seconds()
            self.clock.advance(max(step, 0.001))


class SlowContent(FakeContent):
    """Content that comes when `arrived` fires."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived: Deferred[None] = Deferred()

    async def pieces(self) -> AsyncIterator[bytes]:
        await self.arrived
        yield b"\r\n"
