"""The checks of the machine, the service, and ``mta sendmail`` of other users."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import sysconfig
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from mta.doctor import machine, service
from mta.doctor.result import State
from mta.doctor.sendmail import trial
from mta.installation.filling import filled
from mta.maildrop import published
from mta.settings import GIB
from mta.spool.folder import Folder
from mta.spool.schema import VERSION
from mta.spool.tools import SpoolTools
from tests.doctor.test_checks import SETTINGS, CheckCase
from tests.processes import ROOT, Server, configuration, temporary_folder

UNIT = {
    "PROGRAM": "/opt/mta/bin",
    "CONFIG": "/etc/mta/mta.yaml",
    "SPOOL": "/var/spool/mta",
    "MAIL": "/var/mail",
    "USER": "mta",
}


class SpoolTests(CheckCase):
    """The spool, and the disk below it."""

    def setUp(self) -> None:
        super().setUp()
        self.spool = temporary_folder(self) / "spool"
        self.settings = replace(SETTINGS, spool=str(self.spool))

    def test_a_spool(self) -> None:
        """Its format, and whether the database is whole."""
        self.assert_states(machine.spool, ("unknown", "not there yet"))
        SpoolTools(self.spool).close()
        self.assert_states(machine.spool, ("ok", "has format"), ("ok", "is whole"))
        with (
            patch.object(machine, "MAX_INTEGRITY_TIME", -1.0),
            patch("mta.spool.inspection._STEPS", 1),
        ):
            self.assert_states(machine.spool, ("ok", "has format"), ("unknown", "too large"))

    def test_an_older_one(self) -> None:
        """It is brought up to date by the server."""
        SpoolTools(self.spool).close()
        with (
            patch("mta.spool.schema.VERSION", VERSION + 1),
            patch("mta.spool.inspection.problem_of", lambda path: ""),
        ):
            self.assert_states(machine.spool, ("ok", f"makes it {VERSION + 1}"), ("ok", "is whole"))

    def test_damage(self) -> None:
        """Pages that were overwritten."""
        SpoolTools(self.spool).close()
        database = Folder(self.spool).database
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        octets = bytearray(database.read_bytes())
        octets[3 * 8192 : 3 * 8192 + 64] = b"\xff" * 64
        database.write_bytes(octets)
        self.assert_states(machine.spool, ("ok", "has format"), ("bad", "is damaged"))

    def test_room(self) -> None:
        """Much, little, none."""
        self.assert_states(machine.disk, ("ok", "free at"))
        free = shutil.disk_usage("/tmp").free
        for space, state in ((free // 2, "warn"), (2 * free, "bad")):
            limits = replace(SETTINGS.limits, free_space=space)
            self.settings = replace(self.settings, limits=limits)
            self.assertEqual(self.states(machine.disk)[0][0], state)
        self.patch(machine, "MIN_INODES", 1024 * GIB)
        self.assertIn("inodes free", self.states(machine.disk)[-1][1])


class ServiceTests(CheckCase):
    """What systemd says, and the unit."""

    def setUp(self) -> None:
        super().setUp()
        self.settings = replace(SETTINGS, spool=str(temporary_folder(self)))
        self.said: dict[str, str] = {}
        self.in_use = False
        self.patch(service, "output_of", lambda *words: self.said.get(words[1], ""))
        self.patch(service.inspection, "is_in_use", lambda spool: self.in_use)

    def test_states(self) -> None:
        """Running, failed, not started, not enabled; without systemd as well."""
        self.assert_states(service.running, ("bad", "not running"))
        self.said = {"is-active": "failed", "is-enabled": "enabled"}
        self.assert_states(service.running, ("bad", "is failed"))
        self.said = {"is-active": "active", "is-enabled": "disabled"}
        self.assert_states(service.running, ("ok", "is running"), ("warn", "does not start"))
        self.said = {}
        self.in_use = True
        self.assert_states(service.running, ("ok", "is running"), ("unknown", "does not tell"))

    def test_version(self) -> None:
        """The one that runs, and the one that is installed."""
        self.in_use = True
        published.publish(Path(self.settings.spool), self.settings)
        self.assert_states(service.running, ("ok", "is running"), ("ok", "as is installed"))
        with patch.object(service, "__version__", "9.9"):
            self.assert_states(service.running, ("ok", "is running"), ("warn", "9.9 is installed"))
        (Path(self.settings.spool) / published.FILE).write_text('{"version": 1}')
        self.assert_states(service.running, ("ok", "is running"), ("unknown", "does not tell"))

    def test_unit(self) -> None:
        """As shipped, with more than that, with less; none where there is none."""
        path = Path(self.settings.spool) / "mta.service"
        self.patch(service, "UNITS", (path,))
        self.assertEqual(self.states(service.unit), [])
        text = filled("mta.service", **UNIT)
        path.write_text(text.replace("UMask=0027", "UMask=0027\nNice=5"))
        self.assert_states(service.unit, ("ok", "as this version"))
        path.write_text(text.replace("WatchdogSec=60\n", "").replace("UMask=0027", "UMask=0022"))
        self.assert_states(service.unit, ("warn", "lacks 2 lines"))
        self.assertIn("WatchdogSec=60, UMask=0027", self.states(service.unit)[0][1])


class SendmailTests(CheckCase):
    """A user without rights."""

    def test_nobody(self) -> None:
        """It can send while the server runs, and not where it may not go."""
        interpreter = shutil.which("python3", path="/usr/bin")
        if os.geteuid() or interpreter is None:
            self.skipTest("only root can become nobody")
        packages = sysconfig.get_path("purelib")
        server = Server(self, configuration(hostname="mail.example.com"))
        server.start()
        with patch.dict(os.environ, PYTHONPATH=f"{ROOT}:{packages}"):
            result = trial(server.config, interpreter)
            if "No module" in result.text or "can't open" in result.text:
                self.skipTest(f"nobody has no program here: {result.text}")
            self.assertIs(result.state, State.OK, result.text)
            self.assertIn("sendmail as nobody: messages go ", result.text)
            server.stop()
            self.assertEqual(list((server.folder / "spool" / "maildrop").iterdir()), [])
            server.folder.chmod(0o700)
            self.assertIs(trial(server.config, interpreter).state, State.BAD)
            result = trial(server.config, str(self.closed()))
            self.assertIn("nobody can't run", result.text)

    def closed(self) -> Path:
        """An interpreter in a folder that only root may enter."""
        folder = temporary_folder(self)
        folder.chmod(0o700)
        (folder / "python").symlink_to(sys.executable)
        return folder / "python"

    def test_others(self) -> None:
        """Who is not root can't try."""
        with patch.object(os, "geteuid", lambda: 1000):
            self.assertIs(trial(Path("/x")).state, State.UNKNOWN)
