"""``mta init``: questions, plans that are shown, a demonstration that works."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mta.installation import host
from mta.users.file import UserFile
from tests.commands.test_commands import CommandCase
from tests.installation.systems import System
from tests.processes import ROOT, mail_in

OPTIONS = ("--hostname", "mail.example.com", "--domain", "example.com", "--mailbox", "alice,bob")


class InitCase(CommandCase):
    """A system in a folder of its own, and no network."""

    def setUp(self) -> None:
        super().setUp()
        self.system = System(self, has_user=True)
        self.root = str(self.system.root)

    def init(self, role: str, *options: str, stdin: str = "") -> str:
        """Install; returns what is printed."""
        program = ("--program", "/opt/mta/bin")
        return self.succeed("init", role, "--root", self.root, *program, *options, stdin=stdin)

    def refuse(self, role: str, *options: str, stdin: str = "") -> str:
        """Do not install; returns the reason."""
        where = ("--root", self.root, "--program", "/opt/mta/bin")
        return self.fail_with("init", role, *where, *options, stdin=stdin)


class QuestionTests(InitCase):
    """What is asked, and what is not."""

    def test_roles(self) -> None:
        """Without a role it says which there are."""
        said = self.succeed("init")
        for role in ("vps", "office", "server", "demo"):
            self.assertIn(f"mta init {role}", said)

    def test_three_questions(self) -> None:
        """A server has a name, domains and mailboxes; then it shows what it will do."""
        said = self.init("server", stdin="mail.example.com\n\nalice, bob\nyes\n")
        self.assertEqual(said.count("]: ") + said.count("host: "), 4, said)
        self.assertIn("Domains whose mail ends here [example.com]: ", said)
        self.assertLess(
            said.index("new file /etc/mta/mta.yaml (root:mta, 0640)"), said.index("Do ")
        )
        users = UserFile(self.system.file("/etc/mta/users.yaml")).load().users
        self.assertEqual(users["bob"].addresses, ("bob@example.com",))

    def test_a_wrong_answer(self) -> None:
        """It is asked again, three times at most."""
        said = self.init("vps", stdin="mail\nmail.example.com\ny\n")
        self.assertIn("'mail' is no full host name, expected one such as mail.example.com", said)
        self.refuse("office", stdin="x\nx\nx\n")

    def test_no(self) -> None:
        """Who does not agree has the system as it was."""
        before = self.system.snapshot()
        said = self.refuse("server", *OPTIONS, stdin="no\n")
        self.assertEqual(said, "mta: nothing is changed\n")
        self.assertEqual(self.system.snapshot(), before)

    def test_nobody_answers(self) -> None:
        """Without a terminal and without --yes it ends in one line."""
        said = self.refuse("server", *OPTIONS)
        self.assertEqual(said, "mta: nobody is there to answer: --yes takes the defaults\n")
        said = self.refuse("server", "--yes")
        self.assertIn("give --hostname", said)

    def test_a_dry_run(self) -> None:
        """It shows what would be done."""
        before = self.system.snapshot()
        said = self.init("server", *OPTIONS, "--dry-run")
        self.assertIn("new folder /var/spool/mta/ (mta:mta, 0700)", said)
        self.assertIn("nothing is changed", said)
        self.assertEqual(self.system.snapshot(), before)

    def test_twice(self) -> None:
        """The second time it asks nothing, does nothing, and says so."""
        first = self.init("server", *OPTIONS, "--yes")
        [password, _] = re.findall(r"password: (\S+)", first)
        self.assertRegex(password, r"\A[a-z0-9]{5}(-[a-z0-9]{5}){3}\Z")
        before = self.system.snapshot()
        said = self.init("server")
        self.assertIn("nothing to do", said)
        self.assertNotIn(password, said)
        self.assertEqual(self.system.snapshot(), before)
        users = UserFile(self.system.file("/etc/mta/users.yaml"))
        self.assertTrue(users.check("alice", password))

    def test_another_domain_later(self) -> None:
        """It is added, and the difference is shown first."""
        self.init("office", "--yes", "--domain", "example.com", "--mailbox", "alice")
        said = self.init("office", "--domain", "example.org", stdin="y\n")
        self.assertIn("  +  example.org:", said)
        self.assertIn("made /var/mail/example.org/", said)

    def test_a_bad_configuration(self) -> None:
        """One that is there and is none is said with its line, and left alone."""
        self.init("server", *OPTIONS, "--yes")
        config = self.system.file("/etc/mta/mta.yaml")
        config.write_text(config.read_text() + "queu: {}\n")
        self.assertRegex(self.refuse("server"), r"mta\.yaml:\d+:1: unknown key 'queu'")


class DemonstrationTests(CommandCase):
    """``mta init demo``: a server to play with."""

    def test_a_message(self) -> None:
        """It starts, takes a message and delivers it; a second time it does nothing."""
        self.patch(os, "environ", os.environ | {"PYTHONPATH": str(ROOT)})
        folder = self.folder.absolute() / "demo"
        status, said, errors = self.run_command("init", "demo", str(folder), "--yes")
        if "another program has it" in errors:
            self.skipTest("its ports are taken on this machine")
        self.assertEqual(status, 0, errors)
        self.assertRegex(said, r"a message to alice@demo\.example came through the server in \d")
        [mail] = mail_in(folder / "mail/demo.example/alice")
        self.assertIn(b"Subject: Your mail server works", mail)
        _, said, _ = self.run_command("init", "demo", str(folder))
        self.assertIn("nothing to do", said)


class HostTests(CommandCase):
    """What the system says of this host."""

    def proc(self) -> host.Host:
        """A system with two listening sockets, of Exim and of a server of ours."""
        proc = Path(self.mktemp())
        head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt uid"
        lines = [
            "   0: 00000000:0019 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 71 1",
            "   1: 00000000:024B 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 72 1",
            "   2: 0100007F:01D1 00000000:0000 01 00000000:00000000 00:00000000 00000000 0 0 74 1",
            "   3: 00000000:016E 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 73 1",
        ]
        for number, inode, command, group in (
            ("1", "72", b"/sbin/init\0", "0::/init.scope\n"),
            ("11", "71", b"/usr/sbin/exim4\0-bd\0", "0::/system.slice/exim4.service\n"),
            ("12", "72", b"python\0/opt/mta/bin/twistd\0mta\0", "0::/x.scope\n"),
            ("13", "73", b"/sbin/init\0", "0::/init.scope\n"),
        ):
            process = proc / number
            (process / "fd").mkdir(parents=True)
            (process / "fd/3").symlink_to(f"socket:[{inode}]")
            (process / "cmdline").write_bytes(command)
            (process / "cgroup").write_text(group)
            (process / "comm").write_text("systemd\n")
        (proc / "net").mkdir()
        (proc / "net/tcp").write_text("\n".join((head, *lines)) + "\n")
        (proc / "net/if_inet6").write_text("00000000000000000000000000000001 01 80 10 80 lo\n")
        return host.Host(proc)

    def test_ports_of_others(self) -> None:
        """Who listens on our ports is named by its unit; our server is not, nor its sockets."""
        held = self.proc().holders((25, 587, 465, 366))
        self.assertEqual(held, {25: "exim4.service", 366: "systemd"})

    def test_ipv6(self) -> None:
        """Loopback and link-local addresses are none that others reach."""
        found = self.proc()
        self.assertFalse(found.has_ipv6)
        with (found.proc / "net/if_inet6").open("a") as file:
            file.write("20010db8000000000000000000000001 02 40 00 80 eth0\n")
        self.assertTrue(found.has_ipv6)
