"""Responses, which may be hostile."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dns.name
from dns.exception import DNSException, FormError
from dns.flags import AA, AD, TC
from dns.name import Name
from dns.rcode import Rcode
from dns.rdataclass import RdataClass
from dns.rdatatype import RdataType
from dns.wire import Parser

from mta.resolver.query import ANSWERS, HEADER
from mta.resolver.records import read

MAX_RECORDS = 1000  # of one response, of all types
MAX_READ = 200  # records of one section that we read: each can take a quarter of a millisecond


class MalformedResponse(Exception):
    """A response can't be read as a whole.

    What is missing might be what was asked for.
    """


@dataclass(frozen=True, slots=True)
class Record:
    """A record that was asked for, an alias, or an SOA record."""

    owner: Name
    kind: RdataType
    ttl: int
    data: Any


@dataclass(frozen=True, slots=True)
class Response:
    """A response, as far as it matters.

    `answer` has the records of the type that was asked for, and aliases.  `is_validated`: the
    server says that it is, by DNSSEC.  `authority` is the SOA record that comes with the answer
    that there is nothing.  `is_referral`: it only names other servers.  `size`: octets.
    """

    rcode: int
    is_truncated: bool = False
    is_validated: bool = False
    has_edns: bool = False
    answer: tuple[Record, ...] = ()
    authority: Record | None = None
    is_referral: bool = False
    size: int = 0

    @property
    def is_answer(self) -> bool:
        """It says what is there, or that there is nothing."""
        return self.rcode in ANSWERS and not self.is_truncated and not self.is_referral

    @property
    def rejects_edns(self) -> bool:
        """The server may not know EDNS (RFC 6891 section 7)."""
        return not self.has_edns and self.rcode in {Rcode.FORMERR, Rcode.NOTIMP}


def parse(octets: bytes, kind: RdataType) -> Response:
    """Read a response to a question for records of that type.  Raises MalformedResponse."""
    try:
        return _parse(octets, kind)
    except (DNSException, IndexError, struct.error) as error:
        raise MalformedResponse from error


def _parse(octets: bytes, kind: RdataType) -> Response:
    _, flags, questions, *counts = struct.unpack_from("!6H", octets)
    code = flags & 0xF
    if flags & TC:
        return Response(code, is_truncated=True)
    if questions > 1 or sum(counts) > MAX_RECORDS:
        raise FormError
    reader = _Reader(octets)
    if questions:
        reader.skip_question()
    answer = tuple(reader.records(counts[0], {kind, RdataType.CNAME}))
    authority = {
        record.kind: record for record in reader.records(counts[1], {RdataType.SOA, RdataType.NS})
    }
    extended = reader.extended_code(counts[2])
    return Response(
        code if extended is None else extended << 4 | code,
        is_validated=bool(flags & AD),
        has_edns=extended is not None,
        answer=answer,
        authority=authority.get(RdataType.SOA),
        # RFC 2308 section 2.2
        is_referral=code == Rcode.NOERROR
        and not (counts[0] or flags & AA)
        and authority.keys() == {RdataType.NS},
        size=len(octets),
    )


class _Reader:
    """Walks over the sections of a message.

    dnspython's own reader looks for a module for each type that a stranger makes up, and remembers
    it for ever.
    """

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._place = HEADER
        self._owners: dict[bytes, Name] = {}

    def skip_question(self) -> None:
        """Pass over the question."""
        self._skip_name()
        self._place += 4

    def records(self, count: int, kinds: set[RdataType]) -> Iterator[Record]:
        """The records of a section that have one of these types."""
        unread = MAX_READ
        for _ in range(count):
            start = self._place
            kind, rdclass, ttl, data, end = self._record()
            if kind not in kinds or rdclass != RdataClass.IN:
                continue
            unread -= 1
            if unread < 0:
                raise FormError
            parser = Parser(self._octets, data)
            with parser.restrict_to(end - data):
                value = read(RdataType(kind), parser)
            yield Record(
                self._owner(start, data), RdataType(kind), ttl if ttl >> 31 == 0 else 0, value
            )

    def extended_code(self, count: int) -> int | None:
        """The upper bits of the code (RFC 6891 section 6.1.3)."""
        found = None
        for _ in range(count):
            kind, _, bits, _, _ = self._record()
            if kind == RdataType.OPT:
                found = bits >> 24
        return found

    def _record(self) -> tuple[int, int, int, int, int]:
        """Pass over a record: type, class, time to live, its data."""
        self._skip_name()
        kind, rdclass, ttl, size = struct.unpack_from("!HHIH", self._octets, self._place)
        data = self._place + 10
        self._place = data + size
        if self._place > len(self._octets):
            raise FormError
        return kind, rdclass, ttl, data, self._place

    def _owner(self, start: int, data: int) -> Name:
        """The name of a record, most often a pointer like the others."""
        packed = self._octets[start : data - 10]
        if packed not in self._owners:
            self._owners[packed], _ = dns.name.from_wire(self._octets, start)
        return self._owners[packed]

    def _skip_name(self) -> None:
        octets, place = self._octets, self._place
        while length := octets[place]:
            if length >= 0xC0:  # the rest is elsewhere, RFC 1035 section 4.1.4
                place += 1
                break
            if length >= 0x40:
                raise FormError
            place += length + 1
        self._place = place + 1
