"""Outcomes that could not be recorded: a process that dies meanwhile forgets none."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from twisted.logger import LogLevel, capturedLogs, formatEvent

from mta.mail import NULL_PATH, Mailbox
from mta.queued import Message, Notice, Progress, Settlement, State
from mta.spool import queue_id
from mta.spool.database import SpoolAway
from mta.spool.postgres import writer
from mta.spool.postgres.journal import MAX_SIZE, NotedOutcome, outcomes_in
from mta.spool.postgres.spool import PostgresSpool
from tests.spool.cases import failing
from tests.spool.contract import BOB, HEADER, Contract, done, envelope, settlement
from tests.spool.postgres import PostgresTestCase

CAROL = Mailbox("carol", "example.org")


class JournalTests(Contract, PostgresTestCase):
    """A process that dies while the database is away, and the next one on its node."""

    def lose(self, spool: PostgresSpool, work: Callable[[], Coroutine[Any, Any, Any]]) -> Path:
        """Do work that the database does not take; returns the journal."""
        patch = self.patch(writer.PostgresWriter, "_transact", failing(SpoolAway(113, "away")))
        with self.assertRaises(OSError):
            self.wait(work())
        patch.restore()
        return spool._owner.outcomes

    def heir_of(self, spool: PostgresSpool) -> PostgresSpool:
        """The next process on the node, which has taken over."""
        self.kill(spool)
        heir = self.process()
        self.take_over(heir)
        return heir

    def partly(self, message: Message, notice: Notice | None = None) -> Settlement:
        """An attempt that ended for the first recipient, and not for the second one."""
        first, second = message.progress
        progress = (Progress(first.recipient, State.DONE, settled=frozenset({str(BOB)})), second)
        notices = (notice,) if notice else ()
        return Settlement(message.id, progress, self.now() + 60, 1, False, notices)

    def test_delivered(self) -> None:
        """What all recipients have is removed, and is nowhere tried again."""
        spool = self.process()
        settled, removed, lost = (self.commit(spool) for _ in range(3))
        self.lose(spool, lambda: spool.settle(done(settled)))
        self.lose(spool, lambda: spool.remove([removed.id], 0.0))
        self.assertEqual(self.due(self.heir_of(spool)), [lost.id])

    def test_in_part(self) -> None:
        """The recipients who have it do not get it again; their notices are sent, once."""
        spool = self.process()
        message = self.commit(spool, wanted=envelope(BOB, CAROL))
        notice = Notice(envelope(reverse_path=NULL_PATH), HEADER, b"\xffgone")
        self.lose(spool, lambda: spool.settle(self.partly(message, notice)))
        outcomes = spool._owner.outcomes.read_bytes()
        heir = self.heir_of(spool)
        found = {each.id: each for each in self.wait(heir.lease_due(9))}
        again = found.pop(message.id)
        states = [progress.state for progress in again.progress]
        self.assertEqual((states, again.recovered), ([State.DONE, State.WAITING], True))
        [sent] = found.values()
        self.assertEqual(self.halves(sent), (HEADER, b"\xffgone"))
        self.assertTrue(sent.envelope.reverse_path.is_null)
        heir._owner.outcomes.write_bytes(outcomes)  # as after a death in the middle of it
        self.assertEqual(sorted(self.due(self.heir_of(heir))), sorted([message.id, sent.id]))

    def test_all_in_the_end(self) -> None:
        """Where the rest was recorded before, nothing is left."""
        spool = self.process()
        message = self.commit(spool, wanted=envelope(BOB, CAROL))
        self.lose(spool, lambda: spool.settle(self.partly(message)))
        self.sql("UPDATE recipient SET state = 'done' WHERE number = 1")
        self.assertEqual(self.due(self.heir_of(spool)), [])
        self.assertEqual(self.sql("SELECT count(*) FROM message"), [(0,)])

    def test_final_addresses(self) -> None:
        """Of an alias that stands for several, those that have it do not get it again."""
        spool = self.process()
        message = self.commit(spool)
        part = settlement(message, 0.0, settled=frozenset({"a@x.example"}))
        self.lose(spool, lambda: spool.settle(part))
        (again,) = self.wait(self.heir_of(spool).lease_due(9))
        self.assertEqual(again.progress[0].settled, frozenset({"a@x.example"}))

    def test_another_node_freed_it(self) -> None:
        """It counts where a message waits, and where another node has it, what all have."""
        spool = self.process()
        waits, tried, gone = (self.commit(spool, wanted=envelope(BOB, CAROL)) for _ in range(3))
        for message in (waits, tried):
            self.lose(spool, lambda message=message: spool.settle(self.partly(message)))
        self.lose(spool, lambda: spool.remove([gone.id], 0.0))
        self.sql("UPDATE schedule SET owner = NULL, due = 0, recovered = true")
        other = self.process()
        self.wait(other.lease([tried.id, gone.id]))
        self.heir_of(spool)
        states = self.sql("SELECT message, state FROM recipient ORDER BY message, number")
        self.assertEqual([state for _, state in states], ["done", *["waiting"] * 3])
        self.assertEqual(self.wait(other.recalled([gone.id])), [gone.id])

    def test_recorded(self) -> None:
        """What is recorded at last is noted no more, and noted once before."""
        spool = self.process()
        message = self.commit(spool)
        for _ in range(3):
            journal = self.lose(spool, lambda: spool.settle(done(message)))
        self.assertEqual(len(outcomes_in(journal)), 1)
        self.wait(spool.settle(done(message)))
        self.assertFalse(journal.exists())

    def test_an_orderly_end(self) -> None:
        """What was not recorded before is, where the database is back by then."""
        spool = self.process()
        message = self.commit(spool)
        self.lose(spool, lambda: spool.settle(done(message)))
        self.stop(spool)
        self.assertEqual(self.sql("SELECT count(*) FROM message"), [(0,)])

    def test_damage(self) -> None:
        """A line that was not written whole, or is nonsense, costs no other one."""
        path = Path(self.mktemp())
        good = NotedOutcome(7, [["done", "", "", "[]", "[]"]]).encoded()
        path.write_bytes(b"[1]\n{}\n\xff\n" + good + good[:-9])
        self.assertEqual([each.message for each in outcomes_in(path)], [7])
        self.assertEqual(outcomes_in(path.with_name("nowhere")), [])

    def test_a_short_write(self) -> None:
        """A disk that was full in the middle of a line costs that line, and not the next one."""
        spool = self.process()
        half, whole = self.commit(spool), self.commit(spool)
        write = os.write
        short = self.patch(os, "write", lambda file, octets: write(file, octets[:-9]))
        self.lose(spool, lambda: spool.settle(done(half)))
        short.restore()
        path = self.lose(spool, lambda: spool.settle(done(whole)))
        numbers = [each.message for each in outcomes_in(path)]
        self.assertEqual(numbers, [queue_id.decode(whole.id)])

    def test_noted_at_last(self) -> None:
        """What could not be noted is noted when it can be, as often as it is not recorded."""
        spool = self.process()
        message = self.commit(spool)
        full = self.patch(os, "write", failing(OSError(errno.ENOSPC, "full")))
        path = self.lose(spool, lambda: spool.settle(done(message)))
        full.restore()
        self.assertEqual(outcomes_in(path), [])
        for _ in range(2):
            self.lose(spool, lambda: spool.settle(done(message)))
        self.assertEqual(
            [each.message for each in outcomes_in(path)], [queue_id.decode(message.id)]
        )

    def test_a_read_error(self) -> None:
        """What can't be read is kept, and recorded when it can be; others are taken over."""
        unread, read = self.process(), self.process()
        message, other = self.commit(unread), self.commit(read)
        journal = self.lose(unread, lambda: unread.settle(done(message)))
        self.kill(read)
        self.kill(unread)
        octets = journal.read_bytes()
        journal.unlink()
        journal.mkdir()  # reading fails
        with capturedLogs() as events:
            heir = self.process()
            for _ in range(2):
                self.take_over(heir)
        lines = [formatEvent(event) for event in events if event["log_level"] is LogLevel.error]
        self.assertEqual(len(lines), 1)
        self.assertIn(
            f"can't be read, and are kept: [Errno 21] Is a directory: '{journal}'", lines[0]
        )
        self.assertEqual(self.due(heir), [other.id])
        journal.rmdir()
        journal.write_bytes(octets)
        self.take_over(heir)
        self.assertFalse(journal.exists())
        self.assertEqual(self.due(heir), [])
        self.assertEqual(self.sql("SELECT id FROM message"), [(queue_id.decode(other.id),)])

    def test_bounded(self) -> None:
        """A journal that is full takes no more; the outcome is recorded later as any other."""
        spool = self.process()
        message = self.commit(spool)
        with spool._owner.outcomes.open("wb") as file:
            file.truncate(MAX_SIZE + 1)
        self.lose(spool, lambda: spool.settle(done(message)))
        self.assertEqual(spool._owner.outcomes.stat().st_size, MAX_SIZE + 1)
        self.wait(spool.settle(done(message)))
