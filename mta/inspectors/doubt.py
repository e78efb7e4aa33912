"""Signs that a client may be no mail server."""

from __future__ import annotations

import re
from collections import Counter
from ipaddress import IPv4Address, ip_address

MIN_NUMBERS = 3  # of the four of an IPv4 address, in a name that was made of it

_LINE = re.compile(
    r"(?<![a-z])(?:[avx]?dsl|dyn|dynamic|dyn-?ip|dhcp|dial-?(?:up|in)|pools?|pppo?e?|cable|catv"
    r"|broadband|ftth|cust|customers?)(?![a-z])"
)


def looks_dynamic(name: str, address: str) -> bool:
    """Tell whether a name seems to be one of many.

    A provider made it: it has the address in it, or says what line it is for.
    """
    host = name.lower().removesuffix(".")
    if _LINE.search(host.rpartition(".")[0]):
        return True
    found = ip_address(address.partition("%")[0])
    digits = re.sub(r"[^0-9a-f]", "", host)
    if not isinstance(found, IPv4Address):
        half = found.exploded.replace(":", "")[16:]
        return half in digits or half.lstrip("0") in re.split(r"[.-]", host)
    octets = found.packed
    if found.packed.hex() in digits or "".join(f"{each:03}" for each in octets) in digits:
        return True
    numbers = Counter(int(each) for each in re.findall(r"[0-9]{1,9}", host))
    return sum((numbers & Counter(octets)).values()) >= MIN_NUMBERS
