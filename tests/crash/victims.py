"""What is killed on a site, and how long it takes to be there again."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable

from bench.tree import children, own_cpu_seconds
from tests.crash.load import Command
from tests.crash.site import Site
from tests.processes import Server, wait_until

MAX_START = 2.0  # seconds of processor time until a server that was killed is ready again


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
        """Kill so many times, each victim once before chance chooses."""
        victims = self._victims()
        names = [*victims]
        for number in range(count):
            time.sleep(self._random.uniform(0.0, self._site.shape.pause))  # the load goes on
            name = names[number] if number < len(names) else self._random.choice(names)
            self.kills.append(time.time())
            victims[name]()
            self.counts[name] += 1

    def _victims(self) -> dict[str, Callable[[], None]]:
        relay, office = self._site.relay, self._site.office
        victims = {
            "relay": lambda: self._kill_all(relay),
            "office": lambda: self._kill_all(office),
            "relay and office": lambda: self._kill_all(relay, office),
            "first process": lambda: self._kill_first(relay),
            "mta sendmail": lambda: self._kill_command(self._site.caller.command),
            "mta turn": lambda: self._kill_command(self._site.turner.command),
        }
        if self._site.shape.workers > 1:
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
            self._restart(server)

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

    def _restart(self, server: Server) -> None:
        begun = time.monotonic()
        server.start()
        self.restarts.append(time.monotonic() - begun)
        assert server.process is not None
        self.processor.append(own_cpu_seconds(server.process.pid))
