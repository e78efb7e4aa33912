"""The promises of a spool about mail that peers bring, and about mail that is not committed yet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred

from mta.mail import NULL_PATH, Body, Envelope, Mailbox, Notify, Recipient
from mta.queued import AlreadyTaken, Message, Progress
from mta.session import NOTICE_ORIGIN, UNKNOWN_ORIGIN, Origin
from mta.spool.content import MemoryContent
from mta.spool.lending import LentMail
from tests.spool.contract import BOB, HEADER, LARGE, Contract, envelope, ids

CAROL = Mailbox("carol", "example.org")
BROUGHT = Origin("192.0.2.1", turned_peer="relay", told_by="relay", told_id="ID1")


class TakenContract(Contract):
    """A message that a peer brings again is not taken again."""

    assertRaises: Any

    def refused(self, spool: Any, origin: Origin, **more: Any) -> None:
        """Bring a message that was there."""
        with self.assertRaises(AlreadyTaken):
            self.commit(spool, origin=origin, **more)

    def test_once(self) -> None:
        """Small or large, still in the spool or gone."""
        spool = self.process()
        for number, body in enumerate((b"body", LARGE)):
            origin = replace(BROUGHT, told_id=f"ID{number}")
            message = self.commit(spool, body, origin=origin)
            self.refused(spool, origin, body=body)
            self.wait(spool.remove([message.id], 0.0))
            self.refused(spool, origin, body=body)
        self.assertEqual(self.wait(spool.lease_due(9)), [])

    def test_known(self) -> None:
        """It is known before the commit who has a message, and only where all have it."""
        spool = self.process()
        bob, carol = envelope(BOB, CAROL).recipients

        def has(origin: Origin, *recipients: Recipient) -> bool:
            known: bool = self.wait(spool.has_taken(origin, recipients))
            return known

        self.assertFalse(has(BROUGHT, bob))
        self.commit(spool, origin=BROUGHT)
        self.assertTrue(has(BROUGHT, bob))
        self.assertFalse(has(BROUGHT, carol))
        self.assertFalse(has(BROUGHT, bob, carol))
        self.assertFalse(has(replace(BROUGHT, told_id="ID2"), bob))

    def test_others(self) -> None:
        """Another id, another peer, and mail that no peer turned a connection for."""
        spool = self.process()
        for origin in (
            BROUGHT,
            replace(BROUGHT, told_id="ID2"),
            replace(BROUGHT, turned_peer="other"),
            replace(BROUGHT, told_id=""),
            replace(BROUGHT, told_id=""),
            replace(BROUGHT, turned_peer=""),
            replace(BROUGHT, turned_peer=""),
            NOTICE_ORIGIN,
            NOTICE_ORIGIN,
        ):
            self.commit(spool, origin=origin)

    def test_what_nodes_write(self) -> None:
        """A notice that has an id is taken once, whichever process writes it."""
        spool = self.process()
        report = replace(NOTICE_ORIGIN, told_id="dmarc:example.com:1")
        self.commit(spool, origin=report)
        self.refused(spool, report)
        self.commit(spool, origin=replace(report, told_id="dmarc:example.com:2"))

    def test_each_recipient(self) -> None:
        """Recipients that have it are left out; the others get it."""
        spool = self.process()
        self.commit(spool, origin=BROUGHT)
        message = self.commit(spool, origin=BROUGHT, wanted=envelope(BOB, CAROL))
        self.assertEqual([each.forward_path for each in message.envelope.recipients], [CAROL])
        self.assertEqual([each.recipient.forward_path for each in message.progress], [CAROL])
        self.wait(spool.release({message.id: 0.0}))
        (again,) = self.wait(spool.lease_due(1))
        self.assertEqual(again.envelope, message.envelope)
        self.refused(spool, BROUGHT, wanted=envelope(CAROL, BOB))

    def test_on_hold(self) -> None:
        """What is kept for the operator was taken as well."""
        spool = self.process()
        self.commit(spool, origin=BROUGHT, hold="odd")
        self.refused(spool, BROUGHT)

    def test_at_once(self) -> None:
        """Of two that come at the same time, one is taken."""
        spool = self.process()
        taken: list[Any] = []
        for _ in range(2):
            draft = spool.draft()
            commit = spool.commit(draft, envelope(), HEADER, BROUGHT)
            Deferred.fromCoroutine(commit).addBoth(taken.append)
        self.wait(spool.commit(spool.draft(), envelope(), HEADER, UNKNOWN_ORIGIN))
        self.assertEqual([hasattr(each, "id") for each in taken], [True, False])


class PreviewContract(Contract):
    """A message can be read before it is committed, and after."""

    def preview(self, spool: Any, body: bytes) -> tuple[Any, Any]:
        """A draft with a body, and its message."""
        draft = spool.draft()
        for start in range(0, len(body), 65536):
            self.wait(draft.write(body[start : start + 65536]))
        return draft, self.wait(spool.preview(draft, envelope(), HEADER, BROUGHT))

    def test_preview(self) -> None:
        """It is as it will be, and nothing is in the spool."""
        for body in (b"", b"body\xff", LARGE):
            spool = self.process()
            draft, message = self.preview(spool, body)
            self.assertEqual(self.halves(message), (HEADER, body))
            self.assertEqual(message.content.size, len(HEADER) + len(body))
            self.assertEqual(self.wait(spool.lease([message.id])), [])
            origin = replace(BROUGHT, told_id=message.id)
            committed = self.wait(spool.commit(draft, envelope(), HEADER, origin))
            self.assertEqual(
                replace(committed, content=None), replace(message, content=None, origin=origin)
            )
            self.assertEqual(self.halves(message), (HEADER, body))
            self.assertEqual(self.halves(committed), (HEADER, body))
            self.wait(spool.release({committed.id: 0.0}))
            self.assertEqual(ids(self.wait(spool.lease_due(9))), [message.id])

    def test_discarded(self) -> None:
        """A draft that is discarded then leaves nothing behind."""
        spool = self.process()
        for body in (b"body", LARGE):
            draft, _ = self.preview(spool, body)
            draft.discard()
        self.assertEqual(self.wait(spool.lease_due(9)), [])


class LentContract(PreviewContract):
    """Another process reads a message before it is committed.

    `keeps_file`: the file of a large body is there after the commit, too.
    """

    keeps_file = True

    def test_lent(self) -> None:
        """It reads the same, as often as it wants."""
        spool = self.process()
        mail = LentMail(spool._in_thread)
        for body in (b"body", LARGE):
            draft, message = self.preview(spool, body)
            lent = self.wait(mail.lent(message))
            self.assertLess(len(lent), 1000)
            borrowed = mail.borrowed(lent)
            self.assertEqual(replace(borrowed, content=message.content), message)
            self.assertEqual(borrowed.content.is_ascii, message.content.is_ascii)
            self.assertEqual(self.halves(borrowed), (HEADER, body))
            origin = replace(BROUGHT, told_id=message.id)
            self.wait(spool.commit(draft, envelope(), HEADER, origin))
            if body != LARGE or self.keeps_file:
                self.assertEqual(self.halves(borrowed), (HEADER, body))
            else:
                with self.assertRaises(FileNotFoundError):
                    self.halves(borrowed)
            self.assertEqual(len(HEADER + body), borrowed.content.size)

    def test_lent_envelope(self) -> None:
        """All that MAIL and RCPT said goes along."""
        mail = LentMail(self.process()._in_thread)
        recipients = (
            Recipient(BOB, frozenset({Notify.SUCCESS, Notify.DELAY}), "rfc822;b@example.org"),
            Recipient(CAROL, frozenset({Notify.NEVER})),
        )
        said = Envelope(NULL_PATH, recipients, Body.BINARY, True, "HDRS", "id", True, True, True)
        content = MemoryContent(HEADER, b"\xff", False)
        message = Message("1", 2.5, said, content, tuple(map(Progress, recipients)), origin=BROUGHT)
        self.assertEqual(mail.borrowed(self.wait(mail.lent(message))), message)

    def test_what_was_not_lent(self) -> None:
        """Octets that are no message are known as such."""
        mail = LentMail(self.process()._in_thread)
        for octets in (b"", b"[]\n", b"{}\n", b'{"envelope": [["a"], [], "7BIT"]}\n', b"\xff\n"):
            with self.assertRaises(ValueError):
                mail.borrowed(octets)
