"""The promises of a spool to one process, as tests that any spool can run.

A test case of a spool inherits from its own setting, which has the methods of `Setting`, and from
the classes here and in `tests.spool.record_contract`.  `tests.spool.shared_contract` has the
promises to several processes, and those of the tools.  `tests.spool.test_contract` runs them all::

    class PostgresSpoolTests(PostgresSetting, CommitContract, LeaseContract, ...):
        ...
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from zope.interface.verify import verifyObject

from mta.interfaces import IQueue, ISpool
from mta.mail import NULL_PATH, Body, Envelope, Mailbox, Notify, Recipient
from mta.queued import (
    IContent,
    IDraft,
    Message,
    Progress,
    Settlement,
    State,
)
from mta.session import UNKNOWN_ORIGIN, Origin

ALICE = Mailbox("alice", "example.com")
BOB = Mailbox("bob", "example.org")
HEADER = b"Subject: x\r\n\r\n"
LARGE = b"0123456789abcd\r\n" * 2**16  # 1 MiB: more than any spool keeps in memory
MAX_PIECE = 2**20  # octets: of content that is read
DAY = 86400.0
NEVER = 365 * DAY


class Setting(Protocol):
    """A store of one kind of spool, and the time."""

    def process(self) -> Any:
        """Return a process on the store: an `ISpool` and `IQueue`, which ends with the test."""

    def wait(self, work: Any) -> Any:
        """Return the result of a coroutine, or raise what it raises."""

    def now(self) -> float:
        """Return the time of the store's processes, in seconds since the epoch."""

    def advance(self, seconds: float) -> None:
        """Let time pass."""


def envelope(*forward_paths: Mailbox, reverse_path: Mailbox = ALICE) -> Envelope:
    """An envelope from Alice to the mailboxes, or to Bob."""
    return Envelope(reverse_path, tuple(map(Recipient, forward_paths or (BOB,))))


def settlement(message: Message, due: float, **changes: Any) -> Settlement:
    """One attempt, after which every recipient is changed so."""
    progress = tuple(
        replace(entry, **{"domain": entry.recipient.forward_path.domain, **changes})
        for entry in message.progress
    )
    return Settlement(message.id, progress, due, message.attempts + 1, message.warned)


def done(message: Message) -> Settlement:
    """One attempt, after which nothing is left to do."""
    return settlement(message, 0.0, state=State.DONE)


def ids(messages: Sequence[Message]) -> list[str]:
    """The queue ids of messages."""
    return [message.id for message in messages]


class Contract:
    """What the classes below share."""

    wait: Any
    now: Any
    advance: Any
    process: Any
    assertEqual: Any
    assertTrue: Any
    assertFalse: Any
    assertIsNone: Any
    assertLessEqual: Any
    assertAlmostEqual: Any

    def commit(
        self,
        spool: Any,
        body: bytes = b"body",
        wanted: Envelope | None = None,
        header: bytes = HEADER,
        **more: Any,
    ) -> Message:
        """Commit a message whose body arrives in pieces."""
        draft = spool.draft()
        for start in range(0, len(body), 65536):
            self.wait(draft.write(body[start : start + 65536]))
        origin = more.pop("origin", UNKNOWN_ORIGIN)
        message: Message = self.wait(
            spool.commit(draft, wanted or envelope(), header, origin, **more)
        )
        return message

    def waiting(self, spool: Any, due: float = 0.0, **more: Any) -> Message:
        """Commit a message and release it."""
        message = self.commit(spool, **more)
        self.wait(spool.release({message.id: due}))
        return message

    def halves(self, message: Message) -> tuple[bytes, bytes]:
        """The header section and the body of a message."""

        async def read() -> tuple[bytes, bytes]:
            body = [piece async for piece in message.content.body()]
            return await message.content.header(), b"".join(body)

        halves: tuple[bytes, bytes] = self.wait(read())
        return halves

    def pieces(self, message: Message) -> list[bytes]:
        """The pieces in which the content of a message is read."""

        async def read() -> list[bytes]:
            return [piece async for piece in message.content.pieces()]

        pieces: list[bytes] = self.wait(read())
        return pieces

    def due(self, spool: Any, limit: int = 100) -> list[str]:
        """Lease what is due; returns the queue ids."""
        return ids(self.wait(spool.lease_due(limit)))


