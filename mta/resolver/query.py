"""Queries that only a server can answer that has seen them.

A response must repeat the id and the question, with each letter in the case in which it was sent.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from random import Random

from dns.flags import AD, QR, RD, EDNSFlag
from dns.name import Name
from dns.opcode import QUERY
from dns.opcode import from_flags as opcode_of
from dns.rcode import Rcode
from dns.rdataclass import RdataClass
from dns.rdatatype import RdataType

MAX_PAYLOAD = 1232  # octets of a datagram: what no path has to fragment (DNS flag day 2020)
HEADER = 12  # octets, RFC 1035 section 4.1.1
ANSWERS = frozenset({Rcode.NOERROR, Rcode.NXDOMAIN})


@dataclass(frozen=True, slots=True)
class Query:
    """A query as it goes out; a response repeats its `question`."""

    name: Name
    kind: RdataType
    octets: bytes
    question: bytes
    has_edns: bool

    def fits(self, response: bytes) -> bool:
        """Tell whether octets are a response to this query, in whatever case.

        Servers that can't read a query need not repeat the question.
        """
        if len(response) < HEADER or response[:2] != self.octets[:2]:
            return False
        flags = int.from_bytes(response[2:4], "big")
        if not flags & QR or opcode_of(flags) != QUERY:
            return False
        if response[4:6] == b"\0\0":
            return flags & 0xF not in ANSWERS
        return response[4:6] == b"\0\1" and _is_same(self._repeated(response), self.question)

    def keeps_case(self, response: bytes) -> bool:
        """Tell whether a response that fits has the question letter by letter."""
        return response[4:6] == b"\0\0" or self._repeated(response) == self.question

    def _repeated(self, response: bytes) -> bytes:
        return response[HEADER : HEADER + len(self.question)]


def make_query(
    name: Name, kind: RdataType, random: Random, *, edns: bool, validated: bool, any_case: bool
) -> Query:
    """Make a query with a random id.

    `edns`: with an OPT record (RFC 6891).  `validated`: ask for the verdict of DNSSEC.
    `any_case`: the letters of the name in random case, else all in lower case.
    """
    flags = RD | AD if validated else RD  # RFC 6840 section 5.7
    header = struct.pack("!6H", random.getrandbits(16), flags, 1, 0, 0, edns)
    octets = name.to_digestable()
    if any_case:
        octets = _in_any_case(octets, random)
    question = octets + struct.pack("!HH", kind, RdataClass.IN)
    octets = header + question + (_opt(validated) if edns else b"")
    return Query(name, kind, octets, question, edns)


def _opt(validated: bool) -> bytes:
    """The OPT record (RFC 6891 section 6.1.2)."""
    flags = EDNSFlag.DO if validated else 0
    return struct.pack("!BHHIH", 0, RdataType.OPT, MAX_PAYLOAD, flags, 0)


def _in_any_case(name: bytes, random: Random) -> bytes:
    """The name with its letters, which come small, in random case."""
    bits = random.getrandbits(len(name))
    return bytes(
        octet ^ 0x20 if bits >> place & 1 and 0x61 <= octet <= 0x7A else octet
        for place, octet in enumerate(name)
    )


def _is_same(one: bytes, other: bytes) -> bool:
    """Tell whether questions differ in the case of the name at most."""
    return one[:-4].lower() == other[:-4].lower() and one[-4:] == other[-4:]
