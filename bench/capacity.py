"""How far one PostgreSQL server goes, and what a provider runs.

``python -m bench.capacity`` prints the tables of ``docs/scale.rst``.  It simulates group commit: in
each process mail comes at random, what came while a commit was under way is the next one, and the
server works on commits side by side and syncs its log once for all that wait.  The costs are those
that ``bench.programs.database_costs`` measured; all else is assumed, and can be given.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from bench.figures import KIB

CONNECTIONS = 5  # of a process, without the one for shared tables
BEATS = 0.1  # commits a second, of a process with nothing to do
MAX_NOTIFIES = 5.0  # a second, of a process
PATIENCE = 0.1  # seconds within which 99 of 100 commits are to be done
BUSIEST = 0.1 / 3600  # of a day's mail comes in each second of its busiest hour: a tenth in all


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of a core, unless said otherwise; measured."""

    commit: float = 440e-6  # of the database, for each commit
    message: float = 20e-6  # of the database, for each message in a commit, in and out
    kib: float = 5e-6  # of the database, for each KiB of a message
    log: float = 0.8  # KiB of the log for each message, beside its content
    log_factor: float = 1.1  # octets of the log for each octet of content
    notify: float = 20e-6  # of the database, for each listener that is told
    look: float = 1.1e-6  # of the database, for each link, when a process looks for its mail
    connection: float = 2.0  # MiB of memory of the database
    node: float = 600e-6  # of a node, for each message in and out
    link: float = 45e-6  # of a node, in each second, for a link that is held and rests
    link_memory: float = 48  # KiB


@dataclass(frozen=True, slots=True)
class Plan:
    """What is assumed."""

    nodes: int = 10  # on one database
    processes: int = 2  # of a node, one for each core
    rate: float = 200.0  # messages a second in the busiest hour, in and out, on all of them
    size: float = 30.0  # KiB of a message
    cores: int = 16  # of the database
    sync: float = 1.0  # ms, of the log, with that of the synchronous standby
    links: int = 0  # of each node, held by offices
    notifies: float = 0.1  # a second, of a process
    disk: float = 300.0  # MiB of log that the database and its standby can sync in a second
    load: float = 0.5  # the part of all cores that may be busy


@dataclass(frozen=True, slots=True)
class Result:
    """What a database had to do."""

    commits: float  # a second
    busy: float  # cores
    median: float  # ms until a message is committed
    slow: float  # ms, of the slowest of a hundred


