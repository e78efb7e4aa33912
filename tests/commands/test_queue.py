"""``mta queue``: giving up, flushing, and what a person at a terminal sees."""

from __future__ import annotations

import json
import os
import pty
import sqlite3
import sys
from contextlib import closing
from dataclasses import asdict
from email import message_from_bytes
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from mta.commands import main, terminal
from mta.mail import NULL_PATH, Envelope, Mailbox, Recipient
from mta.queued import Entry, Filter, HistoryEntry, Notice, Progress, Settlement, State
from mta.session import UNKNOWN_ORIGIN, Origin
from mta.spool import leases, owners, queue_id, rows
from mta.spool.folder import Folder
from mta.spool.tools import SpoolTools
from tests.commands.test_commands import CommandCase, Output

ALICE, BOB = Mailbox("alice", "client.example"), Mailbox("bob", "office.example")
CONTENT = b"Subject: x\r\n\r\nbody\r\n"


class QueueCase(CommandCase):
    """A spool with messages of ours."""

    def setUp(self) -> None:
        super().setUp()
        self.spool = self.folder.resolve() / "spool"
        self.tools = SpoolTools(self.spool)
        self.addCleanup(self.tools.close)

    def enqueue(
        self,
        *forward_paths: Mailbox,
        reverse_path: Mailbox = ALICE,
        content: bytes = CONTENT,
        user: str = "",
    ) -> str:
        """Put a message into the spool, which a user may have sent; returns its id."""
        recipients = tuple(map(Recipient, forward_paths or (BOB,)))
        origin = Origin("192.0.2.1", user=user) if user else UNKNOWN_ORIGIN
        return self.tools.enqueue(Envelope(reverse_path, recipients), [content], origin)

    def entries(self) -> list[Entry]:
        """What is in the queue."""
        return list(self.tools.find(Filter()))

    def attempt(self, name: str, *progress: Progress) -> None:
        """Record an attempt, as the server would."""
        settlement = Settlement(name, progress, due=0.0, attempts=1, warned=False)
        folder = Folder(self.spool)
        owner = owners.register(folder, queue_id.QueueIds(lambda: 1.0))
        with closing(sqlite3.connect(folder.database, isolation_level=None)) as connection:
            leases.lease(connection, [queue_id.decode(name)], owner.number)
            rows.update(connection, owner.number, [settlement])
        owner.remove()

    def content(self, entry: Entry) -> bytes:
        """The octets of a message."""

        async def read() -> bytes:
            return b"".join([piece async for piece in entry.message.content.pieces()])

        return self.successResultOf(read())


class BounceTests(QueueCase):
    """``mta queue bounce``."""

    def test_a_notice_takes_its_place(self) -> None:
        """The message is gone; its sender is told of the open recipients, with the last reply."""
        done, open_ = Mailbox("ann", "x.example"), Mailbox("eve", "x.example")
        name = self.enqueue(done, open_)
        attempt = HistoryEntry(1.0, "mx:x.example", "deferred", "450 4.2.1 Mailbox busy")
        self.attempt(
            name,
            Progress(Recipient(done), State.DONE),
            Progress(Recipient(open_), history=(attempt,)),
        )
        self.assertEqual(self.succeed("queue", "bounce", name), "1 message bounced\n")
        [entry] = self.entries()
        envelope = entry.message.envelope
        self.assertEqual(envelope.reverse_path, NULL_PATH)
        self.assertEqual([each.forward_path for each in envelope.recipients], [ALICE])
        notice = self.content(entry)
        self.assertEqual(message_from_bytes(notice).get_content_subtype(), "report")
        unfolded = notice.replace(b"\r\n ", b" ")
        self.assertIn(b"Final-Recipient: rfc822; eve@x.example", unfolded)
        self.assertIn(b"The postmaster gave up on this message", unfolded)
        self.assertIn(b"450 4.2.1 Mailbox busy", unfolded)
        self.assertNotIn(b"ann@x.example", notice)

    def test_no_notice_about_a_notice(self) -> None:
        """What has a null reverse-path just goes."""
        self.enqueue(reverse_path=NULL_PATH)
        self.succeed("queue", "bounce", "--from", "<>")
        self.assertEqual(self.entries(), [])

    def test_large_content(self) -> None:
        """Its file goes, too."""
        self.enqueue(content=b"Subject: x\r\n\r\n" + b"x" * 70 + b"\r\n" * 200_000)
        self.succeed("queue", "bounce", "--all")
        self.assertEqual(len(self.entries()), 1)
        self.assertEqual(list((self.spool / "content").iterdir()), [])

    def test_dry_run(self) -> None:
        """It lists what is meant, and leaves it."""
        name = self.enqueue()
        self.assertIn(name, self.succeed("queue", "bounce", "--all", "--dry-run"))
        self.assertEqual([entry.message.id for entry in self.entries()], [name])

    def test_what_was_attempted_meanwhile_stays(self) -> None:
        """Its notice might say what is no longer true; nothing is left of the notice."""
        name = self.enqueue()
        [entry] = self.entries()
        self.attempt(name, *entry.message.progress)
        notice = Notice(Envelope(NULL_PATH, (Recipient(ALICE),)), b"", b"x" * 300_000)
        self.assertEqual(self.tools.bounce([(entry.message, notice)]), [])
        self.assertEqual([each.message.id for each in self.entries()], [name])
        self.assertEqual(list((self.spool / "content").iterdir()), [])

    def test_what_is_worked_on_stays(self) -> None:
        """A message that a living server has leased is left to it."""
        name = self.enqueue()
        folder = Folder(self.spool)
        owner = owners.register(folder, queue_id.QueueIds(lambda: 1.0))
        with closing(sqlite3.connect(folder.database, isolation_level=None)) as connection:
            leases.lease(connection, [queue_id.decode(name)], owner.number)
        self.assertEqual(self.succeed("queue", "bounce", "--all"), "0 of 1 message bounced\n")
        owner.remove()

    def test_all_or_nothing(self) -> None:
        """Where the commit fails, the message stays, and no notice is there."""
        name = self.enqueue()
        with patch("mta.spool.rows.insert", side_effect=sqlite3.OperationalError("no")):
            self.assertIn("no", self.fail_with("queue", "bounce", "--all"))
        self.assertEqual([entry.message.id for entry in self.entries()], [name])


