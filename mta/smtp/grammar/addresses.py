"""Addresses and domains: octets to values and back.

The regular expressions bear the names of the ABNF productions (RFC 5321 sections 4.1.2 and 4.1.3,
RFC 6531).
"""

from __future__ import annotations

import re
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from unicodedata import normalize

from mta.mail import Mailbox, canonical_domain
from mta.smtp.errors import LocalFault

MAX_LOCAL_PART = 64  # octets of an address of ours, RFC 5321 section 4.5.3.1.1
MAX_DOMAIN = 255  # octets, section 4.5.3.1.2
MAX_OWN_PATH = 256  # octets with the angle brackets: what any server takes, section 4.5.3.1.3
MAX_PATH = 512  # octets that we take: addresses of others are as long as others make them

# What RFC 5198 section 2 warns of: C1 controls and the Unicode line ends, which some program
# further on would take for the end of a line; what changes the direction of text: an address would
# look like another one; and halves of characters.
_REFUSED = r"\x80-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
# The full stops of other scripts: IDNA reads them as dots between labels.
_FULL_STOPS = r"\u3002\uff0e\uff61"


def one_of(signs: str, refused: str = _REFUSED) -> str:
    """The pattern of a character: one of these, or beyond ASCII.

    It says which the others are.  A class with most of Unicode takes `re` 10 ms to compile.
    """
    given = re.compile(f"[{signs}]")
    others = "".join(rf"\x{code:02x}" for code in range(128) if not given.match(chr(code)))
    return f"[^{others}{refused}]"


# Dots may stand anywhere: some providers hand out addresses such as ``a..b`` and ``a.``, which
# the RFC wants quoted, and which go out quoted.
_DOT_STRING = one_of(r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\-.") + "+"
_QTEXT = one_of(r" !#-\[\]-~")
_QUOTED_STRING = rf'"(?:{_QTEXT}|\\[ -~])*"'
_LOCAL_PART = rf"{_DOT_STRING}|{_QUOTED_STRING}"
# The underscore is no letter of the ABNF, and is found in real host names.
_LET_DIG = one_of("A-Za-z0-9_", _REFUSED + _FULL_STOPS)
_LDH = one_of(r"A-Za-z0-9_\-", _REFUSED + _FULL_STOPS)
_SUB_DOMAIN = rf"{_LET_DIG}(?:{_LDH}{{0,61}}{_LET_DIG})?"
_DOMAIN = rf"{_SUB_DOMAIN}(?:\.{_SUB_DOMAIN})*"
_ADDRESS_LITERAL = r"\[[!-Z^-~]+\]"
MAILBOX = rf"(?P<local>{_LOCAL_PART})@(?P<domain>{_DOMAIN}|{_ADDRESS_LITERAL})"
SOURCE_ROUTE = rf"(?:@{_DOMAIN}(?:,@{_DOMAIN})*:)?"
_DOMAIN_ALONE = re.compile(_DOMAIN)
HELLO = re.compile(rb"[A-Za-z0-9._:-]+|\[[A-Za-z0-9._:-]+\]")  # of real clients
_ROUTE = frozenset("%!@")


def parse_mailbox(text: str) -> Mailbox:
    """Parse an address as people write it.

    It is so in files and on command lines.  Raises ValueError.
    """
    parts = compiled(MAILBOX).fullmatch(text)
    if parts is None:
        raise ValueError(f"not an address: {text!r}")
    return mailbox_of(parts)


def parse_domain(text: str) -> str:
    """Return a domain in its canonical form.

    See `mta.mail.canonical_domain`.  Raises ValueError.
    """
    is_domain = len(text.encode()) <= MAX_DOMAIN and _DOMAIN_ALONE.fullmatch(text)
    domain = canonical_domain(text) if is_domain else ""
    if not domain or len(domain.encode()) > MAX_DOMAIN:  # A-labels can be longer
        raise ValueError(f"not a domain: {text!r}")
    return domain


def has_route(local_part: str) -> bool:
    """Return whether a local part might be a route elsewhere.  See RFC 5321 appendix F.2.

    The width of its signs does not count: a server that normalises Unicode would see them.
    """
    return not _ROUTE.isdisjoint(normalize("NFKC", local_part))


def path(mailbox: Mailbox) -> bytes:
    """Return the path with its angle brackets.  Raises LocalFault for what no path can hold."""
    text = str(mailbox)
    # Only the postmaster has an address without a domain.
    whole = text if mailbox.domain else f"{text}@localhost"
    if not (mailbox.is_null or compiled(MAILBOX).fullmatch(whole)):
        raise LocalFault(f"no path can hold this address: {text!r}")
    return f"<{text}>".encode()


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """Compile a pattern, once.  The long ones are compiled when they are first needed."""
    return re.compile(pattern, re.DOTALL)


def mailbox_of(parts: re.Match[str]) -> Mailbox:
    """Return the mailbox that `MAILBOX` has matched.  Raises ValueError."""
    local_part, domain = parts["local"], parts["domain"]
    if local_part.startswith('"'):
        local_part = re.sub(r"\\(.)", r"\1", local_part[1:-1])
    domain = _literal(domain[1:-1]) if domain.startswith("[") else parse_domain(domain)
    if len(f"<{parts['local']}@{domain}>".encode()) > MAX_PATH:
        raise ValueError(f"a path of more than {MAX_PATH} octets: {parts[0]!r}")
    return Mailbox(local_part, domain)


def _literal(text: str) -> str:
    """Return an address literal in its one form (RFC 5321 section 4.1.3).

    No tag but IPv6 is registered.  A zone (``%eth0``) means nothing on another host.
    """
    if text[:5].lower() == "ipv6:" and "%" not in text:
        return f"[IPv6:{IPv6Address(text[5:])}]"
    return f"[{IPv4Address(text)}]"
