"""SPF, checked once for all inspectors of a message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mta.dns_answer import Answer, RecordType
from mta.inspection_settings import Greylist, GreylistWhen
from mta.inspectors.authentication import AuthenticationInspector
from mta.inspectors.authentication_config import AuthenticationConfig
from mta.inspectors.clients import ClientInspector
from mta.inspectors.greylist_table import GreylistTable
from mta.inspectors.greylisting import MAX_SPF_SECONDS, Greylisting
from mta.inspectors.lists import Lists
from mta.inspectors.sender_policy import MAX_AGE, SenderPolicies
from mta.mail import Envelope, MailArgument, Mailbox, Recipient
from mta.metrics import NullMeter
from mta.session import UNKNOWN_ORIGIN, Session
from mta.settings import Authentication, Service
from mta.shared_tables.files import TableFolder
from mta.smtp.errors import Refusal
from mta.smtp.inspection import MessageInspection, SessionInspection
from mta.testing import FakeAccessPolicy, FakeResolver

ALICE, BOB = Mailbox("alice", "a.example"), Mailbox("bob", "b.example")
SECTION = b"From: alice@a.example\r\n\r\n"


class SlowResolver(FakeResolver):
    """A DNS that answers for the record of ALICE's domain when it is told to."""

    def __init__(self) -> None:
        super().__init__({}, {})
        self.waiting: list[Deferred[Answer]] = []

    async def query(self, name: str, kind: RecordType) -> Answer:
        """An answer, by and by."""
        if (name, kind) != ("a.example", RecordType.TXT):
            return await super().query(name, kind)
        self.waiting.append(Deferred())
        return await self.waiting[-1]

    def answer(self, record: bytes) -> None:
        """Answer the last question."""
        self.waiting[-1].callback(Answer([record]))


class SharedCheckTests(SynchronousTestCase):
    """Authentication and greylisting in one session."""

    def setUp(self) -> None:
        self.clock, self.dns = Clock(), SlowResolver()
        folder = Path(self.mktemp())
        folder.mkdir()
        table = GreylistTable(TableFolder(folder), self.clock.seconds, maybeDeferred)
        senders = SenderPolicies(self.dns, "mx.b.example", self.clock, self.clock.seconds)
        greylisting = Greylisting(Greylist(GreylistWhen.ALWAYS), table, senders, self.clock)
        access = FakeAccessPolicy()
        config = AuthenticationConfig(
            Authentication(),
            "mx.b.example",
            self.dns,
            self.clock,
            maybeDeferred,
            self.clock.seconds,
            NullMeter(),
        )
        self.inspectors = [
            ClientInspector(Lists((), (), self.dns, self.clock), greylisting, access),
            AuthenticationInspector(config, access, senders),
        ]

    def session(self) -> SessionInspection:
        """A client connects."""
        session = Session(Service.SMTP, "192.0.2.1", None, hello="mx.a.example")
        return SessionInspection(self.inspectors, session)

    def begin(self, session: SessionInspection) -> tuple[MessageInspection, Deferred[Any]]:
        """MAIL and RCPT come; returns the message, and its RCPT."""
        argument = MailArgument(ALICE)
        message = self.now(session.message("ID", argument, UNKNOWN_ORIGIN))
        recipient = Deferred.fromCoroutine(message.recipient(Recipient(BOB)))
        self.addCleanup(recipient.addErrback, lambda _: None)
        return message, recipient

    def now(self, coroutine: Any) -> Any:
        """The result of a coroutine that does not wait."""
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def test_one_check(self) -> None:
        """Greylisting waits for the check that began at MAIL; both go by its result."""
        session = self.session()
        message, recipient = self.begin(session)
        self.assertNoResult(recipient)
        self.assertEqual(len(self.dns.waiting), 1)
        self.dns.answer(b"v=spf1 ip4:192.0.2.1 -all")
        self.successResultOf(recipient)
        envelope = Envelope(ALICE, (Recipient(BOB),))
        self.now(message.header(envelope, SECTION))
        inspected = self.now(message.end(b"", SECTION, envelope))
        self.assertIn(b"spf=pass", inspected.header)
        self.assertEqual(len(self.dns.waiting), 1)
        _, recipient = self.begin(session)  # within a minute
        self.successResultOf(recipient)
        self.assertEqual(len(self.dns.waiting), 1)
        self.clock.advance(MAX_AGE)
        _, recipient = self.begin(session)
        self.assertEqual(len(self.dns.waiting), 2)
        self.dns.answer(b"v=spf1 -all")
        self.assertEqual(self.failureResultOf(recipient, Refusal).value.reply.code, 450)

    def test_sessions_of_their_own(self) -> None:
        """What one client may send says nothing of another."""
        self.begin(self.session())
        self.begin(self.session())
        self.assertEqual(len(self.dns.waiting), 2)

    def test_no_answer_in_time(self) -> None:
        """A client does not wait for long at RCPT; the check goes on to the end of the message."""
        message, recipient = self.begin(self.session())
        self.clock.advance(MAX_SPF_SECONDS)
        self.failureResultOf(recipient, Refusal)
        self.dns.answer(b"v=spf1 ip4:192.0.2.1 -all")
        envelope = Envelope(ALICE, (Recipient(BOB),))
        self.now(message.header(envelope, SECTION))
        self.assertIn(b"spf=pass", self.now(message.end(b"", SECTION, envelope)).header)

    def test_the_end_of_the_message(self) -> None:
        """A check that is ended leaves nobody waiting."""
        message, recipient = self.begin(self.session())
        message.abort()
        self.failureResultOf(recipient, Refusal)
        self.assertEqual(len(self.dns.waiting), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_unclear_result(self) -> None:
        """The next message has the DNS asked again."""
        session = self.session()
        message, recipient = self.begin(session)
        message.abort()
        self.failureResultOf(recipient, Refusal)
        self.begin(session)
        self.assertEqual(len(self.dns.waiting), 2)
