"""What mail costs a PostgreSQL server: ``python -m bench.programs.database_costs FOLDER``.

``bench/capacity.py`` and ``docs/scale.rst`` have these figures.  They are counted by the system and
the server (processor time, octets of its log, memory): what else runs changes little of them.
"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.database_spool import writer_on
from bench.figures import KIB, MIB, stopping
from bench.postgresql import PostgreSQL
from mta.mail import Envelope, Mailbox, Recipient
from mta.spool import queue_id
from mta.spool.jobs import Job
from mta.spool.rows import Arrival

HEADER = b"Subject: measured\r\n\r\n"
ENVELOPE = Envelope(Mailbox("alice", "client.example"), (Recipient(Mailbox("bob", "a.example")),))
MESSAGES = 2000
NOTIFICATIONS = 1000
LISTENERS = (1, 100, 300)


class Costs:
    """Measures one server."""

    def __init__(self, database: PostgreSQL) -> None:
        self._database = database
        self._url = database.new_database()
        self._ids = queue_id.QueueIds(time.time)

    def pass_through(self, octets: int, together: int, count: int) -> tuple[float, float]:
        """Let mail come and go; returns seconds of the CPU and octets of the log, a message.

        `together`: messages in a commit, which removes those of the one before.
        """
        with writer_on(self._url) as writer:
            self._commit(writer, octets, together, 5)
            self._database.checkpoint()
            cpu, log = self._database.cpu_seconds(), self._database.log_position()
            self._commit(writer, octets, together, count // together)
            cpu, log = self._database.cpu_seconds() - cpu, self._database.log_position() - log
        return cpu / count, log / count

    def _commit(self, writer: Any, octets: int, together: int, commits: int) -> None:
        body = b"x" * (octets - len(HEADER))
        before: list[int] = []
        for _ in range(commits):
            numbers = [self._ids.next() for _ in range(together)]
            jobs = [
                Job([Arrival(each, ENVELOPE, 0.0, 1, octets, True, HEADER, body)])
                for each in numbers
            ]
            writer.commit([*jobs, Job(removals=before)])
            before = numbers
        writer.commit([Job(removals=before)])

    def notify(self, listeners: int) -> float:
        """Tell others of mail; returns seconds of the CPU for each time."""
        with ExitStack() as stack:
            for _ in range(listeners):
                listening = stack.enter_context(self._database.connected(self._url))
                listening.execute("LISTEN mta")
            telling = stack.enter_context(self._database.connected(self._url))
            before = self._database.cpu_seconds()
            for _ in range(NOTIFICATIONS):
                telling.execute("SELECT pg_notify('mta', 'WORK 0')")
            return (self._database.cpu_seconds() - before) / NOTIFICATIONS

    def connection(self) -> float:
        """Octets of memory that a connection takes that has committed mail."""
        before = self._database.memory()
        with ExitStack() as stack:
            for _ in range(20):
                writer = stack.enter_context(writer_on(self._url))
                self._commit(writer, KIB, 1, 20)
            return (self._database.memory() - before) / 20


def main() -> None:
    """Print all of it."""
    database = PostgreSQL(Path(sys.argv[1]) / "costs", max_connections="400")
    with stopping(database):
        costs = Costs(database)
        for octets, together, count in (
            (KIB, 1, MESSAGES),
            (KIB, 20, 10 * MESSAGES),
            (10 * KIB, 1, MESSAGES),
            (10 * KIB, 20, 5 * MESSAGES),
            (100 * KIB, 1, MESSAGES // 2),
            (100 * KIB, 10, MESSAGES // 2),
        ):
            cpu, log = costs.pass_through(octets, together, count)
            print(
                f"{octets // KIB} KiB, {together} in a commit: {1e6 * cpu:.0f} us of the CPU,"
                f" {log / KIB:.1f} KiB of the log, a message",
                flush=True,
            )
        print(f"a connection: {costs.connection() / MIB:.1f} MiB")
        for listeners in LISTENERS:
            seconds = costs.notify(listeners)
            print(f"NOTIFY to {listeners}: {1e6 * seconds:.0f} us of the CPU", flush=True)


if __name__ == "__main__":
    main()
