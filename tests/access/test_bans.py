"""Bans that all processes see, and people can lift."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mta.access import log_in_file
from mta.access.bans import Bans
from mta.access.log_in_file import MAX_BANS, LogInFile, SharedLogIns
from mta.interfaces import ILogInStore
from mta.session import Ban

HOST, OTHER = "192.0.2.7", "2001:db8::/64"


class BansTests(SynchronousTestCase):
    """Two processes and the tools, on one spool."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.now = 1_000_000.0
        self.file = LogInFile(self.folder, lambda: self.now)

    def process(self) -> Bans:
        """The bans as one more process sees them, with threads that are done at once."""
        return Bans(lambda: self.now, SharedLogIns(self.file, maybeDeferred))

    def find(self, bans: Bans, host: str, user: str = "") -> Ban | None:
        """What a session that begins now is told."""
        self.successResultOf(Deferred.fromCoroutine(bans.refresh()))
        return bans.find(host, user)

    def test_the_seam(self) -> None:
        """The store promises what the access relies on."""
        verifyObject(ILogInStore, SharedLogIns(self.file, maybeDeferred))

    def test_all_processes_see_it(self) -> None:
        """The one that began it, the others, and one that is started later; until it is over."""
        one, other = self.process(), self.process()
        self.assertIsNone(self.find(other, HOST))
        ban = one.add(HOST, "", 10, ["alice"], 600)
        for process in (one, other, self.process()):
            self.assertEqual(self.find(process, HOST, "bob"), ban)
            self.assertIsNone(self.find(process, OTHER))
        self.now += 600
        for process in (one, other, self.process()):
            self.assertIsNone(self.find(process, HOST))

    def test_a_user_at_a_host(self) -> None:
        """Only that one is banned."""
        one, other = self.process(), self.process()
        one.add(HOST, "alice", 10, ["Alice"], 600)
        self.assertIsNone(self.find(other, HOST))
        self.assertIsNone(self.find(other, HOST, "bob"))
        self.assertIsNotNone(self.find(other, HOST, "alice"))

    def test_lifted(self) -> None:
        """By host, by a user that was tried, or all; processes that run hear of it."""
        process = self.process()
        for names, left in (
            ([HOST], [OTHER]),
            (["BOB"], [HOST]),
            ([], []),
            (["carol"], [HOST, OTHER]),
        ):
            process.add(HOST, "", 10, ["alice"], 600)
            process.add(OTHER, "", 10, ["bob"], 600)
            lifted = self.file.lift(names)
            self.assertEqual(len(lifted), 2 - len(left))
            self.assertEqual([host for host in (HOST, OTHER) if self.find(process, host)], left)
            self.file.lift()
        self.assertEqual(self.file.lift([HOST]), ())

    def test_the_file_is_gone(self) -> None:
        """Then nobody is banned, in processes that run, too."""
        process = self.process()
        process.add(HOST, "", 10, [], 600)
        self.assertIsNotNone(self.find(process, HOST))
        (self.folder / "log-ins.json").unlink()
        self.assertIsNone(self.find(process, HOST))

    def test_damaged(self) -> None:
        """What can't be read bans nobody, and is replaced."""
        for text in ("", "{", "[1]", "{}", '{"bans": [1], "proven": []}', "null"):
            (self.folder / "log-ins.json").write_text(text)
            self.assertEqual(self.file.read().bans, ())
        self.process().add(HOST, "", 10, [], 600)
        self.assertEqual([ban.host for ban in self.file.read().bans], [HOST])

    def test_bounded(self) -> None:
        """Those that end first are forgotten, in memory and in the file."""
        bans = Bans(lambda: self.now)
        for number in range(MAX_BANS + 10):
            bans.add(str(number), "", 1, [], 600 + number)
        self.assertIsNone(bans.find("9"))
        self.assertIsNotNone(bans.find("10"))
        self.file.add_ban(Ban("first", "", self.now, self.now + 1, 1))
        for number in range(3):
            self.file.add_ban(Ban(str(number), "", self.now, self.now + 600, 1))
        self.now += 2
        self.file.add_ban(Ban("last", "", self.now, self.now + 600, 1))
        self.assertEqual([ban.host for ban in self.file.read().bans], ["0", "1", "2", "last"])

    def test_who_has_logged_in(self) -> None:
        """All processes know it, those of later as well; the latest are kept."""
        one, other = self.process(), self.process()
        one.prove(HOST, "office")
        one.prove(HOST, "office")
        other.add(HOST, "", 10, [], 600)
        self.find(other, HOST)
        self.assertEqual(other.proven(HOST), ("office",))
        later = self.process()
        self.assertIsNotNone(self.find(later, HOST))
        self.assertEqual(later.proven(HOST), ("office",))
        self.file.lift()
        self.assertEqual(self.file.read().proven, ((HOST, "office"),))
        for number in range(3):
            with patch.object(log_in_file, "MAX_PROVEN", 3):
                self.file.add_proven(OTHER, f"user{number}")
        found = [user for _, user in LogInFile(self.folder).read().proven]
        self.assertEqual(found, ["user0", "user1", "user2"])

    def test_the_clock_is_set_back(self) -> None:
        """By a day: a ban that began in the future ends at once."""
        process = self.process()
        process.add(HOST, "", 10, [], 600)
        self.now -= 30
        self.assertIsNotNone(self.find(process, HOST))
        self.now -= 86400
        self.assertIsNone(self.find(process, HOST))

    def test_the_clock_is_set_forward_and_back(self) -> None:
        """By a day: what was begun by the wrong clock keeps nobody out by the right one."""
        one, other = self.process(), self.process()
        one.add(HOST, "", 10, [], 600)
        self.now += 86400
        for process in (one, other, self.process()):
            self.assertIsNone(self.find(process, HOST))
        one.add(HOST, "", 10, [], 600)
        self.now -= 86400
        for process in (one, other, self.process()):
            self.assertIsNone(self.find(process, HOST))
        one.add(HOST, "", 10, [], 600)
        self.now += 600
        for process in (one, other, self.process()):
            self.assertIsNone(self.find(process, HOST))

    def test_mode(self) -> None:
        """Whose log-ins failed is for nobody else to read."""
        self.process().add(HOST, "", 10, ["alice"], 600)
        self.assertEqual((self.folder / "log-ins.json").stat().st_mode & 0o777, 0o600)

    def test_what_can_not_be_written(self) -> None:
        """It still counts in the process that knows of it."""
        process = Bans(
            lambda: self.now, SharedLogIns(LogInFile(self.folder / "gone"), maybeDeferred)
        )
        process.add(HOST, "", 10, [], 600)
        self.assertIsNotNone(self.find(process, HOST))

    def test_no_room(self) -> None:
        """A ban counts beside those of the file, in one line of the log, and is over in time."""
        self.file.add_ban(Ban(OTHER, "", self.now, self.now + 900, 1))
        process = self.process()
        full = OSError(28, "No space left on device")
        with patch.object(log_in_file, "atomic_write", side_effect=full), capturedLogs() as events:
            for host in (HOST, "192.0.2.9"):
                process.add(host, "", 10, [], 600)
                process.prove(host, "alice")
        self.assertEqual(len(events), 1)
        for host in (HOST, "192.0.2.9", OTHER):
            self.assertIsNotNone(self.find(process, host))
        process.add(HOST, "", 10, [], 600)
        self.file.lift([HOST])
        self.assertIsNone(self.find(process, HOST), "it was written, and lifted")
        self.now += 600
        self.assertIsNone(self.find(process, "192.0.2.9"))

    def test_read_later(self) -> None:
        """A file that could not be read is tried again, though it is the same."""
        self.file.add_ban(Ban(HOST, "", self.now, self.now + 600, 1))
        process = self.process()
        error = OSError(24, "Too many open files")
        with patch.object(LogInFile, "read", side_effect=error), capturedLogs() as events:
            for _ in range(3):
                self.assertIsNone(self.find(process, HOST))
        self.assertEqual(len(events), 1)
        self.assertIsNotNone(self.find(process, HOST))

    def test_what_can_not_be_read(self) -> None:
        """Nobody is banned by it, and all goes on."""
        self.file.add_ban(Ban(HOST, "", self.now, self.now + 600, 1))
        with patch.object(LogInFile, "read", side_effect=PermissionError("closed")):
            self.assertIsNone(self.find(self.process(), HOST))

    def test_while_it_is_written(self) -> None:
        """It is not lost to what the file had before."""
        waiting: list[tuple[Any, ...]] = []

        def in_thread(*call: Any) -> Deferred[Any]:
            waiting.append((result := Deferred(), call))
            return result

        process = Bans(lambda: self.now, SharedLogIns(self.file, in_thread))
        self.file.add_ban(Ban(OTHER, "", self.now, self.now + 600, 1))
        process.add(HOST, "", 10, [], 600)
        self.assertIsNotNone(self.find(process, HOST))
        result, (function, *arguments) = waiting.pop()
        result.callback(function(*arguments))
        refreshing = Deferred.fromCoroutine(process.refresh())
        result, (function, *arguments) = waiting.pop()
        result.callback(function(*arguments))
        self.successResultOf(refreshing)
        self.assertTrue(process.find(HOST) and process.find(OTHER))
