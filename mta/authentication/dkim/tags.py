"""Tag lists, ``name=value; name=value`` (RFC 6376 section 3.2)."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Sequence

MAX_OCTETS = 16 * 1024  # of one list: several times what honest ones have

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_BLANKS = " \t\r\n"
_LIST_BLANKS = b" \t\r\n"


def parse(octets: bytes) -> dict[str, str]:
    """The values by their tags, without white space around them.

    Raises ValueError for what is no tag list, or has a tag twice.
    """
    if len(octets) > MAX_OCTETS:
        raise ValueError("it is too long")
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("it is no UTF-8") from None
    found: dict[str, str] = {}
    for each in text.split(";"):
        name, equals, value = each.partition("=")
        name = name.strip(_BLANKS)
        if not (name or equals):
            continue  # behind the last semicolon
        if not equals or not _NAME.fullmatch(name):
            raise ValueError("it is no list of tags")
        if name in found:
            raise ValueError(f"{name}= is there twice")
        found[name] = value.strip(_BLANKS)
    return found


def without_value(octets: bytes, tag: bytes) -> bytes:
    """A list without one value, and white space around that."""
    parts = octets.split(b";")
    for place, part in enumerate(parts):
        name, equals, _ = part.partition(b"=")
        if name.strip(_LIST_BLANKS) == tag:
            parts[place] = name + equals
    return b";".join(parts)


def words(value: str) -> Sequence[str]:
    """The words of a value with colons between them."""
    return [word.strip(_BLANKS) for word in value.split(":")]


def from_base64(value: str) -> bytes:
    """The octets of a value in base64, which may be folded.  Raises ValueError."""
    return b64decode(value.encode().translate(None, _LIST_BLANKS), validate=True)
