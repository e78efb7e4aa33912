"""The data of events: client, envelope and fields."""

from __future__ import annotations

import struct

from mta.mail import Body, MailArgument, Recipient
from mta.milters import packets
from mta.milters.macros import client_address, client_name
from mta.milters.packets import MAX_DATA
from mta.session import LOCAL_ADDRESS, UNKNOWN_ADDRESS, Session
from mta.smtp import grammar

_PORT = struct.Struct("!H")


def client(session: Session) -> bytes:
    """The client: its name or ``[ADDRESS]``, and where it is.

    Of one whose address is not known, neither port nor address follow.
    """
    address = client_address(session)
    if address == UNKNOWN_ADDRESS:
        return packets.text(b"unknown") + b"U"
    if address == LOCAL_ADDRESS:
        return packets.text(b"localhost") + b"L" + _PORT.pack(0) + packets.text(b"localhost")
    name = client_name(session) or f"[{address}]"
    family = b"6" if ":" in address else b"4"
    return (
        packets.text(name.encode())
        + family
        + _PORT.pack(session.port)
        + packets.text(address.encode())
    )


def mail(argument: MailArgument) -> bytes:
    """The reverse-path, and the parameters of MAIL."""
    parameters = {
        "SIZE": "" if argument.size is None else str(argument.size),
        "BODY": "" if argument.body is Body.SEVEN_BIT else argument.body.value,
        "RET": argument.ret,
        "ENVID": grammar.encode_xtext(argument.envid),
        "AUTH": "" if argument.auth is None else grammar.encode_xtext(argument.auth),
    }
    flags = {"SMTPUTF8": argument.smtputf8, "REQUIRETLS": argument.require_tls}
    return packets.text(
        f"<{argument.reverse_path}>".encode(),
        *(f"{name}={value}".encode() for name, value in parameters.items() if value),
        *(name.encode() for name, is_given in flags.items() if is_given),
    )


def recipient(recipient: Recipient) -> bytes:
    """The forward-path, and the parameters of RCPT."""
    parameters = {
        "NOTIFY": ",".join(sorted(each.value for each in recipient.notify)),
        "ORCPT": recipient.original and grammar.encode_original(recipient.original),
    }
    return packets.text(
        f"<{recipient.forward_path}>".encode(),
        *(f"{name}={value}".encode() for name, value in parameters.items() if value),
    )


def field(octets: bytes, *, keeps_leading_space: bool) -> bytes:
    """A field: its name, and its value with folds as bare LF.

    One space behind the colon is left out, where filters do not ask for it.  What libmilter has no
    room for is cut off.
    """
    name, _, value = octets.partition(b":")
    value = value.replace(b"\r\n", b"\n").removesuffix(b"\n")
    if not keeps_leading_space:
        value = value.removeprefix(b" ")
    name = name.rstrip(b" \t")[: MAX_DATA // 2]
    return packets.text(name, value[: MAX_DATA - len(name) - 2])
