"""A message on which the program dies: it is found, and all others go on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from twisted.logger import LogLevel, capturedLogs
from zope.interface.verify import verifyObject

from mta.interfaces import IAttempts
from mta.queue.noted import NoAttempts
from mta.queued import EVERYWHERE, Filter, State
from mta.spool import attempts, clock
from mta.spool.owner_rows import SUSPECT_DELAY
from mta.spool.sqlite import SqliteSpool
from tests.spool.cases import SpoolTestCase, settlement
from tests.spool.contract import DAY, done, ids

HELD = {"state": State.HELD, "peer": "office"}


class DeathTests(SpoolTestCase):
    """One process after the other dies."""

    def process(self) -> SqliteSpool:
        """A process that will die, or be stopped at the end."""
        self.clock.advance(1)
        return super().process()

    def next_process(self, dead: SqliteSpool) -> SqliteSpool:
        """The process that is started when another one died."""
        self.kill(dead)
        spool = self.process()
        self.wait(spool.take_over())
        return spool

    def leased(self, spool: SqliteSpool) -> Sequence[str]:
        """The ids of what is leased now."""
        return [message.id for message in self.wait(spool.lease_due(100))]

    def settle(self, spool: SqliteSpool, id: str, seconds: float = 900.0) -> None:
        """An attempt that ended."""
        message = next(e.message for e in self.tools().find(Filter(ids=frozenset({id}))))
        self.wait(spool.settle(settlement(message, self.now() + seconds)))

    def test_twice(self) -> None:
        """It is tried after all others, and put on hold when the program died on it again."""
        spool = self.process()
        bad, *others = (self.commit(spool).id for _ in range(5))
        for each in (bad, others[0]):
            self.assertTrue(spool.begin_attempt(each))
        spool.end_attempt(others[0])
        spool = self.next_process(spool)
        self.assertFalse(self.wait(spool.keeps_suspects()), "others are due first")
        self.assertEqual(sorted(self.leased(spool)), sorted(others))
        self.assertTrue(self.wait(spool.keeps_suspects()))
        self.clock.advance(SUSPECT_DELAY)
        self.assertFalse(self.wait(spool.keeps_suspects()))
        self.assertEqual(self.leased(spool), [bad])
        spool.begin_attempt(bad)
        with capturedLogs() as events:
            spool = self.next_process(spool)
        (event,) = (event for event in events if event.get("queue_id"))
        self.assertEqual((event["queue_id"], event["log_level"]), (bad, LogLevel.error))
        self.clock.advance(3600)
        self.assertEqual(sorted(self.leased(spool)), sorted(others))
        (entry,) = self.tools().find(Filter(state="held"))
        self.assertEqual(entry.message.id, bad)
        self.assertIn("ended twice", entry.reason)
        self.tools().release([bad])
        self.assertEqual(self.leased(spool), [bad])

    def test_innocent(self) -> None:
        """Of a hundred that were tried, one at a time is tried again; it alone can be blamed."""
        spool = self.process()
        tried = [self.commit(spool).id for _ in range(100)]
        for each in tried:
            spool.begin_attempt(each)
        spool = self.next_process(spool)
        neighbour = self.process()
        self.clock.advance(SUSPECT_DELAY)
        (first,) = self.leased(spool)
        self.assertEqual(self.leased(neighbour), [])
        self.assertEqual(self.wait(neighbour.lease(tried)), [])
        spool.begin_attempt(first)
        self.heard(spool)
        self.settle(spool, first)
        spool.end_attempt(first)
        self.assertEqual(self.heard(spool), ["wake"])
        (second,) = self.leased(neighbour)
        self.assertNotEqual(second, first)
        neighbour.begin_attempt(second)
        self.kill(neighbour)
        self.wait(spool.take_over())
        held = [entry.message.id for entry in self.tools().find(Filter(state="held"))]
        self.assertEqual(held, [second])
        for _ in range(98):
            (each,) = self.leased(spool)
            self.settle(spool, each)
        self.assertEqual(self.leased(spool), [])

    def test_held_mail_behind_suspects(self) -> None:
        """More suspects than a peer gets at once keep no other message from it."""
        spool = self.process()
        tried, others = ([self.commit(spool) for _ in range(3)] for _ in range(2))
        for message in (*tried, *others):
            self.wait(spool.settle(settlement(message, self.now() + DAY, **HELD)))
        self.wait(spool.lease([message.id for message in tried]))
        for message in tried:
            spool.begin_attempt(message.id)
        spool = self.next_process(spool)
        found = self.wait(spool.lease_held("office", [EVERYWHERE], 2, math.inf))
        self.assertEqual(ids(found), ids(others[:2]))
        found = self.wait(spool.lease_held("office", [EVERYWHERE], 2, math.inf))
        self.assertEqual(ids(found), ids(others[2:]))
        self.clock.advance(SUSPECT_DELAY)
        for message in tried:
            found = self.wait(spool.lease_held("office", [EVERYWHERE], 2, math.inf))
            self.assertEqual(ids(found), ids([message]))
            self.wait(spool.settle(done(found[0])))

    def test_tried_with_others(self) -> None:
        """A second death says little while others are tried as well; the third one decides."""
        spool = self.process()
        bad = self.commit(spool).id
        for deaths in range(1, 4):
            spool.begin_attempt(bad)
            other = self.commit(spool).id
            spool.begin_attempt(other)
            spool = self.next_process(spool)
            held = [entry.message.id for entry in self.tools().find(Filter(state="held"))]
            self.assertEqual(held, [bad] if deaths == 3 else [])
            self.clock.advance(SUSPECT_DELAY)
            while deaths < 3 and (leased := self.leased(spool)) != [bad]:
                self.settle(spool, *leased)

    def test_leased_alone_is_no_guilt(self) -> None:
        """What only waited in the process that died is due at once, and never suspected."""
        spool = self.process()
        waiting = [self.commit(spool).id for _ in range(50)]
        for _ in range(5):
            spool = self.next_process(spool)
            self.assertEqual(sorted(self.leased(spool)), sorted(waiting))

    def test_an_attempt_that_ends_clears_it(self) -> None:
        """Two deaths with a whole attempt between them are two accidents."""
        spool = self.process()
        bad = self.commit(spool).id
        for _ in range(3):
            spool.begin_attempt(bad)
            spool = self.next_process(spool)
            self.clock.advance(SUSPECT_DELAY)
            self.assertEqual(self.leased(spool), [bad])
            self.settle(spool, bad, 0.0)
            self.assertEqual(self.leased(spool), [bad])

    def test_processes_that_die_young(self) -> None:
        """Where one after the other is killed, what they tried is not blamed for it."""
        spool = self.process()
        bad = self.commit(spool).id
        for _ in range(5):
            spool.begin_attempt(bad)
            spool = self.next_process(spool)
            self.clock.advance(SUSPECT_DELAY - 0.1)
            self.assertEqual(self.leased(spool), [])
            self.assertEqual(self.wait(spool.lease([bad])), [])
            self.assertIsNone(self.wait(spool.next_due()))
        self.heard(spool)
        self.clock.advance(0.1)
        self.assertEqual(self.heard(spool), ["wake"])
        self.assertEqual(self.leased(spool), [bad])

    def test_loss_of_power(self) -> None:
        """It is no message's fault."""
        spool = self.process()
        bad = self.commit(spool).id
        for boot in ("one", "two", "three"):
            spool.begin_attempt(bad)
            self.patch(clock, "boot_id", lambda boot=boot: boot)
            self.patch(attempts, "boot_id", lambda boot=boot: boot)
            spool = self.next_process(spool)
            self.assertEqual(self.leased(spool), [bad])

    def test_orderly_end(self) -> None:
        """Who stops a server in the middle of an attempt blames nobody."""
        spool = self.restartable()
        bad = self.commit(spool).id
        for _ in range(3):
            spool.begin_attempt(bad)
            self.wait(spool.stop())
            self.clock.advance(1)
            spool = self.restartable()
            self.wait(spool.take_over())
            self.assertEqual(self.leased(spool), [bad])
        self.wait(spool.stop())

    def test_garbage(self) -> None:
        """Whatever stands in the file of a dead owner, it is taken over from."""
        for octets in (b"", b"x", b"\xff" * 5000, clock.boot_id().encode().ljust(64, b"\0") * 9):
            spool = self.process()
            message = self.commit(spool).id
            self.owner(spool).attempts.write_bytes(octets)
            heir = self.next_process(spool)
            self.assertEqual(self.leased(heir), [message])
            self.wait(heir.remove([message], 0.0))

    def test_many(self) -> None:
        """More attempts than there is room for are made all the same."""
        spool = self.process()
        message = self.commit(spool)
        self.patch(spool._attempts, "_free", [])
        self.assertTrue(spool.begin_attempt(message.id))
        spool.end_attempt(message.id)

    def test_interfaces(self) -> None:
        """Whoever notes attempts does it as the interface has it."""
        for each in (self.process(), NoAttempts()):
            verifyObject(IAttempts, each)
