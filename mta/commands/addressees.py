"""Whom a message is to, as its header section says (RFC 5322 section 3.6.3).

Unlike the author of a submitted message, nobody gains by a recipient that could be read in two
ways.  So this takes what mail programs and scripts write: groups, names without a domain, dots in
unquoted display names.
"""

from __future__ import annotations

import re

from mta.mail import Mailbox
from mta.smtp import grammar

# A quoted string, a quoted pair outside of one, or any other character.
_PART = re.compile(r'"(?:[^"\\]|\\.)*"|\\.|.', re.DOTALL)
_ANGLES = re.compile(r".*<([^<>]*)>", re.DOTALL)


def addressees(text: str, domain: str) -> list[Mailbox]:
    """The mailboxes in a To:, Cc: or Bcc: field, or in a word of a command line.

    A name without a domain is one in `domain`.  Raises ValueError for what is no address.
    """
    return [_mailbox(item, domain) for item in _items(text) if item]


def _items(text: str) -> list[str]:
    """What stands between commas and the marks of groups, without comments."""
    items, depth, angle = [""], 0, False  # an angle, or the brackets of an address literal
    for part in _PART.findall(text):
        if part in "()":
            depth = max(0, depth + (1 if part == "(" else -1))
        elif depth:
            continue
        elif part == ":" and not angle:
            items[-1] = ""  # it was the name of a group
        elif part in ",;" and not angle:
            items.append("")
        else:
            angle = part in "<[" or (angle and part not in ">]")
            items[-1] += part
    return [item.strip() for item in items]


def _mailbox(item: str, domain: str) -> Mailbox:
    found = _ANGLES.fullmatch(item)
    address = (found[1] if found else item).strip()
    if "@" not in address:
        address = f"{address}@{domain}"
    try:
        return grammar.parse_mailbox(address)
    except ValueError:
        raise ValueError(f"not an address: {item!r}") from None
