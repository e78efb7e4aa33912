"""Much at once."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import waiting
from bench.figures import KIB, MIB, Bench, Figure, stopping
from bench.loads import Load, in_turn
from bench.servers import Ours, configure, wait_until

OTHER_FILES = 200  # that are open beside the connections


class Idle:
    """Connections on which nothing is said."""

    name = "idle connections"

    def measure(self, bench: Bench) -> Iterator[Figure]:
        """See `Row.measure`."""
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        number = min(bench.messages(10_000), most - OTHER_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        ours = bench.ours(workers=1)
        with stopping(ours), ExitStack() as stack:
            for _ in range(number):
                connection = socket.create_connection(("127.0.0.1", ours.port))
                stack.callback(connection.close)
            wait_until(lambda: connection.recv(100), "the last one is greeted")
            began, cpu = time.monotonic(), ours.cpu_seconds()
            time.sleep(10)
            used = (ours.cpu_seconds() - cpu) / (time.monotonic() - began)
            memory = ours.memory() / MIB
        name = f"{number:,} idle connections"
        yield Figure(f"{name}: memory", "MiB", [memory], bar=300, at_most=True)
        yield Figure(f"{name}: CPU", "% of a core", [100 * used], bar=5, at_most=True)


class Waiting:
    """A queue in which much waits."""

    name = "waiting messages"

    def measure(self, bench: Bench) -> Iterator[Figure]:
        """See `Row.measure`."""
        number = bench.messages(1_000_000)
        name = f"{number:,} waiting messages"
        empty, few = (Ours(self._configured(bench, count)) for count in (0, 1000))
        configuration = self._configured(bench, number)
        began = time.monotonic()
        many = Ours(configuration)
        start = time.monotonic() - began
        servers = (many, few, empty)
        load = Load(KIB, 10, True, bench.messages(1500))
        with stopping(*servers):
            memory = many.memory() / MIB
            costs = in_turn(load, servers, bench.repetitions)
        yield Figure(f"{name}: start", "s", [start], bar=2, at_most=True)
        yield Figure(f"{name}: memory", "MiB", [memory], bar=200, at_most=True)
        accepted, plain = ([1 / cost.accepted for cost in costs[s]] for s in (many, empty))
        yield Figure(f"{name}: accept", "messages/s", accepted, plain, 0.8, peer="empty queue")
        took, little = ([1000 * cost.arrived for cost in costs[s]] for s in (many, few))
        yield _flat(f"{name}: end to end", took, little)
        used, little = ([1000 * cost.cpu for cost in costs[s]] for s in (many, few))
        yield _flat(f"{name}: CPU", used, little)

    def _configured(self, bench: Bench, number: int) -> Path:
        """The configuration of a server in whose queue so many messages wait."""
        configuration = configure(bench.next_folder(), workers=1)
        waiting.fill(configuration.parent / "spool", number)
        return configuration


def _flat(what: str, ours: Sequence[float], few: Sequence[float]) -> Figure:
    return Figure(what, "ms/message", ours, few, 1.2, at_most=True, peer="1,000 waiting")
