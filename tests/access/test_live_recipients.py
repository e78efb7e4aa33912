"""The check whether recipients of a peer exist: the sources, in order, and what follows."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mta.access.live_recipients import UNVERIFIED_MAILBOX, AnswerSources, LiveRecipients
from mta.interfaces import IPeerQuestions, IRecipientAnswers, IRecipientCheck, IToldMailboxes
from mta.mail import Agent, Hop, Mailbox, Reply
from mta.peer_settings import Peer, Unknown, Verify
from mta.session import RecipientAnswer, RecipientQuestion
from mta.smtp import replies
from mta.smtp.errors import Refusal

YES, NO, LATER, NONE = RecipientAnswer
BOB, CAROL = Mailbox("bob", "office.example"), Mailbox("carol", "outside.example")
OFFICE = Hop(Agent.HOLD, "office")


@implementer(IPeerQuestions, IRecipientAnswers, IToldMailboxes)
class Sources:
    """All that may know an answer, and what was asked and counted."""

    def __init__(self) -> None:
        self.kept: dict[Mailbox, RecipientAnswer] = {}
        self.live = NONE
        self.list: bool | None = None
        self.asked: list[RecipientQuestion] = []
        self.counted: list[tuple[str, str]] = []

    async def ask(self, peer: str, question: RecipientQuestion) -> RecipientAnswer:
        """See `IPeerQuestions`."""
        self.asked.append(question)
        return self.live

    async def find(self, peer: str, address: Mailbox) -> RecipientAnswer:
        """See `IRecipientAnswers`."""
        return self.kept.get(address, NONE)

    def keep(self, peer: str, address: Mailbox, answer: RecipientAnswer) -> None:
        """See `IRecipientAnswers`."""
        self.kept[address] = answer

    async def forget(self, peer: str) -> None:
        """See `IRecipientAnswers`."""

    def told(self, address: Mailbox) -> bool | None:
        """See `IToldMailboxes`."""
        return self.list

    def answered(self, peer: str, source: str) -> None:
        """See `IPeerMeter`."""
        self.counted.append((peer, source))


class LiveRecipientsTests(SynchronousTestCase):
    """A peer whose domain is office.example."""

    def setUp(self) -> None:
        self.sources = Sources()
        self.unknown = Unknown.ACCEPT

    def check(
        self, routed: Sequence[tuple[Mailbox, Hop]] = ((BOB, OFFICE),)
    ) -> tuple[Reply | None, bool]:
        """The refusal, and whether it counts as an error."""
        peer = Peer("office", user="office", verify=Verify.LIVE, unknown=self.unknown)
        sources = self.sources
        check = LiveRecipients(
            {"office.example": peer},
            AnswerSources(sources, sources, sources),
            sources,  # type: ignore[arg-type]
        )
        verifyObject(IRecipientCheck, check)
        checking = Deferred.fromCoroutine(check.check(routed, CAROL))
        failure: list[Refusal] = []
        checking.addErrback(lambda failed: failure.append(failed.value))
        return (failure[0].reply, failure[0].is_error) if failure else (None, False)

    def test_interfaces(self) -> None:
        """The sources are such as others."""
        for interface in (IPeerQuestions, IRecipientAnswers, IToldMailboxes):
            verifyObject(interface, self.sources)

    def test_the_peer_answers(self) -> None:
        """Its answer counts, whatever its list says, and is remembered."""
        for live, reply in ((YES, None), (NO, replies.NO_SUCH_USER)):
            for told in (None, True, False):
                self.sources = Sources()
                self.sources.live, self.sources.list = live, told
                self.assertEqual(self.check(), (reply, reply is not None))
                self.assertEqual(self.sources.kept, {BOB: live})
                self.assertEqual(self.check(), (reply, reply is not None))
                self.assertEqual(self.sources.asked, [RecipientQuestion(CAROL, BOB)])
                self.assertEqual(self.sources.counted, [("office", "link"), ("office", "cache")])

    def test_later(self) -> None:
        """4xx is never unknown: the mail is taken, and nothing is remembered."""
        self.unknown = Unknown.DEFER
        self.sources.live, self.sources.list = LATER, False
        self.assertEqual(self.check(), (None, False))
        self.assertEqual((self.sources.kept, self.sources.counted), ({}, [("office", "link")]))

    def test_the_list(self) -> None:
        """It stands while the peer does not answer."""
        for told, reply in ((True, None), (False, replies.NO_SUCH_USER)):
            for self.unknown in Unknown:
                self.sources = Sources()
                self.sources.list = told
                self.assertEqual(self.check(), (reply, reply is not None))
                self.assertEqual(self.sources.kept, {})
                self.assertEqual(self.sources.counted, [("office", "list")])

    def test_unknown(self) -> None:
        """Nothing knows it: the mail is taken, or put off."""
        self.assertEqual(self.check(), (None, False))
        self.unknown = Unknown.DEFER
        self.assertEqual(self.check(), (UNVERIFIED_MAILBOX, False))
        self.assertEqual(self.sources.counted, [("office", "unknown")] * 2)

    def test_others(self) -> None:
        """Nothing is asked of what is not the peer's, or stands for several, or of Postmaster."""
        self.sources.live = NO
        for routed in (
            [(CAROL, OFFICE)],
            [(BOB, Hop(Agent.HOLD, "branch"))],
            [(BOB, Hop(Agent.MAILDIR, "office"))],
            [(BOB, OFFICE), (CAROL, OFFICE)],
            [],
            [(Mailbox("PostMaster", "office.example"), OFFICE)],
        ):
            self.assertEqual(self.check(routed), (None, False))
        self.assertEqual((self.sources.asked, self.sources.counted), ([], []))
