"""One mailbox gets one copy of a message, however many of its recipients lead there."""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mta.mail import Agent, Hop, Mailbox, Notify, Recipient, distinct
from mta.queue.planning import plan
from mta.queued import Delivery, State
from mta.routing import Router
from mta.settings import Domain, Forward
from tests.queue.runners import LATER, NO, RunnerTests, message
from tests.routing.test_routing import LMTP, MAILDIR, domain, mailbox

SUCCESS, FAILURE, DELAY, NEVER = Notify.SUCCESS, Notify.FAILURE, Notify.DELAY, Notify.NEVER


class PlanTests(SynchronousTestCase):
    """What is tried for a message, with the router of a configuration."""

    def router(self, **keys: object) -> Router:
        home = domain(
            mailboxes=("alice", "bob", "carol"),
            aliases={
                "staff": "alice@example.com",
                "team": "alice@example.com bob@example.com dave@partner.example",
                "both": "staff@example.com team@example.com",
            },
            forward={
                "bob": Forward((mailbox("dave@partner.example"),), keep=True),
                "carol": Forward((mailbox("dave@partner.example"),)),
            },
            catch_all="alice@example.com",
            **keys,
        )
        other = Domain("example.org", MAILDIR, alias_of="example.com")
        return Router("h", {each.name: each for each in (home, other)}, {}, Hop(Agent.MX))

    def tried(self, *addresses: str, deliver: Hop = MAILDIR) -> list[str]:
        targets, _ = plan(message("1", *addresses), self.router(deliver=deliver))
        return sorted(f"{each.address} for {len(each.served)}" for each in targets)

    def test_ways_to_a_mailbox(self) -> None:
        """Aliases, lists, case, sub-addresses, other names of a domain, catch-alls."""
        for others in (
            ["staff@example.com"],
            ["Alice@example.com", "ALICE@example.com"],
            ["alice+x@example.com", "alice+y@example.com"],
            ["alice@example.org", "Staff@example.org"],
            ["nobody@example.com", "nothing@example.org"],
        ):
            tried = self.tried("alice@example.com", *others)
            self.assertEqual([f"alice@example.com for {1 + len(others)}"], tried)

    def test_lists(self) -> None:
        """Each member of two lists, and of one in the other, gets one copy."""
        self.assertEqual(
            [
                "alice@example.com for 3",
                "bob@example.com for 3",
                "dave@partner.example for 3",
            ],
            self.tried("team@example.com", "both@example.com", "Team@example.org"),
        )

    def test_forwards(self) -> None:
        """What several forward to is sent there once, as it came where somebody wrote there."""
        self.assertEqual(
            ["bob@example.com for 1", "dave@partner.example for 2"],
            self.tried("bob@example.com", "carol@example.com"),
        )
        targets, _ = plan(message("1", "carol@example.com", "dave@partner.example"), self.router())
        (target,) = targets
        self.assertEqual((1, None), (target.number, target.forwarder))

    def test_case_elsewhere(self) -> None:
        """What the case of a local part means elsewhere is known there alone."""
        self.assertEqual(
            ["Dave@partner.example for 1", "dave@partner.example for 1"],
            self.tried("dave@partner.example", "Dave@partner.example"),
        )

    def test_case_of_ours_behind_lmtp(self) -> None:
        """An address of ours is compared as we route it, whoever stores its mail."""
        self.assertEqual(
            ["Alice@example.com for 2", "alice+x@example.com for 1"],
            self.tried(
                "Alice@example.com", "alice@example.com", "alice+x@example.com", deliver=LMTP
            ),
        )


