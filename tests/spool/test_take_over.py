"""Mail of dead processes is taken over."""

from __future__ import annotations

import errno
import os

from mta.session import UNKNOWN_ORIGIN
from mta.spool import owners, queue_id, take_over
from mta.spool.sqlite import SqliteSpool
from tests.spool.cases import (
    LARGE,
    Once,
    SpoolTestCase,
    envelope,
)


class TakeOverTests(SpoolTestCase):
    """A dead owner's mail is taken over."""

    def test_dead(self) -> None:
        """It is due at once, and `recovered`; the owner's files are gone."""
        dead, heir = self.process(), self.process()
        message = self.commit(dead)
        draft = dead.draft()
        self.wait(draft.write(LARGE))
        self.wait(draft.write(LARGE))
        self.kill(dead)
        self.assertEqual(self.wait(heir.take_over()), 1)
        (again,) = self.wait(heir.lease_due(10))
        self.assertEqual((again.id, again.recovered), (message.id, True))
        self.assertEqual(self.files(), [])
        self.assertEqual(len(owners.live_owners(self.folder)), 1)

    def test_released(self) -> None:
        """What a dead owner had released for later is due at once, unless it is on hold."""
        self.patch(take_over, "_BATCH_SIZE", 2)
        dead, alive, heir = self.process(), self.process(), self.process()
        later = self.now() + 600
        (kept,) = self.released(alive, later, 1)
        on_hold, *released = self.released(dead, later, 4)
        self.tools().hold([on_hold])
        self.kill(dead)
        self.assertEqual(self.wait(heir.take_over()), 4)
        due = self.wait(heir.lease_due(10))
        self.assertEqual(
            [(each.id, each.recovered) for each in due], [(id, False) for id in released]
        )
        self.assertEqual([kept], [each.id for each in self.wait(alive.lease([kept]))])

    def released(self, spool: SqliteSpool, due: float, count: int) -> list[str]:
        """Messages that were released untried until later."""
        ids = [self.commit(spool).id for _ in range(count)]
        self.wait(spool.release(dict.fromkeys(ids, due)))
        return ids

    def test_released_and_stopped(self) -> None:
        """An orderly end leaves nothing that waits for a process that is gone."""
        stopped = self.restartable()
        released = self.released(stopped, self.now() + 600, 2)
        self.wait(stopped.stop())
        self.assertEqual([each.id for each in self.wait(self.process().lease_due(10))], released)

    def test_living(self) -> None:
        """Nothing of a living owner is touched."""
        alive, other = self.process(), self.process()
        self.commit(alive)
        draft = alive.draft()
        self.wait(draft.write(LARGE))
        self.wait(draft.write(LARGE))
        self.assertEqual(self.wait(other.take_over()), 0)
        self.assertEqual(self.wait(other.lease_due(10)), [])
        message = self.wait(alive.commit(draft, envelope(), b"", UNKNOWN_ORIGIN))
        self.assertEqual(self.content(message), LARGE * 2)

    def test_on_hold(self) -> None:
        """What the person in charge wants kept is kept."""
        dead, heir = self.process(), self.process()
        message = self.commit(dead)
        self.tools().hold([message.id])
        self.kill(dead)
        self.wait(heir.take_over())
        self.assertEqual(self.wait(heir.lease_due(10)), [])

    def test_name_lost_before_the_lock(self) -> None:
        """A new owner whose file was removed before it had the lock takes another name."""
        self.process()
        real, removed = owners._lock, []

        def lock(descriptor: int) -> bool:
            if not removed:
                (path,) = [
                    path
                    for path in (self.path / "owners").glob("*.lock")
                    if path.stat().st_ino == os.fstat(descriptor).st_ino
                ]
                removed.append(path)
                path.unlink()
            return real(descriptor)

        self.patch(owners, "_lock", lock)
        ours = owners.register(self.folder, queue_id.QueueIds(self.now))
        self.addCleanup(ours.close)
        self.assertEqual(len(removed), 1)
        self.assertIn(ours.number, owners.live_owners(self.folder))

    def test_two_heirs(self) -> None:
        """Two that meet over one dead owner do no harm: each message is freed once."""
        dead, one, other = self.process(), self.process(), self.process()
        self.commit(dead)
        self.kill(dead)
        (first,) = owners.dead_owners(self.folder, self.owner(one).number)
        self.assertEqual(self.wait(other.take_over()), 0)
        self.assertEqual(self.wait(one._taking_over.take_over_from(first, died=True)), 1)
        self.assertEqual(self.wait(other.take_over()), 0)


class FaultTests(SpoolTestCase):
    """Taking over where something fails."""

    def test_one_that_cannot_be_removed(self) -> None:
        """It keeps no other dead owner's mail, nor leftover files, from being dealt with."""
        spool = self.process()
        dead = [owners.register(self.folder, queue_id.QueueIds(self.now)) for _ in range(3)]
        for owner in dead:
            owner.close()
        (self.folder.arrivals / f"{queue_id.encode(dead[0].number)}.1K8JQZ3T5V2XA").mkdir()
        for _ in range(3):
            self.wait(spool.take_over())
        self.assertEqual(
            owners.known_owners(self.folder), {self.owner(spool).number, dead[0].number}
        )

    def test_too_many_open_files(self) -> None:
        """A dead owner whose lock can't be opened is taken over from at the next look."""
        spool = self.process()
        dead = [owners.register(self.folder, queue_id.QueueIds(self.now)) for _ in range(2)]
        for owner in dead:
            owner.close()
        error = OSError(errno.EMFILE, "Too many open files")
        self.patch(os, "open", Once(os.open, error))
        for _ in range(2):
            self.wait(spool.take_over())
        self.assertEqual(owners.known_owners(self.folder), {self.owner(spool).number})
