"""Who a message says it is from (RFC 5322 section 3.6.2).

Read more strictly than mail programs read it: what could be understood in two ways is refused,
because the other way would be somebody else's address.
"""

from __future__ import annotations

import re

from mta.mail import Mailbox
from mta.smtp import grammar

MOST_OCTETS = 8192  # of one field

_CHARACTER = re.compile(r"\\.|.", re.DOTALL)  # or a quoted pair
_NAMED = re.compile(r"(.*)<([^<>]*)>", re.DOTALL)
# A display name, with what people leave unquoted in it and nobody misreads.
_DISPLAY_NAME = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^"\\<>@:;()])*', re.DOTALL)


def authors(value: bytes) -> list[Mailbox]:
    """The mailboxes in the value of a From: field.  Raises ValueError where they aren't clear."""
    if len(value) > MOST_OCTETS:
        raise ValueError("too long")
    return [_mailbox(item.strip()) for item in _items(value.decode())]


def _items(text: str) -> list[str]:
    """What stands between the commas, without comments (which may be nested)."""
    items: list[list[str]] = [[]]
    quoted, depth = False, 0
    for character in _CHARACTER.findall(text):
        if depth:
            depth += (character == "(") - (character == ")")
        elif quoted:
            items[-1].append(character)
            quoted = character != '"'
        elif character == "(":
            depth = 1
        elif character == ",":
            items.append([])
        else:
            items[-1].append(character)
            quoted = character == '"'
    if quoted or depth:
        raise ValueError("a quoted string or a comment does not end")
    return ["".join(item) for item in items]


def _mailbox(item: str) -> Mailbox:
    named = _NAMED.fullmatch(item)
    if named is None:
        return grammar.parse_mailbox(item)
    name, address = named[1].strip(), named[2].strip()
    if name != address and not _DISPLAY_NAME.fullmatch(name):
        raise ValueError(f"not a display name: {name!r}")
    return grammar.parse_mailbox(address)
