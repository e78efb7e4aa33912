"""The power goes at any moment, and the disk has kept only what it had to."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from bench.tree import children
from mta.maildrop import drop
from mta.pairing.mailboxes import MailboxFiles
from mta.pairing.pairings import Pairings
from mta.peers.status_files import PeerStatusFiles
from mta.shared_tables.files import TableFolder
from mta.shared_tables.forms import TableForm, TableSet
from mta.spool.folder import Folder
from mta.spool.holds import StandingHolds
from mta.users.file import UserFile
from tests.crash import load
from tests.crash.disk import Disk, states
from tests.crash.recording import Call, calls, strace
from tests.processes import (
    ROOT,
    TWISTD,
    Server,
    configuration,
    need_program,
    source_environment,
    wait_until,
)
from tests.spool.test_crash import BEFORE, CrashTestCase, Known, Process, in_child

STATES = int(os.environ.get("MTA_POWER_STATES", "15"))  # of each scenario
SEED = int(os.environ.get("MTA_POWER_SEED", "5321"))
MESSAGES = 3  # to each of two mailboxes
LONG_AGO = 10**9  # seconds since the epoch
MEMORY = Path("/dev/shm")  # a disk without waits, where there is one

Check = Callable[[Path, str], None]


class PowerTestCase(CrashTestCase):
    """Records a program, and looks at each state that a loss of power may leave."""

    def setUp(self) -> None:
        need_program(self, "strace")
        where = MEMORY if os.access(MEMORY, os.W_OK) else None
        self.root = Path(tempfile.mkdtemp(prefix="mta-test-", dir=where))
        self.addCleanup(shutil.rmtree, self.root, ignore_errors=True)
        self.path = self.root / "spool"
        self.log = self.root / "calls"

    def record(self, *command: str, stdin: bytes = b"") -> Sequence[Call]:
        """Run a program to its end; returns what it did."""
        subprocess.run(
            [*strace(self.log), *command],
            input=stdin,
            stdout=subprocess.PIPE,
            check=True,
            env=source_environment(),
            cwd=ROOT,
        )
        made = self.recorded()
        self.log.unlink()
        return made

    def recorded(self) -> Sequence[Call]:
        """What a program did that was recorded into `log`."""
        with self.log.open() as lines:
            return [call for call in calls(lines) if self.matters(call)]

    def matters(self, call: Call) -> bool:
        """Tell whether a call was made below our folder, or said something."""
        # Standard output is not gathered, and comes in pieces: each counts.
        is_said = call.name == "sendto" or (call.name == "write" and call.descriptor == 1)
        return is_said or any(path.startswith(str(self.root)) for path in call.paths)

    def lose_power(self, disk: Disk, made: Sequence[Call], check: Check) -> None:
        """Check states, each with what the program had said by then."""
        chance = random.Random(SEED)
        inside = [
            number + 1
            for number, call in enumerate(made)
            if any(path.startswith(str(disk.root)) for path in call.paths)
        ]
        self.assertGreater(len(inside), 4, "calls")
        per_call = Counter(chance.choice(inside) for _ in range(STATES))
        for count, (number, tree) in enumerate(states(disk, made, per_call, chance)):
            path = self.root / f"state-{count}"
            tree.write(path)
            for file in path.rglob("*"):
                os.utime(file, (LONG_AGO, LONG_AGO))  # so that what is old rubbish is removed
            try:
                check(path, said(made[:number]))
            except Exception as error:
                traceback.print_exc()
                kept = self.keep(path)
                raise AssertionError(
                    f"state {count}, after call {number}, kept in {kept}"
                ) from error
            shutil.rmtree(path)

    def keep(self, path: Path) -> Path:
        """Keep a state for a look at it; returns where it is."""
        kept = Path(tempfile.mkdtemp(prefix="mta-state-"))
        shutil.copytree(path, kept / "state", ignore=shutil.ignore_patterns("*.wake"))
        return kept


def said(made: Sequence[Call]) -> str:
    """What a program wrote to its standard output, and to sockets."""
    octets = (call.octets for call in made if call.name == "sendto" or call.descriptor == 1)
    return b"".join(octets).decode("latin-1")


class SpoolTests(PowerTestCase):
    """The spool: the database, its log, content files and owners."""

    def scenario(self, name: str, kind: str) -> None:
        """Record a scenario of `tests.spool.test_crash`, and look at its states."""
        if name in BEFORE:
            in_child(BEFORE[name], self.path)
        disk = Disk(self.path)
        module = ("-m", "tests.spool.test_crash", "once", name, kind, str(self.path))
        made = self.record(sys.executable, *module)
        self.lose_power(disk, made, self.check_spool)

    def check_spool(self, path: Path, text: str) -> None:
        """What was acknowledged is there, whole, until it is settled."""
        known = Known.of(text)
        if (path / "queue.sqlite").exists():
            self.assert_invariants(path)
        messages = self.assert_repaired(path)
        self.assert_kept(known, messages)

    def test_deliver(self) -> None:
        """A message is accepted and settled, from memory and with a file."""
        for kind in ("small", "large"):
            shutil.rmtree(self.path, ignore_errors=True)
            self.scenario("deliver", kind)

    def test_bounce(self) -> None:
        """A message ends with two notices."""
        self.scenario("bounce", "large")

    def test_stop(self) -> None:
        """A process stops with a message under way and another one arriving."""
        self.scenario("stop", "large")

    def test_take_over(self) -> None:
        """A process takes over from one that died."""
        self.scenario("take_over", "large")

    def test_put_and_delete(self) -> None:
        """A tool puts a message in, and another one deletes it."""
        self.scenario("delete", "large")


def end_traced(server: Server) -> None:
    """End a server that strace looks at, which passes no signal on."""
    assert server.process is not None
    for child in children(server.process.pid):
        os.kill(child, signal.SIGTERM)
    server.process.wait()


class ServerTests(PowerTestCase):
    """The whole program: from the listener to the Maildir."""

    def test_maildir(self) -> None:
        """What got its 250 is in the spool or in the Maildir, whole."""
        folder = self.root / "server"
        folder.mkdir()
        command = [*strace(self.log), *TWISTD]
        server = Server(self, configuration(), folder=folder, command=command)
        disk = Disk(folder)
        server.start()
        for number in range(MESSAGES):  # the first one is large
            for name in ("bob", "carol"):
                content = load.content(f"{name}-{number}", "x@client.example")
                server.send(content, f"{name}@office.example")
        wait_until(lambda: server.log.count("removed") == 2 * MESSAGES, "all is recorded")
        end_traced(server)
        self.lose_power(disk, self.recorded(), self.check_server)

    def check_server(self, path: Path, text: str) -> None:
        """Each message is in one place at least, and is whole there."""
        there = set()
        for name in ("bob", "carol"):
            maildir = path / "mail" / "office.example" / name
            arrivals = load.Arrivals(maildir)
            arrivals.look()
            self.assertEqual(arrivals.damaged, [])
            there |= {file.name for file in (maildir / "new").glob("*")}
        process = Process(path / "spool")
        try:
            process.clock.wait(process.spool.take_over())
            for message in process.clock.wait(process.spool.lease_due(100)):
                whole = process.clock.wait(self.content(message))
                self.assertTrue(load.is_whole(whole))
                there.add(message.id)
        finally:
            process.stop()
        acknowledged = set(re.findall(r"queued as (\S+)", text))
        known = {name for name in acknowledged if any(name in file for file in there)}
        self.assertEqual(known, acknowledged)


class FileTests(PowerTestCase):
    """Files that are replaced whole, and those of the maildrop."""

    def program(self, lines: str, check: Check, **more: bool) -> None:
        """Record a program whose `path` is a folder of its own, and look at its states."""
        self.path.mkdir()
        disk = Disk(self.path, **more)
        made = self.record(sys.executable, "-c", HEAD + lines, str(self.path))
        self.lose_power(disk, made, check)

    def test_users(self) -> None:
        """A user who was added can log in, and the file is whole at each moment."""

        def check(path: Path, text: str) -> None:
            users = {user.name for user in UserFile(path / "users.yaml").list()}
            self.assertLessEqual(set(text.split()), users)

        self.program(USERS, check)

    def test_peers(self) -> None:
        """The status of a peer can be read, whatever is left of it; losing it loses no mail."""

        def check(path: Path, text: str) -> None:
            files = PeerStatusFiles(path)
            self.assertIn(files.read("office").sent, range(9))
            files.update("office", sent=9)
            self.assertEqual(files.read("office").sent, 9)

        self.program(PEERS, check)

    def test_srs_key(self) -> None:
        """The secret that was used once is the same for good."""

        def check(path: Path, text: str) -> None:
            if text:
                self.assertEqual((path / "srs.key").read_bytes().hex(), text.strip())

        self.program(KEY, check)

    def test_states(self) -> None:
        """Pairings, lists of mailboxes and standing holds are there, and tables can be used."""

        def check(path: Path, text: str) -> None:
            found = {f"pairing {each.id}" for each in Pairings(path).read()}
            found |= {f"hold {each.domain}" for each in StandingHolds(Folder(path)).current()}
            lists = MailboxFiles(path)
            found |= {f"list {lists.read(name).decode()}" for name in lists.stamps()}
            self.assertLessEqual(set(text.splitlines()), found)
            counted = TableFolder(path).open(COUNTED)
            counted.change(lambda table: table.execute("REPLACE INTO counted VALUES ('x', 9)"))

        self.program(STATES_OF_PEERS, check)

    def test_journal(self) -> None:
        """What became of deliveries while PostgreSQL was away is there once it is noted."""
        if find_spec("psycopg") is None:
            self.skipTest("psycopg is not installed")
        from mta.spool.postgres.journal import outcomes_in

        def check(path: Path, text: str) -> None:
            noted = {outcome.message for outcome in outcomes_in(path / "journal")}
            self.assertLessEqual(set(map(int, text.split())), noted)
            self.assertLessEqual(noted, set(range(1, 9)))

        self.program(JOURNAL, check)

    def test_maildrop(self) -> None:
        """What ``mta sendmail`` has left there is there, and what it had not said is no message."""

        def check(path: Path, text: str) -> None:
            whole = {
                file.read_bytes()
                for file in (path / "maildrop").glob("*")
                if not file.name.endswith(drop.DRAFT)
            }
            said = {line for line in text.split() if line.isdigit()}
            self.assertTrue(all(octets.endswith(b"end\n") for octets in whole))
            self.assertLessEqual(said, {str(len(octets)) for octets in whole})

        # Its folder can't be synced by users: the file systems named there sync a new name.
        self.program(MAILDROP, check, names_with_files=True)


HEAD = "import sys; from pathlib import Path; path = Path(sys.argv[1])\n"
USERS = """
from mta.users.file import UserFile
for name in ("alice", "bob", "carol"):
    UserFile(path / "users.yaml").add(name, "correct horse", [name + "@example.com"])
    print(name, flush=True)
