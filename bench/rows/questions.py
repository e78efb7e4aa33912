"""Questions of a relay to its office: which mailboxes exist?"""

from __future__ import annotations

import itertools
import smtplib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from bench.figures import Bench, Figure, stopping
from bench.rows.relay import ROUND_TRIP, add_user, customer_keys, line, pin_of, provider_keys
from bench.servers import DOMAIN, PATIENCE, Ours, wait_until

SESSIONS = 50
EACH = 40  # questions of each session
ALONE = 100  # questions of one session, one after the other
MARGIN = 5.0  # ms beyond the round trip that the median may take


class Questions:
    """RCPT at a relay that asks over the link of its office, with and without a round trip."""

    name = "questions"

    def measure(self, bench: Bench) -> Iterator[Figure]:
        """See `Row.measure`."""
        for away, round_trip in (("0 ms", 0.0), (f"{ROUND_TRIP * 1000:.0f} ms", ROUND_TRIP)):
            relay = Relay(bench, round_trip)
            with stopping(*relay.servers):
                rates, times, lately = [], [], []
                for _ in range(bench.repetitions):
                    rates.append(relay.rate())
                    names = relay.names(ALONE)
                    times.append(1000 * median(relay.ask(names)))
                    lately.append(1000 * median(relay.ask(names)))
            name = f"asked at RCPT, {away} away"
            yield Figure(f"{name}: {SESSIONS} sessions", "recipients/s", rates)
            most = 1000 * round_trip + MARGIN
            yield Figure(f"{name}: median", "ms", times, bar=most, at_most=True)
            yield Figure(f"{name}: median, answered lately", "ms", lately)


class Relay:
    """A relay with two links of its office, which has all mailboxes."""

    def __init__(self, bench: Bench, round_trip: float) -> None:
        keys = provider_keys(DOMAIN, verify="live")
        held = {
            "domains": {DOMAIN: {"deliver": "hold:office"}}
        }  # of whose mailboxes nothing is said
        self._relay: Ours = bench.ours(keys={**keys, **held}, workers=1)
        self._numbers = itertools.count()
        add_user(self._relay.configuration)
        port = self._relay.ports["submission"]
        way = line(port, round_trip)
        office = bench.ours(keys=customer_keys(DOMAIN, way.port, pin_of(port), links=2), workers=1)
        self.servers = (office, way, self._relay)
        log = self._relay.configuration.with_name("mta.log")
        wait_until(lambda: "turned its second connection" in log.read_text(), "the links stand")
        wait_until(lambda: "turned the connection" in log.read_text(), "the links stand")
        self.ask(self.names(1))  # what is compiled and opened once

    def names(self, count: int) -> Sequence[str]:
        """Addresses that were not asked for before."""
        return [f"m{next(self._numbers)}@{DOMAIN}" for _ in range(count)]

    def rate(self) -> float:
        """Ask in many sessions at once; returns recipients a second."""
        all_names = [self.names(EACH) for _ in range(SESSIONS)]
        with ThreadPoolExecutor(SESSIONS) as threads:
            begun = time.monotonic()
            list(threads.map(self.ask, all_names))
            return SESSIONS * EACH / (time.monotonic() - begun)

    def ask(self, names: Sequence[str]) -> Sequence[float]:
        """Name recipients in one session; returns the seconds that each took."""
        times = []
        with smtplib.SMTP("127.0.0.1", self._relay.port, timeout=PATIENCE) as client:
            client.ehlo("client.example")
            client.mail("a@client.example")
            for name in names:
                begun = time.monotonic()
                code, text = client.rcpt(name)
                times.append(time.monotonic() - begun)
                if code != 250:
                    raise RuntimeError(f"{name}: {code} {text!r}")
        return times
