"""Every command of ``docs/postmaster.rst``, run as it stands there."""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path

from mta.mail import NULL_PATH, Mailbox, Recipient
from mta.queued import HistoryEntry, Progress, State
from mta.settings import DAY
from mta.spool.tools import SpoolTools
from tests.commands.test_queue import QueueCase
from tests.processes import ROOT

_TEXT = (ROOT / "docs" / "postmaster.rst").read_text()
_HEADING = re.compile(r"(?m)^(.+)\n-+\n")
_COMMAND = re.compile(r"(?m)^    \$ (.*)$")
_ECHO = re.compile(r'echo (?:"(.*?)"|(\S+)) \| (.*)')

BUSY = HistoryEntry(1.0, "smtp://10.0.0.5:25", "deferred", "450 4.3.2 Busy")


class PostmasterTests(QueueCase):
    """A server in need of its postmaster: one test for each job."""

    def setUp(self) -> None:
        super().setUp()
        self.configure(
            hostname="mail.example.com",
            domains={
                "example.com": {
                    "mailboxes": ["alice", "bob"],
                    "aliases": {"sales": ["alice", "carol@partner.example"], "postmaster": "bob"},
                },
                "office.example": {"deliver": "hold:office"},
            },
            routes={"partner.example": "smtp://10.0.0.5"},
            peers={"office": {"user": "office", "domains": ["office.example"]}},
            log={"file": "mta.log"},
        )
        for name in ("alice", "office"):
            self.succeed("user", "add", name, "--password-stdin", stdin="secret\n")
        self.tools.close()
        self.tools = SpoolTools(self.spool, lambda: time.time() - 2 * DAY)
        self.addCleanup(self.tools.close)
        alice, turned_peer = Mailbox("alice", "example.com"), Mailbox("bob", "partner.example")
        self.named = self.enqueue(turned_peer, reverse_path=alice, user="alice")
        self.attempt(self.named, Progress(Recipient(turned_peer), history=(BUSY,)))
        self.enqueue(Mailbox("eve", "partner.example"), reverse_path=alice, user="alice")
        self.enqueue(Mailbox("sales", "example.com"))
        self.enqueue(Mailbox("bob", "example.com"), reverse_path=NULL_PATH)
        branch = Mailbox("ann", "office.example")
        held = self.enqueue(branch)
        self.attempt(held, Progress(Recipient(branch), State.HELD, "office"))
        self.words = {"ID": self.named}
        for table, text in [("/etc/aliases", "help: bob\n"), ("/etc/postfix/virtual", "me bob\n")]:
            path = self.folder / Path(table).name
            path.write_text(text)
            self.words[table] = str(path)
        (self.folder / "mta.log").write_text(
            f"2026-11-24T14:00:00+0000 info  {self.named} accepted <alice@example.com>\n"
        )

    def do_job(self, title: str) -> None:
        """Run the commands under a heading: each of them does something."""
        parts = _HEADING.split(_TEXT)
        section = parts[parts.index(title) + 1]
        commands = _COMMAND.findall(section)
        self.assertTrue(commands)
        for command in commands:
            echoed = _ECHO.fullmatch(command)
            stdin = f"{echoed[1] or echoed[2]}\n" if echoed else ""
            program, *words = shlex.split(echoed[3] if echoed else command)
            self.assertEqual(program, "mta", command)
            words = [self.words.get(word, word) for word in words]
            output = self.succeed(*words, stdin=stdin)
            self.assertNotRegex(output, r"\A(0 |no )", command)

    def test_where_is_it(self) -> None:
        """Where is that message?"""
        self.do_job("Where is that message?")

    def test_dead_smart_host(self) -> None:
        """The smart host is dead."""
        self.do_job("The smart host is dead")

    def test_bounce_storm(self) -> None:
        """A bounce storm, or a stolen password."""
        self.do_job("A bounce storm, or a stolen password")

    def test_wrong_alias(self) -> None:
        """A wrong alias."""
        self.do_job("A wrong alias")

    def test_full_disk(self) -> None:
        """The disk is full."""
        self.do_job("The disk is full")

    def test_moving_a_domain(self) -> None:
        """Moving a domain."""
        self.do_job("Moving a domain")

    def test_stopping_a_message(self) -> None:
        """A message that must not go out."""
        self.do_job("A message that must not go out")

    def test_giving_up(self) -> None:
        """Giving up early."""
        self.do_job("Giving up early")

    def test_absent_peer(self) -> None:
        """Mail for a branch office that is away."""
        self.do_job("Mail for a branch office that is away")

    def test_new_colleague(self) -> None:
        """A new colleague."""
        self.do_job("A new colleague")

    def test_no_job_is_left_out(self) -> None:
        """There are ten, and each has its test."""
        self.assertEqual(len(_HEADING.findall(_TEXT)), 10)
        tests = [name for name in dir(self) if name.startswith("test_")]
        self.assertEqual(len(tests), 10 + 1)
