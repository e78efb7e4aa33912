"""One message on its way into the spool."""

from __future__ import annotations

from collections.abc import Sequence
from email import message_from_bytes
from unittest.mock import patch

from hypothesis import given
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mta.mail import NULL_PATH, Body, Envelope, Mailbox, Recipient, Reply
from mta.queued import SpoolFull
from mta.session import Session, Testimony
from mta.settings import Limits, Service
from mta.smtp import replies
from mta.smtp.authors import AuthorCheck
from mta.smtp.header import MAX_HEADER
from mta.smtp.incoming import IncomingMessage
from mta.smtp.receiver_config import ReceiverConfig
from mta.testing import AcceptedMail, FakeAccessPolicy, MemoryDraft, MemorySpool
from tests.smtp.pieces import cut, octets, places, single_octets

ALICE = Mailbox("alice", "a.example")
HEADER = b"From: <x@y.example>\r\nDate: today\r\nMessage-ID: <1@y.example>\r\n"
MESSAGE = HEADER + b"\r\nbody\r\n"
HOP = b"Received: from somewhere\r\n"


class IncomingTestCase(SynchronousTestCase):
    """A spool in memory, and what takes messages into it."""

    def setUp(self) -> None:
        self.spool = MemorySpool()
        self.accepted = AcceptedMail()

    def incoming(
        self,
        service: Service = Service.SMTP,
        *,
        body: Body = Body.SEVEN_BIT,
        reverse_path: Mailbox = ALICE,
        most: int = 10**6,
        identity: str = "",
        hide_client: bool = False,
        told: Testimony | None = None,
    ) -> IncomingMessage:
        """What takes one message; `most`: octets."""
        policy = FakeAccessPolicy()
        config = ReceiverConfig(
            "mta.example",
            self.spool,
            self.accepted,
            policy,
            Limits(message_size=most),
            lambda: 0.0,
            checks=[AuthorCheck(policy)],
            hide_client=hide_client,
        )
        self.session = Session(service, "192.0.2.1", None, hello="client.example", extended=True)
        self.session.identity = identity
        if told is not None:
            self.session.turned_peer, self.session.told = told.by, told
        envelope = Envelope(reverse_path, (Recipient(ALICE),), body)
        draft, origin = self.spool.draft(), self.session.origin()
        return IncomingMessage(config, self.session, origin, envelope, draft)

    def take(self, incoming: IncomingMessage, pieces: Sequence[bytes]) -> Reply:
        """The answer to that content."""

        async def feed() -> Reply:
            for piece in pieces:
                await incoming.write(piece)
            return await incoming.accept()

        return self.successResultOf(Deferred.fromCoroutine(feed()))

    def kept(self) -> bytes:
        """The content that is in the spool, without our Received: field."""
        (draft,) = self.spool.drafts
        top, mark, rest = draft.content.partition(b"+0000\r\n")
        self.assertTrue(top.startswith(b"Received: from client.example") and mark)
        return rest


