"""What is killed on a site, and how long it takes to be there again."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from bench.tree import children, own_cpu_seconds
from tests.crash.load import Command
from tests.crash.site import MAX_WAIT, Site
from tests.processes import Server, wait_until

MAX_START = 2.0  # seconds of processor time until a server that was killed is ready again
LONG_START = 1.5  # seconds: in a start that is killed, it may have come to "ready"


class Victims:
    """Kills processes of a site.

    `kills`: when one was, seconds since the epoch.  `counts`: how many, by what was killed.
    `restarts`: how long each server took to start after that, by the clock, and `processor`, by
    the processor's, both in seconds.
    """

    def __init__(self, site: Site, seed: int) -> None:
        self.kills: list[float] = []
        self.counts: Counter[str] = Counter()
        self.restarts: list[float] = []
        self.processor: list[float] = []
        self._site = site
        self._random = random.Random(seed)

    def kill(self, count: int) -> None:
        """Kill so many times or one more, each victim once before chance chooses."""
        victims = self._victims()
        names = [*victims]
        while len(self.kills) < count:
            time.sleep(self._random.uniform(0.0, self._site.shape.pause))  # the load goes on
            name = names.pop(0) if names else self._random.choice([*victims])
            self._note(name)
            victims[name]()

    def _note(self, name: str) -> None:
        self.kills.append(time.time())
        self.counts[name] += 1

    def _victims(self) -> dict[str, Callable[[], None]]:
        relay, office = self._site.relay, self._site.office
        victims = {
            "relay": lambda: self._kill_all(relay),
            "office": lambda: self._kill_all(office),
            "relay and office": lambda: self._kill_all(relay, office),
            "relay, twice": lambda: self._kill_twice(relay),
            "office, twice": lambda: self._kill_twice(office),
            "mta sendmail": lambda: self._kill_command(self._site.caller.command),
            "mta turn": lambda: self._kill_command(self._site.turner.command),
        }
        if self._site.shape.workers > 1:
            victims["first process"] = lambda: self._kill_first(relay)
            victims["worker"] = lambda: self._kill_worker(relay)
        if self._site.cluster is not None:
            victims["database"] = self._kill_database
        return victims

    def _kill_all(self, *servers: Server) -> None:
        """Servers with their workers, at one moment."""
        for server in servers:
            assert server.process is not None
            os.killpg(server.process.pid, signal.SIGKILL)
        for server in servers:
            server.kill()
        self._restart(*servers)

    def _kill_twice(self, server: Server) -> None:
        """A server, and amid its next start again."""
        server.kill()
        server.launch()
        time.sleep(self._random.uniform(0.0, LONG_START))  # the start goes on
        self._note("amid a start")
        self._kill_all(server)

    def _kill_first(self, server: Server) -> None:
        """The first process alone: its worker ends by itself."""
        assert server.process is not None
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        self._restart(server)

    def _kill_worker(self, server: Server) -> None:
        """One worker: the first process starts another one."""
        assert server.process is not None
        pid = server.process.pid
        workers = wait_until(lambda: children(pid), "a worker")
        os.kill(workers[0], signal.SIGKILL)
        wait_until(lambda: workers[0] not in children(pid), "its end")

    def _kill_command(self, command: Command) -> None:
        """A command, as soon as one runs."""
        wait_until(command.kill, "a command that is killed")

    def _kill_database(self) -> None:
        """The server of the database, as if its machine had lost power."""
        cluster = self._site.cluster
        assert cluster is not None
        cluster.stop()
        cluster.start()

    def _restart(self, *servers: Server) -> None:
        """Start servers, all at one time."""
        for server in servers:
            server.launch()
        with ThreadPoolExecutor() as threads:
            for clock, processor in threads.map(self._start_times, servers):
                self.restarts.append(clock)
                self.processor.append(processor)

    @staticmethod
    def _start_times(server: Server) -> tuple[float, float]:
        """Wait for a start; returns what it took by the clock, and of the processor."""
        began = time.monotonic()
        server.wait_until_ready(MAX_WAIT)
        assert server.process is not None
        return time.monotonic() - began, own_cpu_seconds(server.process.pid)
