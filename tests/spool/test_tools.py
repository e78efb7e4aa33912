"""The spool as the command line sees it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from unittest import SkipTest

from mta.mail import NULL_PATH, Envelope, Mailbox
from mta.queued import (
    Filter,
    Message,
    State,
)
from mta.spool import tools
from tests.spool.cases import BOB, HEADER, LARGE, SpoolTestCase, envelope, settlement


class ToolTests(SpoolTestCase):
    """The spool as the person in charge sees it."""

    def setUp(self) -> None:
        super().setUp()
        self.spool = self.process()
        self.postmaster = self.tools()

    def waiting(self, wanted: Envelope | None = None) -> Message:
        """A message that is due in an hour."""
        message = self.commit(self.spool, wanted=wanted)
        self.wait(self.spool.settle(settlement(message, self.now() + 3600)))
        return message

    def found(self, **parts: Any) -> list[str]:
        """The ids of the messages that fit."""
        return [entry.message.id for entry in self.postmaster.find(Filter(**parts))]

    def test_states(self) -> None:
        """Active: worked on.  Held: for a peer or on hold.  Waiting: the rest."""
        active = self.commit(self.spool)
        waiting, on_hold = self.waiting(), self.waiting()
        held = self.commit(self.spool)
        self.wait(self.spool.settle(settlement(held, self.now(), state=State.HELD, peer="office")))
        self.postmaster.hold([on_hold.id])
        states = [entry.state for entry in self.postmaster.find(Filter())]
        self.assertEqual(states, ["active", "waiting", "held", "held"])
        self.assertEqual(self.found(state="active"), [active.id])
        self.assertEqual(self.found(state="waiting"), [waiting.id])
        self.assertEqual(self.found(state="held"), [on_hold.id, held.id])
        self.assertEqual(self.found(peer="office"), [held.id])

    def test_filters(self) -> None:
        """All parts that are given must fit."""
        old = self.waiting(envelope(BOB, reverse_path=NULL_PATH))
        self.clock.advance(7200)
        new = self.waiting(envelope(Mailbox("Carol", "example.net"), BOB))
        self.assertEqual(self.found(), [old.id, new.id])
        self.assertEqual(self.found(older=3600.0), [old.id])
        self.assertEqual(self.found(ids=frozenset({new.id, "nonsense"})), [new.id])
        self.assertEqual(self.found(ids=frozenset({"nonsense"})), [])
        self.assertEqual(self.found(reverse_path="<>"), [old.id])
        self.assertEqual(self.found(reverse_path="ALICE@example.com"), [new.id])
        self.assertEqual(self.found(forward_path="carol@example.net"), [new.id])
        self.assertEqual(self.found(domain="example.org"), [old.id, new.id])
        self.assertEqual(self.found(domain="example.org", older=3600.0), [old.id])

    def test_portions(self) -> None:
        """A long queue is read and changed in portions."""
        self.patch(tools, "_BATCH_SIZE", 2)
        messages = [self.waiting().id for _ in range(5)]
        self.assertEqual(self.found(), messages)
        self.assertEqual(len(self.postmaster.retry(messages)), 5)
        self.assertEqual(len(self.postmaster.delete(messages)), 5)
        self.assertEqual(self.found(), [])

    def test_hold_and_release(self) -> None:
        """On hold nothing is tried; released it is tried at once."""
        message = self.waiting()
        self.assertEqual(len(self.postmaster.hold([message.id])), 1)
        self.assertEqual(len(self.postmaster.hold([message.id])), 0)
        self.assertEqual(len(self.postmaster.retry([message.id])), 0)
        self.clock.advance(7200)
        self.assertEqual(self.wait(self.spool.lease_due(1)), [])
        self.assertEqual(len(self.postmaster.release([message.id])), 1)
        self.assertEqual(len(self.wait(self.spool.lease_due(1))), 1)

    def test_hold_during_an_attempt(self) -> None:
        """It takes effect when the attempt ends."""
        message = self.commit(self.spool)
        self.assertEqual(len(self.postmaster.hold([message.id])), 1)
        self.wait(self.spool.settle(settlement(message, self.now())))
        self.assertEqual(self.wait(self.spool.lease_due(1)), [])

    def test_held_mail_on_hold(self) -> None:
        """A peer doesn't get what is on hold."""
        message = self.commit(self.spool)
        self.wait(self.spool.settle(settlement(message, self.now(), state=State.HELD, peer="p")))
        self.postmaster.hold([message.id])
        self.assertEqual(self.wait(self.spool.lease_held("p", {"example.org"}, 1)), [])

    def test_retry(self) -> None:
        """What waits is due now; what is worked on stays with its owner."""
        waiting, active = self.waiting(), self.commit(self.spool)
        self.assertEqual(len(self.postmaster.retry([waiting.id, active.id, "nonsense"])), 1)
        self.assertEqual([m.id for m in self.wait(self.spool.lease_due(9))], [waiting.id])

    def test_retry_after_a_crash(self) -> None:
        """With the server down, a dead owner's mail can be retried too."""
        message = self.commit(self.spool)
        self.spool._owner.close()
        self.assertEqual(len(self.postmaster.retry([message.id])), 1)
        (entry,) = self.postmaster.find(Filter())
        self.assertEqual((entry.state, entry.due), ("waiting", self.now()))
        self.assertTrue(entry.message.recovered)

    def test_delete(self) -> None:
        """The message is gone with its file; its attempt ends without a trace."""
        message = self.commit(self.spool, LARGE)
        self.assertEqual(len(self.postmaster.delete([message.id, message.id[::-1]])), 1)
        self.assertEqual(self.files(), [])
        self.wait(self.spool.settle(settlement(message, self.now())))
        self.assertEqual(self.found(), [])

    def test_enqueue(self) -> None:
        """A message put in by hand is due now, for any process."""
        for content in (b"small", HEADER + LARGE + b"\xff"):
            name = self.postmaster.enqueue(envelope(), [content[:3], content[3:]])
            (message,) = self.wait(self.spool.lease_due(2))
            self.assertEqual((message.id, message.recovered), (name, False))
            self.assertEqual(self.content(message), content)
            self.assertEqual(message.content.is_ascii, content.isascii())
        self.assertEqual(len(list((self.path / "owners").glob("*.lock"))), 1)
        self.assertEqual(self.files(), [name])

    def test_root(self) -> None:
        """A tool that runs as root leaves no file that the server can't use."""
        if os.geteuid():
            raise SkipTest("only root can give files away")
        self.path = Path(self.mktemp())
        self.path.mkdir(parents=True)
        os.chown(self.path, 1234, 1235)
        name = self.tools().enqueue(envelope(), [HEADER, LARGE])
        self.assertEqual(self.files(), [name])
        for path in self.path.rglob("*"):
            self.assertEqual((path.stat().st_uid, path.stat().st_gid), (1234, 1235), path)

    def test_enqueue_fails(self) -> None:
        """Nothing is left of a message that didn't fit."""

        def pieces() -> Iterable[bytes]:
            yield LARGE
            raise OSError(errno.EIO, "Input/output error")

        self.assertRaises(OSError, self.postmaster.enqueue, envelope(), pieces())
        self.assertEqual((self.found(), self.files()), ([], []))

    def test_content_without_a_reactor(self) -> None:
        """Content is read at once."""
        self.commit(self.spool, b"small")
        self.commit(self.spool, LARGE)
        contents = [self.read(entry.message) for entry in self.postmaster.find(Filter())]
        self.assertEqual(contents, [b"small", LARGE])

    def read(self, message: Message) -> bytes:
        """The whole content, without waiting for anything."""

        async def read() -> Sequence[bytes]:
            return [piece async for piece in message.content.pieces()]

        return b"".join(self.successResultOf(read()))
