"""The domains of the authors that readers see (RFC 9989 section 5.3.1).

Read more leniently than where a user must be the author (`mta.smtp.authors`): that a display name
is odd does not keep a domain's policy from counting.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from mta.mail import canonical_domain
from mta.smtp import header

MAX_AUTHOR_DOMAINS = 5  # each costs a tree walk
MAX_OCTETS = 16 * 1024  # of a From: field that is looked at
MAX_REMEMBERED = 300  # octets of a From: field that is remembered: nearly all are shorter

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_ANGLE = re.compile(r"<([^<>]*)>")
_DOMAIN = re.compile(r'@[ \t]*([^\s"(),:;<>@\[\]\\]+(?:[ \t]*\.[ \t]*[^\s"(),:;<>@\[\]\\]+)*)')
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*")


@dataclass(frozen=True, slots=True)
class AuthorDomains:
    """The domains of the authors, in canonical form, each once.

    `fields` is the number of From: fields.
    """

    domains: tuple[str, ...]
    fields: int

    @property
    def is_clear(self) -> bool:
        """Tell whether it can be said who the author is."""
        return self.fields <= 1 and len(self.domains) <= MAX_AUTHOR_DOMAINS


def author_domains(section: bytes) -> AuthorDomains:
    """Return the domains of all From: fields of a header section."""
    values = header.values(section, b"from")
    found = dict.fromkeys(domain for value in values for domain in _domains(value))
    return AuthorDomains(tuple(found), len(values))


def _domains(value: bytes) -> Sequence[str]:
    """The domains of one From: field."""
    if len(value) <= MAX_REMEMBERED:
        return _remembered(value)
    return _found(value[:MAX_OCTETS])


def _found(value: bytes) -> Sequence[str]:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    if '"' in text or "(" in text:
        text = _without_quotes(text)
    found: list[str] = []
    for item in text.split(","):
        if addresses := [each for each in _ANGLE.findall(item) if "@" in each]:
            for address in addresses:
                found += _DOMAIN.findall(address)[-1:]  # behind a route, if there is one
        else:
            found += _DOMAIN.findall(item)
    return tuple(domain for each in found if (domain := _canonical(each)))


_remembered = lru_cache(maxsize=256)(_found)  # most mail comes from senders that write often


def _without_quotes(text: str) -> str:
    """Return it without comments, and with a letter for each quoted string."""
    text = _QUOTED.sub("q", text)
    try:
        return header.without_comments(text)
    except ValueError:  # a quoted string or a comment does not end: some readers go on
        return text.replace('"', " ").replace("(", " ")


def _canonical(text: str) -> str:
    """Return the domain as the DNS knows it.  It is empty for what is none."""
    domain = canonical_domain(text.replace(" ", "").replace("\t", "")).rstrip(".")
    return domain if len(domain) <= 253 and _HOST.fullmatch(domain) else ""
