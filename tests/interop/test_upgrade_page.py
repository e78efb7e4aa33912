"""Every command of ``docs/upgrade.rst``, run as it stands there."""

from __future__ import annotations

import re
import smtplib
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mta.queued import Filter
from mta.spool import schema
from mta.spool.database import PAGE
from mta.spool.tools import SpoolTools
from tests.crash import load
from tests.interop.reversal import run_mta
from tests.processes import (
    DEADLINE,
    ROOT,
    Process,
    Server,
    configuration,
    local_domain,
    mail_in,
    need_program,
    source_environment,
    temporary_folder,
    wait_until,
)

_TEXT = (ROOT / "docs" / "upgrade.rst").read_text()
_HEADING = re.compile(r"(?m)^(.+)\n-+\n")
_COMMAND = re.compile(r"(?m)^    # (.*)$")
_MTA = "from mta.commands import main; main()"

SMALL = b"Subject: small\r\n\r\nbody\r\n"
LARGE = b"Subject: large\r\n\r\n" + b"0123456789\r\n" * 30_000
SENT = 100  # messages
SENDER, CAROL = "x@client.example", "carol@partner.example"
# From today's format to 4, which had the header section with the body.
TO_FORMAT_4 = """
DROP INDEX held;
ALTER TABLE recipient DROP COLUMN offered;
CREATE INDEX held ON recipient (peer, message) WHERE state = 'held';
UPDATE content SET data = CAST(header || data AS BLOB);
DELETE FROM content WHERE id IN (SELECT id FROM message WHERE in_file);
ALTER TABLE content DROP COLUMN header;
ALTER TABLE content DROP COLUMN origin;
DROP INDEX released;
ALTER TABLE message RENAME COLUMN released_by TO put_by;
CREATE INDEX put_by ON message (put_by) WHERE put_by IS NOT NULL;
PRAGMA user_version = 4;
"""


def commands(title: str) -> list[str]:
    """The commands under a heading."""
    parts = _HEADING.split(_TEXT)
    return _COMMAND.findall(parts[parts.index(title) + 1])


