"""The runner: rounds of attempts, what they leave in the spool, and held mail."""

from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import replace

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock, deferLater
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mta.interfaces import IDeliveryAgent, IMailSource, INotices, IQueue, IRouter
from mta.mail import (
    NULL_PATH,
    Agent,
    Envelope,
    Hop,
    Mailbox,
    Notify,
    Outcome,
    Recipient,
    Reply,
    Status,
)
from mta.metrics import NullMeter
from mta.queue.destinations import COMPANY, RIPENING
from mta.queue.held import MAX_PUT_OFF, POLL, HeldMail
from mta.queue.held import PORTION as HELD_PORTION
from mta.queue.held import PUT_OFF as HELD_PUT_OFF
from mta.queue.leases import MAX_SLEEP
from mta.queue.rounds import CROWDED
from mta.queue.runner import PATIENCE, PUT_OFF, Runner, RunnerConfig
from mta.queued import Delivery, HopFailure, IContent, Message, Progress, Settlement, State
from mta.settings import DAY, HOUR, Peer, Queue
from mta.spool.content import MemoryContent
from mta.testing import (
    TEXT,
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


class FirstAttemptTests(RunnerTests):
    """From the 250 to the first outcome."""

    def test_fakes(self) -> None:
        """What the tests put in place of the other rooms keeps their promises."""
        verifyObject(IQueue, self.queue)
        verifyObject(IRouter, self.router)
        verifyObject(INotices, self.notices)
        verifyObject(IDeliveryAgent, self.agent)

    def test_at_once(self) -> None:
        """An accepted message is delivered at once and from memory, then removed."""
        self.accept_address("1", "x@a.example")
        self.assertEqual([(A, "1", ["x@a.example"])], self.agent.deliveries)
        self.assertEqual([State.DONE], self.states())
        self.assertEqual([], self.queue.leases)
        self.assertEqual({}, self.queue.leased)

    def test_no_timer_each(self) -> None:
        """Messages that are accepted in one turn of the reactor share one timer."""
        for number in range(10):
            self.runner.accept(self.queue.lend(message(str(number), "x@a.example")))
        self.assertEqual(1, len(self.clock.getDelayedCalls()))
        self.clock.advance(0)
        self.assertEqual(10, len(self.queue.settlements))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_grouped_by_hop(self) -> None:
        """Recipients with one hop go together, and one commit records them all."""
        self.accept_address("1", "x@a.example", "y@b.example", "z@a.example")
        self.assertEqual(
            [(A, "1", ["x@a.example", "z@a.example"]), (B, "1", ["y@b.example"])],
            self.agent.deliveries,
        )
        self.assertEqual(1, len(self.queue.settlements))

    def test_history(self) -> None:
        """Each attempt leaves a line: when, where, and what came of it."""
        self.agent.outcomes["x@a.example"] = LATER
        self.accept_address("1", "x@a.example")
        (attempt,) = self.last.progress[0].history
        self.assertEqual(
            (ARRIVED, "mx:a.example", "deferred", "451 4.3.0 Try later"),
            (attempt.at, attempt.hop, attempt.status, attempt.reply),
        )

    def test_refused_by_the_router(self) -> None:
        """A recipient that can't be routed fails or waits; the others are delivered."""
        self.router.refusals["no@a.example"] = NO_SUCH_USER
        self.router.refusals["later@a.example"] = Reply(451, "4.4.3", ("No answer",))
        self.accept_address("1", "no@a.example", "later@a.example", "x@a.example")
        states = [progress.state for progress in self.queue.settlements[0].progress]
        self.assertEqual([State.DONE, State.WAITING, State.DONE], states)
        self.assertEqual([("1", ["no@a.example failed"], ARRIVED)], self.notices.asked)

    def test_alias_list(self) -> None:
        """Of a list, the addresses that got the message don't get it again."""
        self.router.aliases["list@a.example"] = ["x@a.example", "y@b.example"]
        self.agent.outcomes["y@b.example"] = LATER
        self.accept_address("1", "list@a.example")
        self.assertEqual([State.WAITING], self.states())
        self.assertEqual({"x@a.example"}, self.last.progress[0].settled)
        self.agent.outcomes.clear()
        self.agent.deliveries.clear()
        self.runner.start()
        self.run_until(61)
        self.assertEqual([(B, "1", ["y@b.example"])], self.agent.deliveries)
        self.assertEqual([State.DONE], self.states())

    def test_log(self) -> None:
        """Each outcome is a line in the log with the queue id, and so is the removal."""
        with capturedLogs() as logs:
            self.accept_address("1", "x@a.example")
        told = [(each["queue_id"], each["log_format"].split()[1]) for each in logs]
        self.assertEqual([("1", "{status}"), ("1", "removed")], told)
        self.assertEqual("x@a.example", logs[0]["forward_path"])
        self.assertEqual("mx:a.example", logs[0]["hop"])

    def test_log_is_clean(self) -> None:
        """A peer can't write lines of its own into our log."""
        evil = Outcome(Status.RELAYED, Reply(250, "", ("ok\r\n2026 forged",)), "mx.example")
        self.agent.outcomes["x@a.example"] = evil
        with capturedLogs() as logs:
            self.accept_address("1", "x@a.example")
        self.assertEqual("250 ok??2026 forged", logs[0]["reply"])


class RetryTests(RunnerTests):
    """What is deferred is tried again, warned of, and given up."""

    def test_schedule(self) -> None:
        """Attempts follow the delays of the settings."""
        self.agent.outcomes["x@a.example"] = LATER
        times: list[float] = []

        def note(delivery: Delivery) -> Awaitable[None]:
            times.append(round(self.clock.seconds()))
            return succeed(None)

        self.agent.attempt = note
        self.runner.start()
        self.accept_address("1", "x@a.example")
        self.run_until(2 * HOUR)
        self.assertEqual([0, 60, 360, 1260, 3060, 6660], times)

    def test_sleeps(self) -> None:
        """The spool isn't asked again and again while nothing is due."""
        self.queue.put(message("1", "x@a.example"), self.now() + 600)
        self.runner.start()
        self.run_until(599)
        self.assertEqual(600 // MAX_SLEEP, len(self.queue.leases))
        self.run_until(601)
        self.assertEqual(1, len(self.agent.deliveries))

    def test_soon_due(self) -> None:
        """What is to be tried again soon wakes the runner, however long it meant to sleep."""
        self.settings = Queue(retry=(5.0,))
        self.runner = self.make()
        self.agent.outcomes["x@a.example"] = LATER
        self.runner.start()
        self.accept_address("1", "x@a.example")
        self.run_until(6)
        self.assertEqual(2, len(self.agent.deliveries))

    def test_no_spinning(self) -> None:
        """Mail that is due and that another process works on doesn't keep us busy."""
        self.patch(self.queue, "next_due", lambda: succeed(self.now() - 5))
        self.runner.start()
        self.run_until(10)
        self.assertLessEqual(len(self.queue.leases), 11)

    def test_wake(self) -> None:
        """Mail that somebody else put into the spool is taken when we are told."""
        self.runner.start()
        self.queue.put(message("1", "x@a.example"))
        self.runner.wake()
        self.clock.advance(0)
        self.assertEqual(1, len(self.agent.deliveries))

    def test_failure(self) -> None:
        """A failed recipient's sender gets a notice, which is delivered in its turn."""
        self.agent.outcomes["x@a.example"] = NO
        self.accept_address("1", "x@a.example", "y@a.example")
        self.clock.advance(0)
        self.assertEqual([b"x@a.example failed"], [each.content for each in self.queue.notices])
        hop, _, addresses = self.agent.deliveries[-1]
        self.assertEqual((A, ["s@s.example"]), (hop, addresses))
        self.assertEqual({}, self.queue.waiting)

    def test_no_bounce_of_a_bounce(self) -> None:
        """A notice that fails is removed, and makes no other one."""
        self.agent.outcomes["x@a.example"] = self.agent.outcomes["s@s.example"] = NO
        self.accept_address("1", "x@a.example")
        self.run_until(10)
        self.assertEqual(1, len(self.queue.notices))
        self.assertEqual(({}, {}), (self.queue.waiting, self.queue.leased))

    def test_warning_once(self) -> None:
        """The sender is warned once, at the first attempt after the age for it."""
        self.agent.outcomes["x@a.example"] = LATER
        self.runner.start()
        self.accept_address("1", "x@a.example")
        self.run_until(30 * HOUR)
        self.assertEqual([b"x@a.example deferred"], [each.content for each in self.queue.notices])
        self.assertEqual(ARRIVED + 5 * DAY, self.notices.asked[0][2])

    def test_given_up(self) -> None:
        """Mail that is too old fails with 5.4.7, and the last reply is told."""
        self.agent.outcomes["x@a.example"] = LATER
        self.runner.start()
        self.accept_address("1", "x@a.example", warned=True)
        self.run_until(5 * DAY - 10)
        self.assertEqual([], self.queue.notices)
        self.run_until(5 * DAY + 10)
        self.assertEqual([b"x@a.example failed"], [each.content for each in self.queue.notices])
        failed = next(each for each in reversed(self.queue.settlements) if each.id == "1")
        reply = failed.progress[0].history[-1].reply
        self.assertTrue(reply.startswith("554 5.4.7 Gave up after 5 days"), reply)
        self.assertIn("mx.example said: 451 4.3.0 Try later", reply)

    def test_success_notice(self) -> None:
        """Success is told where it was asked for, and where the next server doesn't tell it."""
        notifies = replace(RELAYED, notifies=True)
        for outcome, expected in ((DELIVERED, 1), (RELAYED, 1), (notifies, 0)):
            self.notices.asked.clear()
            self.agent.outcomes["x@a.example"] = outcome
            recipient = Recipient(mailbox("x@a.example"), frozenset({Notify.SUCCESS}))
            envelope = Envelope(mailbox("s@s.example"), (recipient,))
            asked = Message("1", ARRIVED, envelope, FakeContent(b"x"), (Progress(recipient),))
            self.accept(asked)
            self.assertEqual(expected, len(self.notices.asked))

    def test_routed_anew(self) -> None:
        """Each attempt takes the route that the configuration has now."""
        self.agent.outcomes["x@a.example"] = LATER
        self.runner.start()
        self.accept_address("1", "x@a.example")
        self.router.hops["a.example"] = B
        self.run_until(61)
        self.assertEqual([A, B], [hop for hop, _, _ in self.agent.deliveries])

    def test_reconfigured(self) -> None:
        """New settings hold for mail that already waits."""
        self.agent.outcomes["x@a.example"] = LATER
        self.runner.start()
        self.accept_address("1", "x@a.example")
        self.runner.use(self.config(Queue(give_up_after=30)))
        self.run_until(61)
        self.assertEqual(1, len(self.queue.notices))


class TroubleTests(RunnerTests):
    """What goes wrong loses no mail and stops nobody."""

    def test_agent_bug(self) -> None:
        """A bug in an agent defers the message, and the next one is delivered."""
        self.agent.attempt = lambda delivery: fail(ZeroDivisionError())
        self.accept_address("1", "x@a.example")
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.assertEqual([State.WAITING], self.states())
        self.assertEqual("451 4.3.0", self.last.progress[0].history[-1].reply[:9])
        self.agent.attempt = lambda delivery: succeed(None)
        self.accept_address("2", "x@a.example")
        self.assertEqual([State.DONE], self.states())

    def test_router_bug(self) -> None:
        """A bug in the router defers the message that it met."""
        self.router.aliases["x@a.example"] = ["two@at@signs"]
        self.accept_address("1", "x@a.example")
        self.assertEqual(1, len(self.flushLoggedErrors(TypeError)))
        self.assertEqual([State.WAITING], self.states())

    def test_notices_bug(self) -> None:
        """Where a notice can't be written the message stays in the spool."""
        self.agent.outcomes["x@a.example"] = NO
        self.patch(self.notices, "notice", lambda *arguments: fail(ZeroDivisionError()))
        self.accept_address("1", "x@a.example")
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.assertEqual([], self.queue.settlements)
        self.assertIn("1", self.queue.leased)

    def test_leased_again_at_once(self) -> None:
        """A message may be back in our hands before we know that it was out of them."""
        settle = self.queue.settle

        async def settle_and_lease(settlement: Settlement) -> Sequence[Message]:
            notices = await settle(settlement)
            if settlement.attempts == 1:
                [again] = await self.queue.lease(["1"])
                self.runner.accept(again)
                self.clock.advance(0)
            return notices

        self.queue.settle = settle_and_lease  # type: ignore[method-assign]
        self.agent.outcomes["x@a.example"] = LATER
        self.accept_address("1", "x@a.example")
        self.assertEqual([], self.flushLoggedErrors())
        self.assertEqual((2, {}, {}), (self.last.attempts, self.queue.leased, self.runner._rounds))

    def test_spool_trouble(self) -> None:
        """An outcome that can't be recorded is kept until it can be, and not tried again."""
        self.queue.faults = 3
        self.accept_address("1", "x@a.example")
        self.assertEqual([], self.queue.settlements)
        self.run_until(30)
        self.assertEqual([State.DONE], self.states())
        self.assertEqual(1, len(self.agent.deliveries))

    def test_leasing_trouble(self) -> None:
        """A spool that can't be read is asked again."""
        self.queue.faults = 2
        self.queue.put(message("1", "x@a.example"))
        self.runner.start()
        self.run_until(30)
        self.assertEqual(1, len(self.agent.deliveries))

    def test_leasing_bug(self) -> None:
        """Not even a bug ends the leasing."""
        lease = self.queue.lease_due
        self.queue.lease_due = lambda limit: fail(ZeroDivisionError())
        self.queue.put(message("1", "x@a.example"))
        self.runner.start()
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.queue.lease_due = lease
        self.run_until(MAX_SLEEP + 1)
        self.assertEqual(1, len(self.agent.deliveries))


class BoundTests(RunnerTests):
    """Memory is bounded, whatever comes in and whatever waits."""

    def setUp(self) -> None:
        super().setUp()
        self.going: list[Deferred[None]] = []
        self.agent.attempt = self.hold

    def hold(self, delivery: Delivery) -> Deferred[None]:
        self.going.append(Deferred())
        return self.going[-1]

    def test_messages(self) -> None:
        """What is accepted beyond the bound waits in the spool, and is taken when there is room."""
        self.runner = self.make(max_messages=2)
        self.runner.start()
        for id, domain in zip("1234", "abab", strict=True):
            self.accept_address(id, f"x@{domain}.example")
        self.assertEqual(["3", "4"], self.queue.released)
        for going in self.going[:2]:
            going.callback(None)
        self.clock.advance(0)
        self.assertEqual(["1", "2", "3", "4"], [id for _, id, _ in self.agent.deliveries])

    def test_octets(self) -> None:
        """Content counts too; a message over the bound goes when it is alone."""
        self.runner = self.make(max_octets=1000)
        self.accept_address("1", "x@a.example", content=FakeContent(b"x" * 5000))
        self.accept_address("2", "x@a.example")
        self.assertEqual(["2"], self.queue.released)
        self.assertEqual(1, len(self.going))

    def test_long_queue(self) -> None:
        """Of a long queue for one hop no more is in memory than is still free; the rest comes
        as soon as there is room."""
        self.runner = self.make(max_messages=10)
        for number in range(100):
            self.queue.put(message(f"{number:03}", "x@a.example"))
        self.runner.start()
        self.clock.advance(0)
        self.assertEqual(5, len(self.queue.leased))
        while self.going:
            self.going.pop(0).callback(None)
            self.clock.advance(0.1)
            self.assertLessEqual(len(self.queue.leased), 10)
        self.assertEqual(100, len(self.agent.deliveries))
        self.assertLess(self.clock.seconds(), PUT_OFF)


class FairnessTests(RunnerTests):
    """Ten thousand messages for one hop delay neither another hop nor another sender."""

    settings = Queue(per_destination=1)

    def setUp(self) -> None:
        super().setUp()
        self.going: list[Deferred[None]] = []
        self.agent.attempt = self.hold
        self.runner = self.make(max_messages=100)

    def hold(self, delivery: Delivery) -> Deferred[None]:
        self.going.append(Deferred())
        return self.going[-1]

    def flood(self, count: int = 1000) -> None:
        for number in range(count):
            self.runner.accept(self.queue.lend(message(f"{number:04}", "x@a.example")))
        self.clock.advance(0)

    def delivered(self) -> list[str]:
        """The queue ids of what was handed to the agent."""
        return [id for _, id, _ in self.agent.deliveries]

    def go_on(self, times: int) -> None:
        for _ in range(times):
            self.going.pop(0).callback(None)
            self.clock.advance(0.001)

    def test_other_hop(self) -> None:
        """What comes after a flood for another hop goes out at once."""
        self.flood()
        self.accept_address("other", "x@b.example")
        self.assertEqual(["0000", "other"], self.delivered())

    def test_other_hop_in_the_spool(self) -> None:
        """What was due after a long queue for another hop goes out soon."""
        for number in range(1000):
            self.queue.put(message(f"{number:04}", "x@a.example"))
        self.queue.put(message("other", "x@b.example"), due=1.0)
        self.runner.start()
        self.run_until(5.0)
        self.assertEqual(["0000", "other"], self.delivered())

    def test_other_sender(self) -> None:
        """Who brings one message for a crowded hop is next but one."""
        self.flood()
        self.accept_address("other", "x@a.example", sender="t@t.example")
        self.go_on(2)
        self.assertIn("other", self.delivered()[:3])

    def test_many_senders(self) -> None:
        """Nor do many senders for one hop take all the room."""
        for number in range(1000):
            self.accept_address(str(number), "x@a.example", sender=f"{number}@s.example")
        self.assertLess(len(self.queue.leased), 80)

    def test_all_goes(self) -> None:
        """What was put off follows without a pause, all of it."""
        self.flood(300)
        self.go_on(300)
        self.assertEqual(300, len(set(self.delivered())))
        self.assertEqual({}, self.queue.waiting)

    def test_no_hot_loop(self) -> None:
        """While the hop stands still, its mail rests in the spool."""
        self.runner.start()
        self.flood()
        released = len(self.queue.released)
        self.run_until(PUT_OFF / 2)
        self.assertEqual(released, len(self.queue.released))
        self.assertLess(len(self.queue.leases), 20)

    def test_hop_fails(self) -> None:
        """What was put off for a hop that proves dead is not hurried."""
        self.flood(300)
        self.going.pop().errback(HopFailure(LATER))
        self.clock.advance(1)
        self.assertEqual(1, len(self.delivered()))
        self.assertEqual(300, len(self.queue.waiting))

    def test_put_off_for_long(self) -> None:
        """Mail that has had no turn for an hour counts as tried: its history says why."""
        self.flood(100)
        self.clock.advance(HOUR)
        self.accept_address("old", "x@a.example")
        (attempt,) = self.last.progress[0].history
        self.assertEqual(str(CROWDED.reply), attempt.reply)

    def test_several_hops(self) -> None:
        """A message for a crowded hop and another goes to the other, and waits for the first."""
        self.flood()
        self.accept_address("both", "x@a.example", "y@b.example")
        self.going.pop().callback(None)
        self.clock.advance(0)
        self.assertIn((B, "both", ["y@b.example"]), self.agent.deliveries)
        settled = next(each for each in self.queue.settlements if each.id == "both")
        self.assertEqual([State.WAITING, State.DONE], [each.state for each in settled.progress])
        self.assertGreaterEqual(settled.due, ARRIVED + PUT_OFF)


class RemovalTests(RunnerTests):
    """What is delivered to all is removed."""

    def test_together(self) -> None:
        """What was delivered in one turn of the reactor is removed in one go."""
        for id in ("1", "2", "3"):
            self.runner.accept(self.queue.lend(message(id, "x@a.example")))
        self.clock.advance(0)
        self.assertEqual([["1", "2", "3"]], self.queue.removals)
        self.assertEqual({}, self.queue.leased)

    def test_patience(self) -> None:
        """Only what a repeated delivery would find in its Maildir may wait to be recorded."""
        self.router.hops["m.example"] = Hop(Agent.MAILDIR, "/var/mail/{local}")
        for addresses, patience in [
            (["x@m.example"], PATIENCE),
            (["x@a.example"], 0.0),
            (["x@m.example", "x@a.example"], 0.0),
        ]:
            self.accept_address("1", *addresses)
            self.clock.advance(RIPENING)
            self.assertEqual(patience, self.queue.removal_delay)

    def test_spool_trouble(self) -> None:
        """Whatever the spool says, it is removed in the end, and delivered once."""
        self.queue.faults = 2
        self.accept_address("1", "x@a.example")
        self.assertEqual(["1"], list(self.queue.leased))
        self.run_until(10)
        self.assertEqual(({}, {}), (self.queue.leased, self.queue.waiting))
        self.assertEqual(1, len(self.agent.deliveries))

    def test_stop(self) -> None:
        """At the end nobody waits for others to have their mail recorded."""
        self.agent.attempt = lambda delivery: gate
        gate: Deferred[None] = Deferred()
        self.router.hops["m.example"] = Hop(Agent.MAILDIR, "/var/mail/{local}")
        self.accept_address("1", "x@m.example")
        self.clock.advance(RIPENING)
        stopping = Deferred.fromCoroutine(self.runner.stop(10))
        gate.callback(None)
        self.successResultOf(stopping)
        self.assertEqual(({}, 0.0), (self.queue.leased, self.queue.removal_delay))


class RecallTests(RunnerTests):
    """What a person removes or keeps is not begun any more."""

    settings = Queue(per_destination=1)

    def setUp(self) -> None:
        super().setUp()
        self.going: Deferred[None] = Deferred()
        self.agent.attempt = lambda delivery: self.going

    def test_waiting(self) -> None:
        """It goes back to the spool; what is being delivered, and the rest, goes on."""
        for id in ("1", "2", "3", "4"):
            self.accept_address(id, "x@a.example", sender=f"{id}@s.example")
        self.queue.unwanted = {"1", "2", "4"}
        self.runner.recall()
        self.clock.advance(0)
        self.assertEqual(["2", "4"], self.queue.released)
        self.going.callback(None)
        self.assertEqual(["1", "3"], [id for _, id, _ in self.agent.deliveries])

    def test_held(self) -> None:
        """A turned connection hands out no more of it either."""
        for id in ("1", "2", "3"):
            self.accept_address(id, "x@office.example")
        source = self.runner.held("office", {"office.example"})
        first = self.successResultOf(source.next())
        self.queue.unwanted = {"1", "2"}
        self.runner.recall()
        second = self.successResultOf(source.next())
        self.assertEqual(["1", "3"], [each.message.id for each in (first, second)])
        self.assertEqual("2", self.last.id)
        source.close()

    def test_spool_trouble(self) -> None:
        """Where the spool can't be asked, all goes on."""
        self.accept_address("1", "x@a.example")
        self.queue.faults = 1
        with capturedLogs() as logs:
            self.runner.recall()
        self.assertEqual([LogLevel.error], [each["log_level"] for each in logs])


class DeadHopTests(RunnerTests):
    """A hop that can't be reached for a while, and much mail for it."""

    settings = Queue(retry=(60.0, 4 * HOUR))
    count = 3 * COMPANY

    def setUp(self) -> None:
        super().setUp()
        self.is_dead = True
        self.visits = 0
        self.agent.attempt = self.try_it
        self.runner.start()
        for number in range(self.count):
            self.accept_address(f"{number:04}", "x@a.example")
            self.clock.advance(0.01)

    async def try_it(self, delivery: Delivery) -> None:
        self.visits += 1
        await deferLater(self.clock, 1.0)
        if self.is_dead:
            raise HopFailure(UNREACHABLE)

    def attempts(self) -> list[int]:
        """How often each message was tried, as the spool has it."""
        return sorted(message.attempts for message, _ in self.queue.waiting.values())

    def test_untried_mail_has_not_been_tried(self) -> None:
        """What comes while the hop is left alone knows why it waits, and loses no attempt."""
        self.run_until(2)
        self.accept_address("late", "x@a.example")
        late, due = self.queue.waiting["late"]
        self.assertEqual(0, late.attempts)
        (attempt,) = late.progress[0].history
        self.assertEqual("451 4.4.1 Not tried again so soon: No answer", attempt.reply)
        self.assertLess(due, self.now() + 40)

    def test_history_is_short(self) -> None:
        """That it was still not tried is no news, in the history nor in the log."""
        self.accept_address("late", "x@a.example")
        with capturedLogs() as events:
            self.run_until(HOUR)
        told = [each for each in events if each.get("queue_id") == "late"]
        late, _ = self.queue.waiting["late"]
        self.assertLessEqual(len(late.progress[0].history), self.visits)
        self.assertLessEqual(len(told), self.visits)

    def test_back_again(self) -> None:
        """When the hop is back, all that was not tried goes out, however long the retry delays."""
        self.run_until(HOUR / 2)
        tried, self.is_dead = self.visits, False
        self.run_until(2 * HOUR)
        self.assertLess(len(self.queue.waiting), tried)
        self.assertNotIn(0, self.attempts())

    def test_wanted_now(self) -> None:
        """Who wants all of it tried now has it all tried: one finds out, the rest follows."""
        self.run_until(3 * HOUR)
        self.is_dead = False
        for message, _ in list(self.queue.waiting.values()):
            self.queue.put(message)
        self.runner.retry()
        self.runner.wake()
        self.run_until(3 * HOUR + 120)
        self.assertEqual({}, self.queue.waiting)


class ForwardingTests(RunnerTests):
    """Mail for an address of ours that goes on elsewhere."""

    def setUp(self) -> None:
        super().setUp()
        self.router.is_ours = lambda domain: domain == "a.example"
        self.router.rewritten = lambda path, forwarder: replace(path, domain="ours.example")
        self.router.aliases["x@a.example"] = ["x@b.example"]
        self.sent: list[Delivery] = []
        self.agent.attempt = self.see

    def see(self, delivery: Delivery) -> Deferred[None]:
        self.sent.append(delivery)
        return succeed(None)

    def test_as_ours(self) -> None:
        """It goes out under a reverse-path of ours, with a field that says who forwarded it."""
        self.accept_address("1", "X@a.example", "x@a.example")
        (plain, forwarded) = self.sent
        self.assertEqual("s@s.example", str(plain.message.envelope.reverse_path))
        self.assertEqual("s@ours.example", str(forwarded.message.envelope.reverse_path))
        content = forwarded.message.content
        verifyObject(IContent, content)
        octets = b"".join(self.successResultOf(Deferred.fromCoroutine(pieces(content))))
        self.assertEqual(b"Delivered-To: x@a.example\r\n" + TEXT, octets)
        self.assertEqual(len(octets), content.size)
        self.assertEqual([State.DONE] * 2, self.states())

    def test_sent_by_itself(self) -> None:
        """Where it shares its hop with a recipient that is not forwarded, each goes in its way."""
        self.accept_address("1", "y@b.example", "x@a.example")
        paths = {str(each.message.envelope.reverse_path) for each in self.sent}
        self.assertEqual({"s@s.example", "s@ours.example"}, paths)
        self.assertEqual([B, B], [each.targets[0].hop for each in self.sent])
        self.assertEqual([State.DONE] * 2, self.states())

    def test_failure(self) -> None:
        """Where it fails at once, the sender is told as ever."""
        self.agent.outcomes["x@b.example"] = NO
        self.accept_address("1", "x@a.example")
        (told,) = self.queue.notices[0].envelope.recipients
        self.assertEqual("s@s.example", str(told.forward_path))

    def test_loop(self) -> None:
        """What the address has forwarded before is not forwarded again."""
        content = MemoryContent(b"Delivered-To: x@a.example\r\n\r\n", b"Text\r\n", True)
        self.accept_address("1", "x@a.example", content=content)
        [notice] = self.sent
        self.assertEqual(NULL_PATH, notice.message.envelope.reverse_path)
        self.assertEqual(["x@b.example failed"], self.notices.asked[0][1])

    def test_unreadable(self) -> None:
        """Where its content can't be read, it waits."""
        self.accept_address("1", "x@a.example", content=LostContent())
        self.assertEqual([State.WAITING], self.states())


async def pieces(content: IContent) -> list[bytes]:
    return [piece async for piece in content.pieces()]


class SlowContent(FakeContent):
    """Content that comes when `arrived` fires."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived: Deferred[None] = Deferred()

    async def pieces(self) -> AsyncIterator[bytes]:
        await self.arrived
        yield b"\r\n"


class LostContent(FakeContent):
    """Content that the spool can't read."""

    async def pieces(self) -> AsyncIterator[bytes]:
        raise OSError("damaged")
        yield b""


class StopTests(RunnerTests):
    """The end of the process: soon, and with all leases given up."""

    settings = Queue(per_destination=1)

    def setUp(self) -> None:
        super().setUp()
        self.going: list[Deferred[None]] = []
        self.agent.attempt = self.hold
        self.runner.start()

    def hold(self, delivery: Delivery) -> Deferred[None]:
        self.going.append(Deferred())
        return self.going[-1]

    def stop(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.runner.stop(10))

    def test_idle(self) -> None:
        """Without mail it stops at once and leaves no timer."""
        self.successResultOf(self.stop())
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_running(self) -> None:
        """A running delivery ends and is recorded; what waits is released."""
        self.accept_address("1", "x@a.example")
        self.accept_address("2", "x@a.example")
        stopping = self.stop()
        self.assertNoResult(stopping)
        self.going[0].callback(None)
        self.successResultOf(stopping)
        self.assertEqual(["1"], [each.id for each in self.queue.settlements])
        self.assertEqual(["2"], self.queue.released)
        self.assertEqual({}, self.queue.leased)

    def test_grace(self) -> None:
        """A delivery that takes too long is cut off; the spool's end frees it as doubtful."""
        self.accept_address("1", "x@a.example")
        stopping = self.stop()
        self.clock.advance(10)
        self.successResultOf(stopping)
        self.assertEqual([], self.queue.released)
        self.assertEqual(["1"], list(self.queue.leased))

    def test_doubtful(self) -> None:
        """Where an attempt was cut off and another one is recorded, the record says so."""
        self.accept_address("1", "x@a.example", "y@b.example")
        self.going[1].callback(None)
        stopping = Deferred.fromCoroutine(self.runner.stop(10))
        self.clock.advance(10)
        self.successResultOf(stopping)
        self.assertTrue(self.last.recovered)
        self.assertEqual([State.WAITING, State.DONE], self.states())

    def test_half_done(self) -> None:
        """Of a message that is half delivered, that half is recorded, and the rest due at once."""
        self.agent.outcomes["x@a.example"] = LATER
        self.accept_address("1", "x@a.example", "y@b.example")
        self.going[0].callback(None)
        stopping = self.stop()
        self.clock.advance(10)
        self.successResultOf(stopping)
        self.assertEqual([State.WAITING, State.WAITING], self.states())
        self.assertEqual(1, len(self.last.progress[0].history))
        self.assertEqual(self.now(), self.last.due)

    def test_late_mail(self) -> None:
        """What is accepted during the end is released."""
        self.stop()
        self.accept_address("1", "x@a.example")
        self.assertEqual(["1"], self.queue.released)

    def test_spool_trouble(self) -> None:
        """A spool that is out of order doesn't keep the process from ending."""
        self.accept_address("1", "x@a.example")
        self.queue.faults = 10
        self.going[0].callback(None)
        self.successResultOf(self.stop())
        self.assertIn("1", self.queue.leased)


class HeldTests(RunnerTests):
    """Mail that waits for a peer, and the source that hands it out."""

    def source(self, linger: float = 0.0, *domains: str) -> HeldMail:
        return self.runner.held("office", domains or ("office.example",), linger)

    def next(self, source: HeldMail) -> Delivery | None:
        return self.successResultOf(Deferred.fromCoroutine(source.next()))

    def waiting_next(self, source: HeldMail) -> Deferred[Delivery | None]:
        async def wait() -> Delivery | None:
            while (delivery := await source.next()) is None:
                if not await source.wait():
                    return None
            return delivery

        return Deferred.fromCoroutine(wait())

    def taken(self, source: HeldMail) -> list[str]:
        """The ids of all that the source hands out, each relayed."""
        ids = []
        while (delivery := self.next(source)) is not None:
            ids.append(delivery.message.id)
            source.report(delivery, [RELAYED] * len(delivery.targets))
        return ids

    def hold(self, *ids: str) -> None:
        for id in ids:
            self.accept_address(id, "x@office.example")

    def test_held(self) -> None:
        """A message with a hold hop waits for its peer until `hold_for` is over."""
        self.hold("1")
        (progress,) = self.last.progress
        self.assertEqual((State.HELD, "office"), (progress.state, progress.peer))
        self.assertEqual(ARRIVED + 20 * DAY, self.last.due)
        self.assertEqual(0, self.last.attempts)

    def test_expires(self) -> None:
        """Held mail that nobody fetched bounces when its time is over."""
        self.hold("1")
        self.runner.start()
        self.run_until(20 * DAY - 10)
        self.assertEqual([], self.queue.notices)
        self.run_until(20 * DAY + 10)
        self.assertEqual([b"x@office.example failed"], [n.content for n in self.queue.notices])

    def test_warning(self) -> None:
        """Where the peer's entry says so, the sender of held mail is warned, once."""
        self.peers = {"office": Peer("office", warn_after=DAY)}
        self.runner = self.make()
        self.hold("1")
        self.runner.start()
        self.run_until(DAY + 10)
        self.assertEqual([b"x@office.example held"], [n.content for n in self.queue.notices])
        self.run_until(10 * DAY)
        self.assertEqual(1, len(self.queue.notices))

    def test_route_changed(self) -> None:
        """Held mail that is due takes the route that the configuration has now."""
        self.hold("1")
        self.router.hops["office.example"] = B
        self.runner.start()
        self.run_until(20 * DAY + 10)
        self.assertEqual([(B, "1", ["x@office.example"])], self.agent.deliveries)

    def test_source(self) -> None:
        """A source provides IMailSource."""
        verifyObject(IMailSource, self.source())

    def test_oldest_first(self) -> None:
        """All that waits is handed out, oldest first and in small portions."""
        ids = [f"{number:03}" for number in range(2 * HELD_PORTION + 5)]
        self.hold(*ids)
        source = self.source()
        first = self.next(source)
        assert first is not None
        self.assertEqual(HELD_PORTION, len(self.queue.leased))
        source.report(first, [RELAYED])
        self.assertEqual(ids[1:], self.taken(source))
        self.clock.advance(0)
        self.assertEqual(({}, {}), (self.queue.waiting, self.queue.leased))

    def test_own_domains_only(self) -> None:
        """A peer is never handed mail for other domains than it may have."""
        self.router.hops["branch.example"] = OFFICE
        self.accept_address("1", "x@branch.example")
        self.accept_address("2", "x@office.example", "x@branch.example")
        source = self.source()
        delivery = self.next(source)
        assert delivery is not None
        self.assertEqual(["x@office.example"], [str(target.address) for target in delivery.targets])
        source.report(delivery, [RELAYED])
        self.assertIsNone(self.next(source))
        self.assertEqual([State.DONE, State.HELD], self.states())

    def test_routed_anew(self) -> None:
        """What no longer waits for the peer takes its ordinary way."""
        self.hold("1")
        self.router.hops["office.example"] = B
        self.assertEqual([], self.taken(self.source()))
        self.assertEqual([(B, "1", ["x@office.example"])], self.agent.deliveries)

    def test_refused_by_the_peer(self) -> None:
        """A peer's refusal makes a notice."""
        self.hold("1")
        source = self.source()
        source.report(self.next(source), [NO])
        self.assertEqual([b"x@office.example failed"], [n.content for n in self.queue.notices])

    def test_deferred_by_the_peer(self) -> None:
        """What a peer deferred isn't handed out again at once, but on its next connection."""
        self.hold("1", "2")
        source = self.source()
        for _ in range(2):
            source.report(self.next(source), [LATER])
        self.assertIsNone(self.successResultOf(self.waiting_next(source)))
        source.close()
        self.assertEqual([State.HELD], self.states())
        self.assertEqual("451 4.3.0 Try later", self.last.progress[0].history[-1].reply)
        self.assertEqual(["1", "2"], self.taken(self.source()))

    def test_deferred_on_a_held_link(self) -> None:
        """What a peer deferred is offered again on the same connection after a while."""
        self.hold("1")
        source = self.source(HOUR)
        source.report(self.next(source), [LATER])
        waiting = self.waiting_next(source)
        self.run_until(HELD_PUT_OFF - 1)
        self.assertNoResult(waiting)
        self.run_until(HELD_PUT_OFF + POLL + 1)
        self.assertEqual("1", self.successResultOf(waiting).message.id)

    def test_all_deferred(self) -> None:
        """A peer that defers everything is soon handed no more."""
        self.hold(*(f"{number:03}" for number in range(MAX_PUT_OFF + 30)))
        source = self.source(HOUR)
        handed = 0
        while (delivery := self.next(source)) is not None:
            handed += 1
            source.report(delivery, [LATER])
        self.assertEqual(MAX_PUT_OFF, handed)
        self.assertEqual({}, self.queue.leased)

    def test_partly_deferred(self) -> None:
        """What a peer took is recorded at once, whatever it deferred beside it."""
        self.accept_address("1", "x@office.example", "y@office.example")
        source = self.source(HOUR)
        source.report(self.next(source), [RELAYED, LATER])
        self.assertEqual([State.DONE, State.HELD], self.states())

    def test_broken_link(self) -> None:
        """What a broken connection leaves unsettled goes on waiting, and nothing else does."""
        self.hold("1", "2", "3", "4")
        source = self.source()
        first, second, third = (self.next(source) for _ in range(3))
        source.report(first, [RELAYED])
        source.report(second, [LATER])
        source.close()
        self.assertEqual(["2", "3", "4"], sorted(self.queue.waiting))
        self.assertEqual(["2", "3", "4"], self.taken(self.source()))
        source.report(third, [RELAYED])  # too late, and harmless

    def test_what_is_not_yet_recorded(self) -> None:
        """Who asks how much is held waits until what was just accepted is known to be."""

        def wait(peer: str) -> Deferred[None]:
            return Deferred.fromCoroutine(self.runner.held_is_recorded(peer, 5.0))

        self.successResultOf(wait("office"))
        recorded: Deferred[None] = Deferred()
        settle = self.queue.settle

        async def slow(settlement: Settlement) -> Sequence[Message]:
            await recorded
            return await settle(settlement)

        self.queue.settle = slow  # type: ignore[method-assign]
        self.runner.accept(self.queue.lend(message("1", "x@office.example")))
        waiting, impatient = wait("office"), wait("office")
        self.successResultOf(wait("other"))
        self.clock.advance(4.9)
        self.assertNoResult(waiting)
        recorded.callback(None)
        self.successResultOf(waiting)
        self.successResultOf(impatient)
        self.assertEqual([State.HELD], self.states())

    def test_what_can_not_be_recorded(self) -> None:
        """Nobody waits longer than he would, and it is recorded all the same."""
        recorded: Deferred[Sequence[Message]] = Deferred()
        self.queue.settle = lambda settlement: recorded  # type: ignore[method-assign, assignment]
        self.accept_address("1", "x@office.example")
        waiting = Deferred.fromCoroutine(self.runner.held_is_recorded("office", 5.0))
        self.clock.advance(5)
        self.successResultOf(waiting)
        recorded.callback([])
        self.assertEqual({}, self.runner._rounds)
        self.assertEqual([], self.flushLoggedErrors())

    def test_alias_into_a_held_domain(self) -> None:
        """What waits is the final address: an alias of another domain is fetched with it."""
        self.router.aliases["chief@a.example"] = ["chief@office.example"]
        self.accept(message("1", "chief@a.example"))
        self.assertEqual(["1"], self.taken(self.source()))

    def test_forward_into_a_held_domain(self) -> None:
        """A forward is handed out though the look whether it goes in a circle takes its time."""
        self.router.is_ours = lambda domain: domain == "a.example"
        self.router.aliases["x@a.example"] = ["x@office.example"]
        content = SlowContent()
        self.accept_address("1", "x@a.example", content=content)
        content.arrived.callback(None)
        self.clock.advance(0)
        self.assertEqual([State.HELD], self.states())
        for linger in (0.0, HOUR):
            content.arrived = Deferred()
            source = self.source(linger)
            waiting = Deferred.fromCoroutine(source.next())
            self.assertNoResult(waiting)
            content.arrived.callback(None)
            delivery = self.successResultOf(waiting)
            assert delivery is not None
            source.close()
            self.clock.advance(0)

    def test_lingers(self) -> None:
        """A lingering source hands out new mail at once, without a detour by the spool."""
        waiting = self.waiting_next(source := self.source(HOUR))
        self.clock.advance(0)
        self.assertNoResult(waiting)
        self.hold("1")
        delivery = self.successResultOf(waiting)
        assert delivery is not None
        self.assertEqual([], self.queue.settlements)
        source.report(delivery, [RELAYED])
        self.clock.advance(0)
        self.assertEqual([State.DONE], self.states())

    def test_lingers_for_others(self) -> None:
        """Mail that another process held goes out when we are told of it."""
        waiting = self.waiting_next(self.source(HOUR))
        self.hold_elsewhere("1")
        self.assertNoResult(waiting)
        self.runner.wake()
        self.assertIsNotNone(self.successResultOf(waiting))

    def test_lingers_untold(self) -> None:
        """Mail that nobody told of is found within a minute."""
        waiting = self.waiting_next(self.source(HOUR))
        self.hold_elsewhere("1")
        self.run_until(POLL)
        self.assertIsNotNone(self.successResultOf(waiting))

    def hold_elsewhere(self, id: str) -> None:
        held = message(id, "x@office.example")
        progress = replace(
            held.progress[0], state=State.HELD, peer="office", domain="office.example"
        )
        self.queue.put(replace(held, progress=(progress,)), self.now() + DAY)

    def test_linger_ends(self) -> None:
        """Without new mail the source ends after its time, however often it was asked."""
        source = self.source(100)
        for _ in range(4):
            waiting = self.waiting_next(source)
            self.run_until(self.clock.seconds() + 24)
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
        waiting = self.waiting_next(source)
        self.run_until(101)
        self.assertIsNone(self.successResultOf(waiting))

    def test_cancelled(self) -> None:
        """Cancelling the wait loses no mail, not even while a portion is on its way."""
        self.hold("1")
        lease, answer = self.queue.lease_held, Deferred()
        self.patch(self.queue, "lease_held", lambda *arguments: answer)
        source = self.source(HOUR)
        waiting = self.waiting_next(source)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        answer.callback(self.successResultOf(lease("office", ["office.example"], 5)))
        self.assertEqual("1", self.next(source).message.id)

    def test_burst(self) -> None:
        """Mail that comes faster than it goes keeps its order, and memory its bounds."""
        self.hold_elsewhere("000")
        source = self.source(HOUR)
        ids = [f"{number:03}" for number in range(2 * HELD_PORTION)]
        self.hold(*ids[1:5])
        waiting = self.waiting_next(source)
        self.hold(*ids[5:])
        self.assertLessEqual(len(self.queue.leased), HELD_PORTION)
        first = self.successResultOf(waiting)
        source.report(first, [RELAYED])
        self.assertEqual(ids, [first.message.id, *self.taken(source)])

    def test_takeover(self) -> None:
        """A second connection of a peer takes over, and the first ends with what it has out."""
        self.hold("1", "2")
        older = self.source(HOUR)
        out = self.next(older)
        assert out is not None
        newer = self.source(HOUR)
        self.assertIsNone(self.next(older))
        second = self.next(newer)
        assert second is not None
        self.assertEqual("2", second.message.id)
        older.report(out, [RELAYED])
        older.close()
        self.clock.advance(0)
        self.assertEqual(["2"], list(self.queue.leased))
        waiting = self.waiting_next(newer)
        self.hold("3")
        self.assertEqual("3", self.successResultOf(waiting).message.id)

    def test_stop(self) -> None:
        """At the end a source hands out no more, and what is out may end in the grace time."""
        self.hold("1", "2")
        source = self.source(HOUR)
        out = self.next(source)
        assert out is not None
        stopping = Deferred.fromCoroutine(self.runner.stop(10))
        self.assertIsNone(self.next(source))
        self.clock.advance(5)
        self.assertNoResult(stopping)
        source.report(out, [RELAYED])
        self.successResultOf(stopping)
        self.assertEqual(["2"], list(self.queue.waiting))
        self.assertEqual({}, self.queue.leased)

    def test_spool_trouble(self) -> None:
        """Where the spool can't be read there is no mail to hand out."""
        self.hold("1")
        self.queue.faults = 1
        self.assertEqual([], self.taken(self.source()))

    def test_no_circles(self) -> None:
        """What has come to wait under another domain doesn't go round and round."""
        self.hold(*(f"{number:03}" for number in range(HELD_PORTION)))
        self.router.hops["branch.example"] = OFFICE
        self.router.aliases["x@office.example"] = ["x@branch.example"]
        before = len(self.queue.settlements)
        waiting = self.waiting_next(self.source(HOUR))
        self.clock.advance(1)
        self.assertNoResult(waiting)
        self.assertEqual(HELD_PORTION, len(self.queue.settlements) - before)
