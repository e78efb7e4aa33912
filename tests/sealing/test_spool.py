"""What is sealed on its way into the spool, and what is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mta.interfaces import INotices, IOwnMail, IPreviews, ISpool
from mta.mail import NULL_PATH, Agent, Envelope, Hop, Mailbox, Recipient
from mta.queued import IDraft, Message, Notice, SpoolFull
from mta.sealing.agefile import opened
from mta.sealing.keys import PrivateKey
from mta.sealing.notices import SealedNotices
from mta.sealing.seals import Seals, seals
from mta.sealing.spool import NotSealed, SealingDraft, SealingSpool
from mta.session import UNKNOWN_ORIGIN
from mta.settings import Peer
from mta.smtp.replies import NO_SUCH_USER
from mta.testing import FakeNotices, FakeRouter, MemorySpool, message
from tests.sides import FakePeerMeter

OFFICE, SHOP = PrivateKey.new(), PrivateKey.new()
HOPS = {
    "office.example": Hop(Agent.HOLD, "office"),
    "shop.example": Hop(Agent.HOLD, "shop"),
    "open.example": Hop(Agent.HOLD, "open"),
    "here.example": Hop(Agent.MAILDIR, "/var/mail"),
}
BOB, SUE = Mailbox("bob", "office.example"), Mailbox("sue", "shop.example")
CAROL, OLE = Mailbox("carol", "here.example"), Mailbox("ole", "open.example")
HEADER, BODY = b"Subject: x\r\n\r\n", b"hello\r\n"


@implementer(IOwnMail)
class Written(list[tuple[Message, str]]):
    """What the runner was given of messages that became two."""

    def written(self, message: Message, subject: str) -> None:
        """See `IOwnMail.written`."""
        self.append((message, subject))


class SealingCase(SynchronousTestCase):
    """A relay with three peers, two of which have a key."""

    def setUp(self) -> None:
        self.router = FakeRouter(HOPS, Hop(Agent.MX))
        keys = {"office": [OFFICE.public], "shop": [SHOP.public]}
        self.seals = Seals(self.router, keys)
        self.inner, self.written, self.meter = MemorySpool(), Written(), FakePeerMeter()
        self.spool = SealingSpool(self.inner, self.written, self.meter)
        self.spool.seals = self.seals

    def done(self, work: Any) -> Any:
        """The result of a coroutine."""
        return self.successResultOf(Deferred.fromCoroutine(work))

    def draft(self, *forward_paths: Mailbox, body: bytes = BODY) -> IDraft:
        """A body that has come."""
        draft = self.spool.draft()
        draft.address(Envelope(CAROL, self.recipients(*forward_paths)))
        self.done(draft.write(body))
        return draft

    def recipients(self, *forward_paths: Mailbox) -> tuple[Recipient, ...]:
        """Recipients of a message."""
        return tuple(map(Recipient, forward_paths))

    def commit(self, draft: IDraft, *forward_paths: Mailbox) -> Message:
        """Commit it for these."""
        envelope = Envelope(CAROL, self.recipients(*forward_paths))
        committed: Message = self.done(self.spool.commit(draft, envelope, HEADER, UNKNOWN_ORIGIN))
        return committed

    def take(self, *forward_paths: Mailbox) -> Message:
        """A message for these."""
        return self.commit(self.draft(*forward_paths), *forward_paths)

    def content(self, message: Message, key: PrivateKey = OFFICE) -> bytes:
        """What a peer finds in a sealed message."""
        (draft,) = [each for each in self.inner.drafts if each.id == message.id]
        return opened(draft.header, [key]) + opened(draft.data, [key])

    def paths(self, message: Message) -> list[Mailbox]:
        """The forward-paths of a message."""
        return [each.forward_path for each in message.envelope.recipients]


class SealsTests(SealingCase):
    """Who mail is sealed to."""

    def test_peers(self) -> None:
        """It is what waits for peers with a key, and nothing else."""
        found = {path: self.seals.peers(Recipient(path)) for path in (BOB, SUE, CAROL, OLE)}
        self.assertEqual(
            found, {BOB: {"office"}, SUE: {"shop"}, CAROL: frozenset(), OLE: frozenset()}
        )

    def test_an_alias(self) -> None:
        """One that leads to two peers is sealed to both; one that leads elsewhere, to none."""
        staff, all_of_us = Mailbox("staff", "here.example"), Mailbox("all", "here.example")
        self.router.aliases[str(staff)] = [str(BOB), str(SUE)]
        self.router.aliases[str(all_of_us)] = [str(BOB), str(CAROL)]
        self.assertEqual(self.seals.peers(Recipient(staff)), {"office", "shop"})
        self.assertEqual(self.seals.peers(Recipient(all_of_us)), frozenset())
        message = self.take(staff)
        for key in (OFFICE, SHOP):
            self.assertEqual(self.content(message, key), HEADER + BODY)

    def test_an_address_that_leads_nowhere(self) -> None:
        """It is not sealed: it comes to nothing, or to a notice."""
        lost = Mailbox("lost", "here.example")
        self.router.refusals[str(lost)] = NO_SUCH_USER
        self.assertEqual(self.seals.peers(Recipient(lost)), frozenset())

    def test_by_its_sender(self) -> None:
        """The sender may have a way of its own, where nobody could open it."""
        route = self.router.route

        def by_sender(address: Mailbox, reverse_path: Mailbox = NULL_PATH) -> Any:
            if reverse_path == OLE:
                return [(address, Hop(Agent.SMTP, "smart.example"))]
            return route(address, reverse_path)

        self.patch(self.router, "route", by_sender)
        self.assertEqual(self.seals.peers(Recipient(BOB), OLE), frozenset())
        self.assertEqual(self.seals.peers(Recipient(BOB), CAROL), {"office"})
        draft = self.spool.draft()
        draft.address(Envelope(OLE, self.recipients(BOB)))
        self.done(draft.write(BODY))
        self.assertEqual(self.inner.drafts[0].data, BODY)

    def test_from_the_configuration(self) -> None:
        """Keys are those of peers that dial in; without one nothing is sealed."""
        path = self.mktemp()
        Path(path).write_text(f"{OFFICE.public}\n")
        connect = Hop(Agent.SMTP, "provider.example")
        peers = [Peer("office", seal=path), Peer("open"), Peer("up", connect=connect, seal="x")]
        made = seals(self.router, peers)
        assert made is not None
        self.assertEqual(made.keys(["office"]), [OFFICE.public])
        self.assertIsNone(seals(self.router, peers[1:]))


class SealingSpoolTests(SealingCase):
    """Messages on their way in."""

    def test_interfaces(self) -> None:
        """It is a spool as any other."""
        for interface in (ISpool, IPreviews):
            self.assertTrue(verifyObject(interface, self.spool))
        self.assertTrue(verifyObject(IDraft, self.spool.draft()))

    def test_sealed(self) -> None:
        """Neither header section nor body are there in the clear."""
        message = self.take(BOB)
        (draft,) = self.inner.drafts
        self.assertTrue(message.envelope.sealed)
        self.assertEqual(self.content(message), HEADER + BODY)
        for octets in (draft.header, draft.data):
            self.assertTrue(octets.startswith(b"age-encryption.org/v1\n"))

    def test_not_sealed(self) -> None:
        """Mail for others is as it was."""
        message = self.take(CAROL, OLE)
        (draft,) = self.inner.drafts
        self.assertFalse(message.envelope.sealed)
        self.assertEqual((draft.header, draft.data), (HEADER, BODY))

    def test_nothing_is_configured(self) -> None:
        """Drafts are those of the spool itself."""
        self.spool.seals = None
        draft = self.draft(BOB)
        self.assertIs(draft, self.inner.drafts[0])
        self.assertFalse(self.commit(draft, BOB).envelope.sealed)

    def test_a_reload_while_it_comes(self) -> None:
        """A message goes on as it began."""
        draft = self.draft(BOB)
        self.spool.seals = None
        self.assertEqual(self.content(self.commit(draft, BOB)), HEADER + BODY)

    def test_for_two_peers(self) -> None:
        """One message, which either opens."""
        message = self.take(BOB, SUE)
        self.assertEqual(self.paths(message), [BOB, SUE])
        self.assertCountEqual(self.meter.counted, [("office", "sealed"), ("shop", "sealed")])
        for key in (OFFICE, SHOP):
            self.assertEqual(self.content(message, key), HEADER + BODY)

    def test_it_becomes_two(self) -> None:
        """Those who can't open it get it as it is; both parts are delivered."""
        message = self.take(BOB, CAROL)
        ((other, subject),) = self.written
        self.assertEqual((self.paths(message), self.paths(other)), ([CAROL], [BOB]))
        self.assertEqual(
            (message.envelope.sealed, other.envelope.sealed, subject),
            (False, True, f"the sealed part of {message.id}"),
        )
        self.assertEqual(self.content(other), HEADER + BODY)
        self.assertEqual(self.inner.drafts[0].content, HEADER + BODY)

    def test_one_part_fails(self) -> None:
        """The client is told to come again; what was committed is delivered."""
        draft = self.draft(BOB, CAROL)
        commit, count = self.inner.commit, []

        async def second_fails(*arguments: Any) -> Message:
            count.append(arguments)
            if len(count) == 2:
                raise SpoolFull("full")
            return await commit(*arguments)

        self.patch(self.inner, "commit", second_fails)
        envelope = Envelope(CAROL, self.recipients(BOB, CAROL))
        committing = self.spool.commit(draft, envelope, HEADER, UNKNOWN_ORIGIN)
        self.failureResultOf(Deferred.fromCoroutine(committing), SpoolFull)
        draft.discard()
        ((other, _),) = self.written
        self.assertEqual(self.paths(other), [BOB])
        self.assertEqual([each.discarded for each in self.inner.drafts], [True, False])

    def test_fewer_recipients(self) -> None:
        """A filter has taken the recipients of one part away: that part is not kept."""
        for left, kept in ((BOB, 1), (CAROL, 0)):
            self.inner.drafts.clear()
            message = self.commit(self.draft(BOB, CAROL), left)
            self.assertEqual(self.paths(message), [left])
            self.assertEqual(message.id, self.inner.drafts[kept].id)
            self.assertTrue(self.inner.drafts[1 - kept].discarded)
        self.assertEqual(self.written, [])

    def test_another_recipient(self) -> None:
        """A filter has added one who can't open it: it is not taken, and nothing is lost."""
        for added in (CAROL, SUE):
            draft = self.draft(BOB)
            envelope = Envelope(CAROL, self.recipients(BOB, added))
            committing = self.spool.commit(draft, envelope, HEADER, UNKNOWN_ORIGIN)
            self.failureResultOf(Deferred.fromCoroutine(committing), NotSealed)
            self.assertEqual(len(self.flushLoggedErrors()), 0)
        self.assertEqual(self.inner.messages, [])

    def test_another_body(self) -> None:
        """A filter's body is sealed, too, and takes the place of the first in both parts."""
        for paths in ((BOB,), (BOB, CAROL), (CAROL,)):
            draft, other = self.draft(*paths), self.draft(*paths, body=b"other\r\n")
            self.done(draft.replace(other))
            message = self.commit(draft, *paths)
            if CAROL in paths:
                (plain,) = [each for each in self.inner.drafts if each.id == message.id]
                self.assertEqual(plain.content, HEADER + b"other\r\n")
            if BOB in paths:
                sealed = self.written.pop()[0] if CAROL in paths else message
                self.assertEqual(self.content(sealed), HEADER + b"other\r\n")

    def test_a_body_for_others(self) -> None:
        """It can't take the place of one that was sealed."""
        draft, other = self.draft(BOB), self.draft(CAROL)
        replacing = Deferred.fromCoroutine(draft.replace(other))
        self.failureResultOf(replacing, NotSealed)

    def test_discarded(self) -> None:
        """Nothing is left of either part."""
        self.draft(BOB, CAROL).discard()
        self.assertEqual([each.discarded for each in self.inner.drafts], [True, True])

    def test_preview(self) -> None:
        """What passes a message through before it is committed sees the same octets."""
        for path, sealed in ((BOB, True), (CAROL, False)):
            draft, envelope = self.draft(path), Envelope(OLE, self.recipients(path))
            previewing = self.spool.preview(draft, envelope, HEADER, UNKNOWN_ORIGIN)
            seen = self.done(previewing)
            self.assertEqual(seen.envelope, replace(envelope, sealed=sealed))
            before = self.done(seen.content.header())
            message = self.commit(draft, path)
            (kept,) = [each for each in self.inner.drafts if each.id == message.id]
            self.assertEqual(kept.header, before)
        both = self.draft(BOB, CAROL)
        envelope = Envelope(OLE, self.recipients(BOB, CAROL))
        self.assertIsNone(self.done(self.spool.preview(both, envelope, HEADER, UNKNOWN_ORIGIN)))
        self.spool.seals = None
        draft, envelope = self.draft(BOB), Envelope(OLE, self.recipients(BOB))
        seen = self.done(self.spool.preview(draft, envelope, HEADER, UNKNOWN_ORIGIN))
        self.assertFalse(seen.envelope.sealed)