class Machine:
    """A machine with a server, whose /etc/mta and /var are folders of a test.

    `backups` is what it has in common with others.
    """

    def __init__(self, case: SynchronousTestCase, backups: Path, config: dict[str, Any]) -> None:
        self.folder = temporary_folder(case)
        self.etc, self.spool = self.folder / "etc", self.folder / "spool"
        self.etc.mkdir()
        self.server = Server(case, config | {"spool": "../spool"}, folder=self.etc)
        self._paths = {
            "/var/spool/mta": str(self.spool),
            "/var/backups/mta": str(backups),
            "/etc/mta": str(self.etc),
            " -o mta": "",
            " -g mta": "",
        }
        program = self.folder / "mta"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{_MTA}" "$@"\n')
        program.chmod(0o755)

    def run(self, command: str, *, may_complain: bool = False) -> str:
        """Run a command of the page; returns what it printed."""
        if command.startswith("systemctl "):
            self._systemctl(command.split()[1])
            return ""
        for path, ours in self._paths.items():
            command = command.replace(path, ours)
        environment = source_environment() | {"MTA_CONFIG": str(self.server.config)}
        environment["PATH"] = f"{self.folder}:{environment['PATH']}"
        ended = subprocess.run(
            *(("sh", "-c", command),),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode and not may_complain:
            raise AssertionError(f"{command}: {ended.returncode} {ended.stdout}{ended.stderr}")
        return ended.stdout

    def format(self) -> int:
        """The format of its spool."""
        with closing(sqlite3.connect(self.spool / "queue.sqlite")) as database:
            return schema.version(database)

    def change(self, script: str) -> None:
        """Make its spool, which no server uses, that of another version."""
        with closing(sqlite3.connect(self.spool / "queue.sqlite")) as database:
            database.executescript(script)

    def _systemctl(self, verb: str) -> None:
        if verb != "start" and self.server.process is not None:
            self.server.stop()
        if verb != "stop":
            self.server.start()


def overwrite(path: Path, *places: bytes) -> None:
    """Overwrite the pages of a database in which these octets are."""
    octets = bytearray(path.read_bytes())
    for place in places:
        page = octets.index(place) // PAGE * PAGE
        octets[page : page + PAGE] = b"\xa5" * PAGE
    path.write_bytes(octets)


class UpgradePageTests(SynchronousTestCase):
    """A server, and a host that accepts connections and says nothing."""

    def setUp(self) -> None:
        for program in ("sqlite3", "tar"):
            need_program(self, program)
        self.backups = temporary_folder(self)
        self.silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.silent.close)
        self.port = self.silent.getsockname()[1]
        routes = {"partner.example": f"smtp://127.0.0.1:{self.port}"}
        self.config = configuration(routes=routes, relay={"networks": ["127.0.0.0/8"]})
        self.machine = self.new_machine()

    def send(self) -> None:
        """Have the server take in two messages; the larger one has a file."""
        self.machine.server.start()
        for content in (SMALL, LARGE):
            self.machine.server.send(content, CAROL)

    def new_machine(self) -> Machine:
        """A machine with that configuration."""
        return Machine(self, self.backups, self.config)

    def partner(self) -> Server:
        """The host that said nothing, which now takes mail."""
        self.silent.close()
        here = {"endpoint": f"tcp:{self.port}:interface=127.0.0.1", "service": "smtp"}
        domains = {"partner.example": local_domain()}
        partner = Server(self, configuration(listen=[here], domains=domains))
        partner.start()
        return partner

    def assert_delivered(self, partner: Server) -> None:
        """Both messages arrive there, once each."""
        mail = partner.wait_for_mail("partner.example/carol", 2)
        ends = sorted(content.partition(b"\n\n")[2] for content in mail)
        bodies = sorted(each.partition(b"\r\n\r\n")[2] for each in (SMALL, LARGE))
        self.assertEqual(ends, [body.replace(b"\r\n", b"\n") for body in bodies])

    def test_backup_and_restore(self) -> None:
        """What is being delivered at that moment is delivered by the machine that comes after."""
        self.send()
        wait_until(lambda: "active" in self.queued(self.machine, "--state", "active"), "a lease")
        for command in commands("Backup"):
            self.machine.run(command)
        self.machine.server.kill()

        other = self.new_machine()
        other.server.config.unlink()
        partner = self.partner()
        steps = commands("Restore")
        start = steps.index("systemctl start mta")
        for command in steps[: start + 1]:
            other.run(command)
        self.assertEqual(other.run(steps[start + 1]).count("on hold"), 2)
        other.run(steps[start + 2])
        self.assert_delivered(partner)

    def test_upgrade(self) -> None:
        """An older spool stays what it is for a check, and becomes one of today at the start."""
        for content in (SMALL, LARGE):
            words = ("sendmail", "-i", "-f", "sender@client.example", CAROL)
            run_mta(self.machine.server, *words, stdin=content.decode().replace("\r\n", "\n"))
        self.make_older()
        check, restart, *then = commands("Upgrade")
        self.machine.run(check)
        self.assertEqual(self.machine.format(), 4)
        partner = self.partner()
        self.machine.run(restart)
        self.assertEqual(self.machine.format(), schema.VERSION)
        for command in then:
            self.machine.run(command)
        self.assert_delivered(partner)

    def test_downgrade(self) -> None:
        """A newer spool is refused in the words of the page, which then goes on without it."""
        partner, machine = self.partner(), self.machine
        self.send()
        self.assert_delivered(partner)
        empty, *then = commands("Downgrade")
        wait_until(lambda: "no messages" in machine.run(empty), "an empty queue")
        machine.server.stop()
        machine.change("PRAGMA user_version = 7")
        refused = Process(machine.server.command, machine.etc, source_environment())
        self.addCleanup(refused.kill)
        self.assertEqual(refused.wait(), 1)
        [line] = re.findall(r"(?m)^    (cannot use the spool.*)$", _TEXT)
        self.assertIn(line.replace("/var/spool/mta", str(machine.spool)), refused.output)
        self.assertEqual(machine.format(), 7)
        for command in then:
            machine.run(command)
        self.assertEqual(machine.format(), schema.VERSION)

    def test_damaged(self) -> None:
        """What can be read of a damaged database is delivered, whole; the rest is named."""
        machine, sent = self.killed_with_mail(), SENT
        overwrite(machine.spool / "queue.sqlite", b"m-1000041", b"m-1000061")
        arrived = self.saved_and_sent(machine)
        wait_until(lambda: len(mail_in(arrived)) + self.damaged(machine) == sent, "all is told of")
        self.assertTrue(all(map(load.is_whole, mail_in(arrived))))
        self.assertGreater(len(mail_in(arrived)), sent // 2)
        self.assertGreater(self.damaged(machine), 0)
        self.assertNotIn("Traceback", machine.server.log)

    def test_damaged_list(self) -> None:
        """Without the page that leads to the list, all is saved on hold; large mail is named."""
        machine = self.killed_with_mail()
        with closing(sqlite3.connect(machine.spool / "queue.sqlite")) as database:
            query = "SELECT rootpage - 1 FROM sqlite_schema WHERE name = 'message'"
            [(page,)] = database.execute(query)
        with (machine.spool / "queue.sqlite").open("r+b") as file:
            file.seek(page * PAGE)
            file.write(b"\xa5" * PAGE)
        arrived = self.saved_and_sent(machine)
        with closing(SpoolTools(machine.spool)) as tools:
            self.assertEqual(tools.count(Filter(state="on-hold")), SENT)
        machine.run("mta queue release --all")
        wait_until(lambda: len(mail_in(arrived)) + self.damaged(machine) == SENT, "all is told of")
        self.assertTrue(all(map(load.is_whole, mail_in(arrived))))
        self.assertEqual(self.damaged(machine), len(list((machine.spool / "content").iterdir())))

    def killed_with_mail(self) -> Machine:
        """The machine, whose server is killed with mail in its queue."""
        machine = self.machine
        machine.server.start()
        with smtplib.SMTP("127.0.0.1", machine.server.ports["smtp"], timeout=DEADLINE) as client:
            for number in range(SENT):
                text = load.content(f"m-{number + 1_000_001}", SENDER)
                client.sendmail(SENDER, CAROL, text)
        machine.server.kill()
        machine.run("sqlite3 /var/spool/mta/queue.sqlite 'PRAGMA wal_checkpoint(TRUNCATE)'")
        return machine

    def saved_and_sent(self, machine: Machine) -> Path:
        """Run the commands of the page; returns where the mail arrives."""
        partner = self.partner()
        for command in commands("A damaged database"):
            machine.run(command, may_complain=command.startswith(("cd ", "mta spool check")))
        return partner.folder / "mail/partner.example/carol"

    def damaged(self, machine: Machine) -> int:
        """How many messages are on hold as damaged."""
        with closing(SpoolTools(machine.spool)) as tools:
            return tools.count(Filter(state="damaged"))

    def make_older(self) -> None:
        """Make the spool one of format 4."""
        machine = self.machine
        [file] = (machine.spool / "content").iterdir()
        with closing(sqlite3.connect(machine.spool / "queue.sqlite")) as database:
            query = "SELECT header FROM content JOIN message USING (id) WHERE in_file"
            [(header,)] = database.execute(query)
        file.write_bytes(header + file.read_bytes())
        machine.change(TO_FORMAT_4)

    def queued(self, machine: Machine, *words: str) -> str:
        """What `mta queue list` says."""
        return run_mta(machine.server, "queue", "list", *words)
