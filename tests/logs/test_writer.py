"""How the log is written: where, by whom, and what happens when that changes."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.logger import LogEvent, LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mta.logs.writer import LogWriter, observer
from mta.settings import Log


def event(text: str, level: Any = LogLevel.info) -> LogEvent:
    """Something to log."""
    return {"log_time": 0.0, "log_level": level, "log_namespace": "mta.x", "log_format": text}


class LogWriterTests(SynchronousTestCase):
    """One file, through all that befalls it."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.file = self.folder / "mta.log"

    def writer(self, **options: Any) -> LogWriter:
        """The writer of a server in the foreground."""
        writer = observer({"logfile": None, "nodaemon": True} | options, Log(file=str(self.file)))
        assert writer is not None
        return writer

    def test_moved_away(self) -> None:
        """What comes then is in a new file, and what came before is in the old one."""
        writer = self.writer()
        writer(event("before"))
        self.file.rename(self.folder / "old")
        writer.reopen()
        writer(event("after"))
        self.assertIn("after", self.file.read_text())
        self.assertNotIn("after", (self.folder / "old").read_text())

    def test_short_writes(self) -> None:
        """A line is whole, however little the disk takes at once."""
        writer, write = self.writer(), os.write

        def short(descriptor: int, octets: bytes) -> int:
            return write(descriptor, octets[: len(octets) // 2 + 1])

        with patch("mta.logs.file.os.write", short):
            writer(event("one"))
            writer(event("other"))
        self.assertEqual([line.split()[-1] for line in self.file.open()], ["one", "other"])

    def test_no_new_file(self) -> None:
        """Where none can be made, the old one is written on, and says why."""
        writer = self.writer()
        globalLogPublisher.addObserver(writer)
        self.addCleanup(globalLogPublisher.removeObserver, writer)
        elsewhere = self.folder.rename(self.folder.with_name("elsewhere"))
        self.addCleanup(elsewhere.rename, self.folder)
        writer.reopen()
        writer(event("after"))
        text = (elsewhere / "mta.log").read_text()
        self.assertIn("cannot open the log again", text)
        self.assertIn("after", text)

    def test_tracebacks(self) -> None:
        """What fails again and again at one place is told in full once a minute, else in a line."""
        writer = self.writer()
        for second in (0.0, 1.0, 2.0, 61.0):
            try:
                raise ZeroDivisionError(f"at {second}")
            except ZeroDivisionError:
                failed = event("failed", LogLevel.critical) | {"log_failure": Failure()}
            writer(failed | {"log_time": second})
        text = self.file.read_text()
        self.assertEqual(text.count("Traceback"), 2)
        self.assertEqual(text.count("ZeroDivisionError: at"), 4)

    def test_rights(self) -> None:
        """Nobody but owner and group may read it, whatever the umask."""
        umask = os.umask(0)
        self.addCleanup(os.umask, umask)
        self.writer()
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o640)

    def test_the_users_of_the_server(self) -> None:
        """Root makes it for the user that the server will be, else for the folder's owner."""
        if os.geteuid():
            self.skipTest("only root can")
        os.chown(self.folder, 1234, 1235)
        self.writer()
        self.assertEqual((self.file.stat().st_uid, self.file.stat().st_gid), (1234, 1235))
        self.file.unlink()
        self.writer(uid=1236, gid=1237)
        self.assertEqual((self.file.stat().st_uid, self.file.stat().st_gid), (1236, 1237))

    def test_a_link_in_the_way(self) -> None:
        """Root follows no link that the folder's owner made."""
        if os.geteuid():
            self.skipTest("only root can")
        os.chown(self.folder, 1234, 1235)
        self.file.symlink_to(self.folder / "of-root")
        with self.assertRaises(OSError):
            self.writer()
        self.assertFalse((self.folder / "of-root").exists())

    def test_other_settings(self) -> None:
        """Level, format and file count from the next line on."""
        writer = self.writer()
        other = self.folder / "other.log"
        writer.configure(Log("json", "warn", str(other)))
        writer(event("info"))
        writer(event("warning", LogLevel.warn))
        [line] = other.read_text().splitlines()
        self.assertEqual(json.loads(line)["message"], "warning")
        self.assertEqual(self.file.read_text(), "")

    def test_the_host_among_several(self) -> None:
        """Where they share a spool, JSON has it in each line, unless the event has a `node`."""
        settings = Log("json", file=str(self.file))
        writer = observer({"logfile": None, "nodaemon": True}, settings, "vps1")
        assert writer is not None
        writer(event("here"))
        writer(event("there") | {"node": "vps2"})
        found = [json.loads(line)["node"] for line in self.file.read_text().splitlines()]
        self.assertEqual(found, ["vps1", "vps2"])

    def test_settings_that_can_not_be(self) -> None:
        """Nothing changes where the new file can't be opened."""
        writer = self.writer()
        with self.assertRaises(OSError):
            writer.configure(Log("json", "error", str(self.folder / "nowhere" / "x.log")))
        writer(event("goes on"))
        self.assertEqual(self.file.read_text(), "1970-01-01T00:00:00+0000 info  goes on\n")

    def test_a_full_disk(self) -> None:
        """What can't be written raises nothing: mail goes on."""
        full = LogWriter({"logfile": "/dev/full", "nodaemon": True}, Log())
        full(event("lost"))

    def test_syslog(self) -> None:
        """Where twistd has a log of its own, that is used."""
        self.assertIsNone(observer({"logfile": None, "syslog": True}, Log()))
        self.assertIsNone(observer({"logfile": None, "logger": "x.y"}, Log()))
