"""The trace fields that we put on top of what we accept and deliver (RFC 5321 section 4.4)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache

from mta.mail import Envelope, Mailbox
from mta.session import LOCAL_ADDRESS, UNKNOWN_ADDRESS, Session
from mta.smtp import header

MAX_HOPS = 100  # Received: fields, RFC 5321 section 6.3

# What `received` writes, as far as `client` reads it back, with line ends of either kind.
_RECEIVED = re.compile(
    rb"Received: (?:from (?P<hello>[^\s]+) \((?:\[(?:IPv6:)?)?(?P<address>[^\s\])]+)\]?\)\s+)?"
    rb"(?:\([^)\n]*\)\s+)?by \S+ with (?P<protocol>\S+) id (?P<id>\w+)"
)
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
    session: Session,
    hostname: str,
    queue_id: str,
    envelope: Envelope,
    now: float,
    *,
    hides_client: bool = False,
) -> bytes:
    """The Received: field for a message; `now`: seconds since the epoch.

    The recipient is named only where it is the only one: others may be blind copies.  With
    `hides_client` nothing tells where the client is: neither its address nor the name it gave.
    """
    client = ""
    if not hides_client:
        client = f"from {session.hello} ({address_literal(session.client)})\r\n\t"
    tls = f"({session.tls.version} {session.tls.cipher})\r\n\t" if session.tls else ""
    protocol = session.protocol
    if envelope.smtputf8:
        protocol = "UTF8" + protocol.removeprefix("E")  # RFC 6531 section 4.3
    only = ""
    if len(envelope.recipients) == 1:
        only = f"\r\n\tfor <{envelope.recipients[0].forward_path}>"
    return (
        f"Received: {client}{tls}by {hostname} with {protocol}"
        f" id {queue_id}{only};\r\n\t{date(int(now))}\r\n"
    ).encode()


@dataclass(frozen=True, slots=True)
class Client:
    """Who handed us a message.  `hello` and `address` are empty where they are hidden."""

    hello: str
    address: str
    protocol: str


def client(content: bytes, queue_id: str) -> Client | None:
    """The client of the message with that queue id, by the field of `received` on its top."""
    found = _RECEIVED.match(content)
    if found is None or found["id"].decode() != queue_id:
        return None
    hello, address, protocol = (
        (found[name] or b"").decode("utf-8", "replace") for name in ("hello", "address", "protocol")
    )
    return Client(hello, address, protocol)


def one_line(address: Mailbox) -> bytes:
    """An address as the value of a field."""
    return _CONTROL.sub("?", str(address)).encode("utf-8", "replace")


def was_delivered_to(address: Mailbox, header_section: bytes) -> bool:
    """Whether a Delivered-To: field names the address, whatever its case (RFC 9228)."""
    return delivered_to(address).lower() in delivered_before(header_section)


def delivered_before(header_section: bytes) -> frozenset[bytes]:
    """The addresses in Delivered-To: fields, in lower case (RFC 9228)."""
    return frozenset(value.lower() for value in header.values(header_section, b"delivered-to"))


def delivered_to(address: Mailbox) -> bytes:
    """The value of Delivered-To: (RFC 9228), in one form however the address was written."""
    return one_line(Mailbox(address.local_part.lower(), address.domain))
