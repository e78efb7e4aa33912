"""XCLIENT: the client that a proxy speaks for (Postfix's XCLIENT_README)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address

from mta.smtp import replies
from mta.smtp.errors import Refusal
from mta.smtp.grammar.addresses import HELLO, MAX_DOMAIN
from mta.smtp.grammar.parameters import Parameter
from mta.smtp.grammar.xtext import PRINTABLE, decode_xtext

MAX_PORT = 65535  # RFC 9293 section 3.1


@dataclass(frozen=True, slots=True)
class ProxiedClient:
    """The client that a proxy speaks for.  What XCLIENT did not tell is empty.

    `user` is who logged in at the proxy.
    """

    address: str = ""
    user: str = ""
    hello: str = ""
    extended: bool = False
    port: int = 0


def parse_xclient(argument: bytes, known: ProxiedClient) -> ProxiedClient:
    """Return what is known of a client after XCLIENT.

    What a command does not name stays as it was.
    """
    if not argument:
        raise Refusal(replies.BAD_ARGUMENT)
    said: dict[str, object] = {}
    for attribute in argument.split():
        name, equals, value = attribute.decode("ascii", "replace").partition("=")
        if not equals or name.upper() not in XCLIENT_ATTRIBUTES:
            raise Refusal(replies.BAD_ARGUMENT)
        field, parse = XCLIENT_ATTRIBUTES[name.upper()]
        try:
            text = decode_xtext(value)
            said[field] = parse("" if text.upper() in _NOT_TOLD else text)
        except ValueError:
            raise Refusal(replies.BAD_ARGUMENT) from None
    said.pop("", None)
    return replace(known, **said)  # type: ignore[arg-type]


def _client_address(value: str) -> str:
    return str(ip_address(re.sub("(?ai:^ipv6:)", "", value))) if value else ""


def _client_hello(value: str) -> str:
    """Return the name, or none where it is no HELO name."""
    return value if HELLO.fullmatch(value.encode()) and len(value) <= MAX_DOMAIN else ""


def _client_is_extended(value: str) -> bool:
    if value.upper() not in ("", "SMTP", "ESMTP"):
        raise ValueError("no protocol of ours")
    return value.upper() == "ESMTP"


def _client_port(value: str) -> int:
    port = int(value or 0) if value.isascii() else -1
    if not 0 <= port <= MAX_PORT:
        raise ValueError("no port")
    return port


def _client_user(value: str) -> str:
    if value and not (PRINTABLE.fullmatch(value) and len(value) <= MAX_DOMAIN):
        raise ValueError("not the name of a user")
    return value


# The field that an attribute is for, none where we have no use for it, and what reads its value.
XCLIENT_ATTRIBUTES: Mapping[str, Parameter] = {
    "NAME": ("", str),
    "ADDR": ("address", _client_address),
    "PORT": ("port", _client_port),
    "PROTO": ("extended", _client_is_extended),
    "HELO": ("hello", _client_hello),
    "LOGIN": ("user", _client_user),
    "DESTADDR": ("", str),
    "DESTPORT": ("", str),
}
_NOT_TOLD = ("[UNAVAILABLE]", "[TEMPUNAVAIL]")
