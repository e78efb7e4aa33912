"""The promises of a spool that several processes share, and those of its tools."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

from zope.interface.verify import verifyObject

from mta.interfaces import IAttempts
from mta.mail import NULL_PATH, Mailbox
from mta.queued import EVERYWHERE, Filter, Message, Notice, State
from mta.session import Origin
from tests.spool.contract import (
    BOB,
    DAY,
    HEADER,
    LARGE,
    Contract,
    done,
    envelope,
    ids,
    settlement,
)


class SharedSetting(Protocol):
    """What the classes here need beside a `tests.spool.contract.Setting`.

    Each call of `process` gives another process on the same store.
    """

    def kill(self, spool: Any) -> None:
        """End a process without an orderly stop."""

    def stop(self, spool: Any) -> None:
        """End a process in an orderly way."""

    def take_over(self, spool: Any) -> None:
        """Let a process look for messages that others left."""

    def tools(self) -> Any:
        """Return the tools on the store, as `mta.spool.tools.SpoolTools` has them."""


class SharedContract(Contract):
    """Processes that share a spool, and die."""

    kill: Callable[[Any], None]
    stop: Callable[[Any], None]
    take_over: Callable[[Any], None]

    def test_one_owner(self) -> None:
        """What one process has leased, or taken in, no other gets."""
        one, other = self.process(), self.process()
        taken_in, leased = self.commit(one), self.waiting(one)
        self.assertEqual(self.due(one), [leased.id])
        self.take_over(other)
        self.assertEqual(self.due(other), [])
        self.assertEqual(self.wait(other.lease([taken_in.id, leased.id])), [])

    def test_released_for_all(self) -> None:
        """A released message is for any process, at its time."""
        one, other = self.process(), self.process()
        now, later = self.waiting(one), self.waiting(one, self.now() + 600)
        self.assertEqual(self.due(other), [now.id])
        self.advance(600)
        self.assertEqual(self.due(other), [later.id])

    def test_held_for_all(self) -> None:
        """Mail that one process holds another one sends."""
        one, other = self.process(), self.process()
        message = self.commit(one)
        held = settlement(message, self.now() + DAY, state=State.HELD, peer="office")
        self.wait(one.settle(held))
        self.assertEqual(self.wait(other.count_held("office", {EVERYWHERE}, 9)), 1)
        ((peer, (count, oldest)),) = other.held_by_peer().items()
        self.assertEqual((peer, count), ("office", 1))
        self.assertAlmostEqual(oldest, message.arrived, 3)
        found = self.wait(other.lease_held("office", {EVERYWHERE}, 9, math.inf))
        self.assertEqual(ids(found), [message.id])
        self.assertEqual(self.wait(one.lease_held("office", {EVERYWHERE}, 9, math.inf)), [])

    def test_death(self) -> None:
        """A dead process's mail is due at once, and known to be perhaps delivered."""
        dead, heir = self.process(), self.process()
        small, large = self.commit(dead), self.commit(dead, LARGE)
        self.kill(dead)
        self.take_over(heir)
        found = {each.id: each for each in self.wait(heir.lease_due(9))}
        self.assertEqual(sorted(found), [small.id, large.id])
        self.assertTrue(all(each.recovered for each in found.values()))
        self.assertEqual(self.halves(found[large.id]), (HEADER, LARGE))

    def test_perhaps_delivered_for_good(self) -> None:
        """Later attempts know as well that a delivery may have happened."""
        dead, heir = self.process(), self.process()
        self.commit(dead)
        self.kill(dead)
        self.take_over(heir)
        (message,) = self.wait(heir.lease_due(1))
        self.wait(heir.settle(settlement(message, self.now())))
        (again,) = self.wait(heir.lease_due(1))
        self.assertTrue(again.recovered)

    def test_arriving(self) -> None:
        """Nothing becomes of what was still arriving when its process died."""
        dead, heir = self.process(), self.process()
        for body in (b"body", LARGE):
            self.wait(dead.draft().write(body))
        self.kill(dead)
        self.take_over(heir)
        self.assertEqual(self.due(heir), [])

    def test_released_by_a_dead_process(self) -> None:
        """What it had released for later, and alone remembered, is due at once."""
        dead, heir = self.process(), self.process()
        message = self.waiting(dead, self.now() + 600)
        self.kill(dead)
        self.take_over(heir)
        (again,) = self.wait(heir.lease_due(1))
        self.assertEqual((again.id, again.recovered), (message.id, False))

    def test_orderly_end(self) -> None:
        """After a stop all is there, and what was leased is due at once."""
        stopped = self.process()
        leased = self.commit(stopped)
        later = self.commit(stopped, LARGE)
        self.wait(stopped.settle(settlement(later, self.now() + 60)))
        self.stop(stopped)
        spool = self.process()
        (again,) = self.wait(spool.lease_due(9))
        self.assertEqual((again.id, again.recovered), (leased.id, True))
        self.advance(60)
        (again,) = self.wait(spool.lease_due(9))
        self.assertEqual((again.id, again.attempts), (later.id, 1))
        self.assertEqual(self.halves(again), (HEADER, LARGE))

    def test_done_is_done(self) -> None:
        """Neither a death nor a stop brings back what was recorded as done."""
        dead, stopped = self.process(), self.process()
        for spool in (dead, stopped):
            self.wait(spool.settle(done(self.commit(spool))))
            self.wait(spool.remove([self.commit(spool).id], 0.0))
        self.kill(dead)
        self.stop(stopped)
        spool = self.process()
        self.take_over(spool)
        self.assertEqual(self.due(spool), [])

    def test_attempts(self) -> None:
        """A message on which processes die is put on hold in the end; no other is."""
        spool = self.process()
        verifyObject(IAttempts, spool)
        bad, ended, innocent = (self.commit(spool).id for _ in range(3))
        self.assertTrue(spool.begin_attempt(ended))
        for expected in ([bad], []):
            self.assertTrue(spool.begin_attempt(bad))
            spool.end_attempt(ended)
            self.kill(spool)
            self.advance(1)
            spool = self.process()
            self.take_over(spool)
            self.assertEqual(sorted(self.due(spool)), sorted([ended, innocent]))
            self.advance(60)
            self.assertEqual(self.due(spool), expected)


