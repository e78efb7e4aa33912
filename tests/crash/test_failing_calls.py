"""Each call of the system fails once, and all the time: the whole program, from SMTP to Maildir.

`tests.spool.test_faults` has the same of the spool alone, with what SQLite says.
"""

from __future__ import annotations

import re
import smtplib
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from bench.servers import free_port
from tests.crash import load
from tests.crash.failing import ALWAYS, Calls
from tests.processes import (
    DEADLINE,
    ROOT,
    TWISTD,
    Process,
    Server,
    configuration,
    temporary_folder,
    wait_until,
)

ERRORS = ("ENOSPC", "EDQUOT", "EIO", "EROFS", "EMFILE", "ENOMEM", "EINTR", "EACCES")
SQLITE_ERRORS = (
    *("SQLITE_BUSY", "SQLITE_FULL", "SQLITE_CORRUPT", "SQLITE_IOERR", "SQLITE_IOERR_FSYNC"),
    *("SQLITE_NOMEM", "SQLITE_LOCKED", "SQLITE_PROTOCOL", "SQLITE_READONLY", "SQLITE_NOTADB"),
)
DATABASE = "/spool/queue.sqlite"
MAX_STATEMENTS = 30  # of one message, from the intake to the record
MAX_LINES = 3  # in the log, of warnings and errors, where one call failed
MAX_FLOOD = 6  # where all did, however much mail came
SECONDS = 0.5  # of calls that all fail
# A server that commits each second, and not each ten seconds, to see whether it can.
BEATING = (
    sys.executable,
    "-c",
    "from mta.spool import heartbeat; heartbeat.INTERVAL = 1.0\n"
    "from twisted.scripts.twistd import run; run()",
    *TWISTD[3:],
)


@dataclass(frozen=True, slots=True)
class Area:
    """Files, by a part of their paths, and the calls that a message makes there.

    `numbers`: the markers of its messages; those of large ones are multiples of twenty.
    """

    path: str
    calls: tuple[str, ...]
    is_large: bool = False


AREAS = {
    "database": Area("/spool/queue.sqlite", ("write", "fsync", "read")),
    "content": Area("/incoming", ("open", "write", "fsync", "link", "unlink", "close"), True),
    "names of content": Area("/content", ("open", "fsync"), True),
    "Maildir": Area("/mail/", ("open", "write", "fsync", "syncfs", "rename", "mkdir", "close")),
}


