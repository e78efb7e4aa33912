"""The runner: attempts, and what they leave in the spool."""

from collections.abc import Awaitable, Sequence
from dataclasses import replace

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import deferLater
from twisted.logger import LogLevel, capturedLogs
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mta.interfaces import IDeliveryAgent, IFailureWatch, INotices, IQueue, IRouter
from mta.mail import (
    Agent,
    Envelope,
    Hop,
    Notify,
    Outcome,
    Recipient,
    Reply,
    Status,
)
from mta.queue.batch_delay import DELAY
from mta.queue.destinations import MAX_BEHIND_PROBE
from mta.queue.interfaces import IActiveQueue, IAttemptWatch
from mta.queue.leases import MAX_SLEEP
from mta.queue.recorder import REMOVAL_DELAY
from mta.queued import Delivery, HopFailure, Message, Progress, Settlement, State
from mta.session import Origin
from mta.settings import DAY, HOUR, Queue
from mta.testing import (
    FakeContent,
)
from tests.queue.runners import (
    ARRIVED,
    DELIVERED,
    LATER,
    NO,
    NO_SUCH_USER,
    RELAYED,
    UNREACHABLE,
    A,
    B,
    RunnerTests,
    mailbox,
    message,
)


class FirstAttemptTests(RunnerTests):
    """From the 250 to the first outcome."""

    def test_interfaces(self) -> None:
        """The parts of the runner keep the promises that they make each other."""
        verifyObject(IAttemptWatch, self.runner)
        verifyObject(IActiveQueue, self.runner._active)

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


@implementer(IFailureWatch)
class FailureWatch:
    """Remembers what other hosts refused."""

    def __init__(self) -> None:
        self.failures: list[tuple[str, int]] = []

    def failed(self, origin: Origin, number: int) -> None:
        """Remember it."""
        self.failures.append((origin.user, number))


class FailureTests(RunnerTests):
    """Recipients that other hosts refuse."""

    def test_told(self) -> None:
        """They are told of, with the user who sent the message; what fails here is not."""
        watch = FailureWatch()
        verifyObject(IFailureWatch, watch)
        self.runner.use(replace(self.config(self.settings), failure_watch=watch))
        alice = Origin(user="alice", service="submission")
        here = Outcome(Status.FAILED, NO_SUCH_USER)
        gone = Outcome(Status.FAILED, Reply(451, "4.4.7", ("Too late",)), "mx.example")
        for number, outcome in enumerate((NO, RELAYED, LATER, here, gone)):
            self.agent.outcome = outcome
            to = [f"x@{domain}" for domain in ("a.example", "b.example")]
            self.accept_address(str(number), *to, origin=alice)
        # The notice about them has no user, and is refused as well.
        self.assertEqual(watch.failures, [("alice", 2), ("", 1)])


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
        self.assertEqual((2, {}), (self.last.attempts, self.queue.leased))
        self.assertEqual(0, len(self.runner._active))

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
            (["x@m.example"], REMOVAL_DELAY),
            (["x@a.example"], 0.0),
            (["x@m.example", "x@a.example"], 0.0),
        ]:
            self.accept_address("1", *addresses)
            self.clock.advance(DELAY)
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
        self.clock.advance(DELAY)
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
        source = self.runner.open_held("office", {"office.example"}, 0.0)
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
    count = 3 * MAX_BEHIND_PROBE

    def setUp(self) -> None:
        super().setUp()
        self.is_dead = True
        self.sessions = 0
        self.agent.attempt = self.try_it
        self.runner.start()
        for number in range(self.count):
            self.accept_address(f"{number:04}", "x@a.example")
            self.clock.advance(0.01)

    async def try_it(self, delivery: Delivery) -> None:
        self.sessions += 1
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
        self.assertLessEqual(len(late.progress[0].history), self.sessions)
        self.assertLessEqual(len(told), self.sessions)

    def test_back_again(self) -> None:
        """When the hop is back, all that was not tried goes out, however long the retry delays."""
        self.run_until(HOUR / 2)
        tried, self.is_dead = self.sessions, False
        self.run_until(2 * HOUR)
        self.assertLess(len(self.queue.waiting), tried)
        self.assertNotIn(0, self.attempts())

    def test_wanted_now(self) -> None:
        """Who wants all of it tried now has it all tried: one finds out, the rest follows."""
        self.run_until(3 * HOUR)
        self.is_dead = False
        for waiting, _ in list(self.queue.waiting.values()):
            self.queue.put(waiting)
        self.runner.retry()
        self.runner.wake()
        self.run_until(3 * HOUR + 120)
        self.assertEqual({}, self.queue.waiting)


class StoodStillTests(RunnerTests):
    """Others had freed what is under way here, and it is leased here again."""

    def test_one_attempt(self) -> None:
        """The attempt goes on, with what others have recorded meanwhile."""
        going: list[Deferred[None]] = []

        def hold(delivery: Delivery) -> Deferred[None]:
            going.append(Deferred())
            return going[-1]

        self.agent.attempt = hold  # type: ignore[assignment,method-assign]
        self.accept_address("1", "x@a.example", "y@b.example")
        again = self.queue.leased["1"]
        done = replace(again.progress[1], state=State.DONE)
        self.runner.accept(replace(again, progress=(again.progress[0], done)))
        self.clock.advance(0)
        self.assertEqual(2, len(self.agent.deliveries))
        self.agent.outcomes["y@b.example"] = LATER
        for each in going:
            each.callback(None)
        self.assertEqual([], self.flushLoggedErrors())
        self.assertEqual([State.DONE, State.DONE], self.states())
        self.assertEqual(0, len(self.runner._active))


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

    def test_trouble_on_all_sides(self) -> None:
        """All ends that waits for the spool, to record and to lease."""
        self.accept_address("1", "x@m.example")
        self.accept_address("2", "x@a.example")
        self.queue.faults = 2
        for going in self.going:
            going.callback(None)
        self.queue.put(message("3", "x@a.example"))
        self.runner.start()
        self.successResultOf(self.stop())
