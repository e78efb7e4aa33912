"""Which of several nodes dials a peer."""

from __future__ import annotations

from collections.abc import Collection

from twisted.internet.defer import Deferred, gatherResults

from mta.spool.postgres.spool import PostgresSpool
from tests.spool.postgres import NodesTestCase


class DiallingTests(NodesTestCase):
    """Two nodes with the same peers."""

    def ours(self, spool: PostgresSpool, *peers: str) -> Collection[str]:
        """The peers that a node dials, of these."""
        return sorted(self.wait(spool.peers_to_dial(peers)))

    def test_one_of_them(self) -> None:
        """Each peer has one node, for as long as that lives."""
        one, other = self.process(), self.process()
        self.assertEqual(self.ours(one, "a", "b"), ["a", "b"])
        self.assertEqual(self.ours(other, "a", "b", "c"), ["c"])
        self.assertEqual(self.ours(one, "a", "b", "c"), ["a", "b"])
        self.kill(one)
        self.assertEqual(self.ours(other, "a", "b", "c"), ["a", "b", "c"])

    def test_an_orderly_end(self) -> None:
        """The other one has it at once."""
        one, other = self.process(), self.process()
        self.assertEqual((self.ours(one, "a"), self.ours(other, "a")), (["a"], []))
        self.stop(one)
        self.assertEqual(self.ours(other, "a"), ["a"])

    def test_unwanted(self) -> None:
        """What one node has in its configuration no more is another's."""
        one, other = self.process(), self.process()
        self.ours(one, "a", "b")
        self.assertEqual(self.ours(one, "b"), ["b"])
        self.assertEqual(self.ours(other, "a", "b"), ["a"])

    def test_believed_dead(self) -> None:
        """One that stood still has none until it has beaten, and no more what another took."""
        still, other = self.process(), self.process()
        self.ours(still, "a", "b")
        self.sql("UPDATE owner SET alive_until = '-infinity' WHERE id = %s", still._owner.number)
        self.assertEqual(self.ours(still, "a", "b"), [])
        self.assertEqual(self.ours(other, "a"), ["a"])
        self.wait(still.beat())
        self.assertEqual(self.ours(still, "a", "b"), ["b"])

    def test_both_at_once(self) -> None:
        """Both find it free, and one gets it."""
        one, other = self.process(), self.process()
        peers = [str(number) for number in range(50)]
        both = [Deferred.fromCoroutine(each.peers_to_dial(peers)) for each in (one, other)]
        first, second = self.wait(gatherResults(both))
        self.assertEqual(sorted([*first, *second]), sorted(peers))