class AcceptTests(IncomingTestCase):
    """Messages that are taken."""

    def test_the_answer_names_the_queue_id(self) -> None:
        """The message is in the spool by then, and whoever delivers it knows."""
        reply = self.take(self.incoming(), [MESSAGE])
        (message,) = self.spool.messages
        self.assertEqual(str(reply), f"250 2.0.0 OK queued as {message.id}")
        self.assertEqual((self.accepted, self.accepted.sessions), ([message], [self.session]))
        self.assertEqual(self.kept(), MESSAGE)

    def test_the_commit_comes_before_the_answer(self) -> None:
        """Responsibility passes with the 250 (RFC 5321 section 6.1)."""
        incoming = self.incoming()
        self.successResultOf(Deferred.fromCoroutine(incoming.write(MESSAGE)))
        self.spool.pause()
        answer = Deferred.fromCoroutine(incoming.accept())
        self.assertNoResult(answer)
        self.assertEqual(self.accepted, [])
        self.spool.resume()
        self.assertEqual(self.successResultOf(answer).code, 250)
        self.assertEqual(len(self.accepted), 1)

    def test_a_message_that_came_before(self) -> None:
        """A peer that did not see our 250 gets it now, and nothing is kept twice."""
        for text in ("OK queued as ", "OK, you brought this message before"):
            reply = self.take(self.incoming(told=Testimony("relay", "ID1")), [MESSAGE])
            self.assertEqual((reply.code, reply.enhanced), (250, "2.0.0"))
            self.assertTrue(reply.text.startswith(text), reply)
        self.assertEqual((len(self.spool.messages), len(self.accepted)), (1, 1))

    def test_a_header_section_alone(self) -> None:
        """Content need not have a body, nor an empty line."""
        self.assertEqual(self.take(self.incoming(), [HEADER]).code, 250)
        self.assertEqual(self.kept(), HEADER)

    def test_empty_content(self) -> None:
        """Our trace field is all there is."""
        self.assertEqual(self.take(self.incoming(), []).code, 250)
        self.assertEqual(self.kept(), b"")

    def test_binary_content(self) -> None:
        """With BINARYMIME line ends mean nothing (RFC 3030)."""
        content = HEADER + b"\r\n\0a\rb\nc\r"
        self.assertEqual(self.take(self.incoming(body=Body.BINARY), [content]).code, 250)
        self.assertEqual(self.kept(), content)

    def test_content_of_just_the_limit(self) -> None:
        """The limit is the last size that fits; what we add does not count."""
        self.assertEqual(self.take(self.incoming(most=len(MESSAGE)), [MESSAGE]).code, 250)

    def test_a_hundred_hops(self) -> None:
        """So many Received: fields are no loop yet (RFC 5321 section 6.3)."""
        self.assertEqual(self.take(self.incoming(), [HOP * 100 + MESSAGE]).code, 250)

    @given(octets, places)
    def test_any_cutting_is_kept_the_same(self, content: bytes, at: list[int]) -> None:
        """Binary content comes through octet by octet."""
        self.spool = MemorySpool()
        content = HEADER + b"\r\n" + content
        self.take(self.incoming(body=Body.BINARY), cut(content, at))
        self.assertEqual(self.kept(), content)


class RefusalTests(IncomingTestCase):
    """Messages that are not taken."""

    def assert_refused(
        self, incoming: IncomingMessage, pieces: Sequence[bytes], reply: Reply
    ) -> None:
        """The reply comes at the end, and nothing is left in the spool."""
        self.assertEqual(self.take(incoming, pieces), reply)
        self.assertEqual((self.spool.messages, self.accepted), ([], []))
        self.assertTrue(self.spool.drafts[-1].discarded)

    def test_bare_line_ends(self) -> None:
        """In the header section, in the body, at the very end, at any cut."""
        for content in (
            b"A: b\nC: d\r\n\r\n",
            MESSAGE + b"a\rb\r\n",
            MESSAGE + b"\r\n.\n",
            MESSAGE + b"\0\r\n",
            MESSAGE + b"\r",
            b"\r",
        ):
            self.assert_refused(self.incoming(), [content], replies.BARE_LINE_END)
            self.assert_refused(self.incoming(), single_octets(content), replies.BARE_LINE_END)

    def test_too_big(self) -> None:
        """What comes after the limit is not kept (RFC 1870 section 6.3)."""
        for content in (b"x" * 100_000, MESSAGE + b"x" * 100_000):
            pieces = cut(content, range(1000, len(content), 1000))
            self.assert_refused(self.incoming(most=5000), pieces, replies.TOO_BIG)
            self.assertLessEqual(len(self.spool.drafts[-1].data), 5500)

    def test_too_big_before_the_header_section_ends(self) -> None:
        """Nothing is written for a message that was refused already."""
        self.assert_refused(self.incoming(most=10), [HEADER, HEADER], replies.TOO_BIG)
        self.assertEqual(self.spool.drafts[-1].data, b"")

    def test_a_loop(self) -> None:
        """More than a hundred Received: fields (RFC 5321 section 6.3)."""
        self.assert_refused(self.incoming(), [HOP * 101 + MESSAGE], replies.MAIL_LOOP)

    def test_the_first_reason_counts(self) -> None:
        """A loop with bare line ends is told as what was found first."""
        self.assert_refused(self.incoming(), [HOP * 101 + b"\n"], replies.BARE_LINE_END)

    def test_the_spool_is_full(self) -> None:
        """452, while content arrives and when it is committed."""
        draft_failure = self.incoming()
        self.spool.drafts[-1].failure = SpoolFull("full")
        self.assert_refused(draft_failure, [MESSAGE, MESSAGE], replies.SPOOL_FULL)
        self.spool.failure = SpoolFull("full")
        self.assertEqual(self.take(self.incoming(), [MESSAGE]), replies.SPOOL_FULL)
        self.assertEqual((self.spool.messages, self.accepted), ([], []))

    def test_the_spool_fails(self) -> None:
        """451: the client will try again."""
        draft_failure = self.incoming()
        self.spool.drafts[-1].failure = OSError("input/output error")
        self.assert_refused(draft_failure, [MESSAGE], replies.LOCAL_ERROR)
        self.spool.failure = OSError("input/output error")
        self.assertEqual(self.take(self.incoming(), [MESSAGE]), replies.LOCAL_ERROR)
        self.assertEqual((self.spool.messages, self.accepted), ([], []))


