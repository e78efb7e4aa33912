"""What a session may cost without bringing mail."""

from __future__ import annotations

from itertools import pairwise

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mta.session import Session
from mta.smtp.cost import (
    ALLOWANCE,
    BACK_OFF,
    LATE,
    MAX_BACK_OFF,
    MAX_WITHOUT_MAIL,
    MESSAGE_CREDIT,
    MIN_CHUNK,
    MIN_TIME_SLICE,
    REDUCED_ALLOWANCE,
    SLOW_DELAY,
    TIME_SLICE,
    TimeSlice,
)
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


async def _in_debt(access: FakeAccessPolicy, session: Session) -> None:
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
        talk.link.dataReceived(BEGIN + b"RCPT TO:<b@x>\r\n" * 100 + b"BDAT 2 LAST\r\n\r\n")
        self.assertIn(b"250 2.0.0 OK queued", talk.transport.taken())
        talk.link.dataReceived(b"XYZZY\r\n" * (REDUCED_ALLOWANCE + 10))
        self.assertLessEqual(talk.transport.taken().count(b"500 "), REDUCED_ALLOWANCE + 1)
        talk.link.connectionLost(Failure(ConnectionDone()))

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

    def test_when_turns_come_late(self) -> None:
        """Who works all the time leaves more time to others, the more of them there are."""
        talk = self.talk()
        talk.link._clock = clock = Clock()
        time_slice = TimeSlice(talk.link)
        delays = [0.0, LATE, 0.005, 0.01, 1.0, *[0.0] * 9]
        pauses: list[float] = []

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)
            clock.advance(seconds + delays.pop(0))

        talk.link.sleep = sleep  # type: ignore[method-assign]
        while delays:
            clock.advance(2 * (MIN_TIME_SLICE if pauses and pauses[-1] > LATE else TIME_SLICE))
            self.successResultOf(Deferred.fromCoroutine(time_slice.let_others_work(0.0)))
        calm = [MAX_BACK_OFF / 2**n for n in range(9) if MAX_BACK_OFF / 2 ** (n - 1) > LATE]
        expected = [0.0, 0.0, 0.0, BACK_OFF * 0.005, BACK_OFF * 0.01, *calm, 0.0]
        for found, wanted in zip(pauses, expected, strict=True):
            self.assertAlmostEqual(found, wanted)
        self.successResultOf(Deferred.fromCoroutine(time_slice.let_others_work(0.0)))
        self.assertEqual(len(pauses), len(expected))
