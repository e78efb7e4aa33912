"""A relay with an office behind it, a next hop, and mail on every way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mta.spool.place import SpoolPlace
from tests.crash.load import Arrivals, Caller, Client, Source, Turner
from tests.interop.reversal import BOB, BOBS, CAROL, CAROLS, Provider, office, run_mta
from tests.interop.sink import Sink
from tests.processes import Server
from tests.spool.postgres import own_cluster

SINK = "carol@sink.example"
NODE = "relay"  # in a spool that nodes share
# Seconds by the clock until a start that has not ended hangs: on a machine that does much else,
# two seconds of processor time may take a minute.
MAX_WAIT = 300.0


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of site.

    `is_passing`: the office tells the relay's senders what becomes of their mail, and knows what
    comes again.  `is_shared`: the relay's spool is in PostgreSQL.  `workers`: the processes of the
    relay.  `pause`: seconds between two kills, at most.
    """

    name: str
    is_passing: bool = False
    is_shared: bool = False
    workers: int = 2
    pause: float = 0.6


HELD = Shape("held")
# Long enough for the link to come back, in the process that has the senders.
PASSED = Shape("passed through", is_passing=True, workers=1, pause=3.0)
SHARED = Shape("in PostgreSQL", is_shared=True)


@dataclass(frozen=True, slots=True)
class Way:
    """A source, where its mail ends, and whether a host may get it twice on the way."""

    name: str
    source: Source
    arrivals: Arrivals
    may_repeat: bool


class Site:
    """The two servers with their load.

    `turner` calls ``mta turn`` in the office, `caller` ``mta sendmail``; the office dials as well.
    `cluster` is the server of the relay's database, if it has one.
    """

    def __init__(self, case: SynchronousTestCase, shape: Shape) -> None:
        self.shape = shape
        sink = Sink(case)
        self.cluster = own_cluster(case) if shape.is_shared else None
        self._database = self.cluster.new_url() if self.cluster else ""
        self.relay = self._relay(case, sink)
        self.relay.launch()
        self.relay.wait_until_ready(MAX_WAIT)
        origin = {"origin": "trust"} if shape.is_passing else {}
        self.office = office(case, self.relay, every="1s", **origin)
        self.office.launch()
        self.office.wait_until_ready(MAX_WAIT)
        self.caller = Caller("tool", self.office, BOB, CAROL)
        self.turner = Turner(self.office, "provider")
        self.ways = self._ways(sink)

    def _relay(self, case: SynchronousTestCase, sink: Sink) -> Server:
        shared = {"spool": self._database, "spool_folder": "spool", "node": NODE}
        keys = shared if self.cluster else {}
        passing = {"pass_through": True} if self.shape.is_passing else {}
        return Provider(
            case,
            {"linger": "1h", **passing},
            {"smtp": "off", "submission": "implicit"},
            queue={"workers": self.shape.workers, "retry": ["1s"]},
            routes={"sink.example": f"smtp://127.0.0.1:{sink.port}"},
            relay={"networks": ["127.0.0.1"]},
            **keys,
        )

    def _ways(self, sink: Sink) -> Sequence[Way]:
        at_relay = Arrivals(self.relay.folder / "mail" / CAROLS)
        at_office = Arrivals(self.office.folder / "mail" / BOBS)
        at_sink = Arrivals(sink.folder)
        stranger = "x@client.example"
        to_office = Client("held", self.relay, stranger, BOB)
        return [
            Way("SMTP to Maildir", Client("local", self.relay, stranger, CAROL), at_relay, False),
            Way("to a next hop", Client("relayed", self.relay, stranger, SINK), at_sink, True),
            Way("to the office", to_office, at_office, not self.shape.is_passing),
            Way("from the office", Client("out", self.office, BOB, CAROL), at_relay, True),
            Way("mta sendmail", self.caller, at_relay, True),
        ]

    @property
    def servers(self) -> Sequence[Server]:
        """The relay, and the office."""
        return self.relay, self.office

    def place(self, server: Server) -> SpoolPlace:
        """The spool of one of the two."""
        database = self._database if server is self.relay else ""
        return SpoolPlace(server.folder / "spool", database, NODE)

    @property
    def acknowledged(self) -> Sequence[int]:
        """How many messages were acknowledged so far, by way."""
        return [len(way.source.acknowledged) for way in self.ways]

    @property
    def passed_through(self) -> int:
        """How many messages the relay says it has passed through."""
        (peer,) = [json.loads(line) for line in run_mta(self.relay, "peers", "--json").splitlines()]
        return int(peer["passed_through"])

    def begin(self) -> None:
        """Let mail come."""
        for way in self.ways:
            way.source.start()
        self.turner.start()

    def end(self) -> None:
        """Let no more mail come."""
        for way in self.ways:
            way.source.finish()
        self.turner.finish()

    def taken(self) -> list[tuple[int, int]]:
        """The memory in KiB, and the open descriptors, of the first process of each server."""
        found = []
        for server in self.servers:
            assert server.process is not None
            descriptors = Path(f"/proc/{server.process.pid}/fd")
            found.append((server.memory // 1024, len(list(descriptors.iterdir()))))
        return found
