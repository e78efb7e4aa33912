"""The spool after a crash: a stop before every single step, and processes that are killed.

Run as a program, this module is the process that crashes: ``stops`` forks one child for each
step of a scenario, which ends right before that step; ``once`` does one from end to end; ``load``
works until it is killed.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase

from mta.mail import NULL_PATH, Envelope, Mailbox, Recipient
from mta.queued import Message, Notice, Settlement, State
from mta.session import UNKNOWN_ORIGIN
from mta.spool import owners, queue_id
from mta.spool.committer import Committer
from mta.spool.content import SMALL
from mta.spool.folder import Folder
from mta.spool.jobs import Job
from mta.spool.sqlite import SqliteSpool
from mta.spool.tools import SpoolTools
from mta.testing import ThreadClock
from tests.spool.cases import Listener

# What a message is recognised by: its envelope names its content.
CONTENTS = {
    "small": b"\r\n" + b"small\r\n" * 100,
    "large": b"\r\n" + b"large\r\n" * (SMALL // 3),
}

STOPPED = 77  # the exit status of a process that crashed as it was told to
STEPS = ("open", "write", "fsync", "link", "unlink", "mkdir", "mkfifo", "replace", "ftruncate")


def envelope(kind: str, reverse_path: Mailbox = NULL_PATH) -> Envelope:
    """An envelope for content of a kind, to two recipients."""
    to = tuple(Recipient(Mailbox(name, "example.org")) for name in ("bob", "carol"))
    return Envelope(reverse_path, to, envid=kind)


def settlement(message: Message, *notices: Notice, state: State = State.DONE) -> Settlement:
    """One attempt, after which every recipient stands so."""
    progress = tuple(replace(entry, state=state) for entry in message.progress)
    return Settlement(message.id, progress, time.time(), 1, False, notices)


class Process:
    """A process on the spool, with its reactor and its threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = ThreadClock()
        self.pool = ThreadPool(1, 4)
        self.pool.start()
        self.committer = Committer(Folder(path), self.clock)
        self.spool = SqliteSpool(path, self.clock, self.pool, Listener(), committer=self.committer)
        try:
            self.spool.start()
        except BaseException:
            self.pool.stop()
            raise

    async def commit(self, kind: str) -> Message:
        """Commit a message."""
        draft = self.spool.draft()
        for start in range(0, len(CONTENTS[kind]), 65536):
            await draft.write(CONTENTS[kind][start : start + 65536])
        return await self.spool.commit(draft, envelope(kind), b"", UNKNOWN_ORIGIN)

    def trace(self, statements: Callable[[str], object]) -> None:
        """Call a function with each statement that is committed from now on."""
        job = Job(action=lambda connection: connection.set_trace_callback(statements))
        self.clock.wait(self.committer.submit(job))

    def stop(self) -> None:
        """An orderly end."""
        self.clock.wait(self.spool.stop())
        self.pool.stop()


# --- the process that crashes ---------------------------------------------------------

Say = Callable[..., None]


def deliver(kind: str, path: Path, say: Say) -> None:
    """A message is committed, and settled after it."""
    process = Process(path)
    message = process.clock.wait(process.commit(kind))
    say("acknowledged", message.id)
    say("settling", message.id)
    process.clock.wait(process.spool.settle(settlement(message)))
    say("settled", message.id)


def bounce(kind: str, path: Path, say: Say) -> None:
    """A message ends with two notices."""
    process = Process(path)
    message = process.clock.wait(process.commit("small"))
    say("acknowledged", message.id)
    say("settling", message.id)
    notices = [Notice(envelope(name), b"", CONTENTS[name]) for name in ("small", kind)]
    process.clock.wait(process.spool.settle(settlement(message, *notices)))
    say("settled", message.id)


def stop(kind: str, path: Path, say: Say) -> None:
    """A process stops with a message under way and another one arriving."""
    process = Process(path)
    say("acknowledged", process.clock.wait(process.commit(kind)).id)
    draft = process.spool.draft()
    process.clock.wait(draft.write(CONTENTS[kind]))
    process.stop()


def take_over(kind: str, path: Path, say: Say) -> None:
    """A process takes over from one that died with a message leased and others arriving."""
    process = Process(path)
    say("recovered", process.clock.wait(process.spool.take_over()))


def put(kind: str, path: Path, say: Say) -> None:
    """A tool puts a message in."""
    tools = SpoolTools(path, time.time)
    say("acknowledged", tools.enqueue(envelope(kind), [CONTENTS[kind]]))


def delete(kind: str, path: Path, say: Say) -> None:
    """A tool puts a message in, and another one deletes it."""
    tools = SpoolTools(path, time.time)
    name = tools.enqueue(envelope(kind), [CONTENTS[kind]])
    say("acknowledged", name)
    say("settling", name)
    tools.delete([name])
    say("settled", name)