class ToolContract(Contract):
    """The tools of the command line, with a server up."""

    tools: Callable[[], Any]
    kill: Callable[[Any], None]
    assertRaises: Any

    def later(self, spool: Any, **more: Any) -> Message:
        """Commit a message that is due in an hour."""
        message = self.commit(spool, **more)
        self.wait(spool.settle(settlement(message, self.now() + 3600)))
        return message

    def found(self, tools: Any, **parts: Any) -> list[str]:
        """The ids of the messages that fit."""
        return [entry.message.id for entry in tools.find(Filter(**parts))]

    def test_states(self) -> None:
        """Active: leased.  Held: for a peer or on hold.  Waiting: the rest."""
        spool, tools = self.process(), self.tools()
        active, waiting, on_hold = self.commit(spool), self.later(spool), self.later(spool)
        held = self.commit(spool)
        self.wait(spool.settle(settlement(held, self.now(), state=State.HELD, peer="office")))
        tools.hold([on_hold.id])
        for state, expected in (
            ("", [active, waiting, on_hold, held]),
            ("active", [active]),
            ("waiting", [waiting]),
            ("held", [on_hold, held]),
            ("on-hold", [on_hold]),
        ):
            self.assertEqual(self.found(tools, state=state), ids(expected))
            self.assertEqual(tools.count(Filter(state=state)), len(expected))
            self.assertEqual([each.id for each in tools.listed(Filter(state=state))], ids(expected))
        self.assertEqual(tools.count_held("office"), 1)

    def test_filters(self) -> None:
        """All parts that are given must fit."""
        spool, tools = self.process(), self.tools()
        old = self.later(spool, wanted=envelope(BOB, reverse_path=NULL_PATH))
        self.advance(7200)
        carol, alice = Mailbox("Carol", "example.net"), Mailbox("Alice", "example.com")
        new = self.later(spool, wanted=envelope(carol, BOB, reverse_path=alice))
        for parts, expected in (
            ({}, [old, new]),
            ({"older": 3600.0}, [old]),
            ({"ids": frozenset({new.id, "nonsense"})}, [new]),
            ({"ids": frozenset({"nonsense"})}, []),
            ({"reverse_path": "<>"}, [old]),
            ({"reverse_path": "ALICE@example.com"}, [new]),
            ({"forward_path": "carol@example.net"}, [new]),
            ({"domain": "example.org"}, [old, new]),
            ({"domain": "example.org", "older": 3600.0}, [old]),
        ):
            self.assertEqual(self.found(tools, **parts), ids(expected))

    def test_mail_of_a_user(self) -> None:
        """By who had logged in, whatever the reverse-path says; case does not count."""
        spool, tools = self.process(), self.tools()
        mine = self.commit(spool, origin=Origin("192.0.2.1", user="Alice"))
        self.commit(spool, origin=Origin("192.0.2.1", user="alice2"))
        self.commit(spool)
        self.assertEqual(self.found(tools, user="aLICE"), [mine.id])
        self.assertEqual(tools.count(Filter(user="alice")), 1)
        self.assertEqual(self.found(tools, user="alice", state="held"), [])

    def test_content(self) -> None:
        """It is read at once, without a reactor."""
        spool, tools = self.process(), self.tools()
        self.commit(spool)
        self.commit(spool, LARGE)
        found = [self.halves(entry.message) for entry in tools.find(Filter())]
        self.assertEqual(found, [(HEADER, b"body"), (HEADER, LARGE)])

    def test_hold_and_release(self) -> None:
        """On hold nothing is tried; released it is tried at once."""
        spool, tools = self.process(), self.tools()
        message = self.later(spool)
        self.assertEqual(list(tools.hold([message.id])), [message.id])
        self.assertEqual(list(tools.hold([message.id])), [])
        self.assertEqual(list(tools.retry([message.id])), [])
        self.assertIsNone(self.wait(spool.next_due()))
        self.advance(7200)
        self.assertEqual(self.due(spool), [])
        self.assertEqual(self.wait(spool.lease([message.id])), [])
        self.assertEqual(list(tools.release([message.id])), [message.id])
        self.assertEqual(self.due(spool), [message.id])

    def test_hold_during_an_attempt(self) -> None:
        """It takes effect when the attempt ends; its process can ask."""
        spool, tools = self.process(), self.tools()
        message = self.commit(spool)
        self.assertEqual(list(tools.hold([message.id])), [message.id])
        self.assertEqual(list(self.wait(spool.recalled([message.id]))), [message.id])
        self.wait(spool.settle(settlement(message, self.now())))
        self.assertEqual(self.due(spool), [])

    def test_held_mail_on_hold(self) -> None:
        """A peer does not get what is on hold."""
        spool, tools = self.process(), self.tools()
        message = self.commit(spool)
        self.wait(spool.settle(settlement(message, self.now(), state=State.HELD, peer="p")))
        tools.hold([message.id])
        self.assertEqual(self.wait(spool.lease_held("p", {EVERYWHERE}, 1, math.inf)), [])

    def test_retry(self) -> None:
        """What waits is due now; what is leased stays with its process."""
        spool, tools = self.process(), self.tools()
        waiting, active = self.later(spool), self.commit(spool)
        changed = tools.retry([waiting.id, active.id, "nonsense"])
        self.assertEqual(list(changed), [waiting.id])
        self.assertEqual(self.due(spool), [waiting.id])

    def test_retry_after_a_death(self) -> None:
        """Without a server a dead process's mail can be retried, too."""
        spool, tools = self.process(), self.tools()
        message = self.commit(spool)
        self.kill(spool)
        self.assertEqual(list(tools.retry([message.id])), [message.id])
        (entry,) = tools.find(Filter())
        self.assertEqual((entry.state, entry.message.recovered), ("waiting", True))

    def test_delete(self) -> None:
        """A message is gone, also during an attempt, which ends without a trace."""
        spool, tools = self.process(), self.tools()
        message = self.commit(spool, LARGE)
        self.assertEqual(list(tools.delete([message.id, message.id[::-1]])), [message.id])
        self.assertEqual(list(self.wait(spool.recalled([message.id]))), [message.id])
        self.wait(spool.settle(settlement(message, self.now())))
        self.assertEqual(self.found(tools), [])
        self.assertRaises(OSError, self.pieces, self.lent(spool, tools))

    def lent(self, spool: Any, tools: Any) -> Message:
        """A message whose content was not read before it was deleted."""
        self.waiting(spool, body=LARGE)
        (message,) = self.wait(spool.lease_due(1))
        tools.delete([message.id])
        leased: Message = message
        return leased

    def test_enqueue(self) -> None:
        """A message of a tool is due now, for any process."""
        spool, tools = self.process(), self.tools()
        for content in (b"Subject: x\r\n\r\nsmall", HEADER + LARGE + b"\xff"):
            name = tools.enqueue(envelope(), [content[:3], content[3:]])
            (message,) = self.wait(spool.lease_due(2))
            self.assertEqual((message.id, message.recovered), (name, False))
            self.assertEqual(b"".join(self.pieces(message)), content)
            self.assertEqual(message.content.is_ascii, content.isascii())

    def test_bounce(self) -> None:
        """Notices take the place of messages that are free, and were not tried meanwhile."""
        spool, tools = self.process(), self.tools()
        free, tried = self.later(spool), self.later(spool)
        active = self.commit(spool)
        bounced = [
            (entry.message, Notice(envelope(reverse_path=NULL_PATH), HEADER, b"gone"))
            for entry in tools.find(Filter())
        ]
        (again,) = self.wait(spool.lease([tried.id]))
        self.wait(spool.settle(settlement(again, self.now() + 3600)))
        self.assertEqual(list(tools.bounce(bounced)), [free.id])
        (notice,) = self.wait(spool.lease_due(9))
        self.assertEqual(self.halves(notice), (HEADER, b"gone"))
        self.assertEqual(self.found(tools), sorted([tried.id, active.id, notice.id]))
