"""The DNS as a table of TXT records."""

from __future__ import annotations

from collections.abc import Mapping

from zope.interface import implementer

from mta.dns_answer import Answer, RecordType
from mta.interfaces import IResolver, ResolutionFailed
from mta.testing import FakeResolver


@implementer(IResolver)
class TextZone(FakeResolver):
    """TXT records by name; names that are `down` get no answer.  `queries` records all."""

    def __init__(self, records: Mapping[str, str | list[str]], down: frozenset[str]) -> None:
        super().__init__({}, {})
        self.down = down
        self.queries: list[str] = []
        for name, texts in records.items():
            listed = [texts] if isinstance(texts, str) else texts
            self.answers[name, RecordType.TXT] = Answer([text.encode() for text in listed])

    async def query(self, name: str, kind: RecordType) -> Answer:
        """Return the answer of the table."""
        self.queries.append(name)
        if name in self.down:
            raise ResolutionFailed(f"{name}: timed out")
        return await super().query(name, kind)


def zone(records: Mapping[str, str | list[str]], down: frozenset[str] = frozenset()) -> TextZone:
    """Return the zone of DMARC records, each by the domain that it is for."""
    return TextZone({f"_dmarc.{name}": texts for name, texts in records.items()}, down)
