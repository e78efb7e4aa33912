"""DMARC policy records (RFC 9989 section 4.7).

Only the version must be right, and first: of all else that is wrong the default counts.  The tags
``pct``, ``rf`` and ``ri`` of RFC 7489 are as good as unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

MAX_RECORD = 4096  # octets: a longer one is no honest record
MAX_URIS = 10  # of one tag: reports to more addresses would make us a multiplier

_VERSION = re.compile(r"v[ \t]*=[ \t]*DMARC1[ \t]*(?:;|\Z)")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+")
_MAILTO = re.compile(r"mailto:[^@]+@[^@]+", re.IGNORECASE)
SIZE_LIMIT = re.compile(r"!([0-9]{1,15})([kmgt]?)\Z", re.IGNORECASE)  # of RFC 7489 section 6.2


class Policy(Enum):
    """The wish of a domain for mail in its name that fails."""

    NONE = "none"
    QUARANTINE = "quarantine"
    REJECT = "reject"

    @property
    def milder(self) -> Policy:
        """The policy that a test of this one asks for (``t=y``)."""
        return Policy.QUARANTINE if self is Policy.REJECT else Policy.NONE


@dataclass(frozen=True, slots=True)
class Record:
    """A policy record.

    `subdomains` and `nonexistent` are None where the record says nothing of them.  `psd` is ``y``,
    ``n`` or ``u``.  `applies` is false where the record is too broken to go by, and names no
    address that could be told of it.
    """

    policy: Policy = Policy.NONE
    subdomains: Policy | None = None
    nonexistent: Policy | None = None
    strict_dkim: bool = False
    strict_spf: bool = False
    is_test: bool = False
    psd: str = "u"
    rua: tuple[str, ...] = ()
    ruf: tuple[str, ...] = ()
    fo: frozenset[str] = frozenset("0")
    applies: bool = True

    def policy_for_subdomain(self, *, exists: bool) -> Policy:
        """The policy for a subdomain that has no record of its own."""
        below = self.subdomains or self.policy
        return below if exists or self.nonexistent is None else self.nonexistent


def is_record(text: bytes) -> bool:
    """Tell whether a TXT record is a DMARC policy record."""
    return text[:1] == b"v" and _VERSION.match(text.decode("latin-1")) is not None


@lru_cache(maxsize=1024)  # the few domains that most mail comes from
def parse_record(text: bytes) -> Record | None:
    """Return the record that a text is; None: it is none."""
    if len(text) > MAX_RECORD or not is_record(text):
        return None
    return _record(_tags(text.decode("latin-1")))


def _tags(text: str) -> dict[str, str]:
    """Return the tags; of several with one name the first counts."""
    tags: dict[str, str] = {}
    for part in text.split(";")[1:]:
        name, equals, value = part.partition("=")
        if equals:
            tags.setdefault(name.strip(" \t").lower(), value.strip(" \t"))
    return tags


def _record(tags: dict[str, str]) -> Record:
    rua = _uris(tags.get("rua", ""))
    given = {name: _policy(tags[name]) for name in ("p", "sp", "np") if name in tags}
    is_sound = given.get("p") is not None and None not in given.values()
    if not is_sound:  # section 4.10.1
        given = {}
    fo = frozenset(each.strip(" \t").lower() for each in tags.get("fo", "0").split(":"))
    return Record(
        policy=given.get("p") or Policy.NONE,
        subdomains=given.get("sp"),
        nonexistent=given.get("np"),
        strict_dkim=tags.get("adkim", "r").lower() == "s",
        strict_spf=tags.get("aspf", "r").lower() == "s",
        is_test=tags.get("t", "n").lower() == "y",
        psd=_word(tags.get("psd", "u"), "ynu"),
        rua=rua,
        ruf=_uris(tags.get("ruf", "")),
        fo=fo & frozenset("01ds") or frozenset("0"),
        applies=is_sound or bool(rua),
    )


def _policy(text: str) -> Policy | None:
    """Return the policy of that name, None for what is none."""
    try:
        return Policy(text.lower())
    except ValueError:
        return None


def _word(text: str, known: str) -> str:
    lowered = text.lower()
    return lowered if lowered in tuple(known) else known[-1]


def _uris(text: str) -> tuple[str, ...]:
    """Return the well-formed URIs of a list, with their limits on size."""
    found = (each.strip(" \t") for each in text.split(","))
    return tuple(uri for uri in found if _is_uri(uri))[:MAX_URIS]


def _is_uri(text: str) -> bool:
    text = SIZE_LIMIT.sub("", text)
    if not _URI.fullmatch(text):
        return False
    return not text.lower().startswith("mailto:") or _MAILTO.fullmatch(text) is not None