def make(path: Path) -> None:
    """There is an empty spool."""
    SpoolTools(path).close()


def leave_a_dead_owner(path: Path) -> None:
    """An owner ends with two messages leased, one sealed and one arriving."""
    process = Process(path)
    for kind in CONTENTS:
        process.clock.wait(process.commit(kind))
    for finish in (True, False):
        draft = process.spool.draft()
        process.clock.wait(draft.write(CONTENTS["large"]))
        process.clock.wait(draft.write(CONTENTS["large"]))
        if finish:
            process.clock.wait(draft.finish())


SCENARIOS: dict[str, Callable[[str, Path, Say], None]] = {
    scenario.__name__: scenario for scenario in (deliver, bounce, stop, take_over, put, delete)
}


# What was there before a scenario began; `deliver` makes the spool itself.
BEFORE = {
    "bounce": make,
    "stop": make,
    "take_over": leave_a_dead_owner,
    "put": make,
    "delete": make,
}


def stops(scenario: str, kind: str, root: Path) -> None:
    """Do the scenario again and again, each time one step further, until it is through."""
    before = root / "before"
    if scenario in BEFORE:
        in_child(BEFORE[scenario], before)
    for last in itertools.count(1):
        path = root / str(last)
        if before.exists():
            shutil.copytree(before, path, ignore=shutil.ignore_patterns("*.wake", "*.tries"))
        if in_child(stop_in, scenario, kind, path, last) != STOPPED:
            return


def in_child(function: Callable[..., None], *args: Any) -> int:
    """Call a function in a process of its own, return its exit status: 0 or `STOPPED`."""
    child = os.fork()
    if not child:
        status = 2
        try:
            function(*args)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, STOPPED):
        raise SystemExit(f"{function.__name__}{args}: status {status}")
    return status


def stop_in(scenario: str, kind: str, path: Path, last: int) -> None:
    """Do a scenario up to a step; a file beside the spool has what the process said."""
    log = os.open(path.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    say = sayer(log, os.write)
    stop_before(last)
    SCENARIOS[scenario](kind, path, say)


def sayer(descriptor: int, write: Callable[[int, bytes], int]) -> Say:
    """Something that tells the test what the process knows."""
    return lambda *words: write(descriptor, (" ".join(map(str, words)) + "\n").encode()) and None


def stop_before(last: int) -> None:
    """Let this process end right before its step with that number, in whichever thread."""
    steps = itertools.count(1)

    def step() -> None:
        if next(steps) == last:
            os._exit(STOPPED)

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def stepping(*args: Any, **kwargs: Any) -> Any:
            step()
            return function(*args, **kwargs)

        return stepping

    class Connection(sqlite3.Connection):
        execute = counted(sqlite3.Connection.execute)
        executescript = counted(sqlite3.Connection.executescript)

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))
    connect = sqlite3.connect
    sqlite3.connect = lambda *args, **kwargs: connect(*args, **kwargs, factory=Connection)


def load(path: Path) -> None:
    """Commit and settle, ten messages at a time, until somebody ends it."""
    process = Process(path)
    say = sayer(1, os.write)

    async def work(number: int) -> None:
        for turn in itertools.count():
            message = await process.commit("large" if (turn + number) % 10 == 0 else "small")
            say("acknowledged", message.id)
            if turn % 2:
                say("settling", message.id)
                await process.spool.settle(settlement(message))
                say("settled", message.id)

    process.clock.wait(gatherResults([Deferred.fromCoroutine(work(n)) for n in range(10)]))


# --- the tests ----------------------------------------------------------------------------


@dataclass
class Known:
    """What a process said before it ended."""

    acknowledged: set[str]
    settling: set[str]
    settled: set[str]

    @classmethod
    def of(cls, text: str) -> Known:
        """From its words; a last line that was cut short was not said."""
        words = [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]
        said = {verb: {name for said, name in words if said == verb} for verb, _ in words}
        empty: set[str] = set()
        return cls(*(said.get(verb, empty) for verb in ("acknowledged", "settling", "settled")))


