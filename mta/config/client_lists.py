"""Lists of clients and greylisting, in the configuration."""

from __future__ import annotations

from ipaddress import IPv4Address

from mta.config import values
from mta.config.document import Fields, Value, list_of, read_record
from mta.inspection_settings import AllowList, BlockList, CodeRange, GreylistWhen, ListAction


def block_list(value: Value) -> BlockList:
    """A block list."""
    return BlockList(**read_record(value, BLOCK_LIST, required=["zone"]))


def allow_list(value: Value) -> AllowList:
    """An allow list."""
    return AllowList(**read_record(value, ALLOW_LIST, required=["zone"]))


def code_range(value: Value) -> CodeRange:
    """A code of a list, or a range of them (RFC 5782)."""
    expected = "a code such as 127.0.0.2, or codes such as 127.0.0.2-127.0.0.11"
    text = value.text(expected)
    first, dash, last = (each.strip() for each in text.partition("-"))
    try:
        found = IPv4Address(first), IPv4Address(last if dash else first)
    except ValueError:
        raise value.wrong(f"found {text!r}, expected {expected}") from None
    if not (all(each.is_loopback for each in found) and found[0] <= found[1]):
        raise value.wrong(f"{text!r} is no range within 127.0.0.0/8, expected {expected}")
    return int(found[0]), int(found[1])


def _codes(value: Value) -> tuple[CodeRange, ...]:
    codes = list_of(code_range, "a list of codes")(value)
    if not codes:
        raise value.wrong("found an empty list, expected codes such as [127.0.0.2]")
    return codes


BLOCK_LIST: Fields = {
    "zone": values.domain,
    "codes": _codes,
    "action": values.member_of(ListAction),
}
ALLOW_LIST: Fields = {"zone": values.domain, "codes": _codes}
GREYLIST: Fields = {
    "when": values.member_of(GreylistWhen),
    "delay": values.positive_duration,
    "keep": values.positive_duration,
}