class FailingCase(SynchronousTestCase):
    """A server whose calls fail."""

    command: Sequence[str] = BEATING

    def features(self, folder: Path) -> Mapping[str, Any]:
        """Make files in the folder of the server; returns keys of its configuration."""
        return {}

    def setUp(self) -> None:
        folder = temporary_folder(self)
        self.calls = Calls(self, folder)
        self.health_port = free_port()
        config = configuration(
            metrics=f"tcp:{self.health_port}:interface=127.0.0.1", **self.features(folder)
        )
        self.server = Server(
            self, config, folder=folder, command=self.command, environment=self.calls.environment
        )
        self.count = 0
        self.expected: dict[str, set[str]] = {}
        self.refused = 0
        self.start()

    def start(self) -> None:
        """Start the server, and return when it is ready."""
        self.server.start()

    def send(self, *, is_large: bool = False) -> None:
        """Send a message to a mailbox of its own: it has its 250, or a 4xx, and nothing else."""
        self.count += 1
        number = self.count * load.LARGE_EVERY if is_large else self.count * load.LARGE_EVERY + 1
        marker, name = f"m-{number}", f"user{self.count}"
        content = load.content(marker, "x@client.example")
        try:
            self.server.send(content, f"{name}@office.example")
        except smtplib.SMTPResponseException as refusal:
            self.assertEqual(refusal.smtp_code // 100, 4, refusal)
            self.refused += 1
        except smtplib.SMTPRecipientsRefused as refusal:
            self.assertEqual({c // 100 for c, _ in refusal.recipients.values()}, {4}, refusal)
            self.refused += 1
        else:
            self.expected[name] = {marker}

    def problems(self) -> list[str]:
        """The warnings and errors in the log."""
        return re.findall(r"^\S+ (?:warn|error|critical).*$", self.server.log, re.MULTILINE)

    def assert_all_delivered(self) -> None:
        """All that was acknowledged is there, once and whole."""
        places = {
            name: load.Arrivals(self.server.folder / "mail" / "office.example" / name)
            for name in self.expected
        }

        def missing() -> list[str]:
            for arrivals in places.values():
                if not arrivals.copies:
                    arrivals.look()
            return [name for name, arrivals in places.items() if not arrivals.copies]

        wait_until(lambda: not missing(), "all that was acknowledged")
        for name, arrivals in places.items():
            self.assertEqual(set(arrivals.copies), self.expected[name])
            self.assertEqual([len(times) for times in arrivals.copies.values()], [1])
            self.assertEqual(arrivals.damaged, [])
        self.assertNotIn("Traceback", self.server.log)

    def health(self) -> str:
        """What ``/healthz`` says."""
        url = f"http://127.0.0.1:{self.health_port}/healthz"
        try:
            with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            return error.read().decode()


class OnceTests(FailingCase):
    """A call fails once."""

    def has_failed_or_arrived(self) -> bool:
        """Tell whether the delivery of the last message has come to the call, or beyond it."""
        maildir = self.server.folder / "mail" / "office.example" / f"user{self.count}" / "new"
        return bool(self.calls.failed or any(maildir.glob("*")))

    def test_each_call(self) -> None:
        """The message is acknowledged and delivered, or refused with 4xx; the log stays short."""
        failed = 0
        for name, area in AREAS.items():
            for call in area.calls:
                for error in ERRORS:
                    before = len(self.problems())
                    with self.calls.failing(call, area.path, error):
                        self.send(is_large=area.is_large)
                        if name == "Maildir":  # which comes after the 250
                            wait_until(self.has_failed_or_arrived, f"{call} {error}")
                    failed += self.calls.failed
                    lines = self.problems()[before:]
                    self.assertLessEqual(len(lines), MAX_LINES, f"{name} {call} {error} {lines}")
        self.send(is_large=True)
        self.send()
        self.assert_all_delivered()
        self.assertGreater(failed, 100, "calls that failed")
        self.assertGreater(self.refused, 20)


class StatementTests(FailingCase):
    """A statement of SQLite fails once, whichever it is, from the intake to the record."""

    def setUp(self) -> None:
        if "libsqlite3.so.0" not in Path("/proc/self/maps").read_text():
            self.skipTest("this Python has SQLite built in: its calls can't be reached")
        super().setUp()

    def test_each_statement(self) -> None:
        """The message is refused with 4xx, or delivered once; the log stays short."""
        for error in SQLITE_ERRORS:
            failed = 0
            while failed < MAX_STATEMENTS and self.fails(error, failed):
                failed += 1
            self.assertGreater(failed, 6, f"{error}: statements of a message")
        self.send()
        self.assert_all_delivered()
        self.assertGreater(self.refused, 3 * len(SQLITE_ERRORS))

    def fails(self, error: str, number: int) -> bool:
        """Send a message of which this statement fails; returns whether it had so many."""
        before = len(self.problems())
        with self.calls.failing("statement", DATABASE, error, skip=number):
            self.send()
            wait_until(lambda: self.calls.failed or self.is_removed(), "the end of a message")
        lines = self.problems()[before:]
        self.assertLessEqual(len(lines), MAX_LINES, f"{number} {error} {lines}")
        return bool(self.calls.failed)

    def is_removed(self) -> bool:
        """Tell whether the spool is rid of the last message: one before it may follow later."""
        log = self.server.log
        ids = re.findall(r"(\S+) accepted <", log)
        return len(ids) >= len(self.expected) and f" {ids[-1]} removed\n" in log

    def test_each_commit(self) -> None:
        """Nothing is taken where no commit succeeds, in few lines, and all goes on by itself."""
        for error in SQLITE_ERRORS:
            self.send()
            refused, before = self.refused, len(self.problems())
            with self.calls.failing("statement", f"{DATABASE} COMMIT", error, times=ALWAYS):
                self.send()
            self.assertEqual(self.refused, refused + 1, error)
            self.assertLessEqual(len(self.problems()) - before, MAX_LINES, error)
        self.send()
        self.assert_all_delivered()


class AlwaysTests(FailingCase):
    """Calls fail for seconds, and then no more."""

    def test_each_area(self) -> None:
        """Mail is refused or waits, a flood fills no log, and all goes on by itself."""
        for name, area, call, error in (
            ("database", AREAS["database"], "write", "ENOSPC"),
            ("database", AREAS["database"], "fsync", "EIO"),
            ("content", AREAS["content"], "write", "EROFS"),
            ("Maildir", AREAS["Maildir"], "open", "EMFILE"),
        ):
            before = len(self.problems())
            with self.calls.failing(call, area.path, error, times=ALWAYS):
                end = time.monotonic() + SECONDS
                while time.monotonic() < end:
                    self.send(is_large=area.is_large)
            lines = self.problems()[before:]
            self.assertLessEqual(len(lines), MAX_FLOOD, f"{name} {call} {error} {lines}")
            self.send(is_large=True)
        self.assert_all_delivered()

    def test_health(self) -> None:
        """``/healthz`` says what fails, and that it is over."""
        self.assertEqual(self.health(), "ok\n")
        with self.calls.failing("fsync", "/spool/queue.sqlite", "EIO", times=ALWAYS):
            wait_until(lambda: self.health() != "ok\n", "it is told")
            self.assertIn("I/O", self.health())
            self.send()
        self.assertEqual(self.refused, 1)
        wait_until(lambda: self.health() == "ok\n", "it is over")
        self.send()
        self.assert_all_delivered()


class LogTests(FailingCase):
    """The file of the log can't be written."""

    def start(self) -> None:
        """Start the server, which says in that file that it is ready."""
        port = free_port()
        self.file = self.server.folder / "mta.log"
        self.server.configure(
            configuration(
                listen=[{"endpoint": f"tcp:{port}:interface=127.0.0.1", "tls": "off"}],
                log={"file": str(self.file)},
            )
        )
        self.server.ports["smtp"] = port
        process = Process(self.server.command, self.server.folder, self.calls.environment)
        self.addCleanup(process.kill)
        wait_until(lambda: self.file.exists() and "ready" in self.file.read_text(), "it is ready")

    def test_full(self) -> None:
        """Mail goes on, and so does the log, once there is room."""
        for error in ERRORS:
            times = 1 if error == "EINTR" else ALWAYS  # which is tried again at once
            with self.calls.failing("write", "mta.log", error, times=times):
                self.send()
            self.send()
            self.assertEqual(self.refused, 0)
        self.assert_all_delivered()
        last = f"delivered user{self.count}@office.example"
        wait_until(lambda: last in self.file.read_text(), "the log goes on")


class FileTests(SynchronousTestCase):
    """Files that are replaced whole: users, and the status of peers."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self)
        self.calls = Calls(self, self.folder)

    def program(self, lines: str) -> None:
        """Run a program in which calls on its own files fail."""
        (self.folder / "files").mkdir()
        ended = subprocess.run(
            [sys.executable, "-c", HEAD + lines, str(self.folder / "files")],
            env=self.calls.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertGreater(int(ended.stdout), 30, "calls that failed")

    def test_users(self) -> None:
        """A command that fails says so, and the file has the old users or the new ones."""
        self.program(USERS)

    def test_peers(self) -> None:
        """The status is the old one or the new one, or can't be read, and then it can again."""
        self.program(PEERS)


HEAD = f"""
import os, sys
from pathlib import Path
from tests.crash.failing import Wish
wish, path, failed = Wish(Path(os.environ["MTA_FAILING"])), Path(sys.argv[1]), 0
CASES = [(c, e) for c in ("open", "write", "fsync", "rename", "unlink", "close") for e in {ERRORS}]
"""
USERS = """
from mta.users.file import UserFault, UserFile
file = path / "users.yaml"
for name in ("alice", "bob"):
    UserFile(file).add(name, "correct horse", [name + "@example.com"])
before = file.read_bytes()
for call, error in CASES:
    is_told = False
    with wish.failing(call, str(path), error):
        try:
            UserFile(file).delete("bob")
        except (OSError, UserFault) as fault:
            assert str(path) in str(fault), fault
            is_told = True
        failed += wish.failed
    names = [user.name for user in UserFile(file).list()]
    assert names in (["alice"], ["alice", "bob"]), names
    assert is_told or names == ["alice"], (call, error)
    file.write_bytes(before)
print(failed)
"""
PEERS = """
from mta.peers.status_files import PeerStatusFiles
files = PeerStatusFiles(path)
files.update("office", sent=1)
for call, error in CASES:
    with wish.failing(call, str(path), error):
        try:
            files.update("office", sent=2)
        except OSError:
            pass
        failed += wish.failed
    assert files.read("office").sent in (1, 2)
    files.update("office", sent=1)
    assert files.read("office").sent == 1
print(failed)
"""
