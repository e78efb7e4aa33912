"""The ``mta`` command line: what it prints, what it changes, and its exit status."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import sys
import syslog
import time
from pathlib import Path

import yaml
from twisted.trial.unittest import SynchronousTestCase

import mta
from mta.access.account_table import AccountTable
from mta.access.log_in_file import LogInFile
from mta.commands import GROUPS, console, main, whole_parser
from mta.mail import NULL_PATH, Envelope, Mailbox, Recipient
from mta.queued import Filter
from mta.session import Ban
from mta.shared_tables.files import TableFolder
from mta.spool.tools import SpoolTools
from tests.processes import configuration

ALICE, BOB = Mailbox("alice", "client.example"), Mailbox("bob", "office.example")


class Output(io.TextIOWrapper):
    """A text stream that collects, with the octets below it."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    @property
    def text(self) -> str:
        """What was written."""
        octets = self.buffer
        assert isinstance(octets, io.BytesIO)
        return octets.getvalue().decode()


class CommandCase(SynchronousTestCase):
    """A configuration of its own, and a way to run commands with it."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir(parents=True)
        self.config = self.folder / "mta.yaml"
        self.configure()
        self.patch(os, "environ", os.environ | {"MTA_CONFIG": str(self.config)})
        self.patch(syslog, "syslog", lambda text: None)

    def configure(self, **keys: object) -> None:
        """Write the configuration file."""
        self.config.write_text(yaml.safe_dump(configuration(**keys)))

    def run_command(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        """Run a command; returns its exit status, output and errors."""
        output, errors = Output(), Output()
        self.patch(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        self.patch(sys, "stdout", output)
        self.patch(sys, "stderr", errors)
        try:
            status = main(arguments)
        except SystemExit as end:
            assert isinstance(end.code, int)
            status = end.code
        return status, output.text, errors.text

    def succeed(self, *arguments: str, stdin: str = "") -> str:
        """Run a command that does what it should; returns its output."""
        status, output, errors = self.run_command(*arguments, stdin=stdin)
        self.assertEqual((status, errors), (0, ""))
        return output

    def fail_with(self, *arguments: str, stdin: str = "", status: int = 1) -> str:
        """Run a command that fails; returns its errors."""
        found, _, errors = self.run_command(*arguments, stdin=stdin)
        self.assertEqual(found, status, errors)
        return errors


class MainTests(CommandCase):
    """What all commands have in common."""

    def test_version(self) -> None:
        """``mta --version`` names program and version."""
        self.assertEqual(self.succeed("--version"), f"mta {mta.__version__}\n")

    def test_wrong_usage(self) -> None:
        """An unknown command ends with 2, and names the nearest one."""
        self.assertIn("did you mean 'queue'?", self.fail_with("quee", status=2))
        self.assertIn("`mta` alone lists them", self.fail_with("xyzzy", status=2))
        self.assertIn("required", self.fail_with("queue", status=2))

    def test_overview(self) -> None:
        """``mta`` alone shows all commands by group, each with what its own help says of it."""
        shown = self.succeed()
        self.assertEqual(shown, self.succeed("--help"))
        self.assertEqual(re.findall(r"(?m)^([a-z][a-z -]+):$", shown), list(GROUPS))
        [commands] = (
            each for each in whole_parser()._actions if isinstance(each, argparse._SubParsersAction)
        )
        helps = {each.dest: each.help for each in commands._choices_actions}
        self.assertEqual(dict(re.findall(r"(?m)^  (\S+) +(.+)$", shown)), helps)

    def test_a_complaint_a_terminal_would_obey(self) -> None:
        """What was typed, or stands in a table, can't move the cursor."""
        errors = self.fail_with("turn", "a\x1b[2J\u202e")
        self.assertIn("a\\x1b[2J", errors)
        table = self.config.with_name("table")
        table.write_text("a\x1b[2J b\n")
        errors = self.fail_with("import", "virtual", str(table))
        self.assertTrue(errors.replace("\n", "").isprintable(), errors)

    def test_an_error_of_the_system_is_one_line(self) -> None:
        """A spool that can't be used is named, with the reason."""
        (self.folder / "spool").mkdir()
        (self.folder / "spool" / "queue.sqlite").write_text("not a database" * 100)
        errors = self.fail_with("queue", "list")
        self.assertEqual(errors.count("\n"), 1, errors)
        self.assertIn(str(self.folder.resolve() / "spool"), errors)

    def test_no_spool(self) -> None:
        """None is made by looking for it: a mistyped path would only hide the mail."""
        for words in (("queue", "list"), ("queue", "retry", "--all")):
            self.assertIn("no spool in", self.fail_with(*words))
        self.assertEqual(self.succeed("peers"), "no peers\n")
        self.assertFalse((self.folder / "spool").exists())

    def test_a_reader_that_went_away(self) -> None:
        """A closed pipe is no error to talk about."""

        class Gone(Output):
            def write(self, text: str) -> int:
                raise BrokenPipeError

            def fileno(self) -> int:
                return descriptor

        descriptor = os.dup(2)
        self.addCleanup(os.close, descriptor)
        errors = Output()
        self.patch(sys, "stdout", Gone())
        self.patch(sys, "stderr", errors)
        self.assertEqual((main(["check"]), errors.text), (1, ""))


