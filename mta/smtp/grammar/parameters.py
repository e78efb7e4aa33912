"""The parameters of MAIL and RCPT."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from mta.mail import Body, Notify, Reply, SealedForm
from mta.smtp import replies
from mta.smtp.errors import Refusal
from mta.smtp.grammar.addresses import one_of, parse_mailbox
from mta.smtp.grammar.xtext import PRINTABLE, decode_utf8_addr, decode_xtext

MAX_ENVID = 100  # characters, RFC 3461 section 4.4
MAX_ORCPT = 500  # characters, RFC 3461 section 4.2

_VALUE = one_of("!-<>-~")
PARAMETER = re.compile(rf"([A-Za-z0-9][A-Za-z0-9-]*)(?:=({_VALUE}+))?")
_SIZE = re.compile(r"[0-9]{1,20}")
_SEALED = re.compile(r"([0-9]{1,7}),([!-~]+)")
_ADDR_TYPE = re.compile(r"[A-Za-z0-9-]+")

# The field that a parameter is for, and what makes its value out of the text after "=",
# which is empty where there is none.
Parameter = tuple[str, Callable[[str], object]]


def read_parameters(
    text: str | None, known: Mapping[str, Parameter], offered: frozenset[str]
) -> dict[str, Any]:
    """Return the values that were given, by field."""
    given: dict[str, Any] = {}
    for word in text.split(" ") if text else ():
        if not word:
            continue
        parts = PARAMETER.fullmatch(word)
        if parts is None:
            raise Refusal(replies.BAD_ARGUMENT)
        keyword = parts[1].upper()
        if keyword not in offered or keyword not in known:
            raise Refusal(replies.PARAMETER_UNKNOWN)
        name, parse = known[keyword]
        if name in given:
            raise Refusal(Reply(501, "5.5.4", (f"{keyword} given twice",)))
        try:
            given[name] = parse(parts[2] or "")
        except ValueError:
            raise Refusal(Reply(501, "5.5.4", (f"Bad value for {keyword}",))) from None
    return given


def _flag(value: str) -> bool:
    if value:
        raise ValueError("takes no value")
    return True


def _size(value: str) -> int:
    """Parse SIZE (RFC 1870 section 4)."""
    if not _SIZE.fullmatch(value):
        raise ValueError("not a number of octets")
    return int(value)


def _body(value: str) -> Body:
    return Body(value.upper())


def _ret(value: str) -> str:
    """Parse RET (RFC 3461 section 4.3)."""
    if value.upper() not in ("FULL", "HDRS"):
        raise ValueError("neither FULL nor HDRS")
    return value.upper()


def _envid(value: str) -> str:
    """Parse ENVID (RFC 3461 section 4.4).  It ends in the header section of a notice."""
    envid = decode_xtext(value)
    if len(value) > MAX_ENVID or not (envid.isascii() and PRINTABLE.fullmatch(envid)):
        raise ValueError("not an envelope identifier")
    return envid


def _auth(value: str) -> str:
    """Parse AUTH (RFC 4954 section 5).  What is no address is as good as ``<>``."""
    if not value:
        raise ValueError("no value")
    decoded = decode_xtext(value)
    try:
        return str(parse_mailbox(decoded))
    except ValueError:
        return "<>"


def _sealed(value: str) -> SealedForm:
    """Parse XSEALED: octets of the header section, kind of the body."""
    parts = _SEALED.fullmatch(value)
    if parts is None:
        raise ValueError("not the form of sealed content")
    return SealedForm(int(parts[1]), _body(parts[2]))


def _notify(value: str) -> frozenset[Notify]:
    """Parse NOTIFY (RFC 3461 section 4.1)."""
    conditions = frozenset(Notify(word) for word in value.upper().split(","))
    if Notify.NEVER in conditions and len(conditions) > 1:
        raise ValueError("NEVER stands alone")
    return conditions


def _original(value: str) -> str:
    """Parse ORCPT (RFC 3461 section 4.2, RFC 6533 section 3).

    It ends in a notice, as ENVID does.
    """
    kind, _, encoded = value.partition(";")
    address = decode_utf8_addr(encoded) if kind.lower() == "utf-8" else decode_xtext(encoded)
    fits = len(value) <= MAX_ORCPT and _ADDR_TYPE.fullmatch(kind)
    if not (fits and PRINTABLE.fullmatch(address)):
        raise ValueError("not an original recipient")
    return f"{kind};{address}"


MAIL_PARAMETERS: Mapping[str, Parameter] = {
    "SIZE": ("size", _size),
    "BODY": ("body", _body),
    "SMTPUTF8": ("smtputf8", _flag),
    "RET": ("ret", _ret),
    "ENVID": ("envid", _envid),
    "REQUIRETLS": ("require_tls", _flag),
    "AUTH": ("auth", _auth),
    "XWAITING": ("sender_waits", _flag),
    "XSEALED": ("sealed", _sealed),
    "XQUESTION": ("is_question", _flag),
}
RCPT_PARAMETERS: Mapping[str, Parameter] = {
    "NOTIFY": ("notify", _notify),
    "ORCPT": ("original", _original),
}
