"""Deliveries shared among the hops: limits, fairness, and hops that are down."""

from collections.abc import Awaitable, Callable, Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mta.interfaces import IDeliveryAgent, IMailSource
from mta.mail import NULL_PATH, Agent, Envelope, Hop, Mailbox, Outcome, Recipient, Reply, Status
from mta.queue import back_off, concurrency
from mta.queue.batch_delay import DELAY, FULL_BATCH, MAX_DELAYS
from mta.queue.destination import FIRST_SESSIONS, max_sessions
from mta.queue.destinations import MAX_BEHIND_PROBE, Destinations
from mta.queue.interfaces import IDeliveryResults, ISessionWatch
from mta.queue.noted import NoAttempts
from mta.queue.sessions import MAX_IN_ROW
from mta.queued import Delivery, HopFailure, Message, Pressure, Progress, Target
from mta.settings import Queue

RELAYED = Outcome(Status.RELAYED, Reply(250, "2.0.0", ("OK",)), "mx.example")
CLOSING = Outcome(Status.DEFERRED, Reply(421, "4.3.2", ("Too busy",)), "mx.example", throttles=True)
PUT_OFF = Outcome(Status.DEFERRED, Reply(450, "4.2.0", ("Greylisted",)), "mx.example")
UNREACHABLE = Outcome(Status.DEFERRED, Reply(451, "4.4.1", ("No answer",)))
NO_MAIL = Outcome(Status.FAILED, Reply(556, "5.1.10", ("Takes no mail",)))

A, B = Hop(Agent.MX, "a.example"), Hop(Agent.MX, "b.example")
MAILDIR = Hop(Agent.MAILDIR, "/var/mail/{local}")


def left_alone(seconds: float) -> Outcome:
    """The outcome of mail whose hop was unreachable, and is not tried again yet."""
    reply = Reply(451, "4.4.1", ("Not tried again so soon: No answer",))
    return Outcome(Status.DEFERRED, reply, wait=seconds)


def delivery(hop: Hop, name: str, reverse_path: Mailbox | None = None) -> Delivery:
    """One message for one address."""
    recipient = Recipient(Mailbox(name, "a.example"))
    envelope = Envelope(reverse_path or Mailbox("s", "s.example"), (recipient,))
    message = Message(name, 0.0, envelope, object(), (Progress(recipient),))
    return Delivery(message, (Target(0, recipient.forward_path, hop),))


@implementer(IDeliveryAgent)
class ScriptedAgent:
    """Does what a test says with each session."""

    def __init__(self, session: Callable[[Hop, IMailSource], Awaitable[None]]) -> None:
        self.session = session

    async def deliver(self, hop: Hop, mail: IMailSource) -> None:
        await self.session(hop, mail)