class Simulation:
    """The commits of some seconds."""

    def __init__(self, plan: Plan, costs: Costs, seconds: float = 0.5) -> None:
        self._plan, self._costs, self._seconds = plan, costs, seconds
        self._random = random.Random(1)
        self._events: list[tuple[float, int, str, Sequence[float], int]] = []
        self._count = 0  # of events: keeps those of one moment in order
        self._free = plan.cores
        self._queue: deque[tuple[int, Sequence[float]]] = deque()  # commits that wait for a core
        self._unsynced: list[tuple[int, Sequence[float]]] = []
        self._syncing = False
        self._waiting: dict[int, list[float]] = {}  # by process with a commit under way
        self._waits: list[float] = []
        self._commits, self._busy = 0, 0.0

    def run(self) -> Result:
        """Let mail come, and commit it."""
        self._add(0.0, "arrive")
        while self._events:
            now, _, kind, batch, process = heapq.heappop(self._events)
            if now > self._seconds:
                break
            if kind == "arrive":
                self._arrive(now)
            elif kind == "worked":
                self._free += 1
                self._unsynced.append((process, batch))
            elif kind == "synced":
                self._syncing = False
            else:
                self._committed(now, process, batch)
            self._go_on(now)
        waits = sorted(self._waits) or [math.inf]
        return Result(
            self._commits / self._seconds,
            self._busy / self._seconds,
            1000 * waits[len(waits) // 2],
            1000 * waits[len(waits) * 99 // 100],
        )

    def _add(self, at: float, kind: str, batch: Sequence[float] = (), process: int = 0) -> None:
        self._count += 1
        heapq.heappush(self._events, (at, self._count, kind, batch, process))

    def _arrive(self, now: float) -> None:
        """A message comes to some process."""
        self._add(now + self._random.expovariate(self._plan.rate), "arrive")
        process = self._random.randrange(self._plan.nodes * self._plan.processes)
        if process in self._waiting:
            self._waiting[process].append(now)
        else:
            self._waiting[process] = []
            self._queue.append((process, [now]))

    def _go_on(self, now: float) -> None:
        """Give commits a core, and sync all that were worked on."""
        while self._free and self._queue:
            process, batch = self._queue.popleft()
            each = self._costs.message + self._costs.kib * self._plan.size
            took = self._costs.commit + len(batch) * each
            self._free -= 1
            self._busy += took
            self._add(now + took, "worked", batch, process)
        if self._unsynced and not self._syncing:
            self._syncing = True
            done = now + self._plan.sync / 1000
            for process, batch in self._unsynced:
                self._add(done, "committed", batch, process)
            self._add(done, "synced")
            self._unsynced = []

    def _committed(self, now: float, process: int, batch: Sequence[float]) -> None:
        """A process is answered, and commits what came meanwhile."""
        self._commits += 1
        self._waits += [now - came for came in batch]
        if waiting := self._waiting.pop(process):
            self._waiting[process] = []
            self._queue.append((process, waiting))


@dataclass(frozen=True, slots=True)
class Needs:
    """What one database has to be able to do, by a plan."""

    result: Result
    connections: int
    memory: float  # MiB, of the connections
    log: float  # MiB a second
    beats: float  # cores
    notifies: float  # cores: listeners are told, and look for mail of their links

    @classmethod
    def of(cls, plan: Plan, costs: Costs) -> Needs:
        """Simulate the commits, and add what else there is."""
        processes = plan.nodes * plan.processes
        log = plan.rate * (costs.log + costs.log_factor * plan.size) / KIB
        told = processes * min(plan.notifies, MAX_NOTIFIES)  # a second
        looks = min(told, MAX_NOTIFIES) * plan.nodes * plan.links * costs.look
        return cls(
            Simulation(plan, costs).run(),
            processes * CONNECTIONS,
            processes * CONNECTIONS * costs.connection,
            log,
            processes * BEATS * 4 * costs.commit,  # a beat, and three looks
            told * processes * costs.notify + looks,
        )

    @property
    def cores(self) -> float:
        """The cores that are busy."""
        return self.result.busy + self.beats + self.notifies

    def fit(self, plan: Plan) -> bool:
        """Whether the plan's database is enough."""
        is_fast = self.result.slow <= 1000 * PATIENCE
        return is_fast and self.log <= plan.disk and self.cores <= plan.load * plan.cores


def limit(plan: Plan, costs: Costs) -> float:
    """The messages a second that one database can take, to a twentieth.

    There are as many nodes as these need.
    """
    low, high = 1.0, plan.load * plan.cores / costs.message
    while high > 1.05 * low:
        middle = math.sqrt(low * high)
        nodes = math.ceil(middle * costs.node / (plan.load * plan.processes))
        if Needs.of(replace(plan, rate=middle, nodes=nodes), costs).fit(plan):
            low = middle
        else:
            high = middle
    return low


def by_nodes(plan: Plan, costs: Costs) -> Iterator[Sequence[str]]:
    """What one database would need, by the number of nodes."""
    yield "nodes", "messages/s", "commits/s", "cores", "NOTIFY", "log", "connections", "99 % in"
    for nodes in (10, 100, 1000):
        # With cores enough, to see how many are needed.
        wanted = replace(plan, nodes=nodes, rate=nodes * plan.rate / plan.nodes, cores=1024)
        needs = Needs.of(wanted, costs)
        yield (
            f"{nodes:,}",
            f"{wanted.rate:,.0f}",
            f"{needs.result.commits:,.0f}",
            f"{needs.cores / plan.load:,.1f}",
            f"{needs.notifies / plan.load:,.1f}",
            f"{needs.log:,.0f} MiB/s",
            f"{needs.connections:,}",
            f"{needs.result.slow:.1f} ms",
        )


def limits(plan: Plan, costs: Costs) -> Iterator[Sequence[str]]:
    """The end of one database, by its cores and the size of messages."""
    yield "cores", "KiB", "messages/s", "log", "ends by"
    for cores in (4, 16):
        for size in (3.0, plan.size, 100.0):
            wanted = replace(plan, cores=cores, size=size)
            most = limit(wanted, costs)
            # Two figures are all that is known.
            rounded = int(most / (unit := 10 ** (len(str(int(most))) - 2))) * unit
            log = rounded * (costs.log + costs.log_factor * size) / KIB
            end = "the log" if log > 0.9 * plan.disk else "cores"
            yield f"{cores}", f"{size:g}", f"{rounded:,}", f"{log:,.0f} MiB/s", end


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider for offices that hold their links; all of it is assumed."""

    offices: int = 1_000_000
    mails: float = 50.0  # of an office in a day, in and out
    asleep: float = 0.05  # the part of the offices that are away for three days
    cores: int = 4  # of a node, with a process on each
    group: int = 100_000  # offices that share a database
    spare: int = 1  # nodes of a group that may be down
    node_price: float = 1.0  # a month, in any unit
    database_price: float = 4.0  # the same

    def rows(self, plan: Plan, costs: Costs) -> Iterator[Sequence[str]]:
        """The machines, and what they do."""
        rate = self.offices * self.mails * BUSIEST
        groups = math.ceil(self.offices / self.group)
        busy = (rate * costs.node + self.offices * costs.link) / groups
        nodes = math.ceil(busy / (plan.load * self.cores)) + self.spare
        each = replace(
            plan,
            nodes=nodes,
            processes=self.cores,
            rate=rate / groups,
            links=math.ceil(self.offices / groups / nodes),
            notifies=min(MAX_NOTIFIES, rate / 2 / groups / nodes / self.cores),
        )
        needs = Needs.of(each, costs)
        links = self.offices / groups / (nodes - self.spare) / self.cores
        held = self.offices * self.asleep * self.mails / 2 * 3
        yield "of", "there is"
        yield "offices", f"{self.offices:,}"
        yield "messages in the busiest hour", f"{rate:,.0f} a second"
        yield "groups, with a database and its standby", f"{groups}"
        yield f"nodes of a group, of {self.cores} cores, {self.spare} spare", f"{nodes}"
        yield "links of a process", f"{links:,.0f}, {links * costs.link_memory / KIB:,.0f} MiB"
        yield "cores of a database", f"{needs.cores / plan.load:,.1f}"
        yield "commits of a database", f"{needs.result.commits:,.0f} a second"
        yield "log of a database", f"{needs.log:,.1f} MiB/s"
        yield "connections of a database", f"{needs.connections}"
        yield "mail that waits for offices", f"{held:,.0f}, {held * plan.size / KIB / KIB:,.0f} GiB"
        price = groups * (nodes * self.node_price + 2 * self.database_price)
        yield "price of a month", f"{price:,.0f}"


def table(rows: Iterator[Sequence[str]]) -> str:
    """Rows in columns."""
    cells = list(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(map(str.rjust, row, widths)) for row in cells)
    return "\n".join(lines)


def report(plan: Plan, costs: Costs, provider: Provider) -> str:
    """All tables."""
    found = (by_nodes(plan, costs), limits(plan, costs), provider.rows(plan, costs))
    return "\n\n".join(map(table, found))


def _given(kind: Any, options: Mapping[str, Any]) -> Any:
    """One of these values, as the command line gives it."""
    names = [each.name for each in fields(kind)]
    return kind(**{name: options[f"{kind.__name__.lower()}_{name}"] for name in names})


def main() -> None:
    """Print the tables, by the assumptions of the command line."""
    kinds = (Plan, Costs, Provider)
    parser = argparse.ArgumentParser(prog="python -m bench.capacity")
    for kind in kinds:
        for each in fields(kind):
            option = f"--{kind.__name__.lower()}-{each.name.replace('_', '-')}"
            parser.add_argument(option, type=type(each.default), default=each.default)
    given = vars(parser.parse_args())
    plan, costs, provider = (_given(kind, given) for kind in kinds)
    print(report(plan, costs, provider))


if __name__ == "__main__":
    main()
