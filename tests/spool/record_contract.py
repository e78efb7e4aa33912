"""The promises of a spool about held mail, and about what became of messages."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from mta.mail import NULL_PATH, Mailbox, Recipient
from mta.queued import (
    EVERYWHERE,
    HistoryEntry,
    Message,
    Notice,
    Progress,
    Settlement,
    State,
)
from mta.session import NOTICE_ORIGIN
from tests.spool.contract import (
    ALICE,
    BOB,
    DAY,
    HEADER,
    LARGE,
    NEVER,
    Contract,
    done,
    envelope,
    ids,
    settlement,
)


class HeldContract(Contract):
    """`IHeldLeases`: mail that waits for a peer."""

    def hold(self, spool: Any, *domains: str, peer: str = "office") -> str:
        """Commit a message that is held for a peer until a day from now."""
        message = self.commit(spool, wanted=envelope(*(Mailbox("x", d) for d in domains)))
        held = settlement(message, self.now() + DAY, state=State.HELD, peer=peer)
        self.wait(spool.settle(held))
        return message.id

    def held(self, spool: Any, *domains: str, limit: int = 10) -> list[str]:
        """Lease what is held for the office; returns the queue ids."""
        return ids(self.wait(spool.lease_held("office", set(domains), limit, math.inf)))

    def test_of_the_peer_alone(self) -> None:
        """A peer gets what is held for it, oldest first, in portions, each once."""
        spool = self.process()
        first, second = self.hold(spool, "a.example"), self.hold(spool, "a.example", "b.example")
        self.hold(spool, "a.example", peer="other")
        third = self.hold(spool, "b.example")
        domains = ("a.example", "b.example")
        self.assertEqual(self.held(spool, *domains, limit=2), [first, second])
        self.assertEqual(self.held(spool, *domains, limit=2), [third])
        self.assertEqual(self.held(spool, *domains, limit=2), [])

    def test_of_its_domains_alone(self) -> None:
        """Exact names and names below; nothing that only ends alike."""
        spool = self.process()
        for other in ("other.example", "notdeep.example"):
            self.hold(spool, other)
        exact, below = self.hold(spool, "a.example"), self.hold(spool, "x.y.deep.example")
        self.hold(spool, "deep.example")
        self.assertEqual(self.held(spool, "a.example", ".deep.example"), [exact, below])
        self.assertEqual(self.held(spool, "%", ".%", "_.example", "' OR 1 --"), [])

    def test_everywhere(self) -> None:
        """A lone dot stands for any domain, and for the peer's mail alone."""
        spool = self.process()
        mine = [self.hold(spool, "a.example"), self.hold(spool, "b.test")]
        self.hold(spool, "a.example", peer="other")
        self.assertEqual(self.held(spool, EVERYWHERE), mine)

    def offered(self, spool: Any, limit: int, before: float = math.inf) -> list[str]:
        """Lease what may be offered to the office, which takes none of it."""
        found = self.wait(spool.lease_held("office", {EVERYWHERE}, limit, before))
        for message in found:
            refused = settlement(message, self.now() + DAY, state=State.HELD, peer="office")
            self.wait(spool.settle(refused))
        return ids(found)

    def test_takes_turns(self) -> None:
        """What was never offered comes first, and then what was offered longest ago."""
        spool = self.process()
        stuck = [self.hold(spool, "a.example", "b.example") for _ in range(5)]
        for found in (stuck[:3], stuck[3:] + stuck[:1], [*stuck[1:3], stuck[0]]):
            self.assertEqual(self.offered(spool, 3), found)
            self.advance(60)
        new = self.hold(spool, "a.example")
        self.assertEqual(self.offered(spool, 2), [new, stuck[3]])
        self.assertEqual(self.offered(spool, 9, before=1.0), [])
        newer = self.hold(spool, "a.example")
        self.assertEqual(self.offered(spool, 9, before=1.0), [newer])
        self.assertEqual(self.offered(spool, 9, before=self.now()), [stuck[4], *stuck[:3]])

    def test_offered_without_a_lease(self) -> None:
        """What a peer did not take as it came is not new to it."""
        spool = self.process()
        message = self.commit(spool)
        refused = settlement(message, self.now() + DAY, state=State.HELD, peer="office")
        self.wait(spool.settle(replace(refused, offered=self.now())))
        self.assertEqual(self.offered(spool, 9, before=1.0), [])
        self.assertEqual(self.offered(spool, 9), [message.id])

    def test_count(self) -> None:
        """What waits is counted, also while it is leased, up to a limit."""
        spool = self.process()
        for domain in ("a.example", "a.example", "b.example", "x.b.example"):
            self.hold(spool, domain)
        self.hold(spool, "a.example", peer="other")
        self.held(spool, "a.example", limit=1)
        for domains, limit, count in [
            ({"a.example"}, 10, 2),
            ({"a.example"}, 1, 1),
            ({"a.example", ".b.example"}, 10, 3),
            ({EVERYWHERE}, 10, 4),
            ({"c.example"}, 10, 0),
        ]:
            self.assertEqual(self.wait(spool.count_held("office", domains, limit)), count)

    def test_peers_with_mail(self) -> None:
        """They are those for which something waits that no process has, and no person keeps."""
        spool, peers = self.process(), ["office", "other", "third", "fourth"]
        self.hold(spool, "a.example")
        self.hold(spool, "b.example", peer="other")
        self.hold(spool, "c.example", peer="fifth")
        self.assertEqual({*self.wait(spool.peers_with_mail(peers))}, {"office", "other"})
        self.assertEqual([*self.wait(spool.peers_with_mail([]))], [])
        self.held(spool, "a.example")
        self.assertEqual([*self.wait(spool.peers_with_mail(peers))], ["other"])

    def test_until_it_expires(self) -> None:
        """It is outside of the retry schedule until then."""
        spool = self.process()
        held = self.hold(spool, "a.example")
        self.assertEqual(self.due(spool), [])
        self.advance(DAY)
        self.assertEqual(self.due(spool), [held])

    def test_not_held_any_more(self) -> None:
        """A message whose recipients wait for something else is not found."""
        spool = self.process()
        self.hold(spool, "a.example")
        (message,) = self.wait(spool.lease_held("office", {"a.example"}, 1, math.inf))
        self.wait(spool.settle(settlement(message, self.now() + 60, state=State.WAITING)))
        self.assertEqual(self.held(spool, "a.example"), [])
        self.assertEqual(self.wait(spool.count_held("office", {EVERYWHERE}, 9)), 0)


