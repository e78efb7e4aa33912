"""Mail that is passed through to an office, beside mail that is committed by its relay first."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from bench.figures import KIB, MIB, Bench, Figure, interleaved, stopping
from bench.loads import Load, run, send_large
from bench.rows.relay import ROUND_TRIP, add_user, customer_keys, line, pin_of, provider_keys
from bench.servers import DOMAIN, Ours, wait_until

COMMITTED = "committed first"


class Passing:
    """A relay and its office, with and without a round trip between them."""

    name = "passed through"

    def measure(self, bench: Bench) -> Iterator[Figure]:
        """See `Row.measure`."""
        for name, round_trip in (("0 ms", 0.0), (f"{ROUND_TRIP * 1000:.0f} ms", ROUND_TRIP)):
            yield from self._measure(bench, name, round_trip)

    def _measure(self, bench: Bench, name: str, round_trip: float) -> Iterator[Figure]:
        one = _Pair(bench, round_trip, pass_through=True)
        other = _Pair(bench, round_trip, pass_through=False)
        with stopping(*one.servers, *other.servers):
            for what, unit, load in (
                ("10 KiB, 50 sessions", "messages/s", Load(10 * KIB, 50, True, 1000)),
                ("1 KiB, one after the other", "ms", Load(KIB, 1, True, 40)),
            ):
                rates = interleaved(
                    bench, partial(one.measure, load, unit), partial(other.measure, load, unit)
                )
                yield Figure(f"passed through, {name} away: {what}", unit, *rates, peer=COMMITTED)
            times = interleaved(bench, one.send_large, other.send_large)
            yield Figure(f"passed through, {name} away: 25 MiB", "s", *times, peer=COMMITTED)


class _Pair:
    """A relay with a link of its office."""

    def __init__(self, bench: Bench, round_trip: float, *, pass_through: bool) -> None:
        keys = provider_keys(DOMAIN, pass_through=pass_through)
        self._relay: Ours = bench.ours(keys=keys, workers=1)
        add_user(self._relay.configuration)
        port = self._relay.ports["submission"]
        way = line(port, round_trip)
        keys = customer_keys(DOMAIN, way.port, pin_of(port), origin="trust")
        office = bench.ours(keys=keys, workers=1)
        self.servers = (office, way, self._relay)
        log = self._relay.configuration.with_name("mta.log")
        wait_until(lambda: "turned the connection" in log.read_text(), "the link stands")
        self.measure(Load(KIB, 1, True, 5), "ms")  # what is compiled and opened once

    def measure(self, load: Load, unit: str) -> float:
        """Send a load; returns how fast it was accepted."""
        accepted = run(load, self._relay).accepted
        return 1 / accepted if unit == "messages/s" else accepted * 1000

    def send_large(self) -> float:
        """Send one large message; returns seconds until its 250."""
        return send_large(self._relay, 25 * MIB, chunks=False)