class SubmissionTests(IncomingTestCase):
    """RFC 6409 section 8: fields that a message must have."""

    def fields(self, content: bytes, reverse_path: Mailbox = ALICE) -> bytes:
        """What stands before the message on a submission listener."""
        self.take(self.incoming(Service.SUBMISSION, reverse_path=reverse_path), [content])
        kept = self.kept()
        self.assertTrue(kept.endswith(content))
        return kept.removesuffix(content)

    def draft(self) -> MemoryDraft:
        """The one draft that was made."""
        (draft,) = self.spool.drafts
        return draft

    def test_what_is_there_stays_alone(self) -> None:
        """Nothing is added to a complete message."""
        self.assertEqual(self.fields(MESSAGE), b"")

    def test_what_is_missing_is_added(self) -> None:
        """Date, Message-ID, and From as the reverse-path has it."""
        self.assertEqual(
            self.fields(b"Subject: x\r\n\r\n"),
            b"Date: Thu, 01 Jan 1970 00:00:00 +0000\r\n"
            b"Message-ID: <%b@mta.example>\r\n"
            b"From: <alice@a.example>\r\n" % self.draft().id.encode(),
        )

    def test_the_null_reverse_path_is_nobody(self) -> None:
        """No From is made of it."""
        self.assertNotIn(b"From:", self.fields(b"\r\n", NULL_PATH))

    def test_relayed_mail_is_not_completed(self) -> None:
        """Elsewhere a message stays as it is (RFC 5321 section 6.4)."""
        self.take(self.incoming(), [b"Subject: x\r\n\r\n"])
        self.assertEqual(self.kept(), b"Subject: x\r\n\r\n")

    def test_a_user_writes_as_nobody_else(self) -> None:
        """Also where there is nothing but a header section (RFC 6409 section 6.1)."""
        incoming = self.incoming(Service.SUBMISSION)
        self.session.identity = "alice"
        reply = self.take(incoming, [b"From: boss@mta.example\r\n"])
        self.assertEqual(reply.enhanced, "5.7.1")
        self.assertEqual((self.draft().data, self.draft().discarded), (b"", True))


class OriginTests(IncomingTestCase):
    """The client that brought a message is kept with it."""

    def test_it_is_kept(self) -> None:
        """As the session knew it when the message came."""
        self.take(self.incoming(identity="alice"), [MESSAGE])
        (message,) = self.spool.messages
        self.assertEqual(message.origin, self.session.origin())
        self.assertEqual((message.origin.address, message.origin.user), ("192.0.2.1", "alice"))
        self.session.hello = "other.example"
        self.assertEqual(self.session.origin(smtputf8=True).protocol, "UTF8SMTPA")
        self.assertEqual(self.session.origin().hello, "other.example")

    def test_where_clients_are_hidden(self) -> None:
        """Neither the address nor the name of one that submits is kept."""
        for service, address in ((Service.SUBMISSION, ""), (Service.SMTP, "192.0.2.1")):
            self.setUp()
            self.take(self.incoming(service, hide_client=True), [MESSAGE])
            (message,) = self.spool.messages
            self.assertEqual(message.origin.address, address)
            self.assertEqual(bool(message.origin.hello), bool(address))
            self.assertEqual(message.origin.protocol, "ESMTP")