class RecordContract(Contract):
    """`IAttemptRecords`: what became of messages."""

    def test_deferred(self) -> None:
        """All that an attempt changed is there at the next one, not before its time."""
        spool = self.process()
        message = self.commit(spool, wanted=envelope(BOB, ALICE))
        entry = HistoryEntry(self.now(), "mx:example.org", "deferred", "451 4.3.0 Later")
        settled = frozenset({"b@x", "c@y"})
        progress = (
            Progress(Recipient(BOB), State.WAITING, "", settled).with_attempt(entry),
            Progress(Recipient(ALICE), State.DONE),
        )
        self.wait(spool.settle(Settlement(message.id, progress, self.now() + 60, 1, True)))
        self.assertEqual(self.due(spool), [])
        self.advance(60)
        (again,) = self.wait(spool.lease_due(10))
        self.assertEqual(again.progress, progress)
        self.assertEqual((again.attempts, again.warned, again.recovered), (1, True, False))

    def test_in_doubt(self) -> None:
        """An attempt whose outcome is unknown marks the message for good."""
        spool = self.process()
        message = self.commit(spool)
        self.wait(spool.settle(replace(settlement(message, self.now()), recovered=True)))
        (again,) = self.wait(spool.lease_due(1))
        self.assertTrue(again.recovered)
        self.wait(spool.settle(settlement(again, self.now())))
        (again,) = self.wait(spool.lease_due(1))
        self.assertTrue(again.recovered)

    def test_done(self) -> None:
        """A message whose recipients are all done is gone."""
        spool = self.process()
        message = self.commit(spool, LARGE)
        self.assertEqual(self.wait(spool.settle(done(message))), [])
        self.assert_gone(spool, message.id)

    def test_removed(self) -> None:
        """Messages that are done are removed together, at the latest after the delay."""
        spool = self.process()
        messages = [self.commit(spool), self.commit(spool, LARGE)]
        self.wait(spool.remove(ids(messages), 0.0))
        self.assert_gone(spool, *ids(messages))

    def test_delivered_is_delivered(self) -> None:
        """A message that is done is removed, also where we have no lease any more."""
        spool = self.process()
        first, second = self.waiting(spool), self.waiting(spool)
        self.wait(spool.settle(done(first)))
        self.wait(spool.remove([second.id], 0.0))
        self.assert_gone(spool, first.id, second.id)

    def test_a_lost_lease(self) -> None:
        """Any other report on what is not leased to us changes nothing."""
        spool = self.process()
        message = self.waiting(spool)
        self.wait(spool.settle(settlement(message, self.now() + 900, peer="p")))
        (again,) = self.wait(spool.lease_due(1))
        self.assertEqual((again.id, again.progress), (message.id, message.progress))

    def test_notices(self) -> None:
        """The notices of an attempt come with its record, leased to us."""
        spool = self.process()
        to_alice = envelope(ALICE, reverse_path=NULL_PATH)
        wanted = (Notice(to_alice, HEADER, b"small"), Notice(to_alice, HEADER, LARGE))
        failed, deferred = self.commit(spool), self.commit(spool)
        for settled in (done(failed), settlement(deferred, self.now() + 60)):
            notices = self.wait(spool.settle(replace(settled, notices=wanted)))
            for notice, message in zip(wanted, notices, strict=True):
                self.assertEqual(self.halves(message), (notice.header, notice.body))
                self.assertEqual((message.envelope, message.origin), (to_alice, NOTICE_ORIGIN))
            self.assertEqual(self.due(spool), [])
            self.assertEqual(self.wait(spool.lease(ids(notices))), [])
            self.wait(spool.release(dict.fromkeys(ids(notices), 0.0)))
            self.assertEqual(sorted(self.due(spool)), sorted(ids(notices)))

    def test_recalled(self) -> None:
        """Messages that are not leased to us any more are recalled, and no others."""
        spool = self.process()
        ours, gone, released = self.commit(spool), self.commit(spool), self.waiting(spool)
        self.wait(spool.remove([gone.id], 0.0))
        recalled = self.wait(spool.recalled([ours.id, gone.id, released.id]))
        self.assertEqual(sorted(recalled), sorted([gone.id, released.id]))

    def assert_gone(self, spool: Any, *names: str) -> None:
        """No trace of these messages is in the queue."""
        self.assertEqual(self.wait(spool.lease(names)), [])
        self.assertIsNone(self.wait(spool.next_due()))
        self.assertEqual(sorted(self.wait(spool.recalled(names))), sorted(names))


