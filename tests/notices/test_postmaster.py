"""Messages to the postmaster."""

from __future__ import annotations

from email import message_from_bytes

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mta.interfaces import IOwnMail, IPostmaster
from mta.notices.postmaster import Postmaster
from mta.queued import Message, SpoolFull
from mta.testing import MemorySpool


@implementer(IOwnMail)
class OwnMail:
    """Remembers what was written."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def written(self, message: Message, subject: str) -> None:
        """Remember it."""
        self.messages.append(message)


class PostmasterTests(SynchronousTestCase):
    """One message for each event."""

    def setUp(self) -> None:
        self.spool, self.mail = MemorySpool(lambda: 1_800_000_000.0), OwnMail()
        self.postmaster = Postmaster(
            "mail.example.com", self.spool, self.mail, lambda: 1_800_000_000.0
        )

    def tell(self, subject: str, text: str) -> None:
        """Tell it."""
        self.successResultOf(Deferred.fromCoroutine(self.postmaster.tell(subject, text)))

    def test_message(self) -> None:
        """It goes to the postmaster of this host, without a sender who could get a notice."""
        verifyObject(IPostmaster, self.postmaster)
        verifyObject(IOwnMail, self.mail)
        self.tell("alice is suspended", "one two " * 30 + "\n\nthree")
        [message] = self.mail.messages
        envelope = message.envelope
        self.assertTrue(envelope.reverse_path.is_null)
        self.assertEqual([str(each.forward_path) for each in envelope.recipients], ["Postmaster"])
        self.assertFalse(envelope.smtputf8)
        self.assertEqual(message.origin.service, "notice")
        parsed = message_from_bytes(b"".join(self.successResultOf(self.pieces(message))))
        self.assertEqual(parsed["Subject"], "mail.example.com: alice is suspended")
        self.assertEqual(parsed["Auto-Submitted"], "auto-generated")
        lines = str(parsed.get_payload()).splitlines()
        self.assertLessEqual(max(map(len, lines)), 72)
        self.assertEqual(lines[-2:], ["", "three"])

    def pieces(self, message: Message) -> Deferred[list[bytes]]:
        """The content of a message."""

        async def read() -> list[bytes]:
            return [piece async for piece in message.content.pieces()]

        return Deferred.fromCoroutine(read())

    def test_other_alphabets(self) -> None:
        """A user may have any name."""
        self.tell("jürgen is suspended", "jürgen")
        [message] = self.mail.messages
        self.assertTrue(message.envelope.smtputf8)

    def test_no_room(self) -> None:
        """Where it can't be written, the log has it."""

        async def full(*arguments: object) -> None:
            raise SpoolFull

        self.patch(self.spool, "commit", full)
        with capturedLogs() as events:
            self.tell("alice is suspended", "text")
        self.assertIn("can't be told that alice is suspended", formatEvent(events[0]))
        self.assertEqual(self.mail.messages, [])
