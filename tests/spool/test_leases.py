"""Leases of what is due, and of what is held for peers."""

from __future__ import annotations

from mta.spool import batches
from mta.spool.jobs import Job
from mta.spool.sqlite import SqliteSpool
from tests.spool.cases import (
    SpoolTestCase,
    failing,
    of_sqlite,
    settlement,
)


class LeaseTests(SpoolTestCase):
    """Each message is worked on by one process at most."""

    def test_released_for_later(self) -> None:
        """A message may be given back to be due later; by its id it can be had before."""
        one, other = self.process(), self.process()
        first, second = self.commit(one), self.commit(one)
        later = self.now() + 600
        self.wait(one.release({first.id: later, second.id: later}))
        self.assertEqual([], self.leased(other, 2))
        self.assertEqual(later, self.wait(one.next_due()))
        (again,) = self.wait(one.lease([second.id]))
        self.assertEqual((again.id, again.recovered), (second.id, False))
        self.assertEqual(
            [first.id], [each.id for each in self.wait(other.lease([second.id, first.id]))]
        )

    def test_renewal(self) -> None:
        """Leases of a process that lives last as long as it needs them."""
        one, other = self.process(), self.process()
        message = self.commit(one)
        for _ in range(40):
            self.clock.advance(60)
            self.wait(self.committers[one].submit(Job()))  # a renewal before it is through
        self.assertEqual(self.leased(other), [])
        self.wait(one.settle(settlement(message, self.now())))
        self.assertEqual(self.leased(other), [message.id])

    def test_next_due(self) -> None:
        """What we work on ourselves is no reason to wake up."""
        spool = self.process()
        self.assertIsNone(self.wait(spool.next_due()))
        message = self.commit(spool)
        self.assertIsNone(self.wait(spool.next_due()))
        self.wait(spool.settle(settlement(message, self.now() + 5)))
        self.tools().hold([message.id])
        self.assertIsNone(self.wait(spool.next_due()))

    def test_stopped_process(self) -> None:
        """What a process leaves when it stops may have been delivered: it is `recovered`."""
        one = self.restartable()
        message = self.commit(one)
        self.wait(one.stop())
        (again,) = self.wait(self.process().lease_due(1))
        self.assertEqual((again.id, again.recovered), (message.id, True))
        self.assertEqual(len(list((self.path / "owners").glob("*.lock"))), 1)

    def leased(self, spool: SqliteSpool, limit: int = 10) -> list[str]:
        """The ids of what is leased now."""
        return [message.id for message in self.wait(spool.lease_due(limit))]


class ReleaseTests(SpoolTestCase):
    """What is given back."""

    def test_it_is_not_lost(self) -> None:
        """Where it can't be recorded it is with the next beat: nothing waits for a restart."""
        spool = self.process()
        message = self.commit(spool)
        patch = self.patch(batches, "transaction", failing(of_sqlite("SQLITE_FULL")))
        self.wait(spool.release({message.id: 0.0}))
        patch.restore()
        self.assertEqual(self.wait(spool.lease_due(9)), [])
        self.heard(spool)
        self.wait(spool.beat())
        self.wait(self.committers[spool].submit(Job()))
        self.assertEqual(self.heard(spool), ["wake"])
        self.assertEqual([each.id for each in self.wait(spool.lease_due(9))], [message.id])
