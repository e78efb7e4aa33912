"""What a session may cost without bringing mail."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mta.interfaces import IEvictable
from mta.mail import Reply
from mta.session import Session
from mta.smtp.cost import (
    ALLOWANCE,
    CALM,
    CHARGED_AT_ONCE,
    CROWDED_TIME_SLICE,
    LATE,
    MAX_GAP,
    MAX_WITHOUT_MAIL,
    MESSAGE_CREDIT,
    MIN_CHUNK,
    REDUCED_ALLOWANCE,
    SLOW_DELAY,
    TIME_SLICE,
    TimeSlice,
    Turns,
)
from mta.smtp.errors import Refusal
from mta.testing import FakeAccessPolicy
from tests.conversations import Conversation

HELLO = b"EHLO client.example\r\n"
BEGIN = b"MAIL FROM:<a@client.example>\r\n"
MANY = {"errors": "1000000", "recipients": "2"}  # errors are another limit
# What a hostile client says again and again, after EHLO and perhaps something before.
WORTHLESS = {
    "a recipient that does not exist": (BEGIN, b"RCPT TO:<nobody@mta.example>\r\n"),
    "a recipient that is busy": (BEGIN, b"RCPT TO:<later@mta.example>\r\n"),
    "a recipient over the limit": (
        BEGIN + b"RCPT TO:<b@mta.example>\r\nRCPT TO:<c@mta.example>\r\n",
        b"RCPT TO:<d@mta.example>\r\n",
    ),
    "DATA without recipients": (BEGIN, b"DATA\r\n"),
    "BDAT without recipients": (BEGIN, b"BDAT 0 LAST\r\n"),
    "an empty chunk": (BEGIN + b"RCPT TO:<b@mta.example>\r\n", b"BDAT 0\r\n"),
    "a chunk of two octets": (BEGIN + b"RCPT TO:<b@mta.example>\r\n", b"BDAT 2\r\n\r\n"),
    "MAIL that is too big": (b"", b"MAIL FROM:<a@client.example> SIZE=99999999999\r\n"),
    "MAIL that is refused": (b"", b"MAIL FROM:<spammer@client.example>\r\n"),
    "a transaction that is given up": (b"", BEGIN + b"RCPT TO:<b@mta.example>\r\nRSET\r\n"),
    "a transaction that EHLO ends": (b"", BEGIN + HELLO),
    "a message that is refused": (b"", BEGIN + b"RCPT TO:<b@x>\r\nBDAT 1 LAST\r\n\n"),
    "AUTH without TLS": (b"", b"AUTH PLAIN\r\n"),
    "TURN without a right": (b"", b"TURN\r\n"),
    "ETRN without a right": (b"", b"ETRN a.example\r\n"),
    "NOOP": (b"", b"NOOP\r\n"),
    "VRFY": (b"", b"VRFY smith\r\n"),
    "HELP": (b"", b"HELP\r\n"),
    "EXPN": (b"", b"EXPN staff\r\n"),
    "EHLO": (b"", HELLO),
    "RSET": (b"", b"RSET\r\n"),
    "an unknown command": (b"", b"XYZZY\r\n"),
    "an overlong line": (b"", b"x" * 20000 + b"\r\n"),
}


class SteppingClock(Clock):
    """A clock that goes on by a little each time that somebody looks at it."""

    step = TIME_SLICE / 10

    def seconds(self) -> float:
        self.rightNow += self.step
        return super().seconds()


async def _in_debt(access: FakeAccessPolicy, session: Session, connection: object = None) -> None:
    access.sessions += 1
    session.host_commands_without_mail = ALLOWANCE + 1


class CostTests(SynchronousTestCase):
    """Sessions that bring no mail, and sessions that do."""

    def talk(self, settings: dict[str, str] | None = None) -> Conversation:
        """A conversation after EHLO."""
        wanted = {"users": "yes", "reversal": "yes", **(settings or {})}
        talk = Conversation(wanted, dripped=False)
        talk.link.dataReceived(HELLO)
        talk.transport.clear()
        return talk

    def test_whatever_brings_no_mail_ends_the_session(self) -> None:
        """After some hundreds of commands it becomes slow, after some thousands it is over."""
        for name, (before, again) in WORTHLESS.items():
            talk = self.talk(MANY)
            talk.link.dataReceived(before)
            for _ in range(4 * MAX_WITHOUT_MAIL):  # it is slow, and reads less than is said
                if talk.transport.disconnecting:
                    break
                talk.transport.clear()
                talk.link.dataReceived(again)
                talk.clock.advance(SLOW_DELAY)
            self.assertTrue(talk.transport.disconnecting, name)
            self.assertIn(b"\r\n421 4.7.0 Too many", b"\r\n" + talk.transport.taken(), name)
            self.assertGreater(talk.clock.seconds(), SLOW_DELAY, name)

    def test_slow(self) -> None:
        """Over the free number, each command waits, also where all came in one segment."""
        talk = self.talk({"errors": "1000000"})
        talk.link.dataReceived(b"MAIL FROM:<a@b.example>\r\n")
        talk.transport.clear()
        talk.link.dataReceived(b"RCPT TO:<nobody@x>\r\n" * (ALLOWANCE + 10))
        first = talk.transport.taken().count(b"550 ")
        self.assertLessEqual(first, ALLOWANCE + 1)
        talk.clock.advance(SLOW_DELAY)
        self.assertEqual(talk.transport.taken().count(b"550 "), 1)

    def test_a_mailing_list(self) -> None:
        """A thousand recipients are worked off at once, and so is the next message to them."""
        talk = self.talk()
        for _ in range(3):
            talk.transport.clear()
            talk.link.dataReceived(BEGIN + b"RCPT TO:<b@mta.example>\r\n" * 1000 + b"DATA\r\n")
            self.assertEqual(talk.transport.taken().count(b"250 2.1.5"), 1000)
            talk.link.dataReceived(b"hello\r\n.\r\n")
            self.assertTrue(talk.transport.taken().startswith(b"250 2.0.0 OK queued"))

    def test_a_connection_that_is_used_again(self) -> None:
        """Thousands of messages pass, each with some recipients that do not exist, and RSET."""
        talk = self.talk()
        message = BEGIN + b"RCPT TO:<nobody@x>\r\n" * 10 + b"RCPT TO:<b@x>\r\nBDAT 2 LAST\r\n\r\n"
        for _ in range(MAX_WITHOUT_MAIL * 2):
            talk.transport.clear()
            talk.link.dataReceived(message + b"RSET\r\n")
            self.assertIn(b"250 2.0.0 OK queued", talk.transport.value())
            talk.accepted.clear()

    def test_a_message_does_not_make_up_for_everything(self) -> None:
        """Who asks for a hundred addresses with each message learns them slowly, and not all."""
        talk = self.talk()
        message = BEGIN + b"RCPT TO:<nobody@x>\r\n" * (MESSAGE_CREDIT + 50)
        message += b"RCPT TO:<b@x>\r\nDATA\r\n"
        for _ in range(MAX_WITHOUT_MAIL // 40):
            for octets in (message, b".\r\n"):
                talk.link.dataReceived(octets)
                talk.clock.pump([SLOW_DELAY] * (MESSAGE_CREDIT + 60))
        self.assertTrue(talk.transport.disconnecting)

    def test_a_large_message_in_many_chunks(self) -> None:
        """Chunks of some size are what mail is made of: they are no waste, however many."""
        talk = self.talk()
        talk.link.dataReceived(BEGIN + b"RCPT TO:<b@mta.example>\r\n")
        talk.transport.clear()
        chunk = b"BDAT %d\r\n%b\r\n" % (MIN_CHUNK, b"x" * (MIN_CHUNK - 2))
        talk.link.dataReceived(chunk * (MAX_WITHOUT_MAIL * 2) + b"BDAT 0 LAST\r\n")
        self.assertIn(b"250 2.0.0 OK queued", talk.transport.value())

    def test_a_host_that_comes_again(self) -> None:
        """Where its other sessions brought no mail, few commands are free; a message is as fast."""
        talk = self.talk()
        self.patch(FakeAccessPolicy, "connect", _in_debt)
        talk = self.talk({"errors": "1000000"})
        talk.clock.advance(SLOW_DELAY)
        talk.transport.clear()
        talk.link.dataReceived(BEGIN + b"RCPT TO:<b@x>\r\n" * 100 + b"BDAT 2 LAST\r\n\r\n")
        self.assertIn(b"250 2.0.0 OK queued", talk.transport.taken())
        talk.link.dataReceived(b"XYZZY\r\n" * (REDUCED_ALLOWANCE + 10))
        self.assertLessEqual(talk.transport.taken().count(b"500 "), REDUCED_ALLOWANCE + 1)
        talk.link.connectionLost(Failure(ConnectionDone()))

    def test_a_host_that_connects_again(self) -> None:
        """Where its other sessions brought no mail, it waits for its greeting; others do not."""
        talk = Conversation({}, dripped=False)
        self.assertTrue(talk.transport.value().startswith(b"220 "))
        self.patch(FakeAccessPolicy, "connect", _in_debt)
        talk = Conversation({}, dripped=False)
        self.assertEqual(talk.transport.value(), b"")
        talk.clock.advance(SLOW_DELAY)
        self.assertTrue(talk.transport.value().startswith(b"220 "))

    def test_tls_while_it_waits(self) -> None:
        """What has come of the client's handshake by then is not lost."""
        self.patch(FakeAccessPolicy, "connect", _in_debt)
        talk = Conversation({"tls": "implicit"}, dripped=False)
        handshake: list[bytes] = []
        talk.transport.protocol = SimpleNamespace(dataReceived=handshake.append)
        talk.link.dataReceived(b"ClientHello")
        talk.clock.advance(SLOW_DELAY)
        self.assertEqual(handshake, [b"ClientHello"])
        talk.link.handshakeCompleted()
        self.assertTrue(talk.transport.value().startswith(b"220 "))

    def test_starttls_is_not_held_up(self) -> None:
        """The client begins its handshake as soon as it may."""
        talk = Conversation({"tls": "opportunistic"}, dripped=False)
        talk.link.dataReceived(HELLO)
        self.patch(FakeAccessPolicy, "connect", _in_debt)
        talk.link.dataReceived(b"STARTTLS\r\n")
        talk.link.handshakeCompleted()
        talk.link.dataReceived(HELLO)
        self.assertTrue(
            talk.transport.value().endswith(b"REQUIRETLS\r\n250 HELP\r\n"), talk.transport.value()
        )

    def test_a_host_is_charged_as_it_goes(self) -> None:
        """Once for each hundred commands, by the number so far; the session may end with that."""
        charged: list[int] = []

        def charge(_: FakeAccessPolicy, session: Session) -> None:
            charged.append(session.commands_without_mail)
            if len(charged) == 2:
                raise Refusal(Reply(421, "4.7.0", ("Too much",)))

        self.patch(FakeAccessPolicy, "charge", charge)
        talk = self.talk({"errors": "1000000"})
        talk.link.dataReceived(b"XYZZY\r\n" * 300)
        self.assertEqual(charged, [CHARGED_AT_ONCE, 2 * CHARGED_AT_ONCE])
        self.assertTrue(talk.transport.value().endswith(b"\r\n421 4.7.0 Too much\r\n"))
        self.assertTrue(talk.transport.disconnecting)

    def test_a_session_that_makes_room(self) -> None:
        """It ends at once, wherever it is."""
        connections: list[IEvictable] = []

        async def connect(_: FakeAccessPolicy, session: Session, connection: IEvictable) -> None:
            connections.append(connection)

        self.patch(FakeAccessPolicy, "connect", connect)
        talk = self.talk()
        talk.link.dataReceived(BEGIN)
        self.assertTrue(verifyObject(IEvictable, connections[0]))
        connections[0].evict()
        self.assertTrue(talk.transport.disconnected)

    def test_a_refusal_that_is_held_back(self) -> None:
        """A host that has cost too much waits for it."""

        async def connect(access: FakeAccessPolicy, session: Session, connection: object) -> None:
            raise Refusal(Reply(421, "4.7.0", ("Too much",)), delay=10.0)

        self.patch(FakeAccessPolicy, "connect", connect)
        talk = Conversation({}, dripped=False)
        self.assertEqual(talk.transport.value(), b"")
        talk.clock.advance(10)
        self.assertEqual(talk.transport.value(), b"421 4.7.0 Too much\r\n")

    def test_on_a_turned_connection(self) -> None:
        """The provider may keep a link alive for as long as it likes."""
        talk = self.talk({"partner": "provider"})
        for _ in range(MAX_WITHOUT_MAIL + 10):
            talk.transport.clear()
            talk.link.dataReceived(b"NOOP\r\n")
            self.assertTrue(talk.transport.value().startswith(b"250"))

    def test_others_have_their_turn(self) -> None:
        """A segment full of commands is worked off in parts."""
        talk = self.talk()
        talk.link._clock = SteppingClock()
        done: list[int] = []

        async def sleep(seconds: float) -> None:
            done.append(len(talk.link._output._pieces))

        talk.link.sleep = sleep  # type: ignore[method-assign]
        talk.link.dataReceived(b"HELP\r\n" * 90)
        steps = [after - before for before, after in pairwise([0, *done, 90])]
        self.assertTrue(all(0 <= step < 30 for step in steps), steps)

    def test_who_has_said_no_more(self) -> None:
        """One command at a time leaves others their turns, however long each of them takes."""
        talk = self.talk()
        talk.link._clock = clock = SteppingClock()
        clock.step = 2 * TIME_SLICE
        pauses: list[float] = []

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)

        talk.link.sleep = sleep  # type: ignore[method-assign]
        for _ in range(3):
            talk.link.dataReceived(b"HELP\r\n")
        self.assertEqual(pauses, [])
        talk.link.dataReceived(b"HELP\r\nHELP\r\n")
        self.assertEqual(pauses, [0.0])

    def test_a_crowd(self) -> None:
        """Those that work all the time come one after the other, and have half of the time."""
        talk = self.talk()
        talk.link._clock = clock = Clock()
        turns, pauses = Turns(), []

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)

        talk.link.sleep = sleep  # type: ignore[method-assign]
        slices = [TimeSlice(talk.link, turns) for _ in range(10)]
        clock.advance(2 * TIME_SLICE)
        for each in slices:
            self.successResultOf(Deferred.fromCoroutine(each.let_others_work(0.0)))
        for found, place in zip(pauses, range(10), strict=True):
            self.assertAlmostEqual(found, place * TIME_SLICE)
        clock.advance(CROWDED_TIME_SLICE * 1.5)
        for each in slices[:2]:  # the first one did not wait: it has a whole slice
            self.successResultOf(Deferred.fromCoroutine(each.let_others_work(0.0)))
        self.assertEqual(len(pauses), 11)

    def test_alone(self) -> None:
        """Where no other has much to do, none waits."""
        turns = Turns()
        for number in range(10):
            self.assertEqual(turns.next(number * TIME_SLICE), 0.0)

    def test_when_turns_come_late(self) -> None:
        """There are fewer of them then, and by and by as many as before."""
        turns = Turns()
        for late, gap in (
            (LATE, TIME_SLICE),
            (2 * LATE, 2 * TIME_SLICE),
            (1.0, 4 * TIME_SLICE),
            (0.0, 4 * TIME_SLICE * CALM),
        ):
            turns.came(late)
            turns.next(now := 1000.0 + gap)
            self.assertAlmostEqual(turns.next(now), gap)
            turns = _with_gap(turns)
        for _ in range(20):
            turns.came(1.0)
        turns.next(2000.0)
        self.assertAlmostEqual(turns.next(2000.0), MAX_GAP)


def _with_gap(turns: Turns) -> Turns:
    """The same, where none waits."""
    other = Turns()
    other._gap = turns._gap
    return other
