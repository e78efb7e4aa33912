"""Mail that goes on elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mta.interfaces import IRouter
from mta.mail import NULL_PATH, Agent, Envelope, Hop, Mailbox, Recipient
from mta.queued import IContent, Message
from mta.smtp import replies
from mta.smtp.errors import Refusal
from mta.smtp.fit import ContentInMemory
from mta.smtp.forwarding import forwarded, has_forwarded, is_forwarding, is_loop

T = TypeVar("T")
ALICE, BOB = Mailbox("alice", "ours.example"), Mailbox("bob", "ours.example")
AWAY = Mailbox("alice", "elsewhere.example")


@implementer(IRouter)
class Router:
    """alice is forwarded, bob has a mailbox, and nobody else is known."""

    def is_ours(self, domain: str) -> bool:
        """See `IRouter`."""
        return domain == "ours.example"

    def route(
        self, address: Mailbox, reverse_path: Mailbox = NULL_PATH
    ) -> Sequence[tuple[Mailbox, Hop]]:
        """See the class."""
        if address.local_part.lower() == "alice":
            return [(AWAY, Hop(Agent.MX, "elsewhere.example"))]
        if address == BOB:
            return [(BOB, Hop(Agent.MAILDIR, "/m"))]
        raise Refusal(replies.NO_SUCH_USER)

    def rewritten(self, reverse_path: Mailbox, forwarder: Mailbox) -> Mailbox:
        """See `IRouter`."""
        return reverse_path


class LoopTests(SynchronousTestCase):
    """What is seen of a loop before mail is taken."""

    def is_loop(self, section: bytes, *recipients: Mailbox) -> bool:
        """Whether mail with that header section is in a loop."""
        envelope = Envelope(NULL_PATH, tuple(map(Recipient, recipients)))
        return is_loop(Router(), envelope, section)

    def test_only_a_forward_can_loop(self) -> None:
        """A mailbox can't, whoever says that the mail was there before."""
        for field in (b"Delivered-To: %b\r\n", b"Subject: x\r\nDELIVERED-To:\r\n %b\r\n"):
            for name in (b"alice@ours.example", b"Alice@OURS.example"):
                self.assertTrue(self.is_loop(field % name, ALICE))
                self.assertTrue(self.is_loop(field % name, ALICE, Mailbox("ALICE", "ours.example")))
            self.assertFalse(self.is_loop(field % b"bob@ours.example", BOB, ALICE))
            self.assertFalse(
                self.is_loop(field % b"eve@ours.example", Mailbox("eve", "ours.example"))
            )
        self.assertFalse(self.is_loop(b"Subject: x\r\n", ALICE))

    def test_who_is_in_no_loop_gets_the_mail(self) -> None:
        """What some of the recipients have sent on before is refused for them, not for all."""
        section = b"Delivered-To: alice@ours.example\r\n"
        self.assertFalse(self.is_loop(section, ALICE, BOB))
        self.assertFalse(self.is_loop(section, BOB, ALICE))

    def test_what_goes_on(self) -> None:
        """Mail for an address of ours that leads to one that is not."""
        self.assertTrue(is_forwarding(Router(), ALICE, AWAY))
        for forward_path, address in ((ALICE, ALICE), (ALICE, BOB), (AWAY, Mailbox("x", "y.z"))):
            self.assertFalse(is_forwarding(Router(), forward_path, address))


class ContentTests(SynchronousTestCase):
    """The content of forwarded mail."""

    def test_delivered_to(self) -> None:
        """It names the forwarding address in its header section, and is a loop when it is back."""
        envelope = Envelope(Mailbox("s", "s.example"), (Recipient(ALICE),))
        section, text = b"Subject: x\r\n\r\n", b"Text\r\n"
        message = Message("A1", 0.0, envelope, ContentInMemory(section + text), ())
        sent = forwarded(message, ALICE, AWAY)
        self.assertEqual(AWAY, sent.envelope.reverse_path)
        content = sent.content
        verifyObject(IContent, content)
        field = b"Delivered-To: alice@ours.example\r\n"
        self.assertEqual(field + section, self.result(content.header()))
        self.assertEqual([text], self.result(pieces(content.body())))
        whole = b"".join(self.result(pieces(content.pieces())))
        self.assertEqual(field + section + text, whole)
        self.assertEqual((len(whole), True), (content.size, content.is_ascii))
        self.assertFalse(self.result(has_forwarded(ALICE, message.content)))
        self.assertTrue(self.result(has_forwarded(ALICE, content)))

    def result(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of what need not wait."""
        return self.successResultOf(Deferred.fromCoroutine(work))


async def pieces(octets: AsyncIterator[bytes]) -> list[bytes]:
    return [piece async for piece in octets]
