"""The recipients that a header section names (RFC 5322 section 3.6.3).

Unlike the author of a submitted message, no client gains by a recipient that could be read in two
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

# What stands between commas that are not in quotes, comments or angles.
_ITEM = re.compile(r'(?:"(?:[^"\\]|\\.)*"|\([^()]*\)|<[^<>]*>|[^,])+')
_ATOM = r"[\w!#$%&'*+/=?^`{|}~.-]+"
# What programs write that don't know where they are: no domain, but on this host.
_LOCALHOST = r"(?:@localhost(?:\.localdomain)?)"
_NAME_ALONE = re.compile(
    rf"(\s*{_ATOM}){_LOCALHOST}?(\s*(?:\([^()]*\)\s*)?)", re.ASCII | re.IGNORECASE
)
_NAME_IN_ANGLES = re.compile(rf"<({_ATOM}){_LOCALHOST}?>", re.ASCII | re.IGNORECASE)
_AT_LOCALHOST = re.compile(rf"{_LOCALHOST}\Z", re.IGNORECASE)


def completed(text: str, domain: str) -> str:
    """Return the value of a field with `domain` behind names alone.

    So are addresses of ``localhost``, which could not be answered.
    """
    return _ITEM.sub(lambda item: _completed(item[0], domain), text)


def _completed(item: str, domain: str) -> str:
    if alone := _NAME_ALONE.fullmatch(item):
        return f"{alone[1]}@{domain}{alone[2]}"
    return _NAME_IN_ANGLES.sub(rf"<\1@{domain}>", item)


def addressees(text: str, domain: str) -> list[Mailbox]:
    """The mailboxes in a To:, Cc: or Bcc: field.

    Or in a word of a command line.  A name without a domain, or at ``localhost``, is one in
    `domain`.  Raises ValueError for what is no address.
    """
    return [_mailbox(item, domain) for item in _items(text) if item]


def _items(text: str) -> list[str]:
    """The texts between commas and the marks of groups, without comments."""
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
    address = _AT_LOCALHOST.sub("", (found[1] if found else item).strip())
    if "@" not in address:
        address = f"{address}@{domain}"
    try:
        return grammar.parse_mailbox(address)
    except ValueError:
        raise ValueError(f"not an address: {item!r}") from None