class CheckTests(CommandCase):
    """``mta check``."""

    def test_a_good_file(self) -> None:
        """It says so, and names the file."""
        self.assertEqual(self.succeed("check"), f"{self.config}: ok\n")

    def test_a_bad_file(self) -> None:
        """Every problem has its line and column."""
        self.config.write_text("hostname: mail.example\ndomains: {}\nqueu: {}\n")
        errors = self.fail_with("check")
        self.assertIn(f"{self.config}:3:1: unknown key 'queu', did you mean 'queue'?", errors)

    def test_config_names_another_file(self) -> None:
        """``--config`` goes before $MTA_CONFIG."""
        self.assertIn("other.yaml:1:1: ", self.fail_with("check", "--config", "other.yaml"))


class UserTests(CommandCase):
    """``mta user``."""

    def add(self, *arguments: str) -> str:
        """Add a user with the password ``secret``."""
        return self.succeed("user", "add", *arguments, "--password-stdin", stdin="secret\n")

    def test_add_and_check(self) -> None:
        """The password that was set is the one that is right."""
        self.assertEqual(self.add("alice"), "added alice\n")
        check = ("user", "check", "alice", "--password-stdin")
        self.assertEqual(self.succeed(*check, stdin="secret\n"), "alice: ok\n")
        self.assertIn("not the password", self.fail_with(*check, stdin="Secret\n"))

    def test_suspend(self) -> None:
        """A suspended user is shown as such; the comments of the file stay."""
        self.configure(users="users.yaml")
        self.add("alice")
        self.add("Bob")
        path = self.folder / "users.yaml"
        text = path.read_text().replace("users:\n", "users:\n  # our own\n")
        entry = "  Bob:  # leaves in May\n    limits: {recipients_per_day: 7}\n"
        path.write_text(text.replace("  Bob:\n", entry))
        before = path.read_text()
        self.assertEqual(
            self.succeed("user", "suspend", "bob"),
            "bob is suspended: no mail is taken, until mta user resume\n",
        )
        self.assertIn("    suspended: true\n", path.read_text())
        self.assertIn("(suspended: by hand)", self.succeed("user", "list"))
        lines = self.succeed("user", "list", "--json").splitlines()
        self.assertEqual([json.loads(line).get("suspended") for line in lines], [None, "by hand"])
        self.succeed("user", "suspend", "bob")
        self.assertEqual(self.succeed("user", "resume", "Bob"), "mail is taken from Bob again\n")
        self.assertEqual(path.read_text(), before)
        self.assertIn("Bob is not suspended", self.fail_with("user", "resume", "Bob"))
        self.assertIn("there is no user eve", self.fail_with("user", "suspend", "eve"))
        self.succeed("user", "passwd", "bob", "--password-stdin", stdin="other\n")
        self.assertIn("recipients_per_day: 7", path.read_text())

    def test_resume_after_failures(self) -> None:
        """What the server began is ended as well."""
        self.add("alice")
        spool = self.folder / "spool"
        spool.mkdir(exist_ok=True)
        AccountTable(TableFolder(spool)).suspend(
            "Alice", "12 recipients were refused within an hour"
        )
        self.assertIn("(suspended: 12 recipients were", self.succeed("user", "list"))
        self.succeed("user", "resume", "alice")
        self.assertNotIn("suspended", self.succeed("user", "list"))

    def test_suspend_user_of_dovecot(self) -> None:
        """Users of Dovecot are suspended in the spool."""
        (self.folder / "spool").mkdir(exist_ok=True)
        self.configure(users="dovecot:auth.sock")
        self.succeed("user", "suspend", "alice")
        [suspension] = AccountTable(TableFolder(self.folder / "spool")).suspensions()
        self.assertEqual((suspension.user, suspension.reason), ("alice", "by hand"))
        self.succeed("user", "resume", "alice")
        self.assertEqual(AccountTable(TableFolder(self.folder / "spool")).suspensions(), [])

    def test_passwd(self) -> None:
        """The old password is wrong afterwards."""
        self.add("alice")
        self.succeed("user", "passwd", "alice", "--password-stdin", stdin="other\n")
        check = ("user", "check", "alice", "--password-stdin")
        self.succeed(*check, stdin="other\n")
        self.fail_with(*check, stdin="secret\n")

    def ban(self, host: str, user: str = "", users: tuple[str, ...] = ()) -> None:
        """The server has banned somebody."""
        spool = self.folder / "spool"
        spool.mkdir(exist_ok=True)
        now = time.time()
        LogInFile(spool).add_ban(Ban(host, user, now, now + 590, 10, users))

    def test_bans(self) -> None:
        """Who is banned stands in the lists of users and bans, until it is lifted."""
        self.configure(peers={"office": {"user": "alice", "domains": ["office.example"]}})
        self.add("alice")
        self.add("bob")
        self.assertEqual(self.succeed("user", "bans"), "nobody is banned\n")
        self.assertEqual(self.succeed("user", "unban", "--all"), "nobody is banned\n")
        self.ban("192.0.2.7", users=("alice",))
        self.ban("127.0.0.1", "bob", ("bob",))
        self.ban("2001:db8::/64")
        one, other, third = self.succeed("user", "bans").splitlines()
        self.assertEqual(one, "no log-ins from 192.0.2.7 for 10m: 10 failed (alice)")
        self.assertEqual(other, "no log-ins of bob from 127.0.0.1 for 10m: 10 failed (bob)")
        self.assertEqual(third, "no log-ins from 2001:db8::/64 for 10m: 10 failed (unknown users)")
        self.assertEqual(self.succeed("user", "list"), f"alice  -  ({one})\nbob    -  ({other})\n")
        self.assertIn(one, self.succeed("peers"))
        self.assertNotIn(other, self.succeed("peers"))
        (peer,) = map(json.loads, self.succeed("peers", "--json").splitlines())
        self.assertEqual([ban["host"] for ban in peer["bans"]], ["192.0.2.7"])
        listed = [json.loads(line) for line in self.succeed("user", "list", "--json").splitlines()]
        self.assertEqual(
            [ban["host"] for user in listed for ban in user.get("bans", [])],
            ["192.0.2.7", "127.0.0.1"],
        )
        self.assertEqual(len(self.succeed("user", "bans", "--json").splitlines()), 3)
        self.assertIn("no ban of carol", self.fail_with("user", "unban", "carol"))
        self.assertIn("Name an address or a user", self.fail_with("user", "unban"))
        self.assertEqual(self.succeed("user", "unban", "Alice"), "192.0.2.7 may log in again\n")
        self.assertEqual(
            self.succeed("user", "unban", "127.0.0.1"), "bob from 127.0.0.1 may log in again\n"
        )
        self.assertEqual(self.succeed("user", "list"), "alice  -\nbob    -\n")
        self.assertEqual(self.succeed("user", "unban", "--all"), "2001:db8::/64 may log in again\n")

    def test_list(self) -> None:
        """Names and addresses, aligned; no secret of any kind."""
        self.add("alice", "--address", "alice@office.example", "--address", "@sales.example")
        self.add("robot", "--cram-md5")
        self.assertEqual(
            self.succeed("user", "list"),
            "alice  alice@office.example @sales.example\nrobot  -  (CRAM-MD5)\n",
        )

    def test_list_json(self) -> None:
        """An object a line."""
        self.add("robot", "--cram-md5")
        self.assertEqual(
            json.loads(self.succeed("user", "list", "--json")),
            {"name": "robot", "addresses": [], "cram_md5": True},
        )

    def test_del(self) -> None:
        """A removed user is gone, and can't be removed again."""
        self.add("alice")
        self.assertEqual(self.succeed("user", "del", "alice"), "removed alice\n")
        self.assertEqual(self.succeed("user", "list"), "")
        self.assertEqual(self.fail_with("user", "del", "alice"), "mta: there is no user alice\n")

    def test_no_password(self) -> None:
        """Without a terminal and without ``--password-stdin`` nobody is added."""
        self.assertIn("use --password-stdin", self.fail_with("user", "add", "alice"))
        errors = self.fail_with("user", "add", "alice", "--password-stdin", stdin="\n")
        self.assertIn("empty", errors)
        self.assertEqual(self.succeed("user", "list"), "")

    def test_users_of_dovecot(self) -> None:
        """Users that another program keeps are not ours to change."""
        self.configure(users="dovecot:/run/dovecot/auth")
        self.assertIn("change them there", self.fail_with("user", "list"))


