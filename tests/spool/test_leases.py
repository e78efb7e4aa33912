"""Leases of what is due, and of what is held for peers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mta.mail import Mailbox
from mta.queued import (
    State,
)
from mta.spool import batches
from mta.spool.jobs import Job
from mta.spool.sqlite import SqliteSpool
from tests.spool.cases import (
    SpoolTestCase,
    envelope,
    failing,
    of_sqlite,
    settlement,
)


class LeaseTests(SpoolTestCase):
    """Each message is worked on by one process at most."""

    def test_order_and_limit(self) -> None:
        """The longest overdue come first, in portions."""
        spool = self.process()
        messages = [self.commit(spool) for _ in range(4)]
        for message, wait in zip(messages, (30, 10, 20, 90), strict=True):
            self.wait(spool.settle(settlement(message, self.now() + wait)))
        self.clock.advance(40)
        ids = [message.id for message in messages]
        self.assertEqual(self.leased(spool, 2), [ids[1], ids[2]])
        self.assertEqual(self.leased(spool, 2), [ids[0]])

    def test_one_owner(self) -> None:
        """What one has leased, or taken in, no other gets."""
        one, other = self.process(), self.process()
        self.commit(one)
        self.assertEqual(self.leased(other), [])
        message = self.commit(one)
        self.wait(one.release({message.id: 0.0}))
        self.assertEqual(self.leased(one), [message.id])
        self.assertEqual(self.leased(other), [])

    def test_released(self) -> None:
        """A message that is given back is due at once, for any process."""
        one, other = self.process(), self.process()
        message = self.commit(one)
        self.wait(one.release({message.id: 0.0}))
        self.assertEqual(self.wait(one.next_due()), self.now())
        (again,) = self.wait(other.lease_due(1))
        self.assertEqual((again.id, again.recovered), (message.id, False))

    def test_doubtful(self) -> None:
        """An attempt of which nobody knows what it did makes the message one to be careful with."""
        spool = self.process()
        message = self.commit(spool)
        self.wait(spool.settle(replace(settlement(message, self.now()), recovered=True)))
        (again,) = self.wait(spool.lease_due(1))
        self.assertTrue(again.recovered)

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


class HeldTests(SpoolTestCase):
    """Mail that waits for its peer."""

    def setUp(self) -> None:
        super().setUp()
        self.spool = self.process()

    def hold(self, *domains: str, peer: str = "office") -> str:
        """A message held for a peer until a day from now."""
        message = self.commit(self.spool, wanted=envelope(*(Mailbox("x", d) for d in domains)))
        held = settlement(message, self.now() + 86400, state=State.HELD, peer=peer)
        self.wait(self.spool.settle(held))
        return message.id

    def test_of_the_peer_alone(self) -> None:
        """A peer gets what is held for it, oldest first, in portions, each once."""
        first, second = self.hold("a.example"), self.hold("a.example", "b.example")
        self.hold("a.example", peer="other")
        third = self.hold("b.example")
        domains = {"a.example", "b.example"}
        self.assertEqual(self.leased(domains, 2), [first, second])
        self.assertEqual(self.leased(domains, 2), [third])
        self.assertEqual(self.leased(domains, 2), [])

    def test_of_its_domains_alone(self) -> None:
        """Exact names and names below; nothing that only ends alike."""
        self.hold("other.example")
        self.hold("notdeep.example")
        exact = self.hold("a.example")
        below = self.hold("x.y.deep.example")
        self.hold("deep.example")
        self.assertEqual(self.leased({"a.example", ".deep.example"}), [exact, below])

    def test_everywhere(self) -> None:
        """A lone dot stands for any domain, and for the peer's mail alone."""
        mine = [self.hold("a.example"), self.hold("b.test")]
        self.hold("a.example", peer="other")
        self.assertEqual(self.leased({"."}), mine)

    def test_count(self) -> None:
        """What waits is counted, also while it is on its way, up to a limit."""
        for domain in ("a.example", "a.example", "b.example", "x.b.example"):
            self.hold(domain)
        self.hold("a.example", peer="other")
        self.leased({"a.example"}, 1)
        for domains, most, count in [
            ({"a.example"}, 10, 2),
            ({"a.example"}, 1, 1),
            ({"a.example", ".b.example"}, 10, 3),
            ({"."}, 10, 4),
            ({"c.example"}, 10, 0),
        ]:
            self.assertEqual(self.wait(self.spool.count_held("office", domains, most)), count)

    def test_wildcards_have_no_meaning(self) -> None:
        """A domain with characters that mean something to SQL finds nothing."""
        self.hold("a.example")
        self.assertEqual(self.leased({"%", ".%", "_.example", "' OR 1 --"}), [])

    def test_not_due(self) -> None:
        """It is outside of the retry schedule until it expires."""
        held = self.hold("a.example")
        self.assertEqual(self.wait(self.spool.lease_due(1)), [])
        self.clock.advance(86400)
        self.assertEqual([m.id for m in self.wait(self.spool.lease_due(1))], [held])

    def test_done_recipients_do_not_count(self) -> None:
        """A message that is held no more is not found."""
        self.hold("a.example")
        (message,) = self.wait(self.spool.lease_held("office", {"a.example"}, 1))
        waiting = settlement(message, self.now() + 60, state=State.WAITING, peer="")
        self.wait(self.spool.settle(waiting))
        self.assertEqual(self.leased({"a.example"}), [])

    def leased(self, domains: Iterable[str], limit: int = 10) -> list[str]:
        """The ids of what is leased for the office."""
        messages = self.wait(self.spool.lease_held("office", set(domains), limit))
        return [message.id for message in messages]


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
