"""A relay with an office behind it, a next hop, and mail on every way; all may be killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mta.queued import Filter
from mta.spool.checking import Checker
from mta.spool.tools import SpoolTools
from tests.crash.load import Arrivals, Caller, Client, Source
from tests.interop.reversal import BOB, BOBS, CAROL, CAROLS, Provider, office, run_mta
from tests.interop.sink import Sink
from tests.processes import Server, wait_until

SINK = "carol@sink.example"
MAX_TURN = 150.0  # seconds, on a machine that does other things besides
MAX_RESTART = 2.0  # seconds of processor time until a server that was killed is ready again
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Way:
    """A source, where its mail ends, and whether a host of ours may get it twice on the way."""

    source: Source
    arrivals: Arrivals
    is_relayed: bool


class Site:
    """The two servers with their load.

    `kills`: when something was killed, seconds since the epoch.  `restarts`: how long each server
    took that was started after that, in seconds by the clock.
    """

    def __init__(self, case: SynchronousTestCase, seed: int) -> None:
        self.kills: list[float] = []
        self.restarts: list[float] = []
        self._case = case
        self._random = random.Random(seed)
        sink = Sink(case)
        self._relay = Provider(
            case,
            {"linger": "1h"},
            {"smtp": "off", "submission": "implicit"},
            queue={"workers": 2, "retry": ["1s"]},
            routes={"sink.example": f"smtp://127.0.0.1:{sink.port}"},
            relay={"networks": ["127.0.0.1"]},
        )
        self._relay.start()
        self._office = office(case, self._relay)
        self._office.start()
        self._caller = Caller("tool", self._office, BOB, CAROL, "provider")
        self.ways = self._ways(sink)

    def _ways(self, sink: Sink) -> list[Way]:
        at_relay = Arrivals(self._relay.folder / "mail" / CAROLS)
        at_office = Arrivals(self._office.folder / "mail" / BOBS)
        at_sink = Arrivals(sink.folder)
        return [
            Way(Client("local", self._relay, "x@client.example", CAROL), at_relay, False),
            Way(Client("relayed", self._relay, "x@client.example", SINK), at_sink, True),
            Way(Client("held", self._relay, "x@client.example", BOB), at_office, True),
            Way(Client("out", self._office, BOB, CAROL), at_relay, True),
            Way(self._caller, at_relay, True),
        ]

    def run(self, kills: int) -> None:
        """Kill something at so many moments, while mail comes on every way."""
        self.begin()
        victims: list[Callable[[], None]] = [
            lambda: self._kill_tree(self._relay),
            lambda: self._kill_tree(self._office),
            self._kill_first,
            self._kill_worker,
            self._caller.kill,
        ]
        for number in range(kills):
            time.sleep(self._random.uniform(0.0, 0.6))  # the load goes on: nothing to wait for
            self.kills.append(time.time())
            if number < len(victims):
                victims[number]()
            else:
                self._random.choice(victims)()
        self.end()

    def begin(self) -> None:
        """Let mail come."""
        for way in self.ways:
            way.source.start()

    def end(self) -> None:
        """Let no more mail come."""
        for way in self.ways:
            way.source.finish()

    def taken(self) -> list[tuple[int, int]]:
        """The memory in KiB, and the open descriptors, of the first process of each server."""
        found = []
        for server in (self._relay, self._office):
            assert server.process is not None
            descriptors = Path(f"/proc/{server.process.pid}/fd")
            found.append((server.memory // 1024, len(list(descriptors.iterdir()))))
        return found

    # --- who is killed

    def _kill_tree(self, server: Server) -> None:
        server.kill()
        self._restart(server)

    def _kill_first(self) -> None:
        """The first process alone: its worker ends by itself."""
        assert self._relay.process is not None
        os.kill(self._relay.process.pid, signal.SIGKILL)
        self._relay.process.wait()
        self._restart(self._relay)

    def _kill_worker(self) -> None:
        """One worker: the first process starts another one."""
        assert self._relay.process is not None
        pid = self._relay.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for child in children[:1]:
            os.kill(int(child), signal.SIGKILL)

    def _restart(self, server: Server) -> None:
        begun = time.monotonic()
        server.start()
        self.restarts.append(time.monotonic() - begun)
        assert server.process is not None
        numbers = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
        self._case.assertLess((int(numbers[11]) + int(numbers[12])) / TICKS, MAX_RESTART)

    # --- what must be true in the end

    def check(self) -> tuple[int, int]:
        """Find each acknowledged message, whole; returns how many, and how many came twice."""
        # After many kills in a row the office waits long until it dials; a turn ends that.
        wait_until(self._turn, "a turn that goes well", MAX_TURN)
        for way in self.ways:
            self._wait_for(way)
        for server in (self._relay, self._office):
            wait_until(lambda server=server: self._is_empty(server), "an empty spool")
            with_faults = [*Checker(server.folder / "spool").findings()]
            self._case.assertEqual(with_faults, [])
            self._case.assertNotIn("Traceback", server.log)
        twice = sum(map(self._copies, self.ways))
        self._case.assertEqual([name for way in self.ways for name in way.arrivals.damaged], [])
        return sum(len(way.source.sent.acknowledged) for way in self.ways), twice

    def _turn(self) -> bool:
        try:
            run_mta(self._office, "turn", "provider")
        except (AssertionError, subprocess.TimeoutExpired):
            return False
        return True

    def _wait_for(self, way: Way) -> None:
        sent = set(way.source.sent.acknowledged)

        def missing() -> set[str]:
            way.arrivals.look()
            return sent - set(way.arrivals.copies)

        try:
            wait_until(lambda: not missing(), "all that was acknowledged", 60)
        except AssertionError:
            lost = sorted(missing())
            self._case.fail(f"{len(lost)} of {len(sent)} lost: {lost[:10]}\n{self._relay.log}")

    def _copies(self, way: Way) -> int:
        """Look at what came more than once; returns how many did.

        A second copy needs a kill between the message and it, and a host that had taken the first.
        """
        way.arrivals.look()
        twice = 0
        for marker, begun in way.source.sent.acknowledged.items():
            times = way.arrivals.copies[marker]
            kills = sum(begun <= kill <= max(times) for kill in (*self.kills, *self._caller.kills))
            self._case.assertLessEqual(len(times), 1 + kills * way.is_relayed, marker)
            twice += len(times) > 1
        return twice

    @staticmethod
    def _is_empty(server: Server) -> bool:
        with closing(SpoolTools(server.folder / "spool")) as tools:
            tools.release([each.id for each in tools.listed(Filter(state="on-hold"))])
            return tools.count(Filter()) == 0