class QueueTests(CommandCase):
    """``mta queue``, on the spool itself."""

    def setUp(self) -> None:
        super().setUp()
        self.tools = SpoolTools(self.folder.resolve() / "spool")
        self.addCleanup(self.tools.close)

    def enqueue(self, *forward_paths: Mailbox, reverse_path: Mailbox = ALICE) -> str:
        """Put a message into the spool; returns its id."""
        recipients = tuple(map(Recipient, forward_paths or (BOB,)))
        content = b"Subject: x\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n"
        return self.tools.enqueue(Envelope(reverse_path, recipients), [content])

    def ids(self) -> list[str]:
        """What is in the queue."""
        return [entry.message.id for entry in self.tools.find(Filter())]

    def test_an_empty_queue(self) -> None:
        """A person is told; a program gets nothing."""
        self.assertEqual(self.succeed("queue", "list"), "no messages\n")
        self.assertEqual(self.succeed("queue", "list", "--json"), "")

    def test_list(self) -> None:
        """A heading, a line for each message, a line for each recipient."""
        name = self.enqueue(BOB, Mailbox("a b", "x.example"))
        heading, message, *recipients = self.succeed("queue", "list").splitlines()
        self.assertEqual(
            heading.split(),
            ["ID", "AGE", "SIZE", "STATE", "ATTEMPTS", "NEXT", "IN", "REVERSE-PATH"],
        )
        self.assertRegex(
            message, rf"^{name} +\d+s +23 B +waiting +0 +\d+s +<alice@client\.example>$"
        )
        self.assertEqual(recipients, ["    <bob@office.example>", '    <"a b"@x.example>'])

    def test_list_json(self) -> None:
        """An object a line, with the keys of the contract."""
        names = [self.enqueue(), self.enqueue(reverse_path=NULL_PATH)]
        found = [json.loads(line) for line in self.succeed("queue", "list", "--json").splitlines()]
        self.assertEqual([each["id"] for each in found], names)
        self.assertEqual([each["reverse_path"] for each in found], ["alice@client.example", ""])
        self.assertEqual(
            list(found[0]),
            [
                *("id", "age_seconds", "size", "state", "attempts", "next_attempt"),
                *("reverse_path", "recipients"),
            ],
        )
        self.assertEqual(
            found[0]["recipients"],
            [
                {
                    "forward_path": "bob@office.example",
                    "state": "waiting",
                    "hop": "",
                    "last_reply": "",
                }
            ],
        )

    def test_show(self) -> None:
        """Everything known of one message, for people."""
        name = self.enqueue()
        page = self.succeed("queue", "show", name.lower())
        for part in (name, "waiting", "23 B", "<alice@client.example>", "<bob@office.example>"):
            self.assertIn(part, page)
        self.assertNotIn("Subject", page)

    def test_show_content(self) -> None:
        """``--content`` adds the content, octet for octet."""
        page = self.succeed("queue", "show", self.enqueue(), "--content")
        self.assertTrue(page.endswith("\n\nSubject: x\r\n\r\nGrüße\r\n"), page)

    def test_show_json(self) -> None:
        """One document; the content in base64."""
        output = self.succeed("queue", "show", self.enqueue(), "--content", "--json")
        self.assertEqual(output.count("\n"), 1)
        self.assertEqual(json.loads(output)["content_base64"], "U3ViamVjdDogeA0KDQpHcsO8w59lDQo=")

    def test_show_what_is_not_there(self) -> None:
        """An id that is none, or no longer."""
        self.assertEqual(
            self.fail_with("queue", "show", "nothing"), "mta: no message NOTHING in the queue\n"
        )

    def test_hold_and_release(self) -> None:
        """A message on hold waits until it is released."""
        name = self.enqueue()
        self.assertEqual(self.succeed("queue", "hold", name), "1 message put on hold\n")
        listed = self.succeed("queue", "list")
        self.assertRegex(listed, r" held .* on hold\n")
        self.assertIn("on hold       until it is released", self.succeed("queue", "show", name))
        self.assertEqual(self.succeed("queue", "release", "--all"), "1 message released\n")
        self.assertIn(" waiting ", self.succeed("queue", "list"))

    def test_retry_passes_over_what_is_on_hold(self) -> None:
        """The answer counts both what was found and what was changed."""
        self.enqueue()
        self.succeed("queue", "hold", self.enqueue())
        self.assertEqual(self.succeed("queue", "retry", "--all"), "1 of 2 messages due now\n")
        self.assertEqual(
            json.loads(self.succeed("queue", "retry", "--all", "--json")),
            {"action": "retry", "found": 2, "changed": 1},
        )

    def test_delete_by_filter(self) -> None:
        """Only what fits every part of the filter goes."""
        kept = self.enqueue()
        self.enqueue(Mailbox("bob", "other.example"))
        command = ("queue", "delete", "--from", "<alice@client.example>", "--domain")
        self.assertEqual(self.succeed(*command, "other.example"), "1 message deleted\n")
        self.assertEqual(self.succeed(*command, "third.example"), "0 messages deleted\n")
        self.assertEqual(self.ids(), [kept])

    def test_older(self) -> None:
        """``--older`` takes a duration."""
        self.enqueue()
        for age in ("1h", "1.5h"):
            command = ("queue", "delete", "--older", age)
            self.assertEqual(self.succeed(*command), "0 messages deleted\n")
        self.assertIn("no duration", self.fail_with("queue", "list", "--older", "soon", status=2))

    def test_dry_run(self) -> None:
        """It lists what is meant, and leaves it."""
        name = self.enqueue()
        self.assertIn(name, self.succeed("queue", "delete", "--all", "--dry-run"))
        self.assertEqual(self.ids(), [name])

    def test_nothing_named(self) -> None:
        """To change all messages takes ``--all``."""
        self.enqueue()
        self.assertIn("which messages?", self.fail_with("queue", "delete", status=2))
        self.assertEqual(len(self.ids()), 1)

    def test_an_id_that_is_not_there(self) -> None:
        """What is there is changed, what is not is named."""
        errors = self.fail_with("queue", "delete", self.enqueue(), "0000000000000")
        self.assertIn("0000000000000", errors)
        self.assertEqual(self.ids(), [])

    def test_more_messages_than_a_batch(self) -> None:
        """Many messages are changed in portions, all of them."""
        self.patch(sys.modules["mta.commands.queue"], "_BATCH_SIZE", 2)
        names = [self.enqueue() for _ in range(5)]
        self.assertEqual(self.succeed("queue", "delete", *names), "5 messages deleted\n")


class WordsTests(SynchronousTestCase):
    """How numbers and texts are shown to people."""

    def test_durations(self) -> None:
        """The unit is the largest of which there are two."""
        lengths = (-3, 0, 119, 120, 3600, 7200, 86400, 5 * 86400)
        self.assertEqual(
            [console.duration(length) for length in lengths],
            ["0s", "0s", "119s", "2m", "60m", "2h", "24h", "5d"],
        )

    def test_sizes(self) -> None:
        """Octets, KiB, MiB."""
        self.assertEqual(
            [console.size(octets) for octets in (0, 1023, 2048, 3_500_000)],
            ["0 B", "1023 B", "2 KiB", "3.3 MiB"],
        )

    def test_what_a_terminal_would_obey(self) -> None:
        """A peer's reply can't move the cursor."""
        self.assertEqual(console.printable("550 \x1b[2Jno\r"), "550 \ufffd[2Jno\ufffd")