class PostponeContract(Contract):
    """`IAttemptRecords.postpone`: mail for hops that are down, put off in bulk."""

    DEAD = "mx:dead.example"

    def tried(self, spool: Any, *hops: str, **changes: Any) -> Message:
        """Commit a message with a recipient for each hop, tried there last, and due."""
        message = self.commit(
            spool, wanted=envelope(*(Mailbox("x", f"d{n}.example") for n, _ in enumerate(hops)))
        )
        progress = tuple(
            replace(
                entry,
                history=(HistoryEntry(self.now(), hop, "deferred", "451 4.4.1 No answer"),),
                **changes,
            )
            for entry, hop in zip(message.progress, hops, strict=True)
        )
        self.wait(spool.settle(Settlement(message.id, progress, self.now(), 1, False)))
        return message

    def postpone(self, spool: Any, *, warn_after: float = 0.0, **dues: float) -> dict[str, int]:
        """Put off mail for the dead hop; returns how much, by hop."""
        wanted = {self.DEAD: self.now() + 900, **dues}
        return dict(self.wait(spool.postpone(wanted, warn_after, NEVER)))

    def test_these_hops_alone(self) -> None:
        """A message that waits for another hop as well stays due."""
        spool = self.process()
        self.tried(spool, self.DEAD)
        both, other = self.tried(spool, self.DEAD, "smtp:x"), self.tried(spool, "smtp:x")
        self.assertEqual(self.postpone(spool), {self.DEAD: 1})
        self.assertEqual(self.due(spool), [both.id, other.id])
        self.assertAlmostEqual(self.wait(spool.next_due()), self.now() + 900, delta=1)

    def test_never_tried(self) -> None:
        """Before its first attempt mail waits for the exchangers of its domain."""
        spool = self.process()
        self.waiting(spool, wanted=envelope(Mailbox("x", "dead.example")))
        self.assertEqual(self.postpone(spool), {self.DEAD: 1})

    def test_the_first_hop_that_is_probed(self) -> None:
        """A message for several hops is due at the first of their times."""
        spool = self.process()
        self.tried(spool, self.DEAD, "smtp:x")
        self.postpone(spool, **{"smtp:x": self.now() + 300})
        self.assertAlmostEqual(self.wait(spool.next_due()), self.now() + 300, delta=1)

    def test_no_later_than_its_sender_is_told(self) -> None:
        """A message is due when it has to be warned about, or given up."""
        spool = self.process()
        self.tried(spool, self.DEAD)
        self.advance(100)
        self.assertEqual(self.postpone(spool, warn_after=400), {self.DEAD: 1})
        self.assertAlmostEqual(self.wait(spool.next_due()), self.now() + 300, delta=1)

    def test_what_is_late_stays_due(self) -> None:
        """A message that should have been warned about already is not put off."""
        spool = self.process()
        message = self.tried(spool, self.DEAD)
        self.advance(500)
        self.assertEqual(self.postpone(spool, warn_after=400), {})
        self.assertEqual(self.due(spool), [message.id])

    def test_what_is_under_way_stays(self) -> None:
        """Neither leased mail, nor what is not due, is touched."""
        spool = self.process()
        leased = self.tried(spool, self.DEAD)
        self.assertEqual(self.due(spool), [leased.id])
        later = self.tried(spool, self.DEAD)
        (message,) = self.wait(spool.lease([later.id]))
        self.wait(spool.settle(replace(settlement(message, self.now() + 60))))
        self.assertEqual(self.postpone(spool), {})

    def test_held_mail_stays(self) -> None:
        """Mail that waits for a peer waits for no hop."""
        spool = self.process()
        held = self.tried(spool, self.DEAD, state=State.HELD, peer="office")
        self.assertEqual(self.postpone(spool), {})
        self.assertEqual(self.due(spool), [held.id])
