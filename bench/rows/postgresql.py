"""The spool in PostgreSQL, on the same machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from bench.figures import KIB, MIB, Bench, Figure, stopping
from bench.loads import WARM_UP, Cost, Load, in_turn, run_together
from bench.postgresql import OnPostgreSQL, PostgreSQL, missing_for_postgresql
from bench.servers import Server, configure

# Claims that are not counted: psycopg prepares a statement at its third one, and PostgreSQL plans
# that anew for five more.
FIRST_CLAIMS = 8
CLAIMS = 10  # in each queue, of which the median is the figure
FEW = 2000  # messages: enough for these claims
MANY_CLAIMS = 200  # where looks from the beginning are a part of it
DEAD = 500_000  # messages that went through the spool in a transaction's ten minutes, at 830/s


class Intake:
    """Mail in, beside Postfix with its queue on the disk, and ours on SQLite."""

    name = "postgresql, 50 sessions"

    def measure(self, bench: Bench) -> Iterator[Figure]:
        """See `Row.measure`."""
        if not _measurable():
            return
        database = PostgreSQL(bench.next_folder())
        ours = _node(bench, database, database.new_database(), bench.workers)
        sqlite, postfix = bench.ours(), bench.postfix()
        servers: list[Server] = [each for each in (ours, sqlite, postfix) if each is not None]
        with stopping(*servers, database):
            in_turn(WARM_UP, servers, 1)
            load = Load(KIB, 50, True, bench.messages(1500))
            costs = in_turn(load, servers, bench.repetitions)
        accepted = {server: [1 / cost.accepted for cost in costs[server]] for server in servers}
        what = f"{self.name}: accept"
        if postfix is not None:
            yield Figure(what, "messages/s", accepted[ours], accepted[postfix], 1.0)
        yield Figure(what, "messages/s", accepted[ours], accepted[sqlite], 0.5, peer="SQLite")
        used, plain = ([1000 * cost.cpu for cost in costs[each]] for each in (ours, sqlite))
        yield Figure(f"{self.name}: CPU", "s/1,000 messages", used, plain, peer="SQLite")


class Waiting:
    """A queue in which much waits."""

    name = "postgresql, waiting messages"

    def measure(self, bench: Bench) -> Iterator[Figure]:
        """See `Row.measure`."""
        if not _measurable():
            return
        from bench import database_spool

        number = bench.messages(1_000_000)
        self._what = f"postgresql, {number:,} waiting messages"
        database = PostgreSQL(bench.next_folder(), shared_preload_libraries="pg_stat_statements")
        with stopping(database):
            many, few = database.new_database(), database.new_database()
            database_spool.fill(many, number)
            database_spool.fill(few, FEW)
            yield from self._claims(database, many, few)
            servers = [_node(bench, database, url) for url in (many, few)]
            with stopping(*servers):
                memory = servers[0].memory() / MIB
                in_turn(WARM_UP, servers, 1)
                load = Load(KIB, 10, True, bench.messages(1500))
                costs = in_turn(load, servers, bench.repetitions)
        yield Figure(f"{self._what}: memory", "MiB", [memory], bar=200, at_most=True)
        took, little = ([1000 * cost.arrived for cost in costs[each]] for each in servers)
        yield self._flat("end to end", "ms/message", took, little)
        used, little = ([1000 * cost.cpu for cost in costs[each]] for each in servers)
        yield self._flat("CPU", "ms/message", used, little)

    def _claims(self, database: PostgreSQL, *urls: str) -> Iterator[Figure]:
        """Claims of 100 messages where many wait, and where few do, in turn."""
        from bench import database_spool

        times: list[list[float]] = [[] for _ in urls]
        whole: list[float] = []
        claimers = [database_spool.Claimer(url) for url in urls]
        with closing(claimers[0]), closing(claimers[1]):
            for _ in range(FIRST_CLAIMS + CLAIMS):
                for claimer, kept in zip(claimers, times, strict=True):
                    before = database.statement_seconds()
                    took = 1000 * claimer.claim()
                    kept.append(1000 * (database.statement_seconds() - before))
                    if claimer is claimers[0]:
                        whole.append(took)
        many, few = (kept[FIRST_CLAIMS:] for kept in times)
        what = f"{self._what}: claim of 100"
        yield Figure(what, "ms", whole[FIRST_CLAIMS:], bar=5, at_most=True)
        yield Figure(f"{what}, in PostgreSQL", "ms", many, bar=5, at_most=True)
        yield self._flat("claim of 100, in PostgreSQL", "ms", many, few)

    def _flat(self, of: str, unit: str, ours: Sequence[float], few: Sequence[float]) -> Figure:
        what, peer = f"{self._what}: {of}", f"{FEW:,} waiting"
        return Figure(what, unit, ours, few, 1.2, at_most=True, peer=peer)


class Nodes:
    """Two nodes on one spool, beside one; each is one process.

    First each node has a core, as on a machine of its own: the first two cores are that of the one
    node and of one of the two, and that of the other.  Then each may use both, so that the one has
    what the two share.  Their clients and the database use the same cores at all times.
    """

    name = "postgresql, two nodes"

    def measure(self, bench: Bench) -> Iterator[Figure]:
        """See `Row.measure`."""
        if not _measurable():
            return
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            print("without two nodes: this machine has one core")
            return
        yield from self._measure(bench, "a core each", (cores[0], *cores[:2]))
        yield from self._measure(bench, "any core", (None, None, None))

    def _measure(self, bench: Bench, placed: str, cores: Sequence[int | None]) -> Iterator[Figure]:
        """Measure nodes on these cores, of which the first is that of the one alone."""
        database = PostgreSQL(bench.next_folder())
        url = database.new_database()
        nodes = [_node(bench, database, url, core=core) for core in cores]
        number = bench.messages(4000)
        alone: dict[Server, Load] = {nodes[0]: Load(KIB, 50, True, number)}
        shared: dict[Server, Load] = dict.fromkeys(nodes[1:], Load(KIB, 25, True, number // 2))
        costs: tuple[list[Cost], list[Cost]] = [], []
        with stopping(*nodes, database):
            for node in nodes:
                run_together({node: WARM_UP})
            for _ in range(bench.repetitions):
                for loads, kept in zip((shared, alone), costs, strict=True):
                    kept.append(run_together(loads))
        what = f"{self.name}, {placed}"
        for said, name in (("accept", "accepted"), ("end to end", "arrived")):
            two, one = ([1 / getattr(cost, name) for cost in each] for each in costs)
            yield Figure(f"{what}: {said}", "messages/s", two, one, 1.3, peer="one node")
        two, one = ([cost.busy for cost in each] for each in costs)
        yield Figure(f"{what}: busy", "cores", two, one, peer="one node")


class LongTransaction:
    """A transaction that keeps the server from vacuuming what went through the spool."""

    name = "postgresql, long transaction"

    def measure(self, bench: Bench) -> Iterator[Figure]:
        """See `Row.measure`."""
        if not _measurable():
            return
        from bench import database_spool

        database = PostgreSQL(bench.next_folder())
        with stopping(database):
            beside, alone = database.new_database(), database.new_database()
            database_spool.fill(alone, 0)
            database_spool.fill(beside, 0)
            with _snapshot(database, beside):
                dead = bench.messages(DEAD)
                database_spool.leave_dead_rows(beside, dead)
                for url in (beside, alone):
                    database_spool.fill(url, MANY_CLAIMS * database_spool.BATCH)
                servers = [_node(bench, database, url) for url in (beside, alone)]
                with stopping(*servers):
                    in_turn(WARM_UP, servers, 1)
                    load = Load(KIB, 10, True, bench.messages(1500))
                    costs = in_turn(load, servers, bench.repetitions)
                claims = self._claims(beside, alone)
        what = f"{self.name}, {dead:,} dead messages"
        rates = [[1 / cost.arrived for cost in costs[each]] for each in servers]
        for name, (with_it, without) in (("end to end", rates), ("claims", claims)):
            yield Figure(f"{what}: {name}", "messages/s", with_it, without, 0.5, peer="without it")

    def _claims(self, *urls: str) -> Sequence[Sequence[float]]:
        """The messages a second that are claimed beside it, and without it."""
        from bench import database_spool

        rates = []
        for url in urls:
            with closing(database_spool.Claimer(url)) as claimer:
                seconds = sum(claimer.claim() for _ in range(MANY_CLAIMS))
                rates.append([MANY_CLAIMS * database_spool.BATCH / seconds])
        return rates


@contextmanager
def _snapshot(database: PostgreSQL, url: str) -> Iterator[None]:
    """Keep a snapshot of a database, as a report or a dump does."""
    with database.connected(url) as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT count(*) FROM schedule")
        yield


def _measurable() -> bool:
    """Whether there is a PostgreSQL; says so where there is none."""
    if missing := missing_for_postgresql():
        print(f"without PostgreSQL: {missing}")
    return not missing


def _node(
    bench: Bench,
    database: PostgreSQL,
    url: str,
    workers: int = 1,
    core: int | None = None,
) -> OnPostgreSQL:
    """A server of ours with its spool in a database; `core`: see `Ours`."""
    folder = bench.next_folder()
    keys = {"spool": url, "spool_folder": "spool", "node": f"node{folder.name}"}
    return OnPostgreSQL(configure(folder, workers=workers, keys=keys), database, core)