class MemoryTests(IncomingTestCase):
    """What a message costs while it arrives."""

    def test_an_endless_header_section(self) -> None:
        """No more than the limit of a header section is held back."""
        incoming = self.incoming(most=10**7)
        for _ in range(100):
            self.successResultOf(Deferred.fromCoroutine(incoming.write(b"x" * 10_000)))
        self.assertEqual(len(self.spool.drafts[-1].data), 10**6 - MAX_HEADER)


class AuthorTests(IncomingTestCase):
    """What users submit, on whichever listener they logged in: one author for every reader."""

    def submit(self, content: bytes, service: Service = Service.SMTP) -> Reply:
        """The answer to content of somebody who logged in."""
        self.spool, self.accepted = MemorySpool(), AcceptedMail()
        return self.take(self.incoming(service, body=Body.BINARY, identity="alice"), [content])

    def test_folded(self) -> None:
        """As mail programs fold long names; what is folded counts."""
        for name in (b"Alice", b'"Alice Example of a Long Department"', b"=?utf-8?q?=C3=84lice?="):
            for fold in (b"\r\n ", b"\r\n\t", b"\r\n \r\n "):
                own = b"Subject: x\r\nFrom:" + fold + name + fold + b"<alice@a.example>\r\n\r\n"
                self.assertEqual(self.submit(own).code, 250, own)
                theirs = own.replace(b"alice@", b"boss@")
                self.assertEqual(self.submit(theirs).lines, ("That is not you",), theirs)

    def test_another_author(self) -> None:
        """In a continuation line, in a second field, where only some readers see a field."""
        for field in (
            b"From: alice@a.example\r\n ,boss@a.example\r\n",
            b"From: alice@a.example\r\n\t<boss@a.example>\r\n",
            b"From: alice@a.example\r\nFrom: boss@a.example\r\n",
            b"From: alice@a.example\r\nFROM : boss@a.example\r\n",
            b"From: alice@a.example\r\nhello\r\nFrom: boss@a.example\r\n",
            b"hello\r\nFrom: alice@a.example\r\n",
            b"From: alice@a.example\r\nFrom\x0b: boss@a.example\r\n",
            b"From: alice@a.example\r\n\xa0From: boss@a.example\r\n",
            b" From: boss@a.example\r\n",
            b"From: alice@a.example\0, boss@a.example\r\n",
            b"From: alice@a.example\n ,boss@a.example\r\n",
            b"From:\r\n",
        ):
            for end in (b"\r\nhi\r\n", b""):
                reply = self.submit(field + end)
                self.assertIn(reply.enhanced, ("5.7.1", "5.6.0"), field)
                self.assertEqual(self.spool.messages, [])

    def test_text_without_an_empty_line_before_it(self) -> None:
        """It gets one: nobody may take it for a part of the header section that we complete."""
        for text in (b"It works.\r\n", b" ,boss@a.example\r\nSubject: x\r\n"):
            self.assertEqual(self.submit(text, Service.SUBMISSION).code, 250)
            message = message_from_bytes(self.kept())
            self.assertEqual(message.get_all("From"), ["<alice@a.example>"])
            self.assertEqual(message.get_payload(), text.decode())
        self.assertEqual(self.submit(b"Subject: x\r\nIt works.\r\n").code, 250)
        self.assertEqual(self.kept(), b"Subject: x\r\n\r\nIt works.\r\n")

    def test_others(self) -> None:
        """Who did not log in, and a peer with the mail of others, writes as anybody."""
        boss = b"From: boss@a.example\r\n"
        self.assertEqual(self.take(self.incoming(), [boss]).code, 250)
        with patch.object(FakeAccessPolicy, "checks_authors", lambda access, session: False):
            self.assertEqual(self.submit(boss + b"Dear all\r\n").code, 250)
        self.assertEqual(self.kept(), boss + b"Dear all\r\n")