class FilterTests(QueueCase):
    """Which messages are meant."""

    def test_null_reverse_path(self) -> None:
        """``--from '<>'`` means notices, and nothing else."""
        notice = self.enqueue(reverse_path=NULL_PATH)
        self.enqueue()
        output = self.succeed("queue", "list", "--json", "--from", "<>")
        self.assertEqual([json.loads(line)["id"] for line in output.splitlines()], [notice])

    def test_what_is_done_counts_no_more(self) -> None:
        """A recipient that has its copy is none that a message still goes to."""
        ann, eve = Mailbox("ann", "x.example"), Mailbox("eve", "y.example")
        name = self.enqueue(ann, eve)
        self.attempt(name, Progress(Recipient(ann), State.DONE), Progress(Recipient(eve)))
        for words in (("--domain", "x.example"), ("--to", "ann@x.example")):
            self.assertEqual(self.succeed("queue", "bounce", *words), "0 messages bounced\n")
        self.assertIn(name, self.succeed("queue", "list", "--to", "eve@y.example"))

    def test_nothing_in_it(self) -> None:
        """An empty word, as an empty variable leaves it, is a mistake and no filter."""
        self.enqueue()
        for option in ("--from", "--to", "--domain", "--peer", "--user"):
            errors = self.fail_with("queue", "delete", option, "", status=2)
            self.assertIn("there is nothing in it", errors)

    def test_a_stolen_password(self) -> None:
        """Suspending a user tells of the mail that waits; `--hold` keeps it, and no other."""
        self.configure(users="users.yaml")
        self.succeed("user", "add", "alice", "--password-stdin", stdin="secret\n")
        self.assertNotIn("still to be sent", self.succeed("user", "suspend", "alice"))
        other = self.enqueue()
        spam = {self.enqueue(user="Alice") for _ in range(2)}
        output = self.succeed("user", "suspend", "alice")
        self.assertIn(
            "2 messages of alice still to be sent; to keep: mta queue hold --user alice\n", output
        )
        output = self.succeed("user", "suspend", "alice", "--hold")
        self.assertTrue(output.endswith("2 messages put on hold\n"), output)
        self.assertEqual({each.message.id for each in self.entries() if each.on_hold}, spam)
        self.assertNotIn("still to be sent", self.succeed("user", "suspend", "alice"))
        self.succeed("user", "resume", "alice")
        self.assertEqual({each.message.id for each in self.entries() if each.on_hold}, spam)
        self.assertIn(other, self.succeed("queue", "list", "--state", "waiting"))
        self.assertEqual(
            self.succeed("queue", "delete", "--user", "ALICE", "--state", "on-hold"),
            "2 messages deleted\n",
        )

    def test_every_filter(self) -> None:
        """Each part narrows it down."""
        name = self.enqueue(Mailbox("Eve", "x.example"))
        self.enqueue()
        self.assertEqual(self.tools.count(Filter()), 2)
        for words in (
            (name,),
            ("--to", "eve@x.example"),
            ("--domain", "X.example"),
            ("--domain", "x.example", "--state", "waiting", "--from", str(ALICE)),
        ):
            with self.subTest(words):
                output = self.succeed("queue", "retry", *words, "--json")
                self.assertEqual(json.loads(output)["found"], 1)
        for words in (("--peer", "office"), ("--state", "held"), ("--older", "1h")):
            with self.subTest(words):
                self.assertEqual(self.succeed("queue", "list", *words), "no messages\n")


