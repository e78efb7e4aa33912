"""XFORWARD: the client that brought a message to the server before.

It is told in front of MAIL, for one transaction, in as many commands as it takes: see Postfix's
XFORWARD_README.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from mta.mail import is_address
from mta.session import Origin
from mta.smtp.grammar.client_attributes import (
    MAX_VALUE,
    parse_attributes,
    plain_text,
    read_global_address,
    read_hello,
    read_port,
)
from mta.smtp.grammar.parameters import Parameter
from mta.smtp.grammar.xtext import encode_xtext

MAX_COMMAND = 512  # octets with CRLF, XFORWARD_README
UNAVAILABLE = "[UNAVAILABLE]"
LOCAL, REMOTE = "LOCAL", "REMOTE"

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_PROTOCOL = re.compile(r"[A-Z0-9]{1,64}")
_ID = re.compile(r"[A-Za-z0-9._-]+")  # of all servers that we know


@dataclass(frozen=True, slots=True)
class ForwardedClient:
    """The client that brought a message to the server before.  What was not told is empty.

    `ident` is the id that the message had there, `source` is LOCAL where it came from a user or
    host of that server's own.
    """

    name: str = ""
    address: str = ""
    port: int = 0
    protocol: str = ""
    hello: str = ""
    ident: str = ""
    source: str = ""


def parse_xforward(argument: bytes, known: ForwardedClient) -> ForwardedClient:
    """Return what is known of a client after XFORWARD.  Raises Refusal.

    What a command does not name stays as it was.
    """
    return replace(known, **parse_attributes(argument, XFORWARD_ATTRIBUTES))  # type: ignore[arg-type]


def xforward_commands(
    origin: Origin, ident: str, source: str, offered: Collection[str]
) -> list[bytes]:
    """The commands that tell an origin, by the attributes that are offered."""
    address = origin.address.partition("%")[0]
    if not is_address(address):
        address = ""
    values = {
        "NAME": origin.name,
        "ADDR": f"IPV6:{address}" if ":" in address else address,
        "PORT": str(origin.port or ""),
        "PROTO": origin.protocol,
        "HELO": origin.hello,
        "IDENT": ident,
        "SOURCE": source,
    }
    commands: list[bytes] = []
    line = ""
    for name in (name for name in values if name in offered):
        value = encode_xtext(values[name])
        if not 0 < len(value) <= MAX_VALUE:
            value = UNAVAILABLE  # a part of it would be another value
        attribute = f" {name}={value}"
        if line and len(line) + len(attribute) > MAX_COMMAND - 2:
            commands.append(f"{line}\r\n".encode("ascii"))
            line = ""
        line = (line or "XFORWARD") + attribute
    return [*commands, f"{line}\r\n".encode("ascii")] if line else []


def _matching(pattern: re.Pattern[str], value: str) -> str:
    """Return a value; what can't be one is not known."""
    text = plain_text(value)
    return text if pattern.fullmatch(text) else ""


def _client_name(value: str) -> str:
    return "" if value.lower() == "unknown" else _matching(_NAME, value)


def _client_protocol(value: str) -> str:
    return _matching(_PROTOCOL, value.upper())


def _client_hello(value: str) -> str:
    return read_hello(plain_text(value))


def _client_ident(value: str) -> str:
    return _matching(_ID, value)


def _client_source(value: str) -> str:
    if value.upper() not in ("", LOCAL, REMOTE):
        raise ValueError("no source")
    return value.upper()


XFORWARD_ATTRIBUTES: Mapping[str, Parameter] = {
    "NAME": ("name", _client_name),
    "ADDR": ("address", read_global_address),
    "PORT": ("port", read_port),
    "PROTO": ("protocol", _client_protocol),
    "HELO": ("hello", _client_hello),
    "IDENT": ("ident", _client_ident),
    "SOURCE": ("source", _client_source),
}
