"""The trace fields of accepted and delivered mail.  RFC 5321 section 4.4."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache

from mta.mail import Envelope, Mailbox, is_address
from mta.session import LOCAL_ADDRESS, UNKNOWN_ADDRESS, Origin
from mta.smtp import header

MAX_HOPS = 100  # Received: fields, RFC 5321 section 6.3

_ATOM = re.compile(r"[A-Za-z0-9_-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@lru_cache(maxsize=4)
def date(second: int) -> str:
    """The date-time of RFC 5322 for seconds since the epoch."""
    return format_datetime(datetime.fromtimestamp(second, UTC))


def address_literal(address: str) -> str:
    """A client address as a TCP-info has it (RFC 5321 section 4.4)."""
    if address == LOCAL_ADDRESS:
        return "localhost"
    if address == UNKNOWN_ADDRESS:
        return "unknown"
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def received(
    origin: Origin,
    hostname: str,
    queue_id: str,
    envelope: Envelope,
    now: float,
    node: str = "",
) -> bytes:
    """Return the Received: field for a message; `now`: seconds since the epoch.

    `node`: see `by`.

    The recipient is named only where it is the only one: others may be blind copies.  An origin
    that was told came by way of the host that tells it.
    """
    client = ""
    if origin.address:
        name = f"{origin.name} " if origin.name else ""
        hello = origin.hello or UNKNOWN_ADDRESS
        client = f"from {hello} ({name}{address_literal(origin.address)})\r\n\t"
    tls = f"({origin.tls_version} {origin.tls_cipher})\r\n\t" if origin.tls_version else ""
    only = ""
    if len(envelope.recipients) == 1:
        only = f"\r\n\tfor <{envelope.recipients[0].forward_path}>"
    protocol = f" with {origin.protocol}" if origin.protocol else ""
    return (
        f"Received: {client}{tls}{by(hostname, node)}{_via(origin.told_by)}{protocol}"
        f" id {queue_id}{only};\r\n\t{date(int(now))}\r\n"
    ).encode()


def by(hostname: str, node: str) -> str:
    """The part of a Received: field that names us.

    `node`: the host that took the mail, where several share a queue; empty: none do.
    """
    return f"by {hostname} (node {node})" if node else f"by {hostname}"


def _via(host: str) -> str:
    """The link of a Received: field.

    It is a comment where its name can't be one.
    """
    if not host or _ATOM.fullmatch(host):
        return host and f" via {host}"
    return f" (via {address_literal(host) if is_address(host) else host})"


def one_line(address: Mailbox) -> bytes:
    """An address as the value of a field."""
    return _CONTROL.sub("?", str(address)).encode("utf-8", "replace")


def was_delivered_to(address: Mailbox, header_section: bytes) -> bool:
    """Return whether a Delivered-To: field names the address (RFC 9228).  Case does not count."""
    return delivered_to(address).lower() in delivered_before(header_section)


def delivered_before(header_section: bytes) -> frozenset[bytes]:
    """The addresses in Delivered-To: fields, in lower case (RFC 9228)."""
    return frozenset(value.lower() for value in header.values(header_section, b"delivered-to"))


def delivered_to(address: Mailbox) -> bytes:
    """Return the value of Delivered-To: (RFC 9228).

    It has one form however the address was written.
    """
    return one_line(Mailbox(address.local_part.lower(), address.domain))
