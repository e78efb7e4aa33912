"""XCLIENT: the client that a proxy speaks for (Postfix's XCLIENT_README)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mta.smtp.grammar.addresses import MAX_DOMAIN
from mta.smtp.grammar.client_attributes import (
    parse_attributes,
    read_address,
    read_hello,
    read_port,
)
from mta.smtp.grammar.parameters import Parameter
from mta.smtp.grammar.xtext import PRINTABLE


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
    """Return what is known of a client after XCLIENT.  Raises Refusal.

    What a command does not name stays as it was.
    """
    return replace(known, **parse_attributes(argument, XCLIENT_ATTRIBUTES))  # type: ignore[arg-type]


def _client_is_extended(value: str) -> bool:
    if value.upper() not in ("", "SMTP", "ESMTP"):
        raise ValueError("no protocol of ours")
    return value.upper() == "ESMTP"


def _client_user(value: str) -> str:
    if value and not (PRINTABLE.fullmatch(value) and len(value) <= MAX_DOMAIN):
        raise ValueError("not the name of a user")
    return value


# The field that an attribute is for, none where we have no use for it, and what reads its value.
XCLIENT_ATTRIBUTES: Mapping[str, Parameter] = {
    "NAME": ("", str),
    "ADDR": ("address", read_address),
    "PORT": ("port", read_port),
    "PROTO": ("extended", _client_is_extended),
    "HELO": ("hello", read_hello),
    "LOGIN": ("user", _client_user),
    "DESTADDR": ("", str),
    "DESTPORT": ("", str),
}
