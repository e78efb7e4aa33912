"""Questions to lists in the DNS, and their answers (RFC 5782)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_network

from mta.inspection_settings import CodeRange

MAX_TEXT = 200  # characters of a list's own text in a reply
HOST_PREFIX = 64  # bits of an IPv6 address that one customer has the rest of

_CODES = ip_network("127.0.0.0/8")  # RFC 5782 section 2.1
_REFUSALS = ip_network("127.255.255.0/24")  # in use at Spamhaus, and others after it


class Answered(Enum):
    """The meanings of an answer."""

    NOT_LISTED = "not listed"
    LISTED = "listed"
    OTHER_CODE = "listed, for a reason that does not count"
    REFUSED = "the question was refused"
    FOREIGN = "the answer is not one of a list"


def question(address: IPv4Address | IPv6Address, zone: str) -> str:
    """Return the name to ask for.

    An address of IPv6 stands for its whole network.
    """
    if isinstance(address, IPv6Address):
        address = ip_network((int(address), HOST_PREFIX), strict=False)[0]
    labels = address.reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")
    return f"{labels}.{zone}"


def meaning(answers: Sequence[str], codes: Sequence[CodeRange]) -> Answered:
    """Return the meaning of the addresses that a list answers with."""
    if not answers:
        return Answered.NOT_LISTED
    found = [IPv4Address(each) for each in answers]
    if not all(each in _CODES for each in found):
        return Answered.FOREIGN
    if any(each in _REFUSALS for each in found):
        return Answered.REFUSED
    if any(first <= int(each) <= last for each in found for first, last in codes):
        return Answered.LISTED
    return Answered.OTHER_CODE


def clean(text: bytes) -> str:
    """Return the text of a list, fit for a reply."""
    return re.sub(r"[^\x20-\x7e]+", " ", text.decode("ascii", "replace"))[:MAX_TEXT].strip()
