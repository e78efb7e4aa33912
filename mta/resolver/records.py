"""The types of records that we read, and their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any

import dns.rdata
from dns.exception import FormError
from dns.rdata import GenericRdata, Rdata
from dns.rdataclass import RdataClass
from dns.rdatatype import RdataType
from dns.wire import Parser

from mta.dns_answer import TLSA, RecordType
from mta.resolver.names import to_text


def _address(rdata: Any) -> str:
    return str(ip_address(rdata.address))


def _target(rdata: Any) -> str:
    return to_text(rdata.target)


def _tlsa(rdata: Any) -> TLSA:
    usage, selector, matching_type = rdata.data[:3]
    return TLSA(usage, selector, matching_type, rdata.data[3:])


_VALUES: Mapping[RecordType, Callable[[Any], object]] = {
    RecordType.A: _address,
    RecordType.AAAA: _address,
    RecordType.CNAME: _target,
    RecordType.MX: lambda rdata: (rdata.preference, to_text(rdata.exchange)),
    RecordType.NS: _target,
    RecordType.PTR: _target,
    RecordType.TLSA: _tlsa,
    RecordType.TXT: lambda rdata: rdata.data,
}
WIRE_TYPES = {kind: RdataType[kind.name] for kind in _VALUES}

# dnspython imports the module of a type when it first meets one: not while the reactor waits.
for _type in {RdataType.SOA, *WIRE_TYPES.values()} - {RdataType.TLSA, RdataType.TXT}:
    dns.rdata.get_rdata_class(RdataClass.IN, _type)


def read(kind: RdataType, parser: Parser) -> Rdata:
    """Read the data of a record.  Raises DNSException."""
    if kind == RdataType.TLSA:
        # dnspython refuses data that is only unusable for DANE (RFC 7671 section 4.1).
        if parser.remaining() < 3:
            raise FormError
        return GenericRdata(RdataClass.IN, kind, parser.get_remaining())
    if kind == RdataType.TXT:
        # dnspython's class for it takes as long to import as all others together.
        return GenericRdata(RdataClass.IN, kind, _text(parser.get_remaining()))
    return dns.rdata.from_wire_parser(RdataClass.IN, kind, parser)


def _text(data: bytes) -> bytes:
    """The strings of a TXT record, joined (RFC 7208 section 3.3)."""
    strings, place = [], 0
    while place < len(data):
        end = place + 1 + data[place]
        strings.append(data[place + 1 : end])
        place = end
    if place > len(data):
        raise FormError
    return b"".join(strings)


def value(kind: RecordType, rdata: Any) -> object:
    """The value of a record, in the form that its `RecordType` says."""
    return _VALUES[kind](rdata)
