"""The Sender Rewriting Scheme: forwarded mail under a reverse-path of our own.

A server that checks SPF (RFC 7208) asks whether the host that hands mail over may send for the
domain of the reverse-path: we may for ours, and not for the original sender's.  So that bounces
find their way, the rewritten reverse-path holds the original one, signed and dated::

    SRS0=HASH=DATE=domain=local_part@forwarder
    SRS1=HASH=first_forwarder==HASH=DATE=domain=local_part@forwarder

Mail that was forwarded before keeps the core of its first forwarder, and is sent back there.
After Meng Weng Wong and Shevek, "The Sender Rewriting Scheme".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field

from mta.mail import Mailbox

MAX_AGE = 21  # days: in which a bounce is taken, longer than any server tries
MAX_AHEAD = 1  # days: of a date, as the clock may have been set back, and that of a node be ahead
HASH_LENGTH = 8  # characters of 5 bits each: local parts are short
_CYCLE = 1024  # days: after which dates begin anew, as two characters hold no more
_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"

# Some servers change the case of local parts: all that is ours is compared without it.
_FIRST = re.compile(
    r"SRS0[=+-](?P<hash>[^=]+)=(?P<date>[A-Z2-7]{2})=(?P<domain>[^=]+)=(?P<local>.*)",
    re.A | re.I | re.S,
)
_LATER = re.compile(
    r"SRS1[=+-](?P<hash>[^=]+)=(?P<domain>[^=]+)=(?P<core>[=+-].+)",
    re.A | re.I | re.S,
)


@dataclass(frozen=True, slots=True)
class SenderRewriting:
    """Rewrites reverse-paths, and reverts it.  `now`: seconds since the epoch."""

    key: bytes = field(repr=False)

    def rewritten(self, reverse_path: Mailbox, domain: str, now: float) -> Mailbox:
        """The reverse-path under which `domain` forwards mail of another sender."""
        local_part = reverse_path.local_part
        if later := _LATER.fullmatch(local_part):
            origin, core = later["domain"], later["core"]
        elif _FIRST.fullmatch(local_part):
            origin, core = reverse_path.domain, local_part[len("SRS0") :]
        else:
            day = int(now // 86400) % _CYCLE
            date = _BASE32[day >> 5] + _BASE32[day & 31]
            signed = f"{date}={reverse_path.domain}={local_part}"
            return Mailbox(f"SRS0={self._hash(signed)}={signed}", domain)
        signed = f"{origin}={core}"
        return Mailbox(f"SRS1={self._hash(signed)}={signed}", domain)

    def original(self, local_part: str, now: float) -> Mailbox | None:
        """The address that a bounce to a rewritten reverse-path is for.

        None: we did not write that reverse-path, or too long ago.
        """
        if first := _FIRST.fullmatch(local_part):
            signed = f"{first['date']}={first['domain']}={first['local']}"
            if self._is_ours(first["hash"], signed) and _is_recent(first["date"], now):
                return Mailbox(first["local"], first["domain"].lower())
        elif later := _LATER.fullmatch(local_part):
            signed = f"{later['domain']}={later['core']}"
            if self._is_ours(later["hash"], signed):
                return Mailbox(f"SRS0{later['core']}", later["domain"].lower())
        return None

    def _hash(self, signed: str) -> str:
        digest = hmac.digest(self.key, signed.lower().encode(), hashlib.sha256)
        return base64.b32encode(digest).decode()[:HASH_LENGTH]

    def _is_ours(self, shown: str, signed: str) -> bool:
        return hmac.compare_digest(shown.upper().encode(), self._hash(signed).encode())


def _is_recent(date: str, now: float) -> bool:
    day = _BASE32.index(date[0].upper()) * 32 + _BASE32.index(date[1].upper())
    return (int(now // 86400) - day + MAX_AHEAD) % _CYCLE <= MAX_AGE + MAX_AHEAD
