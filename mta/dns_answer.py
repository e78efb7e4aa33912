"""Answers of the domain name system, as values.

They tell a name that does not exist from one without records of a type, and say whether DNSSEC
vouches for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, unique
from typing import Any, NamedTuple


@unique
class RecordType(Enum):
    """The types of records that mail asks for.

    The value is the form of one record in an `Answer`.
    """

    A = "IPv4 address: str"
    AAAA = "IPv6 address: str"
    CNAME = "name: str"
    MX = "(preference, name): tuple[int, str]"
    NS = "name of a name server: str"
    PTR = "name of an address: str"
    TLSA = "TLSA"
    TXT = "text, its strings joined: bytes"


class TLSA(NamedTuple):
    """A certificate association (RFC 6698 section 2.1)."""

    usage: int
    selector: int
    matching_type: int
    data: bytes


class ReverseName(NamedTuple):
    """The names of an address, empty where there are none.

    `pointer` is the one that a PTR record has.  `confirmed` has the address as one of its own.
    """

    pointer: str = ""
    confirmed: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question.

    Without records, `exists` tells a name that has none of this type (NODATA) from one that does
    not exist (NXDOMAIN).  `canonical_name` is the end of the chain of aliases.
    `is_authenticated`: a resolver that we trust has validated all of it by DNSSEC, the absence of
    records as well.
    """

    records: Sequence[Any] = ()
    exists: bool = True
    canonical_name: str = ""
    is_authenticated: bool = False
