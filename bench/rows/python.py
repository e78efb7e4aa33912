"""Other servers on Python, and what Python leaves room for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec

from bench.figures import KIB, Bench, Figure, interleaved, stopping
from bench.loads import WARM_UP, Load, Maildir, run
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
        maildirs = {server: Maildir(server.new) for server in servers}
        with stopping(*servers):
            for server in servers:
                run(WARM_UP, server, maildirs[server])
            for name, load in _loads(bench):
                rates: dict[Server, list[float]] = {server: [] for server in servers}
                for _ in range(bench.repetitions):
                    for server in servers:
                        maildirs[server].put_aside()
                        rates[server].append(1 / run(load, server, maildirs[server]).accepted)
                for peer in peers:
                    what = f"{name}: accept, against {peer.name}"
                    yield Figure(what, "messages/s", rates[ours], rates[peer], 1.5, peer=peer.name)


def _loads(bench: Bench) -> Iterator[tuple[str, Load]]:
    for octets, size in ((KIB, "1 KiB"), (10 * KIB, "10 KiB")):
        for sessions in (10, 50):
            for kept, manner in ((True, "connection kept"), (False, "one a connection")):
                load = Load(octets, sessions, kept, bench.messages(1500))
                yield f"{size}, {sessions} sessions, {manner}", load


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
