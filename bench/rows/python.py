"""Other servers on Python, and what Python leaves room for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec

from bench.figures import KIB, Bench, Figure, interleaved, stopping
from bench.loads import WARM_UP, Load, in_turn, run
from bench.rows.delivery import loads_of
from bench.servers import Script, Server, configure

SERVERS = {"aiosmtpd": "aiosmtpd", "twisted.mail": "twisted"}  # by the package they need


class PythonPeers:
    """Servers that put a message into the Maildir before its 250, and have no queue."""

    name = "Python peers"

    def measure(self, bench: Bench) -> Iterator[Figure]:
        """See `Row.measure`."""
        ours = bench.ours()
        peers = []
        for name, package in SERVERS.items():
            if find_spec(package) is None:
                print(f"without the peer: {package} is not installed")
                continue
            maildir = bench.next_folder()
            peers.append(Script("python_peers", name, maildir, new=maildir / "new"))
        servers: list[Server] = [ours, *peers]
        with stopping(*servers):
            in_turn(WARM_UP, servers, 1)
            for name, load in loads_of(bench):
                if load.sessions not in (10, 50) or load.octets > 10 * KIB or load.tls:
                    continue
                costs = in_turn(load, servers, bench.repetitions)
                rates = {s: [1 / cost.accepted for cost in costs[s]] for s in servers}
                for peer in peers:
                    what = f"{name}: accept, against {peer.name}"
                    yield Figure(what, "messages/s", rates[ours], rates[peer], 1.5, peer=peer.name)


class Ceiling:
    """Reception in one process without a spool, and replies that are said without looking."""

    name = "null spool"

    def measure(self, bench: Bench) -> Iterator[Figure]:
        """See `Row.measure`."""
        configuration = configure(bench.next_folder())
        null = Script("ceiling", "null", configuration)
        canned = Script("ceiling", "canned", configuration)
        with stopping(null, canned):
            for kept, manner in ((True, "connection kept"), (False, "one a connection")):
                load = Load(KIB, 10, kept, bench.messages(5000))

                def rate(server: Server, load: Load = load) -> float:
                    return 1 / run(load, server).accepted

                rates = interleaved(bench, partial(rate, null), partial(rate, canned))
                what = f"null spool, one process, 1 KiB, 10 sessions, {manner}"
                yield Figure(what, "messages/s", *rates, 2 / 3, peer="canned replies")