class FlushTests(QueueCase):
    """``mta queue flush``."""

    def test_domain(self) -> None:
        """All that goes to the domain is due now, nothing else."""
        names = [self.enqueue(), self.enqueue(Mailbox("a", "x.example"))]
        for name in names:
            self.attempt(name, Progress(self.entries()[0].message.envelope.recipients[0]))
        with closing(
            sqlite3.connect(self.spool / "queue.sqlite", isolation_level=None)
        ) as database:
            database.execute("UPDATE message SET due = 9e9")
        self.assertEqual(self.succeed("queue", "flush", "x.example"), "1 message due now\n")
        dues = {entry.message.id: entry.due for entry in self.entries()}
        self.assertEqual([dues[name] == 9e9 for name in names], [True, False])

    def test_by_an_alias(self) -> None:
        """What only leads there by an alias is meant, too, as far as it is still to go there."""
        self.configure(
            domains={"office.example": {"aliases": {"eve": "e@x.example", "bob": "b@y.example"}}}
        )
        eve, bob = Mailbox("eve", "office.example"), Mailbox("bob", "office.example")
        names = [self.enqueue(eve, bob), self.enqueue(eve), self.enqueue(bob)]
        self.attempt(
            names[1], Progress(Recipient(eve), State.WAITING), Progress(Recipient(bob), State.DONE)
        )
        output = self.succeed("queue", "flush", "X.example", "--json", "--dry-run")
        self.assertEqual([json.loads(line)["id"] for line in output.splitlines()], names[:2])
        self.assertEqual(self.succeed("queue", "flush", "y.example"), "2 messages due now\n")

    def test_peer(self) -> None:
        """The name of a peer means what is held for it."""
        self.configure(
            peers={"branch": {"user": "branch", "domains": ["branch.example"]}},
            routes={"branch.example": "hold:branch"},
        )
        held = self.enqueue(Mailbox("a", "branch.example"))
        self.enqueue()
        recipient = Recipient(Mailbox("a", "branch.example"))
        self.attempt(held, Progress(recipient, State.HELD, "branch"))
        self.assertIn(held, self.succeed("queue", "flush", "branch", "--dry-run"))
        output = self.succeed("queue", "flush", "branch", "--json")
        self.assertEqual(json.loads(output), {"action": "flush", "found": 1, "changed": 1})


class LogTests(QueueCase):
    """What was done by hand is in the log."""

    def test_each_message(self) -> None:
        """With what became of it, as ``mta trace`` finds it."""
        self.configure(log={"file": "mta.log"})
        name = self.enqueue()
        for action in ("hold", "release", "retry", "delete"):
            self.succeed("queue", action, name)
        traced = self.succeed("trace", name)
        self.assertEqual(
            [line.partition(name)[2] for line in traced.splitlines()],
            [f" {done} by hand" for done in ("put on hold", "released", "due now", "deleted")],
        )

    def test_what_was_not_done(self) -> None:
        """It is not said, and a message that was named and did not change is a failure."""
        self.configure(log={"file": "mta.log", "format": "json"})
        name = self.enqueue()
        self.succeed("queue", "hold", name)
        errors = self.fail_with("queue", "retry", name)
        self.assertIn("are that already", errors)
        self.assertEqual(self.succeed("trace", name).count("\n"), 1)
        self.succeed("queue", "retry", "--all")


