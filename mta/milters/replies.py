"""The verdicts of a filter on one event, as it sends them."""

from __future__ import annotations

import re
from enum import Enum
from typing import NoReturn

from mta.mail import Reply
from mta.milters.negotiation import CONNECT, HELLO, Event
from mta.milters.packets import FilterFailure, Packet
from mta.smtp.errors import Refusal

PROGRESS = b"p"  # it needs more time
QUARANTINE = b"q"  # no verdict: that comes after it
MAX_LINES = 32  # of a reply, as libmilter has it

REJECTED = Reply(550, "5.7.1", ("Command rejected",))
TRY_LATER = Reply(451, "4.7.1", ("Service unavailable - try again later",))
CLOSING = Reply(421, "4.7.0", ("Service unavailable - closing the connection",))

_LINE = re.compile(r"([45][0-9]{2})([ -])(?:([45]\.[0-9]{1,3}\.[0-9]{1,3})(?: |\Z))?(.*)")
_PERCENT = re.compile("%(.?)", re.DOTALL)
_UNSHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_REFUSALS = {b"r": REJECTED, b"t": TRY_LATER, b"4": CLOSING, b"f": CLOSING}
_REPLY_CODE = b"y"


class Decision(Enum):
    """A verdict on an event that refuses nothing."""

    CONTINUE = b"c"
    ACCEPT = b"a"  # nothing more of this message or, at its beginning, of this session
    DISCARD = b"d"
    SKIP = b"s"  # no more events of this kind


_DECISIONS = {each.value: each for each in Decision}


def is_verdict(packet: Packet) -> bool:
    """Tell whether a packet is a verdict, and no change."""
    return (
        packet.command == _REPLY_CODE or packet.command in _REFUSALS or packet.command in _DECISIONS
    )


def decision(event: Event, packet: Packet) -> Decision:
    """Return a verdict.  Raises Refusal where it is one, or FilterFailure."""
    if packet.command == _REPLY_CODE:
        raise Refusal(reply_of(packet.data))
    if packet.command in _REFUSALS:
        raise Refusal(_REFUSALS[packet.command])
    found = _DECISIONS.get(packet.command)
    if found is None or packet.data:
        _unexpected(event, packet)
    if found is Decision.DISCARD and event in (CONNECT, HELLO):
        _unexpected(event, packet)
    return found


def _unexpected(event: Event, packet: Packet) -> NoReturn:
    raise FilterFailure(
        f"{packet.command!r} with {len(packet.data)} octets is no answer to {event.name}"
    )


def reply_of(data: bytes) -> Reply:
    """Return the reply that a filter has written.  Raises FilterFailure for what is none.

    A sign of per cent is doubled in it: for sendmail it is a format.
    """
    lines = data.rstrip(b"\0").decode("utf-8", "replace").rstrip("\r\n").splitlines()
    if not 0 < len(lines) <= MAX_LINES:
        raise FilterFailure(f"a reply of {len(lines)} lines")
    parsed = [_LINE.fullmatch(line) for line in lines]
    *others, last = parsed
    found = [each for each in parsed if each is not None]
    codes = {(each[1], each[3] or "") for each in found}
    if len(found) < len(lines) or len(codes) > 1:
        raise FilterFailure(f"no reply: {lines[0]!r}")
    (code, enhanced), *_ = codes
    if last is None or last[2] != " " or any(each and each[2] != "-" for each in others):
        raise FilterFailure(f"a reply that does not end where it should: {lines[0]!r}")
    if enhanced and enhanced[0] != code[0]:
        raise FilterFailure(f"a reply of two minds: {lines[0]!r}")
    return Reply(int(code), enhanced, tuple(_PERCENT.sub(r"\1", each[4]) for each in found))


def reason_of(data: bytes) -> str:
    """Return the reason to hold a message, fit to be shown."""
    text = data.partition(b"\0")[0].decode("utf-8", "replace")
    return " ".join(_UNSHOWN.sub(" ", text).split()) or "no reason given"
