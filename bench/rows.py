"""What is measured: each row runs one load on both servers in turn, several times."""

from __future__ import annotations

import resource
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bench import waiting
from bench.loads import Cost, Counter, Delay, Load, Maildir, Sink, run, send_large
from bench.servers import Ours, Postfix, Server, missing_for_postfix, wait_until

KIB, MIB = 2**10, 2**20
ROUND_TRIP = 0.1  # seconds
ELSEWHERE = "elsewhere.example"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the results.

    `bar` is what the ratio to the peer has to reach (`at_most`: not to exceed), or our own figure
    where there are no samples of the peer's; None: no bar.
    """

    what: str
    unit: str
    ours: Sequence[float]
    peers: Sequence[float] = ()
    bar: float | None = None
    at_most: bool = False

    @property
    def ratio(self) -> float | None:
        """The median of the ratios of neighbouring runs: what disturbs both is not in it."""
        pairs = zip(self.ours, self.peers, strict=True) if self.peers else ()
        ratios = [ours / peers for ours, peers in pairs]
        return statistics.median(ratios) if ratios else None

    @property
    def is_met(self) -> bool | None:
        """Whether the bar is reached; None: there is none, or no peer to compare with."""
        value = self.ratio if self.peers else statistics.median(self.ours)
        if self.bar is None or value is None:
            return None
        return value <= self.bar if self.at_most else value >= self.bar


@dataclass
class Bench:
    """One run of the benchmark: where, and how much of it.

    `scale`: the part of each load's messages that is sent.
    """

    folder: Path
    repetitions: int
    scale: float
    workers: int
    _servers: int = field(default=0, init=False)

    def ours(self, **keys: object) -> Ours:
        """This program, started."""
        return Ours(self._next(), **({"workers": self.workers} | keys))  # type: ignore[arg-type]

    def postfix(self, next_hop: str = "", extra: Sequence[str] = ()) -> Postfix | None:
        """Postfix, started; None where it can't be."""
        return None if missing_for_postfix() else Postfix(self._next(), next_hop, extra)

    def messages(self, number: int) -> int:
        """So many, or fewer in a quick run."""
        return max(20, int(number * self.scale))

    def _next(self) -> Path:
        self._servers += 1
        return self.folder / str(self._servers)


class Row(Protocol):
    """Something that is measured."""

    name: str

    def measure(self, bench: Bench) -> Iterator[Figure]:
        """Measure it."""


@contextmanager
def stopping(*servers: Server | Sink | Delay | None) -> Iterator[None]:
    """Stop all that was started, whatever happens."""
    with ExitStack() as stack:
        for server in servers:
            if server is not None:
                stack.callback(server.stop)
        yield


def interleaved(
    bench: Bench, one: Callable[[], float], other: Callable[[], float] | None
) -> tuple[list[float], list[float]]:
    """Measure one and the other in turn."""
    ours, peers = [], []
    for _ in range(bench.repetitions):
        ours.append(one())
        if other is not None:
            peers.append(other())
    return ours, peers


class Deliveries:
    """Mail that ends in a Maildir: all sizes, sessions and manners, on one pair of servers."""

    name = "delivery"

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        self._wanted = wanted

    def measure(self, bench: Bench) -> Iterator[Figure]:
        """See `Row.measure`."""
        loads = {name: load for name, load in _loads(bench) if self._wanted(name)}
        if not loads:
            return
        ours, postfix = bench.ours(), bench.postfix()
        servers = [server for server in (ours, postfix) if server is not None]
        maildirs = {server: Maildir(server.new) for server in servers}
        with stopping(*servers):
            for server in servers:
                run(Load(KIB, 10, True, 200), server, maildirs[server])
            for name, load in loads.items():
                costs: dict[Server, list[Cost]] = {server: [] for server in servers}
                for _ in range(bench.repetitions):
                    for server in servers:
                        maildirs[server].put_aside()
                        costs[server].append(run(load, server, maildirs[server]))
                yield from _delivery_figures(
                    name, load, costs[ours], costs[postfix] if postfix else []
                )


def _loads(bench: Bench) -> Iterator[tuple[str, Load]]:
    for octets, size in ((KIB, "1 KiB"), (10 * KIB, "10 KiB"), (100 * KIB, "100 KiB")):
        for sessions in (1, 10, 50, 200):
            if octets > 10 * KIB and sessions not in (10, 50):
                continue
            for kept, manner in ((True, "connection kept"), (False, "one a connection")):
                number = 300 if sessions == 1 else 1500 if octets < 100 * KIB else 500
                plural = "s" if sessions > 1 else ""
                name = f"{size}, {sessions} session{plural}, {manner}"
                yield name, Load(octets, sessions, kept, bench.messages(number))
    load = Load(KIB, 50, False, bench.messages(500), tls=True)
    yield "1 KiB, 50 sessions, one a connection, STARTTLS", load


def _delivery_figures(
    name: str, load: Load, ours: Sequence[Cost], peers: Sequence[Cost]
) -> Iterator[Figure]:
    end_to_end, accept = 1.5, 2.5 if load.sessions >= 50 else 2.0
    if load.sessions == 1:
        end_to_end, accept = 1.2, 0
    elif load.octets > 10 * KIB or load.tls:
        end_to_end, accept = 1.3, 0
    yield Figure(
        f"{name}: end to end",
        "messages/s",
        [1 / cost.arrived for cost in ours],
        [1 / cost.arrived for cost in peers],
        end_to_end,
    )
    yield Figure(
        f"{name}: accept",
        "messages/s",
        [1 / cost.accepted for cost in ours],
        [1 / cost.accepted for cost in peers],
        accept or None,
    )
    yield Figure(
        f"{name}: CPU",
        "s/1,000 messages",
        [1000 * cost.cpu for cost in ours],
        [1000 * cost.cpu for cost in peers],
        0.5,
        at_most=True,
    )


