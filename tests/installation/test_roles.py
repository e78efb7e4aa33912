"""Whole installations, in a folder that stands for a system."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mta.config import REMOVED, edited, load, save
from mta.installation.answers import Role, answers_in, present_settings
from mta.installation.changes import TextFile
from mta.installation.filling import filled
from mta.installation.host import Host
from mta.installation.interfaces import ChangeFailed
from mta.installation.places import SERVER, Places
from mta.installation.roles import Installation
from mta.installation.systemd import socket_unit, system_unit
from mta.installation.wishes import Wishes
from mta.settings import Listener, ListenerTLS, Service
from mta.signing.keys import read
from mta.users.file import UserFile
from tests.installation.systems import ANSWERS, System
from tests.processes import Server, need_program, temporary_folder, wait_for_mail

ROLES = (Role.SERVER, Role.OFFICE, Role.VPS)
MAX_EXPOSURE = "20"  # tenths, as `systemd-analyze security --threshold` has it
OPTIONS: dict[str, Any] = {
    "has_sendmail": True,
    "log_file": "/var/log/mta/mta.log",
    "completions": {"bash": "# bash\n", "zsh": "# zsh\n", "fish": "# fish\n"},
}


class InstallationTests(SynchronousTestCase):
    """What is there afterwards, and what stays."""

    def test_twice(self) -> None:
        """The second time nothing is left to do, and nothing is touched."""
        for role in ROLES:
            system = System(self, has_user=True)
            self.assertTrue(system.install(role, **OPTIONS))
            before = system.snapshot()
            plan = system.plan(role)
            self.assertEqual((plan.needed(), plan.kept()), ([], []))
            self.assertEqual(system.install(role, **OPTIONS), [])
            self.assertEqual(system.snapshot(), before)

    def test_showing_changes_nothing(self) -> None:
        """A plan that is only looked at leaves the system as it was."""
        for role in ROLES:
            system = System(self)
            before = system.snapshot()
            plan = system.plan(role)
            for change in plan.needed():
                self.assertTrue(change.difference(), change.title)
            self.assertEqual(system.snapshot(), before)

    def test_owners_and_modes(self) -> None:
        """Secrets are the server's alone, its configuration is root's, each folder has its mode."""
        system = System(self, has_user=True)
        system.install(Role.SERVER, **OPTIONS)
        root, server = (0, 0), (987, 986)
        expected = {
            "/etc/mta": ((0, 986), 0o750),
            "/etc/mta/mta.yaml": ((0, 986), 0o640),
            "/etc/mta/users.yaml": (server, 0o600),
            "/var/spool/mta": (server, 0o700),
            "/var/spool/mta/self-signed.pem": (server, 0o600),
            "/var/mail/example.com": (server, 0o750),
            "/var/log/mta": (server, 0o750),
            "/etc/systemd/system/mta.service": (root, 0o644),
            "/etc/systemd/system/mta.socket": (root, 0o644),
            "/etc/logrotate.d/mta": (root, 0o644),
            "/usr/local/share/zsh/site-functions/_mta": (root, 0o644),
        }
        expected["/etc/mta/dkim"] = ((0, 986), 0o750)
        for key in (
            load(system.file("/etc/mta/mta.yaml"), secrets=False).domains["example.com"].dkim
        ):
            expected[f"/etc/mta/dkim/{key.file.name}"] = (server, 0o600)
        for path, (owner, mode) in expected.items():
            status = system.file(path).stat()
            self.assertEqual(oct(status.st_mode & 0o7777), oct(mode), path)
            if os.geteuid() == 0:
                self.assertEqual((status.st_uid, status.st_gid), owner, path)
        for link, program in (
            ("/usr/local/bin/mta", "mta"),
            ("/usr/sbin/sendmail", "mta-sendmail"),
        ):
            self.assertEqual(system.file(link).readlink(), Path("/opt/mta/bin", program))

    def test_signing_keys(self) -> None:
        """Each new domain has a key of each kind; those that are there stay."""
        for role in ROLES:
            system = System(self, has_user=True)
            system.install(role)
            config = system.file("/etc/mta/mta.yaml")
            before = load(config, secrets=False).domains["example.com"].dkim
            kinds = [read(key.file).kind for key in before]
            self.assertEqual(["rsa", "ed25519"], kinds)
            more = replace(ANSWERS, domains=["example.com", "example.org"])
            for replaces in (False, True):
                system.install(role, more, replaces=replaces)
                domains = load(config, secrets=False).domains
                self.assertEqual(before, domains["example.com"].dkim)
                self.assertEqual(2, len(domains["example.org"].dkim))
            self.assertEqual(4, len(list(system.file("/etc/mta/dkim").iterdir())))
            self.assertNotIn(str(system.root), config.read_text())

    def test_keys_of_a_domain_without_them(self) -> None:
        """A domain that a person has configured without keys stays so."""
        system = System(self, has_user=True)
        system.install(Role.OFFICE)
        config = system.file("/etc/mta/mta.yaml")
        save(config, edited(config, {("domains", "example.com", "dkim"): REMOVED}))
        self.assertEqual([], system.install(Role.OFFICE))

    def test_the_account(self) -> None:
        """The user of the server is made in the system that is installed into."""
        if os.geteuid() != 0:
            self.skipTest("only root can make users")
        system = System(self)
        system.install(Role.SERVER)
        [line] = [
            line
            for line in system.file("/etc/passwd").read_text().splitlines()
            if line.startswith(f"{SERVER}:")
        ]
        self.assertTrue(line.endswith(":/var/spool/mta:/usr/sbin/nologin"), line)
        uid = int(line.split(":")[2])
        self.assertEqual(system.file("/var/spool/mta").stat().st_uid, uid)

    def test_stopped_at_each_step(self) -> None:
        """An installation that ends in the middle is completed by the next one."""
        one = replace(ANSWERS, mailboxes=["alice"])  # hashes of passwords take their time
        whole = System(self, has_user=True)
        steps = len(whole.install(Role.SERVER, one, **OPTIONS))
        names = set(whole.snapshot())
        for stop in range(steps):
            system = System(self, has_user=True)
            applied = system.plan(Role.SERVER, one, Wishes(**OPTIONS)).apply()
            for _ in range(stop):
                next(applied, None)
            system.install(Role.SERVER, one, **OPTIONS)
            self.assertEqual(set(system.snapshot()), names, stop)
            self.assertEqual(len(UserFile(system.file("/etc/mta/users.yaml")).load().users), 1)

    def test_an_edit_stays(self) -> None:
        """What a person, or `mta pair`, changed is kept; with --replace it is kept aside."""
        system = System(self, has_user=True)
        system.install(Role.SERVER)
        config, unit = (
            system.file("/etc/mta/mta.yaml"),
            system.file("/etc/systemd/system/mta.service"),
        )
        save(config, edited(config, {("limits", "message_size"): "9MiB"}))
        unit.write_text(unit.read_text().replace("RestartSec=5", "RestartSec=7"))
        texts = config.read_text(), unit.read_text()
        self.assertEqual(system.install(Role.SERVER), [])
        self.assertEqual((config.read_text(), unit.read_text()), texts)
        [kept] = system.plan(Role.SERVER).kept()
        self.assertIn("/etc/systemd/system/mta.service is yours", kept)
        said = system.install(Role.SERVER, replaces=True)
        self.assertIn("it was /etc/systemd/system/mta.service~", said[1])
        self.assertIn("RestartSec=5", unit.read_text())
        self.assertIn("RestartSec=7", unit.with_name("mta.service~").read_text())

    def test_a_removed_user_stays_removed(self) -> None:
        """Users are made with the first configuration, and for mailboxes that are named anew."""
        system = System(self, has_user=True)
        system.install(Role.SERVER)
        users = UserFile(system.file("/etc/mta/users.yaml"))
        users.delete("bob")
        system.install(Role.SERVER)
        self.assertEqual(set(users.load().users), {"alice"})
        more = replace(ANSWERS, mailboxes=["alice", "bob", "carol"])
        system.install(Role.SERVER, more, users=["carol"])
        self.assertEqual(set(users.load().users), {"alice", "carol"})
        self.assertEqual(answers_in(present_settings(system.file("/etc/mta/mta.yaml"))), more)

    def test_an_own_file_is_brought_up_to_date(self) -> None:
        """A file that is as it was written gets the new form, and the difference is shown."""
        system = System(self, has_user=True)
        system.install(Role.SERVER, completions={"zsh": "one\ntwo\n"})
        [script] = system.plan(Role.SERVER, wishes=Wishes(completions={"zsh": "one\n3\n"})).needed()
        self.assertEqual(script.difference()[-3:], [" one", "-two", "+3"])
        system.install(Role.SERVER, completions={"zsh": "one\n3\n"})
        path = system.file("/usr/local/share/zsh/site-functions/_mta")
        self.assertEqual(path.read_text(), "one\n3\n")
        self.assertEqual(len(list(path.parent.iterdir())), 1)

    def test_what_is_asked_for_later_is_added(self) -> None:
        """A configuration that a person has changed gets another domain, and keeps the rest."""
        system = System(self, has_user=True)
        system.install(Role.SERVER)
        config = system.file("/etc/mta/mta.yaml")
        config.write_text(config.read_text().replace("50MiB", "9MiB  # enough for us"))
        before = config.stat()
        more = replace(
            ANSWERS, domains=["example.com", "example.org"], mailboxes=["alice", "bob", "no"]
        )
        wishes = Wishes(users=["no"], log_file="/var/log/mta/mta.log")
        changes = system.plan(Role.SERVER, more, wishes).needed()
        [shown] = [change.difference() for change in changes if change.title.endswith("mta.yaml")]
        self.assertIn("+  file: /var/log/mta/mta.log", shown)
        system.install(Role.SERVER, more, users=["no"], log_file="/var/log/mta/mta.log")
        settings = load(config, secrets=False)
        for name in more.domains:
            self.assertEqual(settings.domains[name].mailboxes, {"alice", "bob", "no"})
            self.assertIn("postmaster", settings.domains[name].aliases)
            self.assertEqual("root" in settings.domains[name].aliases, name == "example.com")
        self.assertIn("9MiB  # enough for us", config.read_text())
        self.assertEqual(
            (config.stat().st_mode, config.stat().st_gid), (before.st_mode, before.st_gid)
        )
        self.assertEqual(system.plan(Role.SERVER, more).needed(), [])

    def test_programs_of_others(self) -> None:
        """Another sendmail, and another mta, stay, and it is said what to do."""
        system = System(self, has_user=True)
        for path in ("/usr/sbin/sendmail", "/usr/local/bin/mta-sendmail"):
            system.file(path).parent.mkdir(parents=True, exist_ok=True)
            system.file(path).write_text("another")
        system.install(Role.SERVER, **OPTIONS)
        kept = system.plan(Role.SERVER, wishes=None).kept()
        self.assertEqual(len(kept), 1)
        self.assertEqual(system.file("/usr/sbin/sendmail").read_text(), "another")

    def test_another_spool(self) -> None:
        """A configuration that was made by hand keeps its spool, its user and its certificate."""
        folder = temporary_folder(self)
        (folder / "mta.yaml").write_text(
            "hostname: mail.example.com\nspool: queue\nrun_as: root\n"
            "tls: {certificate: /x/a.pem, key: /x/a.key}\n"
            "domains: {example.com: {deliver: 'maildir:mail/{local}', mailboxes: [alice]}}\n"
        )
        present = present_settings(folder / "mta.yaml")
        bare = replace(Places.of_system(Path("/opt")), etc=folder, state=folder, mail=folder)
        places = bare.used_by(present)
        self.assertEqual((places.spool, places.user), (folder / "queue", "root"))
        made = Installation(
            Role.SERVER, answers_in(present), places, Wishes(), Host(folder / "proc"), present
        )
        titles = [change.title for change in made.plan().changes]
        self.assertIn(f"{folder}/queue/", titles)
        self.assertNotIn("self-signed certificate for mail.example.com", titles)

    def test_a_package_has_it_already(self) -> None:
        """No link where the program is on PATH, and no unit where a package brought one."""
        system = System(self, has_user=True)
        for path in (
            "/usr/bin/mta",
            "/usr/bin/mta-sendmail",
            "/usr/lib/systemd/system/mta.service",
        ):
            system.file(path).parent.mkdir(parents=True, exist_ok=True)
            system.file(path).write_text("")
            system.file(path).chmod(0o755)
        system.install(Role.SERVER)
        self.assertFalse(system.file("/usr/local/bin").exists())
        self.assertFalse(system.file("/etc/systemd/system/mta.service").exists())
        self.assertTrue(system.file("/etc/systemd/system/mta.socket").exists())

    def test_a_folder_of_the_wrong_owner(self) -> None:
        """A mail folder that root made by hand is given to the server, which must write there."""
        if os.geteuid() != 0:
            self.skipTest("only root can give files away")
        system = System(self, has_user=True)
        system.file("/var/mail/example.com").mkdir(parents=True)
        system.install(Role.SERVER)
        self.assertEqual(system.file("/var/mail/example.com").stat().st_uid, 987)
        self.assertEqual(system.plan(Role.SERVER).needed(), [])

    def test_a_fault_is_one_line(self) -> None:
        """A users file that can't be read ends it, and says where."""
        system = System(self, has_user=True)
        system.file("/etc/mta").mkdir()
        system.file("/etc/mta/users.yaml").write_text("a: [")
        error = self.assertRaises(ChangeFailed, system.install, Role.SERVER)
        self.assertIn("users.yaml:2:1: this is not YAML", str(error))


