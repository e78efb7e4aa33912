"""The DNS tree walk, from a domain upwards (RFC 9989 section 4.10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mta.authentication.dmarc.record import Record, is_record, parse_record
from mta.dns_answer import RecordType
from mta.interfaces import IResolver

MAX_QUERIES = 8  # of one walk
SHORTCUT = 7  # labels: a longer name goes on with so many of its last ones
MAX_NAME = 253  # octets of a name in the DNS, RFC 1035 section 2.3.4


@dataclass(frozen=True, slots=True)
class Applied:
    """A record that applies to an author's domain, and where it was."""

    domain: str
    record: Record


class TreeWalk:
    """Walks for one message.  What was asked for one domain is known for the next.

    Domains are in their canonical form.  The coroutines raise ResolutionFailed.
    """

    def __init__(self, resolver: IResolver) -> None:
        self._resolver = resolver
        self._known: dict[str, Record | None] = {}
        self.queries = 0

    async def organisational_domain(self, domain: str) -> str:
        """The organisational domain of a domain (section 4.10.2)."""
        return _organisational(domain, await self._records(domain))

    async def applied(self, domain: str) -> Applied | None:
        """The record that applies to mail of a domain (section 4.10.1).  None: there is none."""
        if own := await self._record(domain):
            return Applied(domain, own)
        records = await self._records(domain)
        if not records:
            return None
        organisation = _organisational(domain, records)
        found = dict(records)
        if organisation in found:
            return Applied(organisation, found[organisation])
        return Applied(*records[-1])  # of the public suffix, which ended the walk

    async def exists(self, domain: str) -> bool:
        """Tell whether there is such a name (RFC 8020)."""
        return (await self._resolver.query(domain, RecordType.A)).exists

    async def _records(self, domain: str) -> Sequence[tuple[str, Record]]:
        """The domains with a record on the way up, the longest first."""
        found = []
        for name in names(domain):
            record = await self._record(name)
            if record is not None:
                found.append((name, record))
                if record.psd != "u":
                    break
        return found

    async def _record(self, domain: str) -> Record | None:
        """The record at a domain itself."""
        if domain in self._known:
            return self._known[domain]
        name = f"_dmarc.{domain}"
        record = None
        if len(name) <= MAX_NAME:
            self.queries += 1
            answer = await self._resolver.query(name, RecordType.TXT)
            texts = [text for text in answer.records if is_record(text)]
            record = parse_record(texts[0]) if len(texts) == 1 else None
        self._known[domain] = record
        return record


def names(domain: str) -> list[str]:
    """The domains that a walk looks at, in order."""
    labels = domain.split(".")
    above = labels[-SHORTCUT:] if len(labels) > SHORTCUT else labels[1:]
    return [domain, *(".".join(above[start:]) for start in range(len(above)))]


def _organisational(domain: str, records: Sequence[tuple[str, Record]]) -> str:
    """Choose from what a walk found, the longest first."""
    for name, record in records:
        if record.psd == "n":
            return name
        if record.psd == "y" and name != domain:
            labels = domain.split(".")
            return ".".join(labels[-(name.count(".") + 2) :])
    return records[-1][0] if records else domain
