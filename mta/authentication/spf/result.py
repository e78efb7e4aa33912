"""The result of a check (RFC 7208 section 2.6)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Result(Enum):
    """The results, by the words of RFC 7208 and RFC 8601."""

    NONE = "none"
    NEUTRAL = "neutral"
    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    SOFTFAIL = "softfail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


class Identity(Enum):
    """The identities of a client, by the words of RFC 8601."""

    MAIL_FROM = "mailfrom"
    HELO = "helo"


@dataclass(frozen=True, slots=True)
class SPFResult:
    """A result, and what it is about.

    `domain` is that of the identity.  `explanation` is the domain's own text for a fail, or empty:
    a stranger's words, in printable ASCII.  `problem` says what is wrong with the domain's records,
    or with the DNS; empty where nothing is.
    """

    result: Result
    domain: str
    identity: Identity
    explanation: str = ""
    problem: str = ""


class PermError(Exception):
    """The records of a domain can't be interpreted (RFC 7208 section 2.6.7)."""


class TempError(Exception):
    """The DNS did not answer: try later (RFC 7208 section 2.6.6)."""
