"""Mail in, and out to a next hop."""

from __future__ import annotations

import hashlib
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.figures import KIB, Bench, Figure, interleaved, stopping
from bench.loads import Counter, Load, Maildir, Sink, run
from bench.postfix import Postfix
from bench.servers import LISTENER, SOURCE, Ours, Script, Server

ROUND_TRIP = 0.1  # seconds
ELSEWHERE = "elsewhere.example"
PASSWORD = "bench"
MTA = (sys.executable, "-c", "import sys; from mta.commands import main; sys.exit(main())")
_ONE = {"default_destination_concurrency_limit": "1"}
_LOCAL = {ELSEWHERE: {"deliver": "maildir:mail/{local}", "mailboxes": "any"}}


class Relay:
    """In on one port, out to smtp-sink."""

    name = "relay"

    def measure(self, bench: Bench) -> Iterator[Figure]:
        """See `Row.measure`."""
        sink = Sink()
        ours = bench.ours(next_hop=f"smtp://127.0.0.1:{sink.port}")
        postfix = bench.postfix(f"[127.0.0.1]:{sink.port}")
        with stopping(ours, postfix, sink):
            rates = relayed(bench, ours, postfix, sink)
            yield Figure("relay to smtp-sink, 1 KiB, 50 sessions", "messages/s", *rates, 2.0)


def relayed(
    bench: Bench, ours: Ours, postfix: Postfix | None, sink: Sink
) -> tuple[list[float], list[float]]:
    """The messages a second, of 1 KiB and by 50 sessions, that both pass on to the sink."""
    load = Load(KIB, 50, True, bench.messages(1500), ELSEWHERE)
    one = rate(ours, load, sink)
    other = rate(postfix, load, sink) if postfix else None
    return interleaved(bench, one, other)


class Distance:
    """One connection over a line with a round trip of 100 ms."""

    name = "100 ms round trip"

    def measure(self, bench: Bench) -> Iterator[Figure]:
        """See `Row.measure`."""
        receiver = bench.ours(keys={"domains": _LOCAL})
        with stopping(receiver):
            rates = self._relayed(bench, receiver.port, Maildir(receiver.new))
        yield Figure("100 ms round trip, 10 KiB, PIPELINING and CHUNKING", "messages/s", *rates, 50)
        sink = Sink()
        with stopping(sink):
            rates = self._relayed(bench, sink.port, sink)
        yield Figure("100 ms round trip, 10 KiB, PIPELINING", "messages/s", *rates, 2.5)
        rates = self._turned(bench)
        yield Figure("100 ms round trip, 10 KiB, ATRN", "messages/s", *rates, 50)

    def _relayed(self, bench: Bench, port: int, there: Counter) -> tuple[list[float], list[float]]:
        """To a next hop on that port."""
        delayed = line(port)
        ours = bench.ours(next_hop=f"smtp://127.0.0.1:{delayed.port}", workers=1, per_destination=1)
        postfix = bench.postfix(f"[127.0.0.1]:{delayed.port}", _ONE)
        with stopping(ours, postfix, delayed):
            return self._rates(bench, ours, postfix, there)

    def _turned(self, bench: Bench) -> tuple[list[float], list[float]]:
        """From a provider to a customer that has dialled it; Postfix dials the customer instead."""
        provider = bench.ours(keys=provider_keys(ELSEWHERE), workers=1)
        add_user(provider.configuration)
        outward = line(provider.ports["submission"])
        pin = pin_of(provider.ports["submission"])
        customer = bench.ours(keys=customer_keys(ELSEWHERE, outward.port, pin), workers=1)
        there = Maildir(customer.new)
        inward = line(customer.port)
        postfix = bench.postfix(f"[127.0.0.1]:{inward.port}", _ONE)
        with stopping(customer, outward, provider, postfix, inward):
            return self._rates(bench, provider, postfix, there)

    def _rates(
        self, bench: Bench, ours: Ours, postfix: Postfix | None, there: Counter
    ) -> tuple[list[float], list[float]]:
        # A server that needs seconds for each message gets fewer; its rate is the same.
        few = Load(10 * KIB, 10, True, 20, ELSEWHERE)
        many = Load(10 * KIB, 10, True, 200, ELSEWHERE)
        one = rate(ours, many, there)
        return interleaved(bench, one, rate(postfix, few, there) if postfix else None)


def line(port: int, round_trip: float = ROUND_TRIP) -> Script:
    """A long-distance line to a port of this machine; `round_trip`: seconds."""
    return Script("delay", port, round_trip / 2)


def rate(server: Server, load: Load, there: Counter) -> Callable[[], float]:
    """Measures messages/s until they have arrived, once the way there is known to be open."""
    run(Load(KIB, 1, True, 5, load.domain), server, there)
    return lambda: 1 / run(load, server, there).arrived


def provider_keys(domain: str, **more: object) -> Mapping[str, Any]:
    """What the configuration of a provider says; `more` is of the customer's entry."""
    submission = {**LISTENER, "service": "submission", "tls": "implicit"}
    peer = {"user": "office", "domains": [domain], "methods": ["atrn"], "linger": "1h", **more}
    return {
        "listen": [LISTENER, submission],
        "domains": {domain: {"deliver": "hold:office", "mailboxes": "any"}},
        "peers": {"office": peer},
        "users": "users.yaml",
    }


def customer_keys(domain: str, port: int, pin: str, **more: object) -> Mapping[str, Any]:
    """What the configuration of a customer says, which dials that port.

    `more` is of the provider's entry.
    """
    url = f"smtps://office:{PASSWORD}@127.0.0.1:{port}"
    peer = {"connect": url, "pin": pin, "domains": [domain], "every": "1s", **more}
    local = {domain: {"deliver": "maildir:mail/{local}", "mailboxes": "any"}}
    return {"domains": local, "peers": {"provider": peer}}


def add_user(configuration: Path) -> None:
    """Let the customer log in."""
    add = (*MTA, "user", "add", "office", "--password-stdin")
    subprocess.run(
        [*add, "--config", str(configuration)],
        cwd=SOURCE,
        input=f"{PASSWORD}\n".encode(),
        stdout=subprocess.DEVNULL,
        check=True,
    )


def pin_of(port: int) -> str:
    """The certificate of whoever listens there, as a peer's entry names it."""
    certificate = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port)))
    return f"sha256:{hashlib.sha256(certificate).hexdigest()}"
