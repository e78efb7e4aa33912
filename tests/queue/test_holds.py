"""Mail on hold: what waits now, and what comes later (``mta queue hold --new``)."""

from __future__ import annotations

import fcntl
import json
import math
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace

from twisted.logger import capturedLogs, formatEvent

from mta.mail import NULL_PATH, Envelope, Mailbox, Recipient
from mta.queued import Filter, HistoryEntry, Progress, State
from mta.spool import queue_id, tool_commits
from mta.spool.folder import Folder
from mta.spool.holds import StandingHold, StandingHolds
from mta.spool.listing import Listing
from mta.spool.wakeup import Signal
from tests.commands.test_queue import ALICE, QueueCase
from tests.processes import ROOT
from tests.queue.runners import RunnerTests, message

EVE = Mailbox("eve", "moving.example")


class StandingHoldTests(QueueCase):
    """New mail that is put on hold as it comes."""

    def on_hold(self) -> list[str]:
        """The ids of all that a person keeps."""
        return [listed.id for listed in self.tools.listed(Filter(state="on-hold"))]

    def test_only_what_waits_now(self) -> None:
        """Without ``--new`` it is about what waits, and says so."""
        name = self.enqueue(EVE)
        output = self.succeed("queue", "hold", "--domain", "moving.example")
        self.assertIn("1 message put on hold\n", output)
        self.assertIn("mail that comes from now on is not: that takes --new", output)
        self.enqueue(EVE)
        self.assertEqual(self.on_hold(), [name])

    def test_new_mail(self) -> None:
        """With it what comes later is put on hold as well, until it is lifted."""
        old, other = self.enqueue(EVE), self.enqueue()
        output = self.succeed("queue", "hold", "--domain", "Moving.example", "--new")
        self.assertIn("1 message put on hold\n", output)
        self.assertIn("until: mta queue release --domain Moving.example --new", output)
        new, second = self.enqueue(EVE), self.enqueue(Mailbox("bob", "x.example"), EVE)
        self.enqueue()
        self.assertEqual(self.on_hold(), [old, new, second])
        entry = next(iter(self.tools.find(Filter(ids=frozenset({new})))))
        self.assertEqual((entry.state, entry.on_hold, entry.due), ("held", True, math.inf))
        self.assertIn(
            "new mail is on hold: --domain Moving.example (for 0s)\n", self.succeed("queue", "list")
        )
        self.succeed("queue", "release", new)
        self.assertEqual(self.on_hold(), [old, second])
        output = self.succeed("queue", "release", "--domain", "moving.example", "--new")
        self.assertIn("messages released\n", output)
        self.assertNotIn("new mail", self.succeed("queue", "list"))
        self.enqueue(EVE)
        self.assertEqual(self.on_hold(), [])
        self.assertIn(other, self.succeed("queue", "list"))

    def test_filters(self) -> None:
        """Senders and recipients too, in any case, and several parts must all fit."""
        standing = StandingHolds(Folder(self.spool))
        for hold, mail, fits in (
            ({"reverse_path": "Alice@CLIENT.example"}, (ALICE, EVE), True),
            ({"reverse_path": "alice@client.example"}, (replace(ALICE, domain="x"), EVE), False),
            ({"reverse_path": "<>"}, (NULL_PATH, EVE), True),
            ({"reverse_path": "<>"}, (ALICE, EVE), False),
            (
                {"forward_path": "eve@moving.example"},
                (ALICE, Mailbox("EVE", "moving.EXAMPLE")),
                True,
            ),
            (
                {"forward_path": "eve@moving.example"},
                (ALICE, Mailbox("ev", "moving.example")),
                False,
            ),
            ({"domain": "münchen.example"}, (ALICE, Mailbox("x", "xn--mnchen-3ya.example")), True),
            ({"domain": "moving.example"}, (ALICE, Mailbox("x", "sub.moving.example")), False),
            ({"domain": "moving.example", "reverse_path": "<>"}, (ALICE, EVE), False),
            ({"domain": "moving.example", "reverse_path": "<>"}, (NULL_PATH, EVE), True),
        ):
            with self.subTest((hold, mail)):
                sender, recipient = mail
                standing.add(StandingHold(**hold))
                found = standing.which(Envelope(sender, (Recipient(recipient),)))
                self.assertEqual(found is not None, fits)
                self.assertTrue(standing.lift(StandingHold(**hold)))
                self.assertFalse(standing.lift(StandingHold(**hold)))

    def test_by_sender(self) -> None:
        """A stolen password: all that comes from her."""
        self.succeed("queue", "hold", "--from", "alice@client.example", "--new")
        name = self.enqueue()
        self.enqueue(reverse_path=NULL_PATH)
        self.assertEqual(self.on_hold(), [name])

    def test_other_names_of_a_domain(self) -> None:
        """What is another name for the domain is on hold with it."""
        self.configure(
            domains={
                "moving.example": {"mailboxes": ["eve"]},
                "old.example": {"alias_of": "moving.example"},
            }
        )
        before = self.enqueue(Mailbox("eve", "old.example"))
        self.succeed("queue", "hold", "--domain", "moving.example", "--new")
        name = self.enqueue(Mailbox("eve", "old.example"))
        self.assertEqual(self.on_hold(), [before, name])
        self.succeed("queue", "release", "--domain", "moving.example", "--new")
        self.assertEqual(self.on_hold(), [])
        self.enqueue(Mailbox("eve", "old.example"))
        self.assertEqual(self.on_hold(), [])

    def test_what_can_not_be(self) -> None:
        """It takes addresses, and lifting takes what stands."""
        self.enqueue()
        for words in (("--all",), ("--older", "1h"), ("--peer", "x", "--domain", "y"), ("1" * 13,)):
            errors = self.fail_with("queue", "hold", *words, "--new", status=2)
            self.assertIn("--new is for mail --from, --to or of a --domain", errors)
        self.succeed("queue", "hold", "--to", "eve@moving.example", "--new")
        errors = self.fail_with("queue", "release", "--domain", "moving.example", "--new")
        self.assertIn("what is: --to eve@moving.example", errors)
        self.fail_with("queue", "delete", "--domain", "x", "--new", status=2)

    def test_dry_run(self) -> None:
        """It changes nothing."""
        self.succeed("queue", "hold", "--domain", "moving.example", "--new", "--dry-run")
        self.enqueue(EVE)
        self.assertEqual(self.on_hold(), [])

    def test_damaged(self) -> None:
        """Nothing is taken in past a hold that can't be read: the sender tries again."""
        (self.spool / "holds.json").write_text("[{")
        with self.assertRaisesRegex(OSError, "holds.json: damaged"):
            self.enqueue(EVE)
        self.assertIn("holds.json: damaged", self.fail_with("queue", "list"))

    def test_state_on_hold(self) -> None:
        """What waits for a peer is held, too, and no person keeps it."""
        kept, held = self.enqueue(EVE), self.enqueue(EVE)
        self.attempt(held, Progress(Recipient(EVE), State.HELD, "office"))
        self.succeed("queue", "hold", kept)
        lines = self.succeed("queue", "list", "--json", "--state", "on-hold").splitlines()
        self.assertEqual([(d["id"], d["on_hold"]) for d in map(json.loads, lines)], [(kept, True)])
        lines = self.succeed("queue", "list", "--json", "--state", "held").splitlines()
        self.assertEqual([json.loads(line)["id"] for line in lines], [kept, held])


