"""The token of a pairing: one word with all for the office.

It is ``mta1:`` and base64 (RFC 4648 section 5) without padding, so that a double click takes it
whole and no shell sees anything in it.  A checksum tells a word that was cut from another one.
"""

from __future__ import annotations

import re
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from mta.mail import Agent, Hop, Security
from mta.smtp.errors import Refusal
from mta.smtp.grammar import parse_domain

PREFIX = "mta1:"
MAX_TOKEN = 8192  # characters: more than `MAX_DOMAINS` names take in practice
MAX_DOMAINS = 50  # domains: of one pairing
MAX_TEXT = 255  # octets: of a name, whose length is one octet
CHECKSUM_SIZE = 4  # octets

_FIXED = struct.Struct(">BH8s16s32s")  # flags, port, id, secret, fingerprint
_TLS_AT_ONCE = 1
_HOST = re.compile(r"[A-Za-z0-9._:-]{1,255}")
_PEER = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class TokenFault(ValueError):
    """A word that is no token: the reason, for a person."""


@dataclass(frozen=True, slots=True)
class Token:
    """A pairing as the relay offers it.

    `fingerprint` (SHA-256) is that of the certificate which the relay shows, `tls_at_once` tells
    that the port begins with TLS.  `id`, `secret` and `fingerprint` are lower-case hex.
    """

    host: str
    port: int
    fingerprint: str
    id: str
    secret: str = field(repr=False)
    peer: str
    domains: Sequence[str]
    tls_at_once: bool = True

    def encoded(self) -> str:
        """The token as a word."""
        octets = _FIXED.pack(
            _TLS_AT_ONCE if self.tls_at_once else 0,
            self.port,
            bytes.fromhex(self.id),
            bytes.fromhex(self.secret),
            bytes.fromhex(self.fingerprint),
        )
        for text in (self.host, self.peer, *self.domains):
            name = text.encode()
            octets += bytes([len(name)]) + name
        word = urlsafe_b64encode(octets + _checksum(octets)).decode()
        return PREFIX + word.rstrip("=")

    def hop(self, user: str = "", secret: str = "") -> Hop:
        """The relay as a next hop."""
        return Hop(
            Agent.SMTP,
            self.host,
            self.port,
            self.tls_at_once,
            Security.VERIFY,
            user=user,
            secret=secret,
        )


def decoded(word: str) -> Token:
    """Return the token that a word is.  Raises TokenFault."""
    if not word.startswith(PREFIX):
        raise TokenFault(f"a token begins with {PREFIX}")
    body = word.removeprefix(PREFIX)
    octets = b""
    if len(word) <= MAX_TOKEN and re.fullmatch(r"[A-Za-z0-9_-]+", body) and len(body) % 4 != 1:
        octets = urlsafe_b64decode(body + "=" * (-len(body) % 4))
    content, checksum = octets[:-CHECKSUM_SIZE], octets[-CHECKSUM_SIZE:]
    if len(content) < _FIXED.size or checksum != _checksum(content):
        raise TokenFault("the token is not whole: copy it from its first letter to its last")
    flags, port, *numbers = _FIXED.unpack_from(content)
    id, secret, fingerprint = (number.hex() for number in numbers)
    host, peer, *domains = _names(content[_FIXED.size :])
    return Token(host, port, fingerprint, id, secret, peer, tuple(domains), bool(flags & 1))


def _names(octets: bytes) -> list[str]:
    """The host, the peer and the domains, checked.  Raises TokenFault."""
    names = []
    while octets:
        size = octets[0]
        names.append(octets[1 : size + 1].decode("utf-8", "replace"))
        octets = octets[size + 1 :]
    if not 3 <= len(names) <= 2 + MAX_DOMAINS:
        raise TokenFault("the token names no domain, or too many")
    host, peer, *domains = names
    if not _HOST.fullmatch(host) or not _PEER.fullmatch(peer):
        raise TokenFault("the token names no host")
    return [host, peer, *map(checked_domain, domains)]


def checked_domain(name: str) -> str:
    """Return a domain in its canonical form.  Raises TokenFault."""
    try:
        return parse_domain(name)
    except (Refusal, ValueError):
        raise TokenFault(f"not a domain: {name!r}") from None


def _checksum(octets: bytes) -> bytes:
    return sha256(octets).digest()[:CHECKSUM_SIZE]
