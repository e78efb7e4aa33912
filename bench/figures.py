"""What is measured: figures, and what a row needs to come by them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bench.postfix import NOTHING, Postfix, missing_for_postfix
from bench.servers import Ours, Server, configure

KIB, MIB = 2**10, 2**20


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the results.

    `bar` is what the ratio to the peer has to reach (`at_most`: not to exceed), or our own figure
    where nothing of the peer's was measured; None: no bar.
    """

    what: str
    unit: str
    ours: Sequence[float]
    peers: Sequence[float] = ()
    bar: float | None = None
    at_most: bool = False
    peer: str = Postfix.name

    @property
    def ratio(self) -> float | None:
        """The median of the ratios of neighbouring runs: what disturbs both is not in it."""
        pairs = zip(self.ours, self.peers, strict=True) if self.peers else ()
        ratios = [ours / peers for ours, peers in pairs]
        return statistics.median(ratios) if ratios else None

    @property
    def is_met(self) -> bool | None:
        """Whether the bar is reached; None: there is none, or no peer to compare with."""
        value = self.ratio if self.peers else statistics.median(self.ours)
        if self.bar is None or value is None:
            return None
        return value <= self.bar if self.at_most else value >= self.bar


@dataclass
class Bench:
    """One run of the benchmark: where, and how much of it.

    `scale`: the part of each load's messages that is sent.
    """

    folder: Path
    repetitions: int
    scale: float
    workers: int
    _servers: int = field(default=0, init=False)

    def ours(self, **keys: object) -> Ours:
        """This program, started; `keys`: as of `configure`."""
        return Ours(configure(self.next_folder(), **({"workers": self.workers} | keys)))  # type: ignore[arg-type]

    def postfix(self, next_hop: str = "", settings: Mapping[str, str] = NOTHING) -> Postfix | None:
        """Postfix, started; None where it can't be."""
        return None if missing_for_postfix() else Postfix(self.next_folder(), next_hop, settings)

    def messages(self, number: int) -> int:
        """So many, or fewer in a quick run."""
        return max(20, int(number * self.scale))

    def next_folder(self) -> Path:
        """A folder for one more server."""
        self._servers += 1
        return self.folder / str(self._servers)


class Row(Protocol):
    """Something that is measured."""

    name: str

    def measure(self, bench: Bench) -> Iterator[Figure]:
        """Measure it."""


@contextmanager
def stopping(*servers: Server | None) -> Iterator[None]:
    """Stop all that was started, whatever happens."""
    with ExitStack() as stack:
        for server in servers:
            if server is not None:
                stack.callback(server.stop)
        yield


def interleaved(
    bench: Bench, one: Callable[[], float], other: Callable[[], float] | None
) -> tuple[list[float], list[float]]:
    """Measure one and the other in turn."""
    ours, peers = [], []
    for _ in range(bench.repetitions):
        ours.append(one())
        if other is not None:
            peers.append(other())
    return ours, peers
