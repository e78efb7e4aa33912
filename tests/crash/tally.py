"""What all rounds of a soak came to."""

from __future__ import annotations

from collections import Counter

from tests.crash.outcome import Outcome
from tests.crash.victims import Victims


class Tally:
    """Sums up rounds, and prints them.

    `kills`: by what was killed.
    """

    def __init__(self) -> None:
        self.kills: Counter[str] = Counter()
        self._acknowledged: Counter[str] = Counter()
        self._repeated: Counter[str] = Counter()
        self._starts: list[float] = []
        self._processor: list[float] = []

    def add_mail(self, kind: str, outcome: Outcome) -> None:
        """Count the mail of a round on a kind of site."""
        for way, count in outcome.acknowledged.items():
            name = f"{way}, {kind}"
            self._acknowledged[name] += count
            self._repeated[name] += outcome.repeated[way]

    def add_kills(self, victims: Victims) -> None:
        """Count the kills of a round, and the starts after them."""
        self.kills += victims.counts
        self._starts += victims.restarts
        self._processor += victims.processor

    def print(self) -> None:
        """Say what it is in all."""
        print(f"{self.kills.total()} kills: {dict(self.kills)}")
        print(f"{self._acknowledged.total()} messages, {self._repeated.total()} twice")
        for name, count in self._acknowledged.items():
            print(f"  {name}: {count}, {self._repeated[name]} twice")
        if self._starts:
            for what, took in (("clock", self._starts), ("processor", self._processor)):
                half = sorted(took)[len(took) // 2]
                print(f"  starts, {what}: {min(took):.2f} to {max(took):.2f} s, half in {half:.2f}")