"""
PEERS = """
from mta.peers.status_files import PeerStatusFiles
for number in range(1, 5):
    PeerStatusFiles(path).update("office", sent=number)
    print(number, flush=True)
"""
KEY = """
from mta.srs_key import srs_key
print(srs_key(path).hex(), flush=True)
"""
COUNTED = TableSet("counted", (TableForm("counted", "name TEXT PRIMARY KEY, count INTEGER"),))
STATES_OF_PEERS = """
from mta.pairing.mailboxes import MailboxFiles
from mta.pairing.pairings import Pairings, new_password
from mta.shared_tables.files import TableFolder
from mta.spool.folder import Folder
from mta.spool.holds import StandingHold, StandingHolds
from tests.crash.test_power import COUNTED
counted = TableFolder(path).open(COUNTED)
for number in range(1, 4):
    statement = f"REPLACE INTO counted VALUES ('x', {number})"
    counted.change(lambda table: table.execute(statement))
    pairing, _ = Pairings(path).open(f"office{number}", "user", ["x.example"], new_password())
    print("pairing", pairing.id, flush=True)
    MailboxFiles(path).keep(f"office{number}", b"%d" % number)
    print("list", number, flush=True)
    StandingHolds(Folder(path)).add(StandingHold(domain=f"d{number}.example"))
    print("hold", f"d{number}.example", flush=True)
"""
JOURNAL = """
import time
from mta.spool import queue_id
from mta.spool.postgres.journal import OutcomeJournal
from mta.sync import result_of
async def in_thread(function, *arguments):
    return function(*arguments)
journal = OutcomeJournal(path / "journal", in_thread, queue_id.QueueIds(time.time), time.time)
for number in range(1, 9):
    result_of(journal.note_delivered([queue_id.encode(number)]))
    print(number, flush=True)
"""
MAILDROP = """
from mta.mail import Envelope, Mailbox, Recipient
from mta.maildrop import drop
from mta.maildrop.pickup import _make_folder
from mta.settings import Settings
_make_folder(path, Settings("relay.example"))
envelope = Envelope(Mailbox("a", "b.example"), (Recipient(Mailbox("c", "d.example")),))
for number in range(1, 5):
    drop.leave(path, envelope, [b"x" * 3000 * number, b"end\\n"])
    newest = max((path / "maildrop").iterdir(), key=lambda file: file.stat().st_size)
    print(newest.stat().st_size, flush=True)
"""