class CommitContract(Contract):
    """`ISpool`: what was committed is there as it was."""

    def test_interfaces(self) -> None:
        """Spool, drafts and content have the form that they should."""
        spool = self.process()
        message = self.commit(spool)
        for interface, implementation in [
            (ISpool, spool),
            (IQueue, spool),
            (IDraft, spool.draft()),
            (IContent, message.content),
        ]:
            self.assertTrue(verifyObject(interface, implementation))

    def test_the_draft_has_the_id(self) -> None:
        """The Received: field can name the message before its content is complete."""
        spool = self.process()
        draft = spool.draft()
        message = self.wait(spool.commit(draft, envelope(), HEADER, UNKNOWN_ORIGIN))
        self.assertEqual(message.id, draft.id)

    def test_another_body(self) -> None:
        """A draft may take over the body of another one, and then more; its id stays."""
        spool = self.process()
        for own, other in ((b"a", b"b"), (b"a", LARGE), (LARGE, b"b"), (LARGE, LARGE[::-1] * 2)):
            draft, second = spool.draft(), spool.draft()
            self.wait(draft.write(b"\xff" + own))
            self.wait(second.write(other))
            self.wait(draft.replace(second))
            self.wait(draft.write(b"more"))
            message = self.wait(spool.commit(draft, envelope(), HEADER, UNKNOWN_ORIGIN))
            self.assertEqual(message.id, draft.id)
            self.wait(spool.release({message.id: 0.0}))
            (again,) = self.wait(spool.lease_due(1))
            self.assertEqual(self.halves(again), (HEADER, other + b"more"))
            self.assertTrue(again.content.is_ascii)
            self.assertEqual(again.content.size, len(HEADER + other + b"more"))

    def test_ids_sort_by_time(self) -> None:
        """Later messages have greater ids, and no two the same."""
        spool = self.process()
        made = []
        for _ in range(3):
            made += [spool.draft().id, spool.draft().id]
            self.advance(1)
        self.assertEqual(made, sorted(set(made)))

    def test_arrival(self) -> None:
        """A message arrives when its draft is begun."""
        self.assertAlmostEqual(self.commit(self.process()).arrived, self.now(), delta=1)

    def test_content(self) -> None:
        """Header section and body come back as they were, as often as they are read."""
        spool = self.process()
        for body in (b"", b"body\r\n", bytes(range(256)), LARGE, LARGE + b"\xff"):
            message = self.commit(spool, body)
            self.wait(spool.release({message.id: 0.0}))
            (again,) = self.wait(spool.lease_due(1))
            for each in (message, again, again):
                self.assertEqual(self.halves(each), (HEADER, body))
                self.assertEqual(b"".join(self.pieces(each)), HEADER + body)
                self.assertEqual(each.content.size, len(HEADER + body))
                self.assertEqual(each.content.is_ascii, body.isascii())

    def test_pieces_are_bounded(self) -> None:
        """Large content is read in portions."""
        spool = self.process()
        self.waiting(spool, body=LARGE * 4)
        (message,) = self.wait(spool.lease_due(1))
        self.assertLessEqual(max(map(len, self.pieces(message))), MAX_PIECE)

    def test_envelope_and_origin(self) -> None:
        """All that came with the message is there at a later attempt."""
        wanted = Envelope(
            NULL_PATH,
            (
                Recipient(Mailbox('a "b"', "[192.0.2.1]")),
                Recipient(
                    Mailbox("jürgen", "bücher.example"),
                    frozenset({Notify.SUCCESS, Notify.DELAY}),
                    "rfc822;other@example.net",
                ),
                Recipient(Mailbox("Postmaster")),
            ),
            Body.BINARY,
            smtputf8=True,
            ret="HDRS",
            envid="an id",
            require_tls=True,
            outside=True,
            sealed=True,
        )
        origin = Origin("192.0.2.9", "client.example", 1025, "hello.example", "ESMTPS")
        spool = self.process()
        message = self.waiting(spool, wanted=wanted, origin=origin)
        (again,) = self.wait(spool.lease_due(1))
        self.assertEqual((message.envelope, message.origin), (wanted, origin))
        self.assertEqual(again, replace(message, content=again.content))
        self.assertEqual(again.progress, tuple(map(Progress, wanted.recipients)))

    def test_leased_to_us(self) -> None:
        """A new message is for its process alone, and no reason to wake up."""
        spool = self.process()
        message = self.commit(spool)
        self.assertEqual(self.due(spool), [])
        self.assertEqual(self.wait(spool.lease([message.id])), [])
        self.assertIsNone(self.wait(spool.next_due()))

    def test_kept_for_the_operator(self) -> None:
        """A message that is committed on hold is not leased, nor due."""
        spool = self.process()
        message = self.commit(spool, hold="it smells")
        self.assertEqual(message.on_hold, "it smells")
        self.assertEqual(self.due(spool), [])
        self.assertEqual(self.wait(spool.lease([message.id])), [])
        self.assertIsNone(self.wait(spool.next_due()))

    def test_discarded(self) -> None:
        """Nothing is left of a draft that is discarded, whatever was written."""
        spool = self.process()
        for body in (b"", b"body", LARGE):
            draft = spool.draft()
            self.wait(draft.write(body))
            draft.discard()
        self.assertEqual(self.due(spool), [])
        self.assertIsNone(self.wait(spool.next_due()))