@implementer(IDeliveryResults)
class Results:
    """Remembers what became of deliveries, by name."""

    def __init__(self) -> None:
        self.reported: list[tuple[str, Outcome]] = []
        self.untried: list[str] = []
        self.unknown: list[str] = []

    def report(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """See `IDeliveryResults.report`."""
        self.reported.append((delivery.message.id, outcomes[0]))

    def not_attempted(self, delivery: Delivery) -> None:
        """See `IDeliveryResults.not_attempted`."""
        self.untried.append(delivery.message.id)

    def outcome_unknown(self, delivery: Delivery) -> None:
        """See `IDeliveryResults.outcome_unknown`."""
        self.unknown.append(delivery.message.id)


class DestinationsTests(SynchronousTestCase):
    """Destinations with agents that do what the test says."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.results = Results()
        self.sessions: list[tuple[Hop, IMailSource, Deferred[None]]] = []
        self.destinations = self.make(Queue(concurrency=4, per_destination=3))

    def make(self, settings: Queue, pressure: Pressure | None = None) -> Destinations:
        self.settings = settings
        self.destinations = Destinations(
            self.clock, self.results, pressure or Pressure(), NoAttempts()
        )
        self.serve_with(self.wait)
        return self.destinations

    async def wait(self, hop: Hop, mail: IMailSource) -> None:
        """A session that the test plays by hand."""
        end: Deferred[None] = Deferred()
        self.sessions.append((hop, mail, end))
        await end

    def serve_with(self, session: Callable[[Hop, IMailSource], Awaitable[None]]) -> None:
        self.destinations.use(dict.fromkeys(Agent, ScriptedAgent(session)), self.settings)

    def add(self, hop: Hop, *names: str) -> None:
        for name in names:
            self.destinations.add(hop, delivery(hop, name))
        self.destinations.dispatch()

    def take(self, session: int) -> Delivery | None:
        """What a session gets next."""
        return self.successResultOf(self.sessions[session][1].next())

    def end(self, session: int, error: Exception | None = None) -> None:
        """End a session."""
        ended = self.sessions[session][2]
        if error is None:
            ended.callback(None)
        else:
            ended.errback(error)

    async def succeed(self, hop: Hop, mail: IMailSource) -> None:
        """An agent to which all succeeds at once."""
        while (taken := await mail.next()) is not None:
            mail.report(taken, [RELAYED])

    # --- sessions

    def test_source(self) -> None:
        """An agent gets an IMailSource."""
        self.add(A, "1")
        verifyObject(IDeliveryResults, self.results)
        verifyObject(ISessionWatch, self.destinations)
        verifyObject(IMailSource, self.sessions[0][1])

    def test_one_session_carries_all(self) -> None:
        """A session draws deliveries in order until there is none."""
        self.serve_with(self.succeed)
        self.add(A, "1", "2", "3")
        self.assertEqual([(name, RELAYED) for name in "123"], self.results.reported)

    def test_per_destination(self) -> None:
        """A hop gets no more sessions than mail waits, at first a few, and each success allows one
        more, as far as the settings do."""
        self.add(A, "1")
        self.assertEqual(1, len(self.sessions))
        self.add(A, *"23456789")
        self.assertEqual(FIRST_SESSIONS, len(self.sessions))
        for number in range(4):
            taken = self.take(0)
            assert taken is not None
            self.sessions[0][1].report(taken, [RELAYED])
            self.assertEqual(3, len(self.sessions), number)

    def test_in_all(self) -> None:
        """Sessions to all hops together are bounded; who waits gets the next free place."""
        self.destinations = self.make(Queue(concurrency=3))
        self.add(A, "1", "2", "3")
        self.add(B, "4", "5", "6")
        self.assertEqual([A, A, B], [hop for hop, _, _ in self.sessions])
        self.take(0), self.end(0)
        self.assertEqual(B, self.sessions[3][0])

    def test_not_all_for_one(self) -> None:
        """However much one hop may have, a place is left for others."""
        for places, most in [(1, 1), (2, 2), (4, 3), (10, 8)]:
            self.destinations = self.make(Queue(concurrency=places, per_destination=99))
            self.assertEqual(most, max_sessions(A, self.settings))

    def silent(self, number: int, *, reverse_path: Mailbox | None = None) -> None:
        """Mail for a hop that answers nothing."""
        hop = Hop(Agent.MX, f"silent{number}.example")
        for name in ("1", "2"):
            self.destinations.add(hop, delivery(hop, name, reverse_path))
        self.destinations.dispatch()

    def prove(self, hop: Hop) -> None:
        """Let a hop take a message."""
        self.serve_with(self.succeed)
        self.add(hop, "first")
        self.serve_with(self.wait)

    def test_silent_hops(self) -> None:
        """Hops that never answer keep nobody from a hop that does, nor any mail from us."""
        self.destinations = self.make(Queue(concurrency=8, per_destination=10))
        self.prove(B)
        for number in range(20):
            self.silent(number)
        self.assertEqual(6, len(self.sessions))
        self.add(B, "b")
        self.assertEqual(B, self.sessions[-1][0])
        smart_host = Hop(Agent.SMTP, "smart.example", 25)
        self.add(smart_host, "c")
        self.assertEqual(smart_host, self.sessions[-1][0])
        self.assertEqual(8, len(self.sessions))
        self.add(MAILDIR, "local")
        self.clock.advance(DELAY)
        self.assertEqual(MAILDIR, self.sessions[-1][0])

    def test_notices(self) -> None:
        """Strangers have us send as many as they like to where they like: a quarter is theirs."""
        self.destinations = self.make(Queue(concurrency=8))
        for number in range(11):
            self.silent(number, reverse_path=NULL_PATH)
        self.assertEqual(2, len(self.sessions))
        self.add(A, "honest")
        self.assertEqual(A, self.sessions[-1][0])

    def test_hops_that_were_down(self) -> None:
        """Probes take a quarter of the places, too; a hop that failed has to prove itself again."""
        self.destinations = self.make(Queue(concurrency=8, per_destination=1))
        self.prove(B)
        for number in range(4):
            self.silent(number)
        self.add(B, "1")
        for number in range(5):
            self.end(number, HopFailure(UNREACHABLE))
        self.clock.advance(3600)
        for number in range(4):
            self.silent(number)
        self.add(B, "2")
        self.assertEqual(5 + 2, len(self.sessions))
        self.add(A, "new")
        self.assertEqual(A, self.sessions[-1][0])

    def test_scarce(self) -> None:
        """Those who wait for a place are told of."""
        pressure = Pressure()
        self.destinations = self.make(Queue(concurrency=4, per_destination=1), pressure)
        for number in range(3):
            self.silent(number)
            self.assertFalse(pressure.is_scarce)
        self.silent(3)
        self.assertTrue(pressure.is_scarce)
        self.end(0, HopFailure(UNREACHABLE))
        self.assertFalse(pressure.is_scarce)

    def test_proven_hops_are_forgotten(self) -> None:
        """The names in the DNS are anybody's choice."""
        self.patch(concurrency, "MAX_PROVEN", 2)
        proven = concurrency.ProvenHops()
        hops = [Hop(Agent.MX, f"{number}.example") for number in range(3)]
        for hop in hops:
            proven.took_mail(hop)
        self.assertEqual([False, True, True], [hop in proven for hop in hops])

    def test_hops_take_turns(self) -> None:
        """Hops get sessions in turn, however much waits for one."""
        for number in range(10):
            self.destinations.add(A, delivery(A, f"a{number}"))
        self.destinations.add(B, delivery(B, "b"))
        self.destinations.dispatch()
        self.assertEqual([A, B, A], [hop for hop, _, _ in self.sessions])

    def test_local_batches(self) -> None:
        """A local agent gets two sessions, each of which may take many deliveries."""
        for number in range(3 * FULL_BATCH):
            self.add(MAILDIR, str(number))
        self.assertEqual(2, len(self.sessions))

    def test_a_batch_forms(self) -> None:
        """Mail for Maildirs waits for more as long as more keeps coming, but not for long."""
        self.add(MAILDIR, "1")
        self.clock.advance(DELAY)
        self.assertEqual(1, len(self.sessions))
        self.successResultOf(self.succeed(MAILDIR, self.sessions[0][1]))
        self.end(0)
        self.add(MAILDIR, "0")
        for number in range(1, MAX_DELAYS + 2):
            self.add(MAILDIR, str(number))
            self.assertEqual(1, len(self.sessions))
            self.clock.advance(DELAY)
        self.assertEqual(2, len(self.sessions))
        self.assertEqual("0", self.take(1).message.id)

    def test_a_batch_is_there(self) -> None:
        """What makes a batch waits no longer."""
        for number in range(FULL_BATCH):
            self.assertEqual(0, len(self.sessions))
            self.add(MAILDIR, str(number))
        self.assertEqual(1, len(self.sessions))
        self.successResultOf(self.succeed(MAILDIR, self.sessions[0][1]))
        self.end(0)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_nothing_left_of_a_batch(self) -> None:
        """At the end it is given back as it is."""
        self.add(MAILDIR, "1")
        self.successResultOf(Deferred.fromCoroutine(self.destinations.stop(10)))
        self.assertEqual(["1"], self.results.untried)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_what_is_not_written_needs_no_batch(self) -> None:
        """Mail that is discarded is discarded at once."""
        self.add(Hop(Agent.DISCARD), "1")
        self.assertEqual(1, len(self.sessions))

    def test_no_endless_session(self) -> None:
        """A session ends after its share while other hops wait for a place."""
        self.destinations = self.make(Queue(concurrency=1))
        self.add(A, *map(str, range(2 * MAX_IN_ROW)))
        self.add(B, "b")
        taken = 0
        while self.take(0) is not None:
            taken += 1
        self.assertEqual(MAX_IN_ROW, taken)

    def test_alone_nobody_concurrency(self) -> None:
        """A session goes on while nobody else waits."""
        self.destinations = self.make(Queue(concurrency=1))
        self.add(A, *map(str, range(2 * MAX_IN_ROW)))
        for _ in range(2 * MAX_IN_ROW):
            self.assertIsNotNone(self.take(0))

    def test_forgotten(self) -> None:
        """A destination without mail is forgotten."""
        self.serve_with(self.succeed)
        self.add(A, "1")
        self.assertEqual({}, self.destinations._destinations)

    # --- connections that are kept

    def be_idle(self, *sessions: int) -> list[Deferred[bool]]:
        """Each session delivers what there is, and then waits for more."""
        waiting = []
        for number in sessions:
            _, mail, _ = self.sessions[number]
            self.successResultOf(self.succeed(A, mail))
            waiting.append(Deferred.fromCoroutine(mail.wait()))
        return waiting

    def test_new_mail_takes_the_connection_that_is_there(self) -> None:
        """No new session begins while one is idle; the one that became idle last is resumed."""
        self.add(A, "1", "2")
        first, second = self.be_idle(0, 1)
        self.add(A, "3")
        self.assertNoResult(first)
        self.assertTrue(self.successResultOf(second))
        self.assertEqual("3", self.take(1).message.id)
        self.add(A, "4", "5")
        self.assertTrue(self.successResultOf(first))
        self.assertEqual(3, len(self.sessions))

    def test_idle(self) -> None:
        """A session does not rest for long."""
        self.destinations = self.make(Queue(connection_idle=2.0))
        self.add(A, "1")
        (waiting,) = self.be_idle(0)
        self.clock.advance(1.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.1)
        self.assertFalse(self.successResultOf(waiting))
        self.end(0)
        self.assertEqual({}, self.destinations._destinations)

    def test_not_at_all(self) -> None:
        """The settings may say that no connection is kept."""
        self.destinations = self.make(Queue(connection_idle=0.0))
        self.add(A, "1")
        (waiting,) = self.be_idle(0)
        self.clock.advance(0)
        self.assertFalse(self.successResultOf(waiting))

    def test_so_many_messages(self) -> None:
        """After so many a session gets no more, and another one begins."""
        self.destinations = self.make(Queue(per_destination=1, connection_messages=2))
        self.add(A, "1", "2", "3")
        (waiting,) = self.be_idle(0)
        self.assertFalse(self.successResultOf(waiting))
        self.assertEqual(["1", "2"], [name for name, _ in self.results.reported])
        self.end(0)
        self.assertEqual("3", self.take(1).message.id)

    def test_so_old(self) -> None:
        """A session that is old gets no more mail, and does not rest."""
        settings = Queue(per_destination=1, connection_age=10.0, connection_idle=60.0)
        self.destinations = self.make(settings)
        self.add(A, "1")
        (waiting,) = self.be_idle(0)
        self.clock.advance(10)
        self.add(A, "2")
        self.assertFalse(self.successResultOf(waiting))
        self.end(0)
        self.assertEqual("2", self.take(1).message.id)

    def test_hosts_that_said_nothing(self) -> None:
        """A session is as old as its first mail: hosts before that may have been silent."""
        settings = Queue(per_destination=1, connection_age=10.0, connection_idle=60.0)
        self.destinations = self.make(settings)
        self.add(A, "1", "2")
        self.clock.advance(300)
        self.assertEqual("1", self.take(0).message.id)
        self.assertEqual("2", self.take(0).message.id)

    def test_idle_sessions_take_no_place(self) -> None:
        """Other hops get sessions; of too many that rest, the one ends that began first."""
        self.destinations = self.make(Queue(concurrency=1, per_destination=1))
        self.add(A, "1")
        (first,) = self.be_idle(0)
        self.add(B, "2")
        (second,) = self.be_idle(1)
        self.assertFalse(self.successResultOf(first))
        self.assertNoResult(second)

    def test_idle_between_concurrency(self) -> None:
        """Who has had its share while others wait gets its next one in its turn."""
        self.destinations = self.make(Queue(concurrency=1, per_destination=1))
        self.add(A, *map(str, range(2 * MAX_IN_ROW)))
        self.add(B, "b")
        (waiting,) = self.be_idle(0)
        self.assertEqual(MAX_IN_ROW, len(self.results.reported))
        self.assertNoResult(waiting)
        self.be_idle(1)
        self.assertTrue(self.successResultOf(waiting))
        self.be_idle(0)
        self.assertEqual(2 * MAX_IN_ROW + 1, len(self.results.reported))

    def test_an_awaited_peer_that_goes(self) -> None:
        """Waiting may be cut off: new mail then begins a new session."""
        self.add(A, "1")
        (waiting,) = self.be_idle(0)
        waiting.addErrback(lambda failure: failure.trap(CancelledError))
        waiting.cancel()
        self.end(0)
        self.add(A, "2")
        self.assertEqual("2", self.take(1).message.id)

    def test_given_back(self) -> None:
        """What met a closing connection is the first to go out on the next one."""
        self.destinations = self.make(Queue(per_destination=1))
        self.add(A, "1", "2")
        taken = self.take(0)
        assert taken is not None
        self.sessions[0][1].return_unsent(taken)
        self.assertRaises(ValueError, self.sessions[0][1].return_unsent, taken)
        self.end(0)
        self.assertEqual("1", self.take(1).message.id)
        self.assertEqual([], self.results.reported)

    def test_stop_wakes(self) -> None:
        """At the end no session is idle."""
        self.add(A, "1")
        (waiting,) = self.be_idle(0)
        stopping = Deferred.fromCoroutine(self.destinations.stop(10))
        self.assertFalse(self.successResultOf(waiting))
        self.end(0)
        self.successResultOf(stopping)

    # --- settling

    def test_once(self) -> None:
        """A delivery is settled once, with an outcome for each target."""
        self.add(A, "1")
        taken = self.take(0)
        assert taken is not None
        source = self.sessions[0][1]
        self.assertRaises(ValueError, source.report, taken, [])
        source.report(taken, [RELAYED])
        self.assertRaises(ValueError, source.report, taken, [RELAYED])
        self.assertEqual([("1", RELAYED)], self.results.reported)

    def test_lost_sight_of(self) -> None:
        """What a session took and didn't settle is deferred."""
        self.add(A, "1")
        self.take(0), self.end(0)
        (settled,) = self.results.reported
        self.assertIs(Status.DEFERRED, settled[1].status)

    def test_bug(self) -> None:
        """A bug in an agent is logged and defers what it held; the rest gets another session."""
        self.destinations = self.make(Queue(per_destination=1))
        self.add(A, "1", "2")
        self.take(0), self.end(0, ZeroDivisionError())
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.assertEqual(
            [("1", "451 4.3.0")], [(i, str(o.reply)[:9]) for i, o in self.results.reported]
        )
        taken = self.take(1)
        assert taken is not None
        self.assertEqual("2", taken.message.id)

    def test_agent_that_takes_nothing(self) -> None:
        """An agent that never asks for mail doesn't get it again and again."""

        async def idle(hop: Hop, mail: IMailSource) -> None:
            pass

        self.serve_with(idle)
        self.add(A, "1", "2")
        self.assertEqual(["1", "2"], [name for name, _ in self.results.reported])

    # --- hops that are down

    def test_hop_failure(self) -> None:
        """What was tried is deferred; the rest waits, untried, until the hop is tried again."""
        self.destinations = self.make(Queue(per_destination=1))
        for hop, takes in ((A, True), (B, False)):
            self.add(hop, "1", "2")
            if takes:
                self.take(-1)
            self.end(-1, HopFailure(UNREACHABLE))
            self.assertEqual([("1", UNREACHABLE), ("2", left_alone(30))], self.results.reported)
            self.results.reported.clear()

    def test_fewer_connections(self) -> None:
        """Where one of several sessions fails, the others go on with the mail."""
        self.add(A, "1", "2")
        self.take(1), self.end(1, HopFailure(CLOSING))
        self.assertEqual([], self.results.reported)
        self.assertEqual(["1", "2"], [self.take(0).message.id for _ in range(2)])

    def test_others_unhurt(self) -> None:
        """One dead hop doesn't concern another."""
        self.add(A, "1")
        self.end(0, HopFailure(UNREACHABLE))
        self.add(B, "2")
        self.assertEqual(B, self.sessions[1][0])

    def test_back_off(self) -> None:
        """A dead hop is left alone for 30 s, then twice as long, up to an hour."""
        for seconds in (30, 60, 120, 240, 480, 960, 1920, 3600, 3600):
            self.add(A, "probe")
            self.end(len(self.sessions) - 1, HopFailure(UNREACHABLE))
            before = len(self.sessions)
            self.clock.advance(seconds - 1)
            self.add(A, "early")
            self.assertEqual(("early", left_alone(1)), self.results.reported[-1])
            self.assertEqual(before, len(self.sessions))
            self.clock.advance(1)

    def test_wanted_now(self) -> None:
        """Who does not want to wait has one message tried at once; a failure still counts."""
        self.add(A, "1")
        self.end(0, HopFailure(UNREACHABLE))
        self.destinations.probe()
        self.add(A, "2", "3")
        self.assertEqual(2, len(self.sessions))
        self.end(1, HopFailure(UNREACHABLE))
        self.clock.advance(59)
        self.add(A, "early")
        self.assertEqual(2, len(self.sessions))

    def test_probe(self) -> None:
        """After that one message is tried, and the rest waits for what becomes of it."""
        self.add(A, "1")
        self.end(0, HopFailure(UNREACHABLE))
        self.clock.advance(30)
        self.add(A, "2", "3")
        self.assertEqual(2, len(self.sessions))
        probe = self.take(1)
        assert probe is not None
        self.assertIsNone(self.take(1))
        self.assertFalse(self.successResultOf(self.sessions[1][1].wait()))
        self.sessions[1][1].report(probe, [RELAYED])
        self.assertTrue(self.successResultOf(self.sessions[1][1].wait()))
        self.assertEqual("3", self.take(1).message.id)

    def test_company_of_a_probe(self) -> None:
        """Only so many wait in memory for a probe."""
        self.add(A, "1")
        self.end(0, HopFailure(UNREACHABLE))
        self.assertFalse(self.destinations.is_crowded(A))
        self.clock.advance(30)
        self.add(A, *map(str, range(MAX_BEHIND_PROBE)))
        self.assertTrue(self.destinations.is_crowded(A))
        self.assertFalse(self.destinations.is_crowded(B))
        probe = self.take(1)
        assert probe is not None
        self.sessions[1][1].report(probe, [RELAYED])
        self.assertFalse(self.destinations.is_crowded(A))

    def test_permanent_failure(self) -> None:
        """A hop that takes no mail at all isn't backed off from: nobody waits for it."""
        self.add(A, "1")
        self.destinations.add(A, delivery(A, "2"))
        self.end(0, HopFailure(NO_MAIL))
        self.assertEqual([("1", NO_MAIL), ("2", NO_MAIL)], self.results.reported)
        self.add(A, "3")
        self.assertEqual(2, len(self.sessions))

    def test_back_offs_are_bounded(self) -> None:
        """Of endlessly many dead hops the first ones are forgotten."""

        async def fail(hop: Hop, mail: IMailSource) -> None:
            raise HopFailure(UNREACHABLE)

        self.patch(back_off, "MAX_REMEMBERED", 3)
        self.serve_with(fail)
        for number in range(5):
            hop = Hop(Agent.MX, f"{number}.example")
            self.add(hop, str(number))
        self.assertEqual(3, len(self.destinations._down))

    def test_adapts(self) -> None:
        """What throttles a hop halves its sessions, and each success allows one more again."""
        self.destinations = self.make(Queue(per_destination=4))
        self.add(A, *map(str, range(30)))
        for _ in range(2):
            taken = self.take(0)
            assert taken is not None
            self.sessions[0][1].report(taken, [RELAYED])
        self.assertEqual(4, len(self.sessions))
        first, second = self.take(0), self.take(1)
        assert first is not None and second is not None
        self.sessions[0][1].report(first, [CLOSING])
        self.assertIsNone(self.take(2))
        self.sessions[1][1].report(second, [RELAYED])
        self.assertIsNone(self.take(3))
        self.end(2)
        self.assertEqual(4, len(self.sessions))
        self.end(3)
        self.assertEqual(5, len(self.sessions))

    def test_puts_off(self) -> None:
        """That mail is put off for its recipient's sake says nothing of the hop."""
        self.add(A, *map(str, range(9)))
        for _ in range(3):
            taken = self.take(0)
            assert taken is not None
            self.sessions[0][1].report(taken, [PUT_OFF])
            self.assertEqual(FIRST_SESSIONS, len(self.sessions))
            self.assertEqual(FIRST_SESSIONS, self.destinations._destinations[A].limit)

    # --- the end

    def test_stop(self) -> None:
        """At the end no session gets more mail, and what waits is returned."""
        self.destinations = self.make(Queue(per_destination=1))
        self.add(A, "1", "2")
        taken = self.take(0)
        assert taken is not None
        stopping = Deferred.fromCoroutine(self.destinations.stop(10))
        self.assertEqual(["2"], self.results.untried)
        self.assertIsNone(self.take(0))
        self.sessions[0][1].report(taken, [RELAYED])
        self.end(0)
        self.successResultOf(stopping)
        self.assertEqual([("1", RELAYED)], self.results.reported)

    def test_grace(self) -> None:
        """A session that doesn't end in time is cancelled, and nobody knows of its mail."""
        self.add(A, "1")
        self.take(0)
        stopping = Deferred.fromCoroutine(self.destinations.stop(10))
        self.clock.advance(9)
        self.assertNoResult(stopping)
        self.clock.advance(1)
        self.successResultOf(stopping)
        self.assertEqual((["1"], []), (self.results.unknown, self.results.untried))

    def test_after_the_end(self) -> None:
        """What is added after the end is returned."""
        self.successResultOf(Deferred.fromCoroutine(self.destinations.stop(10)))
        self.add(A, "1")
        self.assertEqual(["1"], self.results.untried)