class CrashTestCase(SynchronousTestCase):
    """Looks at what a crash left, and at what a process makes of it."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.root.mkdir(parents=True)

    def run_module(self, *arguments: str) -> subprocess.Popen[str]:
        """Run this module as a program."""
        return subprocess.Popen(
            [sys.executable, "-m", __name__, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent.parent,
        )

    def assert_invariants(self, path: Path) -> None:
        """Numbers 1 and 3 of docs/spool.rst, on what the crash left."""
        folder = Folder(path)
        messages, leftovers = self.rows(folder)
        incoming = {file.name.partition(".")[2] for file in folder.arrivals.glob("*")}
        for file in folder.contents.glob("*"):
            number = queue_id.decode(file.name)
            self.assertTrue(
                number in messages or number in leftovers or file.name in incoming, file
            )
        for number, (kind, in_file, recipients, header, data) in messages.items():
            body = folder.content(number).read_bytes() if in_file else data
            self.assertEqual(header + body, CONTENTS[kind])
            self.assertEqual(recipients, 2)

    def rows(
        self, folder: Folder
    ) -> tuple[dict[int, tuple[str, bool, int, bytes, bytes]], set[int]]:
        """The messages and the leftovers, read without any code of the spool."""
        connection = sqlite3.connect(folder.database)
        try:
            if not connection.execute("PRAGMA user_version").fetchone()[0]:
                return {}, set()
            messages = connection.execute(
                """
                SELECT id, envid, in_file,
                    (SELECT count(*) FROM recipient WHERE message = m.id),
                    (SELECT header FROM content WHERE id = m.id),
                    (SELECT data FROM content WHERE id = m.id)
                FROM message AS m
                """
            ).fetchall()
            leftovers = connection.execute("SELECT id FROM leftover").fetchall()
        finally:
            connection.close()
        return {row[0]: row[1:] for row in messages}, {number for (number,) in leftovers}

    def assert_repaired(self, path: Path) -> dict[str, Message]:
        """A new process finds every message, all of it, and no rubbish; returns the messages."""
        process = Process(path)
        try:
            process.clock.wait(process.spool.take_over())
            leased = process.clock.wait(process.spool.lease_due(10_000))
            for message in leased:
                content = process.clock.wait(self.content(message))
                self.assertEqual(content, CONTENTS[message.envelope.envid])
            folder = Folder(path)
            messages, leftovers = self.rows(folder)
            self.assertEqual({queue_id.decode(message.id) for message in leased}, set(messages))
            in_files = {queue_id.encode(n) for n, row in messages.items() if row[1]}
            self.assertEqual({file.name for file in folder.contents.iterdir()}, in_files)
            self.assertEqual(list(folder.arrivals.iterdir()), [])
            self.assertEqual(leftovers, set())
            self.assertEqual(len(owners.live_owners(folder)), 1)
            self.assertEqual(len(list(folder.owners.iterdir())), 3)
        finally:
            process.stop()
        return {message.id: message for message in leased}

    async def content(self, message: Message) -> bytes:
        """The whole content."""
        return b"".join([piece async for piece in message.content.pieces()])

    def assert_kept(self, known: Known, messages: dict[str, Message]) -> None:
        """What was acknowledged is there until it is settled, and not any more then."""
        self.assertLessEqual(known.acknowledged - known.settling, set(messages))
        self.assertEqual(known.settled & set(messages), set())


class StopTests(CrashTestCase):
    """A process ends before any one of its steps."""

    def crashes(self, scenario: str, kind: str) -> Iterator[tuple[Known, dict[str, Message]]]:
        """For each step: what the process had said, and the messages after repair."""
        with self.run_module("stops", scenario, kind, str(self.root)) as program:
            self.assertEqual(program.wait(), 0)
        logs = sorted(self.root.glob("*.log"), key=lambda path: int(path.stem))
        self.assertGreater(len(logs), 20, "steps")
        for log in logs:
            path = log.with_suffix("")
            if Folder(path).database.exists():
                self.assert_invariants(path)
            known = Known.of(log.read_text())
            messages = self.assert_repaired(path)
            self.assert_kept(known, messages)
            yield known, messages

    def assert_all_or_nothing(self, scenario: str, kind: str = "large") -> None:
        """There is one message at most, whatever happens; and there is one at some step.

        Where an owner may have delivered it, it is marked.
        """
        counts = set()
        for _, messages in self.crashes(scenario, kind):
            counts.add(len(messages))
            marks = {message.recovered for message in messages.values()}
            self.assertLessEqual(marks, {scenario in ("deliver", "stop")})
        self.assertEqual(counts, {0, 1})

    def test_deliver_small(self) -> None:
        """A message is accepted and settled, from memory."""
        self.assert_all_or_nothing("deliver", "small")

    def test_deliver_large(self) -> None:
        """A message is accepted and settled, with a file."""
        self.assert_all_or_nothing("deliver")

    def test_put(self) -> None:
        """A tool puts a message in."""
        self.assert_all_or_nothing("put")

    def test_delete(self) -> None:
        """A tool deletes a message."""
        self.assert_all_or_nothing("delete")

    def test_stop(self) -> None:
        """A process stops in an orderly way."""
        self.assert_all_or_nothing("stop")

    def test_bounce(self) -> None:
        """Either the message or its notices are there, never both, never neither."""
        for known, messages in self.crashes("bounce", "large"):
            kinds = sorted(message.envelope.envid for message in messages.values())
            before, after = ["small"], ["large", "small"]
            if known.settled:
                self.assertEqual(kinds, after)
            elif known.settling:
                self.assertIn(kinds, (before, after))
            elif known.acknowledged:
                self.assertEqual(kinds, before)
            else:
                self.assertIn(kinds, ([], before))

    def test_take_over(self) -> None:
        """Who takes over may die as well: both messages of the first one are there."""
        for _, messages in self.crashes("take_over", "large"):
            self.assertEqual(
                sorted(message.envelope.envid for message in messages.values()),
                ["large", "small"],
            )
            self.assertTrue(all(message.recovered for message in messages.values()))


class KillTests(CrashTestCase):
    """Two processes work on one spool; one is killed."""

    def test_killed(self) -> None:
        """Nothing that was acknowledged is lost, nothing that was settled comes back."""
        for lines in (1, 100, 333):
            self.kill_after(lines)

    def kill_after(self, lines: int) -> None:
        """Kill a process that has said so many lines, while another one works beside it."""
        path = self.root / str(lines)
        neighbour = Process(path)
        killed = self.run_module("load", str(path))
        assert killed.stdout is not None
        said = [killed.stdout.readline() for _ in range(lines)]
        ours = neighbour.clock.wait(neighbour.commit("large"))
        self.assertEqual(neighbour.clock.wait(neighbour.spool.take_over()), 0)
        self.assertEqual(neighbour.clock.wait(neighbour.spool.lease_due(1000)), [])
        killed.send_signal(signal.SIGKILL)
        said.append(killed.stdout.read())
        killed.stdout.close()
        killed.wait()
        self.assert_invariants(path)
        known = Known.of("".join(said))
        taken = neighbour.clock.wait(neighbour.spool.take_over())
        leased = neighbour.clock.wait(neighbour.spool.lease_due(100_000))
        self.assertEqual(len(leased), taken)
        self.assert_kept(known, {message.id: message for message in leased})
        self.assertTrue(all(message.recovered for message in leased))
        self.assertNotIn(ours.id, {message.id for message in leased})
        neighbour.stop()
        self.assertIn(ours.id, self.assert_repaired(path))


class OrderTests(CrashTestCase):
    """What must be on stable storage before what."""

    def test_large_content(self) -> None:
        """File, first name, lasting name: all synced before the transaction begins."""
        trace: list[str] = []
        process = Process(self.root / "spool")
        self.addCleanup(process.stop)
        process.trace(lambda statement: trace.append(statement.split()[0]))
        fsync, link = os.fsync, os.link

        def traced_fsync(descriptor: int) -> None:
            fsync(descriptor)
            target = Path(f"/proc/self/fd/{descriptor}").readlink()
            trace.append(f"sync {target.name.replace(message_id, 'ID').rpartition('.')[2]}")

        def traced_link(source: Path, target: Path) -> None:
            link(source, target)
            trace.append("link")

        draft = process.spool.draft()
        message_id = draft.id
        trace.clear()
        self.patch(os, "fsync", traced_fsync)
        self.patch(os, "link", traced_link)
        process.clock.wait(draft.write(CONTENTS["large"]))
        process.clock.wait(process.spool.commit(draft, envelope("large"), b"", UNKNOWN_ORIGIN))
        self.assertEqual(
            trace,
            [
                *("sync ID", "sync incoming", "link", "sync content"),
                *("BEGIN", "INSERT", "INSERT", "INSERT", "COMMIT"),
            ],
        )

    def test_commit_before_the_answer(self) -> None:
        """While COMMIT has not returned, `commit` hasn't either."""
        process = Process(self.root / "spool")
        self.addCleanup(process.stop)
        reached, go, begun = threading.Event(), threading.Event(), []
        self.addCleanup(go.set)

        def hold(statement: str) -> None:
            if statement == "COMMIT" and begun:
                reached.set()
                go.wait(30)

        process.trace(hold)
        begun.append(True)
        answer = Deferred.fromCoroutine(process.commit("small"))
        process.clock.advance(0)
        self.assertTrue(reached.wait(30))
        while not process.clock._calls.empty():
            process.clock.make_call()
        self.assertNoResult(answer)
        go.set()
        self.assertIsInstance(process.clock.wait(answer), Message)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["stops", scenario, kind, root]:
            LoopingCall(make)  # imports much of Twisted, once for all children
            stops(scenario, kind, Path(root))
        case ["once", scenario, kind, path]:
            SCENARIOS[scenario](kind, Path(path), sayer(1, os.write))
            os._exit(0)
        case ["load", path]:
            load(Path(path))