class LeaseContract(Contract):
    """`ILeases`: who works on what, and when."""

    def test_order_and_limit(self) -> None:
        """The longest overdue come first, in portions."""
        spool = self.process()
        messages = [self.commit(spool) for _ in range(4)]
        for message, wait in zip(messages, (30, 10, 20, 90), strict=True):
            self.wait(spool.settle(settlement(message, self.now() + wait)))
        self.advance(40)
        first, second, third, _ = ids(messages)
        self.assertEqual(self.due(spool, 2), [second, third])
        self.assertEqual(self.due(spool, 2), [first])

    def test_each_once(self) -> None:
        """What is leased is not leased again until it is released."""
        spool = self.process()
        message = self.waiting(spool)
        self.assertEqual(self.due(spool), [message.id])
        self.assertEqual(self.due(spool), [])
        self.assertEqual(self.wait(spool.lease([message.id])), [])

    def test_released(self) -> None:
        """A released message is due at once, and as if it had not been leased."""
        spool = self.process()
        message = self.waiting(spool)
        self.assertAlmostEqual(self.wait(spool.next_due()), self.now(), delta=1)
        (again,) = self.wait(spool.lease_due(1))
        self.assertEqual((again.id, again.attempts, again.recovered), (message.id, 0, False))

    def test_released_for_later(self) -> None:
        """A message may be due later; by its id it can be had before."""
        spool = self.process()
        first, second = self.commit(spool), self.commit(spool)
        later = self.now() + 600
        self.wait(spool.release({first.id: later, second.id: later}))
        self.assertEqual(self.due(spool), [])
        self.assertAlmostEqual(self.wait(spool.next_due()), later, delta=1)
        self.assertEqual(ids(self.wait(spool.lease([second.id]))), [second.id])
        self.advance(600)
        self.assertEqual(self.due(spool), [first.id])

    def test_a_lease_that_is_gone(self) -> None:
        """Releasing what is not leased changes nothing."""
        spool = self.process()
        message = self.waiting(spool)
        self.wait(spool.release({message.id: self.now() + 900}))
        self.assertEqual(self.due(spool), [message.id])

    def test_by_id(self) -> None:
        """Ids of messages that are leased, or gone, are left out."""
        spool = self.process()
        gone, leased, waiting = self.commit(spool), self.commit(spool), self.waiting(spool)
        self.wait(spool.remove([gone.id], 0.0))
        wanted = [gone.id, leased.id, waiting.id]
        self.assertEqual(ids(self.wait(spool.lease(wanted))), [waiting.id])

    def test_next_due(self) -> None:
        """It is the first of all due times."""
        spool = self.process()
        self.assertIsNone(self.wait(spool.next_due()))
        for wait in (50, 20, 90):
            self.wait(spool.settle(settlement(self.commit(spool), self.now() + wait)))
        self.assertAlmostEqual(self.wait(spool.next_due()), self.now() + 20, delta=1)
