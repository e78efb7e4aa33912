"""Signatures as they stand in a message: DKIM-Signature (RFC 6376 section 3.5)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from mta.authentication.dkim import tags
from mta.authentication.dkim.algorithms import Algorithm
from mta.authentication.dkim.body import BodyForm
from mta.authentication.dkim.result import DKIMResult, ResultCode, Unverified
from mta.mail import canonical_domain
from mta.smtp import header

MAX_SIGNATURES = 10  # of a message that are looked at, from the top: the newest are there
MAX_NAMES = 1000  # names in h=: hundreds are honest where To: stands often
MAX_DOMAIN = 253  # octets: RFC 1035 section 2.3.4
MAX_IDENTITY = 1000  # characters of i=: an address, perhaps with all of it encoded

MAX_FOLDED = 64  # characters of b= in which the first eight stand, however it is folded

_REQUIRED = ("v", "a", "b", "bh", "d", "h", "s")
_ALGORITHMS = {each.value: each for each in Algorithm}
_CANONICALISATIONS = {"simple": False, "relaxed": True}
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMBER = re.compile(r"[0-9]{1,76}")
_SHOWN = re.compile(r"[!-:<-~]{1,320}")  # of what is shown as it came
_BASE64 = re.compile(r"[A-Za-z0-9+/=]{1,8}")
_WHITE_SPACE = re.compile(r"[ \t\r\n]+")


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature; the names in `signed` are in lower case.

    `has_subdomain`: ``i=`` is in a subdomain of ``d=``.
    """

    algorithm: Algorithm
    domain: str
    selector: str
    signed: Sequence[bytes]
    is_relaxed: bool
    body: BodyForm
    body_hash: bytes
    signature: bytes
    has_subdomain: bool = False
    signed_at: int | None = None
    expires_at: int | None = None

    @property
    def key_name(self) -> str:
        """The name of its key record."""
        return f"{self.selector}._domainkey.{self.domain}"


def described(found: Mapping[str, str]) -> DKIMResult:
    """A result that only names the signature, as far as possible."""
    signature = _BASE64.match(_WHITE_SPACE.sub("", found.get("b", "")[:MAX_FOLDED]))
    return DKIMResult(
        ResultCode.NEUTRAL,
        _domain(found.get("d", "")),
        _domain(found.get("s", "")),
        _shown(found.get("a", "").lower()),
        _shown(found.get("i", "")),
        signature[0] if signature else "",
    )


def signing_domains(section: bytes) -> Sequence[str]:
    """The domains that a header section has signatures of, right or wrong."""
    found = []
    for value in header.values(section, b"dkim-signature")[:MAX_SIGNATURES]:
        try:
            found.append(described(tags.parse(value)).domain)
        except ValueError:
            continue
    return found


def parse(found: Mapping[str, str], description: DKIMResult) -> Signature:
    """The signature with these tags.  Raises Unverified.

    `description` is what `described` made of them.
    """
    _ensure_known(found)
    domain, selector = description.domain, description.selector
    if not domain or not selector:
        raise _unclear("d= or s= is no name")
    head, _, body = found.get("c", "simple/simple").lower().partition("/")
    if not {head, body or "simple"} <= _CANONICALISATIONS.keys():
        raise _unclear("the canonicalisation is not known")
    if found["h"].count(":") >= MAX_NAMES:
        raise _unclear("h= has too many names")
    names = _names(found["h"])
    if b"from" not in names:
        raise Unverified(ResultCode.PERMERROR, "From: is not signed")
    try:
        body_hash, signature = tags.from_base64(found["bh"]), tags.from_base64(found["b"])
    except ValueError:
        raise _unclear("bh= or b= is no base64") from None
    signed_at, expires_at = _number(found, "t"), _number(found, "x")
    if signed_at is not None and expires_at is not None and expires_at <= signed_at:
        raise _unclear("it expires before it was made")
    return Signature(
        _ALGORITHMS[found["a"].lower()],
        domain,
        selector,
        names,
        _CANONICALISATIONS[head],
        BodyForm(_CANONICALISATIONS[body or "simple"], _number(found, "l")),
        body_hash,
        signature,
        _has_subdomain(found.get("i", ""), domain),
        signed_at,
        expires_at,
    )


def _ensure_known(found: Mapping[str, str]) -> None:
    """Raise Unverified for a kind that we do not verify."""
    for name in _REQUIRED:
        if not found.get(name):
            raise _unclear(f"{name}= is missing")
    if found["v"] != "1":
        raise _unclear("the version is not known")
    algorithm = found["a"].lower()
    if algorithm == "rsa-sha1":
        raise Unverified(ResultCode.POLICY, "SHA-1 is not secure")  # RFC 8301 section 3.1
    if algorithm not in _ALGORITHMS:
        raise _unclear("the algorithm is not known")
    if "q" in found and "dns/txt" not in tags.words(found["q"].lower()):
        raise _unclear("its key is not in the DNS")


def _has_subdomain(identity: str, domain: str) -> bool:
    """Tell whether an identity is in a subdomain.  Raises Unverified where it is elsewhere."""
    if len(identity) > MAX_IDENTITY:
        raise _unclear("i= is too long")
    _, at, text = _WHITE_SPACE.sub("", identity).rpartition("@")
    if not identity or (at and canonical_domain(text) == domain):
        return False
    if not at or not canonical_domain(text).endswith("." + domain):
        raise Unverified(ResultCode.PERMERROR, "i= is not in the domain of d=")
    return True


def _number(found: Mapping[str, str], name: str) -> int | None:
    value = found.get(name)
    if value is None:
        return None
    if not _NUMBER.fullmatch(value):
        raise _unclear(f"{name}= is no number")
    return int(value)


@lru_cache(maxsize=32)  # few programs sign most mail, each the same fields; 2 MiB at most
def _names(text: str) -> tuple[bytes, ...]:
    """The names of fields in h=, in lower case."""
    return tuple(name.strip(b" \t\r\n") for name in text.lower().encode().split(b":"))


def _domain(text: str) -> str:
    """The canonical form of a name, empty where it is none."""
    return _canonical(text) if len(text) <= MAX_DOMAIN else ""


@lru_cache(maxsize=256)  # few domains sign most mail
def _canonical(text: str) -> str:
    domain = canonical_domain(text)
    return domain if len(domain) <= MAX_DOMAIN and _DOMAIN.fullmatch(domain) else ""


def _shown(text: str) -> str:
    return text if _SHOWN.fullmatch(text) else ""


def _unclear(problem: str) -> Unverified:
    return Unverified(ResultCode.NEUTRAL, problem)