class ServerTests(SynchronousTestCase):
    """The server that was installed, running."""

    def test_mail_arrives(self) -> None:
        """Each role starts with its configuration; server and office deliver to their mailboxes."""
        for role in ROLES:
            system = System(self, has_user=True)
            system.install(role)
            text = system.file("/etc/mta/mta.yaml").read_text()
            text = text.replace("/var/", f"{system.root}/var/").replace("run_as: mta\n", "")
            for port in (25, 587, 465):
                for end in (":interface=127.0.0.1", ""):
                    text = text.replace(f"tcp:{port}{end} ", "tcp:0:interface=127.0.0.1 ")
            server = Server(self, text, folder=system.file("/etc/mta"))
            os.system(f"chown -R root:root {system.root}")
            server.start()
            server.send(b"Subject: x\r\n\r\nhello\r\n", "postmaster@example.com")
            [mail] = wait_for_mail(system.file("/var/mail/example.com/alice"))
            self.assertIn(b"hello", mail)
            server.stop()


class UnitTests(SynchronousTestCase):
    """The units, as systemd sees them."""

    def setUp(self) -> None:
        self.analyze = need_program(self, "systemd-analyze")
        self.folder = temporary_folder(self)
        self.unit = self.folder / "mta.service"
        (self.folder / "twistd").write_text("#!/bin/sh\n")
        (self.folder / "twistd").chmod(0o755)
        places = Places.of_system(self.folder)
        self.unit.write_text(system_unit(places).replace("User=mta", "User=root"))
        listeners = (
            Listener("tcp:25", Service.SMTP, ListenerTLS.OFF),
            Listener("tcp6:465:interface=\\:\\:1", Service.SUBMISSION, ListenerTLS.IMPLICIT),
            Listener("haproxy:tcp:587:interface=192.0.2.1", Service.SMTP, ListenerTLS.OFF),
            Listener("tcp:2525", Service.SMTP, ListenerTLS.OFF),
            Listener("unix:/run/mta.sock", Service.SMTP, ListenerTLS.OFF),
        )
        self.socket = self.folder / "mta.socket"
        self.socket.write_text(socket_unit(places, listeners))

    def run_analyze(self, *arguments: str) -> str:
        """Ask systemd-analyze; returns what it says."""
        command = [self.analyze, *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)
        return ended.stdout + ended.stderr

    def test_valid(self) -> None:
        """Systemd has nothing to say about it."""
        said = self.run_analyze("verify", "--man=no", str(self.unit), str(self.socket))
        self.assertNotIn("mta.s", said)

    def test_sockets(self) -> None:
        """The low ports have one each; without any there is no unit."""
        streams = [
            line.partition("=")[2]
            for line in self.socket.read_text().splitlines()
            if line.startswith("ListenStream=")
        ]
        self.assertEqual(streams, ["0.0.0.0:25", "[::1]:465", "192.0.2.1:587"])
        self.assertEqual(socket_unit(Places.of_system(self.folder), ()), "")

    def test_exposure(self) -> None:
        """The sandbox leaves little open."""
        places = Places.of_system(self.folder)
        self.unit.write_text(system_unit(places))
        threshold = f"--threshold={MAX_EXPOSURE}"
        self.run_analyze("security", "--offline=true", threshold, str(self.unit))

    def test_it_never_gives_up(self) -> None:
        """However often the start fails, systemd tries again."""
        text = self.unit.read_text()
        self.assertIn("StartLimitIntervalSec=0", text)
        self.assertRegex(text, r"(?m)^RestartSec=\d")