class NoticeTests(SealingCase):
    """Notices about mail, which may quote it."""

    def notice(self, reader: Mailbox) -> Notice:
        """One to that reader."""
        inner = FakeNotices()
        made = Notice(Envelope(NULL_PATH, (Recipient(reader),)), HEADER, BODY)
        self.patch(inner, "notice", lambda *_: _returned(made))
        notices = SealedNotices(inner, self.seals)
        self.assertTrue(verifyObject(INotices, notices))
        notice: Notice = self.done(notices.notice(message(), [], 0.0))
        return notice

    def test_sealed(self) -> None:
        """One to a user of the office is for the office alone."""
        notice = self.notice(BOB)
        self.assertTrue(notice.envelope.sealed)
        self.assertEqual(opened(notice.header, [OFFICE]), HEADER)
        self.assertEqual(opened(notice.body, [OFFICE]), BODY)

    def test_for_others(self) -> None:
        """Others get theirs as they did."""
        self.assertEqual(self.notice(CAROL).content, HEADER + BODY)

    def test_none(self) -> None:
        """Where none is due, none is sealed."""
        inner = FakeNotices()
        self.patch(inner, "notice", lambda *_: _returned(None))
        notices = SealedNotices(inner, self.seals)
        self.assertIsNone(self.done(notices.notice(message(), [], 0.0)))


async def _returned(value: Any) -> Any:
    return value


class DraftTests(SealingCase):
    """The drafts themselves."""

    def test_not_addressed(self) -> None:
        """Nothing is written before it is known who is to have it."""
        draft = self.spool.draft()
        writing = Deferred.fromCoroutine(draft.write(BODY))
        self.failureResultOf(writing, NotSealed)
        self.assertEqual(self.inner.drafts[0].data, b"")

    def test_small_pieces(self) -> None:
        """What is not a chunk yet goes nowhere: no octet of it is written in the clear."""
        draft = self.spool.draft()
        assert isinstance(draft, SealingDraft)
        draft.address(Envelope(CAROL, self.recipients(BOB)))
        for _ in range(3 * 2**16):
            self.done(draft.write(b"x"))
        (inner,) = self.inner.drafts
        self.assertNotIn(b"xxx", inner.data)
        self.assertGreater(len(inner.data), 2**17)