class RoundTests(RunnerTests):
    """One copy, and an outcome for each recipient."""

    def test_each_has_its_outcome(self) -> None:
        """Both are done, and each sender's wish is met for each recipient."""
        self.router.aliases = {"staff@a.example": ["x@a.example"]}
        self.agent.outcomes = {"x@a.example": NO}
        self.accept_address("1", "x@a.example", "staff@a.example")
        self.assertEqual([], [each for each in self.agent.deliveries[1:] if each[1] == "1"])
        self.assertEqual(["x@a.example failed"] * 2, self.notices.asked[0][1])
        progress = self.queue.settlements[0].progress
        self.assertEqual(
            [(State.DONE, 1)] * 2, [(each.state, len(each.history)) for each in progress]
        )

    def test_not_again(self) -> None:
        """What waits for another mailbox does not bring a second copy to the shared one."""
        self.router.aliases = {
            "team@a.example": ["x@a.example", "y@a.example"],
            "both@a.example": ["x@a.example", "z@a.example"],
        }
        self.agent.outcomes = {"y@a.example": LATER, "z@a.example": LATER}
        self.accept_address("1", "team@a.example", "both@a.example")
        self.agent.outcomes = {}
        self.runner.start()
        self.run_until(100)
        self.assertEqual(
            [["x@a.example", "y@a.example", "z@a.example"], ["y@a.example", "z@a.example"]],
            [each for _, _, each in self.agent.deliveries],
        )
        self.assertEqual([State.DONE, State.DONE], self.states())

    def test_not_for_another(self) -> None:
        """A recipient who leads there only later has the copy of before, and is done."""
        self.router.aliases = {"late@a.example": ["z@a.example"]}
        self.agent.outcomes = {"z@a.example": LATER}
        self.accept_address("1", "x@a.example", "late@a.example")
        self.router.aliases = {"late@a.example": ["X@a.example"]}
        self.runner.start()
        self.run_until(100)
        self.assertEqual(1, len(self.agent.deliveries))
        self.assertEqual([State.DONE, State.DONE], self.states())

    def test_what_failed_is_no_copy(self) -> None:
        """A mailbox that refused one recipient's mail may take another's."""
        self.router.aliases = {"late@a.example": ["z@a.example"]}
        self.agent.outcomes = {"z@a.example": LATER, "x@a.example": NO}
        self.accept_address("1", "x@a.example", "late@a.example")
        self.router.aliases = {"late@a.example": ["x@a.example"]}
        self.agent.outcomes = {}
        self.runner.start()
        self.run_until(100)
        self.assertEqual(["x@a.example"], self.agent.deliveries[-1][2])
        self.assertEqual([State.DONE, State.DONE], self.states())

    def test_crowded(self) -> None:
        """What could not be tried was untried for all who share it."""
        self.runner = self.make(max_messages=4)
        self.agent.attempt = lambda delivery: Deferred()
        for number in range(4):
            self.accept_address(f"{number}", "x@a.example", "X@a.example")
        self.assertEqual([], self.queue.settlements)
        self.assertTrue(self.queue.released)
        for id in self.queue.released:
            states = [each.state for each in self.queue.waiting[id][0].progress]
            self.assertEqual([State.WAITING] * 2, states)


class WishesTests(SynchronousTestCase):
    """What is asked for on behalf of recipients that are one (RFC 3461)."""

    def test_notify(self) -> None:
        """A condition counts if anyone named it; NEVER if everyone did."""
        none: frozenset[Notify] = frozenset()
        for wishes, expected in (
            ([none, none], none),
            ([{NEVER}, {NEVER}], {NEVER}),
            ([{NEVER}, none], none),
            ([{NEVER}, {SUCCESS}], {SUCCESS}),
            ([{SUCCESS}, {FAILURE}], {SUCCESS, FAILURE}),
            ([none, {SUCCESS}], {SUCCESS, FAILURE, DELAY}),
            ([none, {NEVER}, {DELAY}], {FAILURE, DELAY}),
        ):
            recipients = [Recipient(Mailbox("a", "b"), frozenset(wish)) for wish in wishes]
            for order in (recipients, recipients[::-1]):
                self.assertEqual(frozenset(expected), Recipient.merged(order).notify)

    def test_original(self) -> None:
        """The first that was named."""
        a, b = Recipient(Mailbox("a", "b")), Recipient(Mailbox("a", "b"), original="rfc822;x@y")
        self.assertEqual("rfc822;x@y", Recipient.merged([a, b]).original)
        self.assertEqual((replace(b),), distinct([b, a]))

    def test_on_the_way_out(self) -> None:
        """A next hop is asked for what all recipients asked for that share a target."""
        one, other = (
            Recipient(Mailbox("alice", "example.com"), frozenset({NEVER})),
            Recipient(Mailbox("Alice", "example.com"), frozenset({SUCCESS}), "rfc822;q@r"),
        )
        whole = message("1", "alice@example.com", "Alice@example.com")
        whole = replace(whole, envelope=replace(whole.envelope, recipients=(one, other)))
        targets, _ = plan(whole, PlanTests().router(deliver=LMTP))
        (target,) = targets
        wanted = Delivery(whole, (target,)).recipient(target)
        self.assertEqual((frozenset({SUCCESS}), "rfc822;q@r"), (wanted.notify, wanted.original))
