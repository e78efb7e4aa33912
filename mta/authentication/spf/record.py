"""The grammar of records (RFC 7208 section 12)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from mta.authentication.spf.macros import EXPLANATION_LETTERS, MacroString, domain_spec
from mta.authentication.spf.result import PermError, Result

VERSION = b"v=spf1"
MAX_RECORD = 8192  # octets: each is parsed while others wait; RFC 7208 section 3.4 hopes for 512
MAX_REMEMBERED = 128  # parsed records: senders share those of their providers

Address = IPv4Address | IPv6Address

_QUALIFIERS = {
    "+": Result.PASS,
    "-": Result.FAIL,
    "~": Result.SOFTFAIL,
    "?": Result.NEUTRAL,
}
_MODIFIER = re.compile(r"([A-Za-z][A-Za-z0-9._-]*)=(.*)", re.DOTALL)
_MECHANISM = re.compile(r"([+~?-]?)([A-Za-z][A-Za-z0-9._-]*)(.*)", re.DOTALL)
_NUMBER = r"(0|[1-9][0-9]{0,2})"
_DOMAIN_AND_LENGTHS = re.compile(rf"(?::(.*?))?(?:/{_NUMBER})?(?://{_NUMBER})?", re.DOTALL)
_NETWORK = re.compile(rf":([0-9A-Fa-f:.]+)(?:/{_NUMBER})?")


@dataclass(frozen=True, slots=True)
class Network:
    """The addresses that begin as one does.  Those of the other family are in none."""

    address: Address
    length: int

    def __contains__(self, address: Address) -> bool:
        if address.version != self.address.version:
            return False
        return not (int(address) ^ int(self.address)) >> (address.max_prefixlen - self.length)


@dataclass(frozen=True, slots=True)
class Mechanism:
    """A mechanism: which hosts it is about, and the result for them.

    `domain` is None for the domain whose record it is.  `lengths` are those of the networks around
    the addresses of ``a`` and ``mx``, by IP version.
    """

    result: Result
    name: str
    domain: MacroString | None = None
    network: Network | None = None
    lengths: tuple[int, int] = (32, 128)

    def around(self, address: Address) -> Network:
        """Return the network around an address of the domain."""
        return Network(address, self.lengths[address.version == 6])


@dataclass(frozen=True, slots=True)
class Record:
    """The terms of a record.  What is not known among the modifiers is left out."""

    mechanisms: tuple[Mechanism, ...]
    redirect: MacroString | None = None
    explanation: MacroString | None = None


def only_record(texts: Sequence[bytes]) -> bytes | None:
    """Return the record among a domain's texts (RFC 7208 section 4.5).

    None: there is none.  Raises PermError where there are several.
    """
    found = [text for text in texts if text[:6].lower() == VERSION and text[6:7] in {b"", b" "}]
    if len(found) > 1:
        raise PermError(f"{len(found)} records")
    return found[0] if found else None


def parse(octets: bytes) -> Record:
    """Read a record.  Raises PermError for a fault anywhere in it (RFC 7208 section 4.6)."""
    if len(octets) > MAX_RECORD:
        raise PermError(f"a record of {len(octets)} octets, {MAX_RECORD} allowed")
    return _parse(octets)


@lru_cache(MAX_REMEMBERED)
def _parse(octets: bytes) -> Record:
    if not octets.isascii():
        raise PermError("the record is not in ASCII")
    mechanisms: list[Mechanism] = []
    modifiers: dict[str, MacroString] = {}
    for term in filter(None, octets[len(VERSION) :].decode("ascii").split(" ")):
        modifier = _MODIFIER.fullmatch(term)
        if modifier is None:
            mechanisms.append(_mechanism(term))
            continue
        name = modifier[1].lower()
        if name not in {"redirect", "exp"}:
            _words(modifier[2])
        elif name in modifiers:
            raise PermError(f"{name}= twice")
        else:
            modifiers[name] = domain_spec(_words(modifier[2]))
    return Record(tuple(mechanisms), modifiers.get("redirect"), modifiers.get("exp"))


def _words(text: str) -> str:
    """Return a macro-string as it is.  Raises PermError where it is none."""
    MacroString.parse(text, EXPLANATION_LETTERS)
    return text


def _mechanism(term: str) -> Mechanism:
    match = _MECHANISM.fullmatch(term)
    if match is None:
        raise PermError(f"{term[:80]!r} is no term")
    result, name, rest = _QUALIFIERS[match[1] or "+"], match[2].lower(), match[3]
    if name == "all" and not rest:
        return Mechanism(result, name)
    if name in {"include", "exists"} and rest[:1] == ":":
        return Mechanism(result, name, domain_spec(rest[1:]))
    if name == "ptr" and (not rest or rest[:1] == ":"):
        return Mechanism(result, name, domain_spec(rest[1:]) if rest else None)
    if name in {"a", "mx"} and (found := _DOMAIN_AND_LENGTHS.fullmatch(rest)):
        domain = None if found[1] is None else domain_spec(found[1])
        lengths = _length(found[2], 32), _length(found[3], 128)
        return Mechanism(result, name, domain, lengths=lengths)
    if name in {"ip4", "ip6"} and (found := _NETWORK.fullmatch(rest)):
        return Mechanism(result, name, network=_network(name, found[1], found[2]))
    raise PermError(f"{term[:80]!r} is no mechanism")


def _network(name: str, address: str, length: str | None) -> Network:
    family = IPv4Address if name == "ip4" else IPv6Address
    try:
        found = family(address)
    except ValueError:
        raise PermError(f"{address[:80]!r} is no address for {name}") from None
    return Network(found, _length(length, found.max_prefixlen))


def _length(digits: str | None, longest: int) -> int:
    if digits is None:
        return longest
    if int(digits) > longest:
        raise PermError(f"/{digits}: {longest} at most")
    return int(digits)
