"""Key records: public keys in the DNS (RFC 6376 section 3.6.1)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

from mta.authentication.dkim import tags
from mta.authentication.dkim.algorithms import Algorithm
from mta.authentication.dkim.result import ResultCode, Unverified

_EMAIL = {"*", "email"}


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One key record.

    `key` is the public key as ``p=`` has it, empty where it is revoked.  `hashes` None: any.
    """

    key: bytes
    key_type: str = "rsa"
    hashes: Collection[str] | None = None
    services: Collection[str] = ("*",)
    flags: Collection[str] = ()

    @classmethod
    @lru_cache(maxsize=256)  # few keys sign most mail
    def parse(cls, octets: bytes) -> KeyRecord:
        """Read the text of a TXT record.  Raises ValueError where it is no key record."""
        found = tags.parse(octets)
        if found.get("v", "DKIM1") != "DKIM1" or ("v" in found and next(iter(found)) != "v"):
            raise ValueError("it is no key record")
        if "p" not in found:
            raise ValueError("it has no key")
        return cls(
            tags.from_base64(found["p"]),
            found.get("k", "rsa"),
            tags.words(found["h"]) if "h" in found else None,
            tags.words(found.get("s", "*")),
            tags.words(found.get("t", "")),
        )

    @property
    def testing(self) -> bool:
        """Tell whether the domain only tries DKIM."""
        return "y" in self.flags

    @property
    def is_strict(self) -> bool:
        """Tell whether ``i=`` may not be in a subdomain."""
        return "s" in self.flags

    def ensure_usable(self, algorithm: Algorithm) -> None:
        """Raise Unverified where it is not for mail that is signed so."""
        if not self.key:
            raise Unverified(ResultCode.PERMERROR, "the key is revoked")
        if self.key_type != algorithm.key_type:
            raise Unverified(ResultCode.PERMERROR, "the key is for another algorithm")
        if self.hashes is not None and "sha256" not in self.hashes:
            raise Unverified(ResultCode.PERMERROR, "the key is not for SHA-256")
        if _EMAIL.isdisjoint(self.services):
            raise Unverified(ResultCode.PERMERROR, "the key is not for mail")
