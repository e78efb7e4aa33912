"""Dovecot beside the server, as ``mta init`` sets it up."""

from __future__ import annotations

import subprocess

from twisted.trial.unittest import SynchronousTestCase

from mta.config import load
from mta.installation.accounts import scram_hash
from mta.installation.answers import Role
from mta.installation.interfaces import ChangeFailed
from tests.installation.systems import System
from tests.processes import need_program

_AUTH = "#!include auth-sql.conf.ext\n!include auth-system.conf.ext\n"
_SCRAM = r"{SCRAM-SHA-256}4096,\S+,\S+,\S+"


class DovecotTests(SynchronousTestCase):
    """Its files, in a system whose package left them as it does."""

    def system(self, main: str = "", auth: str = _AUTH) -> System:
        """A system with Dovecot."""
        system = System(self, has_user=True)
        for path, text in (("dovecot.conf", main), ("conf.d/10-auth.conf", auth)):
            file = system.file(f"/etc/dovecot/{path}")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return system

    def test_an_office(self) -> None:
        """It gets Dovecot where that is untouched; users are called by their addresses."""
        system = self.system()
        system.install(Role.OFFICE)
        settings = load(system.file("/etc/mta/mta.yaml"), secrets=False)
        self.assertEqual(settings.users, "dovecot:/run/dovecot/auth-client")
        lines = system.file("/etc/dovecot/mta-users").read_text().splitlines()
        self.assertEqual(
            [line.partition(":")[0] for line in lines], ["alice@example.com", "bob@example.com"]
        )
        for line in lines:
            self.assertRegex(line.partition(":")[2], _SCRAM)
        ours = system.file("/etc/dovecot/conf.d/99-mta.conf").read_text()
        self.assertIn("mail_location = maildir:/var/mail/%d/%n\n", ours)
        auth = system.file("/etc/dovecot/conf.d/10-auth.conf")
        self.assertEqual(auth.read_text(), _AUTH.replace("\n!", "\n#!"))
        self.assertEqual(system.plan(Role.OFFICE).needed(), [])
        self.assertFalse(system.file("/etc/mta/users.yaml").exists())

    def test_a_choice_of_a_person(self) -> None:
        """The users of the host, let in again, stay so."""
        system = self.system()
        system.install(Role.OFFICE)
        auth = system.file("/etc/dovecot/conf.d/10-auth.conf")
        auth.write_text(_AUTH)
        self.assertEqual(system.plan(Role.OFFICE).needed(), [])
        self.assertEqual(auth.read_text(), _AUTH)

    def test_a_new_form(self) -> None:
        """Dovecot 2.4 has other names for the same."""
        system = self.system(main="dovecot_config_version = 2.4.0\n")
        system.install(Role.OFFICE)
        ours = system.file("/etc/dovecot/conf.d/99-mta.conf").read_text()
        path = "/var/mail/%{user|domain}/%{user|username}"
        self.assertIn(f"mail_path = {path}\nmail_inbox_path = {path}\n", ours)

    def test_one_that_has_been_set_up(self) -> None:
        """It stays as it is, and it is said how to change that."""
        system = self.system(auth="#!include auth-system.conf.ext\n")
        plan = system.plan(Role.OFFICE)
        self.assertIn("--dovecot", " ".join(plan.remarks))
        system.install(Role.OFFICE)
        self.assertFalse(system.file("/etc/dovecot/conf.d/99-mta.conf").exists())
        self.assertTrue(system.file("/etc/mta/users.yaml").exists())

    def test_later(self) -> None:
        """A server with users of its own gets Dovecot, and its users new passwords there."""
        system = self.system()
        system.install(Role.SERVER)
        said = "\n".join(system.install(Role.SERVER, dovecot=True))
        self.assertIn("made user bob@example.com, password: ", said)
        settings = load(system.file("/etc/mta/mta.yaml"), secrets=False)
        self.assertEqual(settings.users, "dovecot:/run/dovecot/auth-client")

    def test_none(self) -> None:
        """It is asked for and not there: one line."""
        system = System(self, has_user=True)
        error = self.assertRaises(ChangeFailed, system.install, Role.OFFICE, dovecot=True)
        self.assertIn("apt install dovecot-imapd", str(error))

    def test_the_hash(self) -> None:
        """Dovecot knows the password by it."""
        doveadm = need_program(self, "doveadm")
        for password, expected in (("right", 0), ("wrong", 1)):
            command = [doveadm, "pw", "-t", scram_hash("right"), "-p", password]
            ended = subprocess.run(command, capture_output=True, check=False)
            self.assertEqual(min(ended.returncode, 1), expected, ended.stderr)
