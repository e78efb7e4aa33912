"""The looks of peers at us."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mta.access.far_looks import BUSY, KEPT, MAX_COMMANDS, TOO_MANY, FarLooks
from mta.access.policy import NOT_A_PEER
from mta.interfaces import IFarEndSource, IFarLooks
from mta.mail import Agent, Hop, Reply
from mta.session import Observation, Session, TLSInfo
from mta.settings import HOUR, Peer, Service
from mta.smtp import replies
from mta.smtp.errors import Refusal
from mta.smtp.far_look import UNKNOWN_QUESTION, Question, tell_command

OFFICE = Peer("office", ("example.com",), user="office")
DIALLED = Peer("dialled", user="dialled", connect=Hop(Agent.SMTP, "x", 25))
TLS = TLSInfo("TLSv1.3", "x")
SEEN = [Observation("ok", "port 25 can be reached")]


@implementer(IFarEndSource)
class Source:
    """Answers with the question, at once or when `waiting` fires."""

    def __init__(self) -> None:
        self.kept: dict[str, Sequence[Observation]] = {}
        self.waiting: Deferred[None] | None = None

    async def answer(self, peer: Peer, question: str, argument: str) -> Sequence[Observation]:
        """See `IFarEndSource.answer`."""
        if self.waiting is not None:
            await self.waiting
        return [Observation("ok", f"{peer.name} {question} {argument}".strip())]

    async def keep(self, peer: Peer, observations: Sequence[Observation]) -> None:
        """See `IFarEndSource.keep`."""
        self.kept[peer.name] = observations


class LookTests(SynchronousTestCase):
    """The receiver's commands."""

    def setUp(self) -> None:
        self.source, self.clock = Source(), Clock()
        self.looks = FarLooks([OFFICE, DIALLED], self.source, self.clock)

    def take(
        self, command: str, user: str = "office", tls: TLSInfo | None = TLS
    ) -> Deferred[Reply]:
        """The reply to a command of a user."""
        session = Session(Service.SUBMISSION, "192.0.2.1", tls)
        session.identity = user
        octets = command.partition(" ")[2].encode()
        taking = Deferred.fromCoroutine(self.looks.take(session, octets))
        return taking.addErrback(lambda failure: failure.trap(Refusal) and failure.value.reply)

    def reply(self, command: str, **session: object) -> Reply:
        """The same, where it comes at once."""
        return self.successResultOf(self.take(command, **session))  # type: ignore[arg-type]

    def test_questions(self) -> None:
        """They are answered, and what is told is kept."""
        self.assertTrue(verifyObject(IFarLooks, self.looks))
        self.assertTrue(verifyObject(IFarEndSource, self.source))
        reply = self.reply(Question("exchanger", "example.com").command)
        self.assertEqual(reply.lines, ("ok office exchanger example.com",))
        self.assertEqual(self.reply(tell_command(SEEN)), KEPT)
        self.assertEqual(self.source.kept, {"office": SEEN})
        self.assertEqual(self.reply("XDOCTOR ASK weather"), UNKNOWN_QUESTION)

    def test_strangers(self) -> None:
        """Only a peer that dials in, has proved it, and can't be listened to."""
        for user in ("", "mallory", "dialled"):
            self.assertEqual(self.reply("XDOCTOR ASK link", user=user), NOT_A_PEER)
        self.assertEqual(self.reply("XDOCTOR ASK link", tls=None), replies.TLS_NEEDED)
        self.assertEqual(self.source.kept, {})
        self.assertTrue(self.looks.is_offered)
        self.assertFalse(FarLooks([DIALLED], self.source, self.clock).is_offered)

    def test_bounds(self) -> None:
        """One question at a time, and so many in an hour."""
        self.source.waiting = Deferred()
        first = self.take("XDOCTOR ASK link")
        self.assertEqual(self.reply("XDOCTOR ASK link"), BUSY)
        self.source.waiting.callback(None)
        self.assertEqual(self.successResultOf(first).code, 250)
        self.source.waiting = None
        for _ in range(MAX_COMMANDS - 2):
            self.assertEqual(self.reply("XDOCTOR ASK link").code, 250)
        self.assertEqual(self.reply("XDOCTOR ASK link"), TOO_MANY)
        self.assertEqual(self.reply(tell_command(SEEN)), TOO_MANY)
        self.clock.advance(HOUR)
        self.assertEqual(self.reply("XDOCTOR ASK link").code, 250)