class CertbotTests(SynchronousTestCase):
    """The hook that hands certbot's certificate to the server."""

    def test_copies(self) -> None:
        """Certificate and key are copied for the server alone; other certificates are not."""
        folder = temporary_folder(self)
        live, etc, hook = folder / "live", folder / "etc", folder / "hook"
        for each in (live, etc):
            each.mkdir()
        (live / "fullchain.pem").write_text("certificate")
        (live / "privkey.pem").write_text("key")
        user = "root" if os.geteuid() == 0 else self.skipTest("only root can give files away")
        hook.write_text(filled("certbot-hook", LIVE=str(live), ETC=str(etc), USER=str(user)))
        for lineage, count in ((folder / "other", 0), (live, 2)):
            environment = os.environ | {"RENEWED_LINEAGE": str(lineage)}
            subprocess.run(["sh", hook], check=True, env=environment)
            self.assertEqual(len(list(etc.iterdir())), count)
        self.assertEqual((etc / "key.pem").read_text(), "key")
        self.assertEqual((etc / "key.pem").stat().st_mode & 0o777, 0o600)


class TextFileTests(SynchronousTestCase):
    """Files of text: `TextFile` is what most of a plan is made of."""

    def test_is_an_interface(self) -> None:
        """It promises what all changes do."""
        from zope.interface.verify import verifyClass

        from mta.installation.interfaces import IChange

        self.assertTrue(verifyClass(IChange, TextFile))
