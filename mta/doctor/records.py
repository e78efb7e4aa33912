"""The DNS records that a domain of ours needs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address

from mta.authentication.dkim.key_record import KeyRecord
from mta.dns_answer import RecordType
from mta.interfaces import IResolver, ResolutionFailed
from mta.signing.records import KeyText

MAX_STRING = 255  # octets: of one string of a TXT record, RFC 1035 section 3.3.14
PREFERENCE = 10
DMARC = "v=DMARC1; p=none"


class Presence(Enum):
    """The state of a record in the DNS."""

    PRESENT = "ok"
    MISSING = "missing"
    DIFFERENT = "differs"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Record:
    """One record to publish.

    `value` is as a form on the web wants it; an MX has its host there, and its `preference`.
    """

    name: str
    kind: RecordType
    value: str
    preference: int = 0

    @property
    def zone_line(self) -> str:
        """The record in a zone file (RFC 1035 section 5)."""
        data = self.value
        if self.kind is RecordType.TXT:
            data = _strings(self.value)
        elif self.kind is RecordType.MX:
            data = f"{self.preference} {self.value}."
        elif self.kind is RecordType.PTR:
            data = f"{self.value}."
        return f"{self.name}.  IN  {self.kind.name}  {data}"


@dataclass(frozen=True, slots=True)
class Published:
    """A record, and what the DNS has in its place."""

    record: Record
    presence: Presence
    found: tuple[str, ...] = ()


def wanted(
    domain: str, host: str, addresses: Sequence[str], keys: Sequence[KeyText] = ()
) -> list[Record]:
    """The records of a domain and of its host.

    `keys` are those of the domain's DKIM keys.
    """
    records = [
        *(Record(host, _family(address), address) for address in addresses),
        *(Record(ip_address(each).reverse_pointer, RecordType.PTR, host) for each in addresses),
        Record(domain, RecordType.MX, host, PREFERENCE),
        Record(domain, RecordType.TXT, "v=spf1 mx -all"),
        *(Record(key.name, RecordType.TXT, key.value) for key in keys),
        Record(f"_dmarc.{domain}", RecordType.TXT, DMARC),
    ]
    if host != domain and addresses:
        # A host that names itself in EHLO is judged by that name as well, RFC 7208 section 2.3.
        records.append(Record(host, RecordType.TXT, "v=spf1 a -all"))
    return records


async def looked_up(
    domain: str,
    host: str,
    addresses: Sequence[str],
    resolver: IResolver,
    keys: Sequence[KeyText] = (),
) -> Sequence[Published]:
    """Look the records of a domain up.

    No `addresses`: those that the host has in the DNS.
    """
    known = list(addresses)
    if not known:
        for kind in (RecordType.A, RecordType.AAAA):
            with suppress(ResolutionFailed):
                known.extend(map(str, (await resolver.query(host, kind)).records))
    return [await published(record, resolver) for record in wanted(domain, host, known, keys)]


async def published(record: Record, resolver: IResolver) -> Published:
    """Look a record up."""
    try:
        answer = await resolver.query(record.name, record.kind)
    except ResolutionFailed:
        return Published(record, Presence.UNKNOWN)
    found = [_shown(value) for value in answer.records]
    if record.kind is RecordType.TXT and not _is_key(record):
        # Other programs keep other texts there: what counts is the first word.
        first = record.value.split(" ")[0].rstrip(";")
        found = [text for text in found if text.lower().startswith(first.lower())]
    if not found:
        return Published(record, Presence.MISSING)
    is_there = any(_equals(record, text) for text in found)
    return Published(record, Presence.PRESENT if is_there else Presence.DIFFERENT, tuple(found))


def _equals(record: Record, found: str) -> bool:
    if record.kind is RecordType.MX:
        return found.partition(" ")[2].rstrip(".").lower() == record.value.lower()
    if _is_key(record):
        return _key_in(found) == _key_in(record.value)
    if record.kind is RecordType.TXT:
        # Both are for the domain's owner to tighten: any policy of the kind will do.
        return True
    if record.kind in (RecordType.A, RecordType.AAAA):
        return ip_address(found) == ip_address(record.value)
    return found.rstrip(".").lower() == record.value.lower()


def _is_key(record: Record) -> bool:
    return "._domainkey." in record.name


def _key_in(text: str) -> tuple[str, bytes] | None:
    """The type of a record's key, and the key.

    None: it is no key record.
    """
    try:
        found = KeyRecord.parse(text.encode())
    except ValueError:
        return None
    return found.key_type, found.key


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return str(value)


def _family(address: str) -> RecordType:
    return RecordType.A if ip_address(address).version == 4 else RecordType.AAAA


def _strings(text: str) -> str:
    """The text as strings of a TXT record, each within the limit."""
    octets = text.encode()
    pieces = [octets[at : at + MAX_STRING] for at in range(0, len(octets), MAX_STRING)] or [b""]
    escaped = (each.replace(b"\\", b"\\\\").replace(b'"', b'\\"') for each in pieces)
    return " ".join(f'"{each.decode("utf-8", "surrogateescape")}"' for each in escaped)
