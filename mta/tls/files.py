"""Certificates, keys and authorities: read from files, and again when these change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Generic, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from OpenSSL import SSL

from mta.settings import CertificatePair
from mta.tls.names import is_for, name_of, names_in

Key = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)

T = TypeVar("T")


class TLSFault(Exception):
    """Something about our certificates that a person must put right: one line."""


@dataclass(frozen=True, slots=True)
class CertifiedKey:
    """A certificate with its chain, the leaf first, and its key."""

    chain: Sequence[x509.Certificate]
    key: Key

    @classmethod
    def load(cls, pair: CertificatePair) -> CertifiedKey:
        """Read both files, and see that they belong together.  Raises TLSFault."""
        chain = certificates_in(pair.certificate)
        try:
            key = serialization.load_pem_private_key(read(pair.key), None)
        except TypeError:
            raise TLSFault(f"{pair.key}: is encrypted; remove its passphrase") from None
        except (ValueError, UnsupportedAlgorithm):
            raise TLSFault(f"{pair.key}: holds no PEM private key") from None
        if not isinstance(key, Key):
            raise TLSFault(f"{pair.key}: holds a key that TLS has no use for")
        if key.public_key() != chain[0].public_key():
            if any(key.public_key() == each.public_key() for each in chain[1:]):
                raise TLSFault(f"{pair.certificate}: the host's own certificate must come first")
            raise TLSFault(f"{pair.key}: is not the key of {pair.certificate}")
        return cls(chain, key)

    def names(self) -> Sequence[str]:
        """The host names that the certificate is for, in lower case."""
        return names_in(self.chain[0])

    def use_in(self, context: SSL.Context) -> None:
        """Show this certificate on the context's connections.  Raises TLSFault."""
        leaf, *issuers = self.chain
        try:
            context.use_certificate(leaf)
            for issuer in issuers:
                context.add_extra_chain_cert(issuer)
            context.use_privatekey(self.key)
        except SSL.Error:
            raise TLSFault(
                f"a certificate for {leaf.subject.rfc4514_string()} is too weak"
            ) from None

    def is_for(self, hostname: str) -> bool:
        """Whether the certificate is for this host."""
        return is_for(self.chain[0], name_of(hostname))

    def shortcomings(self, now: datetime, margin: timedelta) -> Sequence[str]:
        """Why others do not take it, or will not when `margin` has passed, each in a few words."""
        leaf = self.chain[0]
        found = []
        if now < leaf.not_valid_before_utc:
            found.append(f"is not valid before {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC")
        if now > leaf.not_valid_after_utc:
            found.append(f"has expired on {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
        elif now + margin > leaf.not_valid_after_utc:
            found.append(f"expires on {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
        if any(
            below.issuer != above.subject
            for below, above in zip(self.chain, self.chain[1:], strict=False)
        ):
            found.append("its chain is out of order: each issuer must follow what it issued")
        return found


def certificates_in(path: Path) -> Sequence[x509.Certificate]:
    """The PEM certificates in a file, one at least.  Raises TLSFault."""
    try:
        return x509.load_pem_x509_certificates(read(path))
    except ValueError:
        raise TLSFault(f"{path}: holds no PEM certificate") from None


def read(path: Path) -> bytes:
    """The octets of a file.  Raises TLSFault."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise TLSFault(f"{path}: {error.strerror}") from None


def files_of(pairs: Sequence[CertificatePair]) -> list[Path]:
    """All files of these pairs."""
    return [path for pair in pairs for path in (pair.certificate, pair.key)]


class Reloading(Generic[T]):
    """What was made of some files, and is made anew when one of them changes."""

    def __init__(self, paths: Sequence[Path], make: Callable[[], T]) -> None:
        self._paths = paths
        self._make = make
        self._stamps = self._look()
        self.value = make()

    def refresh(self) -> bool:
        """Make `value` anew where a file changed; returns whether that was so.

        Raises TLSFault, once for each change; then the old value stays.
        """
        stamps = self._look()
        if stamps == self._stamps:
            return False
        self._stamps = stamps
        self.value = self._make()
        return True

    def _look(self) -> Sequence[tuple[int, int, int] | None]:
        return [_stamp(path) for path in self._paths]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
