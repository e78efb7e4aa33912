"""Mail in, and into a Maildir."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from bench.figures import KIB, MIB, Bench, Figure, interleaved, stopping
from bench.loads import WARM_UP, Cost, Load, in_turn, send_large
from bench.servers import Server


class Deliveries:
    """Mail that ends in a Maildir: all sizes, sessions and manners, on one pair of servers."""

    name = "delivery"

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        self._wanted = wanted

    def measure(self, bench: Bench) -> Iterator[Figure]:
        """See `Row.measure`."""
        loads = {name: load for name, load in loads_of(bench) if self._wanted(name)}
        if not loads:
            return
        ours, postfix = bench.ours(), bench.postfix()
        servers = [server for server in (ours, postfix) if server is not None]
        with stopping(*servers):
            in_turn(WARM_UP, servers, 1)
            for name, load in loads.items():
                costs = in_turn(load, servers, bench.repetitions)
                yield from _delivery_figures(
                    name, load, costs[ours], costs[postfix] if postfix else []
                )


def loads_of(bench: Bench) -> Iterator[tuple[str, Load]]:
    """The loads of all sizes, sessions and manners, by name."""
    for octets, size in ((KIB, "1 KiB"), (10 * KIB, "10 KiB"), (100 * KIB, "100 KiB")):
        for sessions in (1, 10, 50, 200):
            if octets > 10 * KIB and sessions not in (10, 50):
                continue
            for kept, manner in ((True, "connection kept"), (False, "one a connection")):
                number = 600 if sessions == 1 else 1500 if octets < 100 * KIB else 500
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
                other = partial(rate, postfix) if postfix else None
                rates = interleaved(bench, partial(rate, ours), other)
                yield Figure(f"25 MiB in by {verb}", "MiB/s", *rates, 1.5)
                yield Figure(
                    f"25 MiB in by {verb}: memory growth",
                    "MiB",
                    [growth.octets / MIB],
                    bar=8,
                    at_most=True,
                )
