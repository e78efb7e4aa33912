"""Mail in from outside that waits for a peer, sealed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.figures import KIB, MIB, Bench, Figure, stopping
from bench.loads import Cost, Load, run
from bench.servers import DOMAIN, Server
from mta.sealing.keys import PrivateKey

OPEN = "mta, not sealed"
LOADS = ((KIB, 10, 1500), (20 * KIB, 10, 1000), (MIB, 4, 40))  # octets, sessions, messages


class Sealing:
    """What is held for a peer with a key, against what is held for one without."""

    name = "sealing"

    def measure(self, bench: Bench) -> Iterator[Figure]:
        """See `Row.measure`."""
        folder = bench.next_folder()
        folder.mkdir()
        file = folder / "office.age.pub"
        file.write_text(f"{PrivateKey.new().public}\n")
        sealed, plain = bench.ours(keys=_held(file)), bench.ours(keys=_held(None))
        with stopping(sealed, plain):
            for octets, sessions, count in LOADS:
                load = Load(octets, sessions, True, bench.messages(count))
                costs: Mapping[Server, list[Cost]] = {sealed: [], plain: []}
                for _ in range(bench.repetitions):
                    for server, found in costs.items():
                        found.append(run(load, server))
                size = "1 MiB" if octets == MIB else f"{octets // KIB} KiB"
                what = f"{size}, {sessions} sessions, sealed for a peer"
                yield Figure(
                    f"{what}: accepted",
                    "messages/s",
                    [1 / cost.accepted for cost in costs[sealed]],
                    [1 / cost.accepted for cost in costs[plain]],
                    0.5,
                    peer=OPEN,
                )
                yield Figure(
                    f"{what}: CPU",
                    "s/1,000 messages",
                    [1000 * cost.cpu for cost in costs[sealed]],
                    [1000 * cost.cpu for cost in costs[plain]],
                    2.0,
                    at_most=True,
                    peer=OPEN,
                )


def _held(file: Path | None) -> Mapping[str, Any]:
    """A relay that holds all mail for an office."""
    office: dict[str, Any] = {"user": "office", "domains": [DOMAIN]}
    if file is not None:
        office["seal"] = {"file": str(file)}
    return {
        "domains": {DOMAIN: {"deliver": "hold:office", "mailboxes": "any"}},
        "peers": {"office": office},
    }