class ServerTests(RunnerTests):
    """The server's side."""

    def test_not_begun(self) -> None:
        """What was put on hold as it came is not delivered, and the log says why."""
        with capturedLogs() as events:
            self.runner.accept(message("1", "x@a.example", on_hold="a virus"))
        self.clock.advance(0)
        self.assertEqual(["1 is on hold: a virus"], [*map(formatEvent, events)])
        self.assertEqual([], self.agent.deliveries)


class ListTests(QueueCase):
    """``mta queue list``: the reasons."""

    def deferred(self, reply: str) -> str:
        """A message that was tried in vain; returns its id."""
        name = self.enqueue(EVE)
        attempt = HistoryEntry(1.0, "mx:moving.example", "deferred", reply)
        self.attempt(name, Progress(Recipient(EVE), history=(attempt,)))
        return name

    def test_equal_reasons(self) -> None:
        """A reason that several have is told once, and counted at the end."""
        first, *_ = [self.deferred("451 4.4.1 No answer") for _ in range(3)]
        self.deferred("450 4.2.1 Busy")
        lines = self.succeed("queue", "list").splitlines()
        reasons = [line for line in lines if line.startswith("    ")]
        reason = "mx:moving.example: 451 4.4.1 No answer"
        self.assertEqual(
            reasons,
            [
                f"    <eve@moving.example>  {reason}",
                *[f"    <eve@moving.example>  as for {first}"] * 2,
                "    <eve@moving.example>  mx:moving.example: 450 4.2.1 Busy",
            ],
        )
        self.assertEqual(lines[-2:], ["", f"3 recipients: {reason}"])

    def test_little_is_imported(self) -> None:
        """The first line is to come at once: Twisted alone takes a third of the time."""
        found = subprocess.run(
            [sys.executable, "-c", "import sys, mta.commands.queue; print(*sys.modules)"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
            capture_output=True,
            check=True,
        )
        slow = {"twisted", "mta.routing", "mta.notices", "mta.spool.tools", "email"}
        self.assertEqual(slow & set(found.stdout.split()), set())

    def test_first_lines(self) -> None:
        """The first messages are given before the others are read."""
        for _ in range(30):
            self.enqueue(EVE)
        read: list[int] = []
        portion = Listing._portion

        def counted(listing: Listing, *args: object, **more: object) -> object:
            found = portion(listing, *args, **more)  # type: ignore[arg-type]
            read.append(len(found))
            return found

        self.patch(Listing, "_portion", counted)
        next(iter(self.tools.listed(Filter())))
        self.assertEqual(read, [20])

    def test_held_for_a_peer(self) -> None:
        """How things are with the peer is said, and not what was so when it was held."""
        self.configure(
            peers={
                "office": {"user": "office", "domains": ["moving.example"]},
                "vps": {"connect": "smtps://h", "domains": ["x.example"]},
            }
        )
        for peer in ("office", "vps", "gone"):
            self.attempt(self.enqueue(EVE), Progress(Recipient(EVE), State.HELD, peer))
        reasons = [line for line in self.succeed("queue", "list").splitlines() if line[0] == " "]
        self.assertEqual(
            [line.partition("  held for ")[2] for line in reasons],
            [
                "office  which has no link (last exchange: never yet)",
                "vps  for the next exchange (the last one: never yet)",
                "gone  which is no longer one of the `peers`",
            ],
        )

    def test_damaged_rows(self) -> None:
        """One damaged row is shown as such, and keeps nothing from being listed."""
        names = [self.enqueue(EVE) for _ in range(5)]
        changes = (
            "UPDATE recipient SET history = '[[' WHERE message = ?",
            "UPDATE recipient SET local_part = CAST(x'fffe' AS TEXT) WHERE message = ?",
            "DELETE FROM recipient WHERE message = ?",
            "UPDATE message SET size = 'big' WHERE id = ?",
        )
        for name, change in zip(names, changes, strict=False):
            self.execute(change, name)
        listed = list(self.tools.listed(Filter()))
        self.assertEqual([each.id for each in listed], names)
        self.assertEqual([bool(each.damage) for each in listed], [True] * 4 + [False])
        self.assertEqual([each.state for each in listed], ["damaged"] * 4 + ["waiting"])
        self.assertEqual(self.succeed("queue", "list").count("  damaged: "), 4)
        self.succeed("queue", "list", "--json")
        self.assertEqual(self.succeed("queue", "delete", "--all"), "5 messages deleted\n")

    def execute(self, statement: str, name: str) -> None:
        """Damage a row."""
        with closing(
            sqlite3.connect(self.spool / "queue.sqlite", isolation_level=None)
        ) as connection:
            connection.execute(statement, (queue_id.decode(name),))


class ManyTests(QueueCase):
    """A change of many messages leaves the server its turns."""

    def setUp(self) -> None:
        super().setUp()
        self.signals: list[Signal] = []
        self.patch(
            tool_commits, "wake_processes", lambda folder, signal: self.signals.append(signal)
        )

    def test_signals(self) -> None:
        """Servers hear of it at its beginning, at its end, and not for each portion."""
        names = [self.enqueue() for _ in range(20)]
        self.signals.clear()
        with self.tools.in_portions():
            for name in names:
                self.tools.retry([name])
        self.assertEqual(self.signals, [Signal.RETRY] * 2)
        self.tools.retry(names)
        self.tools.delete(names)
        self.assertEqual(self.signals, [Signal.RETRY] * 3 + [Signal.RECALL])

    def test_in_turn(self) -> None:
        """What commits waits for its turn where the server does, and not in the database."""
        self.enqueue()
        with (self.spool / "commit.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            waiting = threading.Thread(target=self.succeed, args=("queue", "retry", "--all"))
            waiting.start()
            waiting.join(0.5)
            self.assertTrue(waiting.is_alive())
            fcntl.flock(lock, fcntl.LOCK_UN)
        waiting.join()