class Large:
    """One message of 25 MiB in."""

    name = "25 MiB in"

    def measure(self, bench: Bench) -> Iterator[Figure]:
        """See `Row.measure`."""
        octets = 25 * MIB
        ours, postfix = bench.ours(workers=1), bench.postfix()
        with stopping(ours, postfix):
            send_large(ours, octets, chunks=False)
            for chunks, verb in ((False, "DATA"), (True, "BDAT")):

                def rate(server: Server, chunks: bool = chunks) -> float:
                    seconds = send_large(server, octets, chunks)
                    time.sleep(1)  # it is delivered
                    return octets / MIB / seconds

                growth = ours.growth()
                one, other = interleaved(
                    bench,
                    lambda rate=rate: rate(ours),  # type: ignore[misc]
                    (lambda rate=rate: rate(postfix)) if postfix else None,  # type: ignore[misc]
                )
                yield Figure(f"25 MiB in by {verb}", "MiB/s", one, other, 1.5)
                yield Figure(
                    f"25 MiB in by {verb}: memory growth",
                    "MiB",
                    [growth.octets / MIB],
                    bar=8,
                    at_most=True,
                )


class Relay:
    """In on one port, out to smtp-sink."""

    name = "relay"

    def measure(self, bench: Bench) -> Iterator[Figure]:
        """See `Row.measure`."""
        sink = Sink()
        ours = bench.ours(next_hop=f"smtp://127.0.0.1:{sink.port}")
        postfix = bench.postfix(f"[127.0.0.1]:{sink.port}")
        load = Load(KIB, 50, True, bench.messages(1500), ELSEWHERE)
        with stopping(ours, postfix, sink):
            costs = _relayed(bench, load, ours, postfix, sink)
            yield Figure("relay to smtp-sink, 1 KiB, 50 sessions", "messages/s", *costs, 2.0)


def _relayed(
    bench: Bench, load: Load, ours: Server, postfix: Server | None, there: Counter
) -> tuple[list[float], list[float]]:
    for server in filter(None, (ours, postfix)):
        run(Load(KIB, 1, True, 5, load.domain), server, there)

    def rate(server: Server) -> float:
        return 1 / run(load, server, there).arrived

    return interleaved(bench, lambda: rate(ours), (lambda: rate(postfix)) if postfix else None)


class Distance:
    """One connection over a line with a round trip of 100 ms."""

    name = "100 ms round trip"

    def measure(self, bench: Bench) -> Iterator[Figure]:
        """See `Row.measure`."""
        domain = {ELSEWHERE: {"deliver": "maildir:mail/{local}", "mailboxes": "any"}}
        receiver = bench.ours(keys={"domains": domain})
        there = Maildir(receiver.new)
        with stopping(receiver):
            rates = self._rates(bench, receiver.port, there)
        yield Figure("100 ms round trip, 10 KiB, PIPELINING and CHUNKING", "messages/s", *rates, 50)
        sink = Sink()
        with stopping(sink):
            rates = self._rates(bench, sink.port, sink)
        yield Figure("100 ms round trip, 10 KiB, PIPELINING", "messages/s", *rates, 2.5)

    def _rates(self, bench: Bench, port: int, there: Counter) -> tuple[list[float], list[float]]:
        line = Delay(port, ROUND_TRIP)
        ours = bench.ours(next_hop=f"smtp://127.0.0.1:{line.port}", workers=1, per_destination=1)
        one = "default_destination_concurrency_limit = 1"
        postfix = bench.postfix(f"[127.0.0.1]:{line.port}", [one])
        few = Load(10 * KIB, 10, True, 20, ELSEWHERE)
        many = Load(10 * KIB, 10, True, 200, ELSEWHERE)

        def rate(server: Server, load: Load) -> float:
            return 1 / run(load, server, there).arrived

        with stopping(ours, postfix, line):
            # A server that needs seconds for each message gets fewer; its rate is the same.
            return interleaved(
                bench,
                lambda: rate(ours, many),
                (lambda: rate(postfix, few)) if postfix else None,
            )


class Idle:
    """Connections on which nothing is said."""

    name = "idle connections"

    def measure(self, bench: Bench) -> Iterator[Figure]:
        """See `Row.measure`."""
        number = bench.messages(10_000)
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
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
        load = Load(KIB, 10, True, bench.messages(1500))
        full, empty = bench.folder / "full", bench.folder / "empty"
        waiting.fill(full / "spool", number)
        began = time.monotonic()
        crowded = Ours(full, workers=1)
        start = time.monotonic() - began
        plain = Ours(empty, workers=1)
        with stopping(crowded, plain):
            memory = crowded.memory() / MIB
            maildirs = {server: Maildir(server.new) for server in (crowded, plain)}

            def rate(server: Ours) -> float:
                maildirs[server].put_aside()
                return 1 / run(load, server, maildirs[server]).accepted

            rates = interleaved(bench, lambda: rate(crowded), lambda: rate(plain))
        yield Figure(f"{name}: start", "s", [start], bar=2, at_most=True)
        yield Figure(f"{name}: memory", "MiB", [memory], bar=200, at_most=True)
        yield Figure(f"{name}: accept, against our own empty queue", "messages/s", *rates, 0.8)


def rows(wanted: Callable[[str], bool]) -> list[Row]:
    """All rows that are wanted by their names."""
    others: list[Row] = [Large(), Relay(), Distance(), Idle(), Waiting()]
    return [Deliveries(wanted), *(row for row in others if wanted(row.name))]
