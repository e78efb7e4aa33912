"""Attributes of clients, ``NAME=value``, as XCLIENT and XFORWARD tell them (Postfix)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address

from mta.smtp import replies
from mta.smtp.errors import Refusal
from mta.smtp.grammar.addresses import HELLO, MAX_DOMAIN
from mta.smtp.grammar.parameters import Parameter
from mta.smtp.grammar.xtext import decode_xtext

MAX_PORT = 65535  # RFC 9293 section 3.1
MAX_VALUE = 255  # octets: of the text of a value, XFORWARD_README

_ADDRESS = re.compile(r"[0-9a-f.:]*(?:%[A-Za-z0-9._-]+)?")
_NOT_TOLD = ("[UNAVAILABLE]", "[TEMPUNAVAIL]")


def parse_attributes(argument: bytes, known: Mapping[str, Parameter]) -> dict[str, object]:
    """Return the fields that a command tells.  Raises Refusal.

    `known` has the field and the reader of each attribute; those without a field are left out.
    """
    if not argument:
        raise Refusal(replies.BAD_ARGUMENT)
    said: dict[str, object] = {}
    for attribute in argument.split():
        name, equals, value = attribute.decode("ascii", "replace").partition("=")
        if not equals or name.upper() not in known:
            raise Refusal(replies.BAD_ARGUMENT)
        field, read = known[name.upper()]
        try:
            text = decode_xtext(value)
            said[field] = read("" if text.upper() in _NOT_TOLD else text)
        except ValueError:
            raise Refusal(replies.BAD_ARGUMENT) from None
    said.pop("", None)
    return said


def read_address(value: str) -> str:
    """Read an IP address, perhaps with a zone.  Raises ValueError."""
    text = str(ip_address(re.sub("(?ai:^ipv6:)", "", value))) if value else ""
    if not _ADDRESS.fullmatch(text):  # a zone may be anything to Python, and ends in Received:
        raise ValueError("no name of a zone")
    return text


def read_global_address(value: str) -> str:
    """Read an IP address without a zone, IPv4 in its own form.  Raises ValueError."""
    if "%" in value:
        raise ValueError("a zone means nothing to another host")
    text = read_address(value)
    found = ip_address(text) if text else None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return str(mapped) if mapped is not None else text


def read_hello(value: str) -> str:
    """Return the name, or none where it is no HELO name."""
    return value if HELLO.fullmatch(value.encode()) and len(value) <= MAX_DOMAIN else ""


def read_port(value: str) -> int:
    """Read a port, 0 for none.  Raises ValueError."""
    port = int(value or 0) if value.isascii() else -1
    if not 0 <= port <= MAX_PORT:
        raise ValueError("no port")
    return port


def plain_text(value: str) -> str:
    """Return a value without control characters, and not too long.  Raises ValueError."""
    if not value.isprintable() or len(value.encode()) > MAX_VALUE:
        raise ValueError("no plain text")
    return value
