"""Full mailboxes: refused where a sender waits behind a relay, and only there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mta.delivery.mailbox_quotas import MailboxQuotas
from mta.inspectors.quotas import MAILBOX_FULL, QuotaInspector
from mta.interfaces import IInspector, IMailboxQuotas, IMessageInspector, ISessionInspector
from mta.mail import Agent, Hop, MailArgument, Mailbox, Recipient
from mta.session import UNKNOWN_ORIGIN, Session
from mta.settings import Service
from mta.smtp.errors import Refusal
from mta.testing import FakeRouter
from mta.verdict import ACCEPT

ALICE, BOB = Mailbox("alice", "example.com"), Mailbox("bob", "example.com")
CAROL, LIST = Mailbox("carol", "other.example"), Mailbox("list", "example.com")
SENDER = Mailbox("sender", "client.example")


class QuotaTests(SynchronousTestCase):
    """Mailboxes of 1000 octets: Alice's is nearly full, Bob has none yet."""

    def setUp(self) -> None:
        folder = Path(self.mktemp())
        hop = Hop(Agent.MAILDIR, f"{folder}/{{local}}")
        for name in ("cur", "new", "tmp"):
            (folder / "alice" / name).mkdir(parents=True)
        (folder / "alice" / "new" / "1.x").write_bytes(b"x" * 900)
        self.router = FakeRouter(
            {"example.com": hop, "other.example": hop, "piped.example": Hop(Agent.PIPE, "true")}
        )
        self.quotas = MailboxQuotas({"example.com": 1000, "piped.example": 1}, maybeDeferred)
        self.inspector = QuotaInspector(self.router, self.quotas)

    def begin(self, *, waits: bool = True, size: int | None = 200) -> Any:
        """MAIL in a session; None: the message is left alone."""
        session = Session(Service.SMTP, "192.0.2.1", None, "relay", sender_waits=waits)
        client = self.inspector.session(session)
        verifyObject(ISessionInspector, client)
        for word in (client.connected(), client.hello(), client.unknown(b"X")):
            self.successResultOf(Deferred.fromCoroutine(word))
        argument = MailArgument(SENDER, size)
        message = self.successResultOf(
            Deferred.fromCoroutine(client.message("ID", argument, UNKNOWN_ORIGIN))
        )
        client.close()
        return message

    def is_refused(self, message: Any, address: Mailbox) -> bool:
        """RCPT; whether it is refused as the mailbox is full."""
        asked = Deferred.fromCoroutine(message.recipient(Recipient(address)))
        asked.addErrback(lambda failure: failure.trap(Refusal) and failure.value.reply)
        reply = self.successResultOf(asked)
        self.assertIn(reply, (None, MAILBOX_FULL))
        return reply is not None

    def test_only_while_the_sender_waits(self) -> None:
        """Elsewhere mail waits until there is room."""
        self.assertIsNone(self.begin(waits=False))

    def test_recipients(self) -> None:
        """By size, and where no mailbox behind a recipient has room."""
        message = self.begin()
        self.assertTrue(self.is_refused(message, ALICE))
        self.assertFalse(self.is_refused(message, BOB))
        self.assertFalse(self.is_refused(message, CAROL))
        self.assertFalse(self.is_refused(message, Mailbox("x", "piped.example")))
        self.router.aliases[str(LIST)] = [str(ALICE)]
        self.assertTrue(self.is_refused(message, LIST))
        self.router.aliases[str(LIST)] = [str(ALICE), str(BOB)]
        self.assertFalse(self.is_refused(message, LIST))
        self.assertFalse(self.is_refused(self.begin(size=99), ALICE))
        self.assertFalse(self.is_refused(self.begin(size=None), ALICE))
        self.assertTrue(self.is_refused(self.begin(size=1001), BOB))

    def test_content(self) -> None:
        """It is of no interest."""
        message = self.begin()
        for looked in (message.header(None, b""), message.body(b"x")):
            self.assertIsNone(self.successResultOf(Deferred.fromCoroutine(looked)))
        ended = Deferred.fromCoroutine(message.end(b""))
        self.assertIs(self.successResultOf(ended), ACCEPT)
        message.abort()

    def test_interfaces(self) -> None:
        """All are what they say."""
        self.assertTrue(verifyObject(IInspector, self.inspector))
        self.assertTrue(verifyObject(IMailboxQuotas, self.quotas))
        self.assertTrue(verifyObject(IMessageInspector, self.begin()))
