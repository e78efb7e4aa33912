"""What has become of the mail of a site: nothing is lost, and nothing came twice without a kill."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing

from mta.peers.dial_loop import MAX_PAUSE
from mta.queued import Filter
from tests.crash.site import Site, Way
from tests.processes import Server

# Seconds in which nothing moves, while mail waits: an office dials at last after the longest of
# its pauses (docs/turn/live.rst), which is a tenth longer by chance; what others died on is due
# in minutes.
MAX_STILLNESS = MAX_PAUSE * 1.1 + 60
POLL = 0.2  # seconds


class Outcome:
    """Looks at a site whose load has ended.

    `kills`: when something was killed, seconds since the epoch.  `acknowledged` and `repeated`
    count messages by their ways.
    """

    def __init__(self, site: Site, kills: Sequence[float] = ()) -> None:
        self.acknowledged: Counter[str] = Counter()
        self.repeated: Counter[str] = Counter()
        self._site = site
        self._kills = kills

    def check(self) -> None:
        """Wait until no mail waits anywhere, and look.  Raises AssertionError."""
        self._wait()
        for way in self._site.ways:
            self._look(way)
        for server in self._site.servers:
            findings = [*self._site.place(server).findings(repair=False)]
            assert not findings, findings
            assert "Traceback" not in server.log, server.log

    def _wait(self) -> None:
        """Wait until both spools are empty, however long the servers may take by the manual."""
        before, since = self._waiting(), time.monotonic()
        while any(before):
            time.sleep(POLL)
            now = self._waiting()
            if now != before:
                before, since = now, time.monotonic()
            still = time.monotonic() - since
            assert still < MAX_STILLNESS, f"{now} messages wait at relay and office: {still:.0f} s"

    def _waiting(self) -> Sequence[int]:
        return [self._count(server) for server in self._site.servers]

    def _count(self, server: Server) -> int:
        """Count the messages of a spool; what a kill seemed to be the fault of is released."""
        with closing(self._site.place(server).tools()) as tools:
            tools.release([each.id for each in tools.listed(Filter(state="on-hold"))])
            return tools.count(Filter())

    def _look(self, way: Way) -> None:
        """Find each acknowledged message, whole.

        A second copy needs a kill between the message and it, and a host that had taken the first.
        """
        way.arrivals.look()
        assert not way.arrivals.damaged, way.arrivals.damaged
        acknowledged = way.source.acknowledged
        lost = acknowledged.keys() - way.arrivals.copies.keys()
        assert not lost, f"{way.name}: {len(lost)} of {len(acknowledged)} lost: {sorted(lost)[:10]}"
        for marker, begun in acknowledged.items():
            times = way.arrivals.copies[marker]
            kills = sum(begun <= kill <= max(times) for kill in self._kills)
            assert len(times) <= 1 + kills * way.may_repeat, f"{way.name}: {marker} at {times}"
            self.repeated[way.name] += len(times) > 1
        self.acknowledged[way.name] = len(acknowledged)