class HistoryTests(QueueCase):
    """``mta queue show``."""

    def test_history_of_each_recipient(self) -> None:
        """When, where and what was replied."""
        name = self.enqueue()
        attempts = (
            HistoryEntry(
                1.0, "mx:office.example", "deferred", "450 4.2.1 Busy", remote="mx1.example"
            ),
            HistoryEntry(61.0, "mx:b.example", "failed", "550 5.1.1 Gone\x1b[2J", "b@b.example"),
        )
        self.attempt(name, Progress(Recipient(BOB), history=attempts))
        page = self.succeed("queue", "show", name)
        self.assertIn(
            "1970-01-01T00:00:01Z  deferred   mx:office.example [mx1.example]  450 4.2.1 Busy\n",
            page,
        )
        self.assertIn(
            "1970-01-01T00:01:01Z  failed     b@b.example mx:b.example  550 5.1.1 Gone\ufffd", page
        )
        document = json.loads(self.succeed("queue", "show", name, "--json"))
        self.assertEqual(len(document["recipients"][0]["history"]), 2)

    def test_origin(self) -> None:
        """The client that brought a message, as far as it is known."""
        origin = Origin(
            "192.0.2.1",
            port=4711,
            hello="client.example",
            protocol="ESMTPSA",
            tls_version="TLSv1.3",
            tls_cipher="AES",
            user="alice",
            service="submission",
        )
        with closing(SpoolTools(self.spool)) as tools:
            envelope = Envelope(ALICE, (Recipient(BOB),))
            name = tools.enqueue(envelope, [b"Subject: x\r\n\r\n"], origin)
            older = tools.enqueue(envelope, [b"Subject: x\r\n\r\n"])
        self.assertRegex(
            self.succeed("queue", "show", name),
            r"(?m)^from +client.example \[192.0.2.1\]:4711 by submission with ESMTPSA"
            r" \(TLSv1.3 AES\) user alice$",
        )
        document = json.loads(self.succeed("queue", "show", name, "--json"))
        self.assertEqual(document["origin"], asdict(origin))
        self.assertNotRegex(self.succeed("queue", "show", older), "(?m)^from ")


class Terminal(Output):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class TerminalTests(QueueCase):
    """What a person gets more of."""

    def run_there(self, *words: str, **environment: str) -> tuple[str, str]:
        """Run a command on a terminal; returns what it showed on both streams."""
        output, errors = Terminal(), Terminal()
        kept = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        with (
            patch.object(sys, "stdout", output),
            patch.object(sys, "stderr", errors),
            patch.dict(os.environ, kept | {"PAGER": "", "TERM": "xterm"} | environment, clear=True),
        ):
            self.assertEqual(main(words), 0, errors.text)
        return output.text, errors.text

    def test_colour(self) -> None:
        """States are coloured, unless NO_COLOR or a dumb terminal forbids it."""
        name = self.enqueue()
        for words in (("queue", "list"), ("queue", "show", name)):
            self.assertIn("\x1b[33mwaiting", self.run_there(*words)[0])
            self.assertNotIn("\x1b", self.run_there(*words, NO_COLOR="1")[0])
            self.assertNotIn("\x1b", self.run_there(*words, TERM="dumb")[0])
            self.assertNotIn("\x1b", self.succeed(*words))

    def test_pages(self) -> None:
        """$PAGER is given what is printed; a program that reads gets it at once."""
        name = self.enqueue()
        seen = self.folder / "seen"
        for words in (("queue", "list"), ("queue", "show", name, "--content")):
            output, _ = self.run_there(*words, PAGER=f"sh -c 'cat > {seen}'")
            self.assertEqual(output, "")
            self.assertIn(name, seen.read_text())
        self.assertIn("body", seen.read_text())

    def test_a_pager_that_ends_early(self) -> None:
        """It is no error to have seen enough."""
        for _ in range(50):
            self.enqueue()
        self.run_there("queue", "list", PAGER="true")

    def test_a_pager_that_is_not_there(self) -> None:
        """Then there are no pages."""
        self.assertIn("no messages", self.run_there("queue", "list", PAGER="/no/such/pager")[0])

    def test_bar(self) -> None:
        """A change of many messages shows how far it has come, and leaves no trace of that."""
        self.patch(sys.modules["mta.commands.queue"], "_BATCH_SIZE", 1)
        for _ in range(2):
            self.enqueue()
        output, errors = self.run_there("queue", "retry", "--all")
        self.assertEqual(output, "2 messages due now\n")
        self.assertIn(f"\r[{'#' * 15}{'-' * 15}] 1 of 2", errors)
        self.assertTrue(errors.endswith("\r\x1b[K"), errors)
        self.assertEqual(self.run_command("queue", "retry", "--all")[2], "")


class PseudoTerminalTests(SynchronousTestCase):
    """A terminal as the system knows it."""

    def test_it_is_one(self) -> None:
        """The real thing is found to be a terminal."""
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        with (
            os.fdopen(theirs, "w") as stream,
            patch.object(sys, "stdout", stream),
            patch.dict(os.environ, {"NO_COLOR": "", "TERM": "xterm"}),
        ):
            self.assertIsNot(terminal.painter(), terminal.plain)
