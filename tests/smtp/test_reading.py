"""Content off the wire: those with much of it take it in turn."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mta.interfaces import IRoundRobin
from mta.link.link import MAX_UNREAD
from mta.smtp.reading import MAX_PIECE, MAX_SMALL
from mta.testing.sessions import FakeAccessPolicy
from tests.conversations import Conversation

RCPT = b"RCPT TO:<b@mta.example>\r\n"
BEGIN = b"MAIL FROM:<a@client.example>\r\n" + RCPT
HUGE = b"BDAT %d\r\n" % 2**30


@implementer(IRoundRobin)
class Crowd:
    """An order in which others are always before."""

    def __init__(self) -> None:
        self.waiting: list[Deferred[None]] = []
        self.others = 0

    async def next(self, who: int, host: str) -> None:
        """See `IRoundRobin.next`."""
        await self._wait()

    async def next_message(self, host: str) -> None:
        """See `IRoundRobin.next_message`."""
        await self._wait()

    async def next_portion(self, cost: float = 0.0) -> None:
        """See `IRoundRobin.next_portion`."""
        await self._wait()

    async def _wait(self) -> None:
        waiting: Deferred[None] = Deferred()
        self.waiting.append(waiting)
        await waiting

    def other_came(self, host: str) -> None:
        """See `IRoundRobin.other_came`."""
        self.others += 1


class InTurnTests(SynchronousTestCase):
    """Sessions with much content, among many."""

    def setUp(self) -> None:
        self.crowd = Crowd()

    def talk(self, message_size: int = 2**30, **settings: str) -> Conversation:
        """A conversation in which EHLO has been said."""
        settings |= {"message_size": str(message_size), "errors": "1000000"}
        talk = Conversation(settings, dripped=False, content_order=self.crowd)
        talk.link.dataReceived(b"EHLO client.example\r\n")
        return talk

    def test_without_an_end(self) -> None:
        """Content waits for each piece, kept or thrown away, and is not read meanwhile."""
        for message_size in (1000, 2**30):
            for begin in (BEGIN + b"DATA\r\n", BEGIN + HUGE, HUGE):
                talk = self.talk(message_size)
                talk.link.dataReceived(begin)
                talk.link.dataReceived(b"x" * MAX_SMALL)
                self.assertEqual(len(talk.link.wire), 0)
                for _ in range(3):
                    talk.link.dataReceived(b"x" * (MAX_UNREAD + MAX_PIECE))
                    self.assertEqual(talk.transport.producerState, "paused")
                    for _ in range(3):
                        self.assertEqual(len(self.crowd.waiting), 1)
                        before = len(talk.link.wire)
                        self.crowd.waiting.pop().callback(None)
                        self.assertEqual(len(talk.link.wire), before - MAX_PIECE)
                    self.assertEqual(self.crowd.waiting, [])
                    self.assertEqual(talk.transport.producerState, "producing")

    def test_small_messages(self) -> None:
        """None waits for a piece, however many come on one connection."""
        talk = self.talk()
        for _ in range(3):
            for octets in (BEGIN + b"DATA\r\n", b"x" * (MAX_SMALL - 3), b"\r\n.\r\n"):
                talk.transport.clear()
                talk.link.dataReceived(octets)
            self.assertIn(b"250 2.0.0", talk.transport.value())
        self.assertEqual(self.crowd.waiting, [])

    def test_messages_said_ahead(self) -> None:
        """Each waits for its time, but for the first one, and for those said after a reply."""
        message = BEGIN + b"DATA\r\nx\r\n.\r\n"
        talk = self.talk()
        talk.link.dataReceived(message * 3 + b"NOOP\r\n")
        for number in (1, 2, 3):
            self.assertEqual(talk.transport.value().count(b"OK queued"), number)
            self.assertEqual(len(self.crowd.waiting), int(number < 3))
            for waiting in self.crowd.waiting[:]:
                self.crowd.waiting.remove(waiting)
                waiting.callback(None)
        talk.link.dataReceived(message)
        self.assertEqual(talk.transport.value().count(b"OK queued"), 4)
        self.assertEqual(self.crowd.waiting, [])

    def test_messages_of_ours_said_ahead(self) -> None:
        """Peers on a turned connection, users and hosts of ours wait for no time."""
        for settings, outsider in (({"partner": "office"}, True), ({}, False)):
            self.patch(FakeAccessPolicy, "is_outsider", lambda *_, outsider=outsider: outsider)
            talk = self.talk(**settings)
            talk.link.dataReceived((BEGIN + b"DATA\r\nx\r\n.\r\n") * 3)
            self.assertEqual(talk.transport.value().count(b"OK queued"), 3)
            self.assertEqual(self.crowd.waiting, [])

    def test_small_chunks(self) -> None:
        """They are one message, and what is thrown away is much, however many commands bring it."""
        size = MAX_SMALL // 4
        for begin in (BEGIN, b""):
            talk = self.talk()
            talk.link.dataReceived(begin)
            for number in range(8):
                self.assertEqual(len(self.crowd.waiting), int(number > 4))
                talk.link.dataReceived(b"BDAT %d\r\n%b" % (size, b"x" * size))
            self.crowd.waiting.clear()

    def test_large_messages(self) -> None:
        """They arrive whole, and the session goes on."""
        talk = self.talk()
        for begin, end in (
            (b"DATA\r\n", b"\r\n.\r\n"),
            (b"BDAT %d LAST\r\n" % (MAX_SMALL * 5 + 2), b"\r\n"),
        ):
            talk.link.dataReceived(BEGIN + begin)
            talk.transport.clear()
            talk.link.dataReceived(b"x" * MAX_SMALL * 5 + end + b"NOOP\r\n")
            while self.crowd.waiting:
                self.crowd.waiting.pop().callback(None)
            self.assertIn(b"250 2.0.0 OK queued", talk.transport.value())
            self.assertEqual(talk.transport.value().count(b"250 "), 2)

    def test_a_connection_that_is_gone(self) -> None:
        """It ends where its time comes."""
        talk = self.talk()
        talk.link.dataReceived(BEGIN + b"DATA\r\n" + b"x" * MAX_SMALL * 2)
        talk.link.connectionLost(Failure(ConnectionDone()))
        self.crowd.waiting.pop().callback(None)
        self.assertEqual(self.crowd.waiting, [])
        self.assertEqual(len(talk.link.wire), 0)

    def test_commands(self) -> None:
        """Those who say them are the others, for whom there is a rest."""
        talk = self.talk()
        before = self.crowd.others
        talk.link.dataReceived(b"NOOP\r\n")
        self.assertEqual(self.crowd.others, before + 1)
