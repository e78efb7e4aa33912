"""The DNS as a zone of the RFC 7208 test suite: the stand-in for tests of SPF."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from zope.interface import implementer

from mta.dns_answer import Answer, RecordType
from mta.interfaces import IResolver, ResolutionFailed

Zone = Mapping[str, Iterable[Any]]


@implementer(IResolver)
class ZoneResolver:
    """Answers by the records of a zone.

    Each name has a list of ``{TYPE: value}``; a plain ``TIMEOUT`` in it stands for what has no
    record.  A domain without TXT has those of type SPF instead.  `asked` counts the questions.
    """

    def __init__(self, zone: Zone) -> None:
        self._zone = {name.lower().rstrip("."): list(records) for name, records in zone.items()}
        self.asked: Counter[tuple[str, RecordType]] = Counter()

    async def query(self, name: str, kind: RecordType) -> Answer:
        """Return the answer by the zone, along aliases."""
        self.asked[name, kind] += 1
        for _ in range(8):
            name = name.lower().rstrip(".")
            records = self._zone.get(name)
            if records is None or not all(0 < len(label) < 64 for label in name.split(".")):
                return Answer(exists=False)
            found = self._found(records, kind)
            if not found and "TIMEOUT" in records:
                raise ResolutionFailed(f"{name}: timed out")
            aliases = [each["CNAME"] for each in records if "CNAME" in each]
            if found or not aliases:
                return Answer(found, canonical_name=name)
            name = aliases[0]
        raise ResolutionFailed(f"{name}: too many aliases")

    def _found(self, records: list[Any], kind: RecordType) -> list[Any]:
        tables = [each for each in records if each != "TIMEOUT"]
        found = [each[kind.name] for each in tables if kind.name in each]
        if kind is RecordType.TXT and not found:
            found = [each["SPF"] for each in tables if "SPF" in each]
        return [_value(kind, each) for each in found if each != "NONE"]

    async def mx(self, domain: str) -> Any:
        """Not needed by SPF."""
        raise NotImplementedError

    async def addresses(self, host: str) -> Any:
        """Not needed by SPF."""
        raise NotImplementedError


def _value(kind: RecordType, value: Any) -> Any:
    match kind:
        case RecordType.TXT:
            strings = [value] if isinstance(value, str) else value
            return "".join(strings).encode("latin-1", "replace")
        case RecordType.MX:
            return tuple(value)
        case RecordType.PTR:
            return value.lower().rstrip(".")
        case _:
            return value
