"""Files of certificates, keys and authorities, read again when they change."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from OpenSSL import SSL, crypto
from OpenSSL.crypto import X509, X509Store, X509StoreContext, X509StoreContextError

from mta.files import Stamp, open_regular, stamp
from mta.settings import CertificatePair
from mta.tls.names import is_for, name_of, names_in

T = TypeVar("T")

Key = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)


class TLSFault(Exception):
    """A fault of our certificates that the operator must mend: one line."""


class TLSUnreadable(TLSFault):
    """A file that can't be read now.  Try again later."""


@dataclass(frozen=True, slots=True)
class CertifiedKey:
    """A certificate with its chain, the leaf first, and its key."""

    chain: Sequence[x509.Certificate]
    key: Key

    @classmethod
    def load(cls, pair: CertificatePair) -> CertifiedKey:
        """Read both files, and check that they belong together.  Raises TLSFault."""
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
        """Tell whether the certificate is for this host."""
        return is_for(self.chain[0], name_of(hostname))

    def objection_to_issuer(self, ca: Path | None) -> str:
        """Return why no authority of ours vouches for it; empty: one does.

        `ca` None means the system's.  Blocks.
        """
        paths = ssl.get_default_verify_paths()
        leaf, *others = (X509.from_cryptography(each) for each in self.chain)
        store = X509Store()
        try:
            store.load_locations(ca or paths.cafile, None if ca else paths.capath)
            X509StoreContext(store, leaf, others).verify_certificate()
        except X509StoreContextError as error:
            return str(error)
        except (crypto.Error, TypeError):
            return "this host knows no authorities"
        return ""

    def shortcomings(self, now: datetime, margin: timedelta) -> Sequence[str]:
        """The reasons not to trust it, now or once `margin` has passed."""
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
    """The octets of a file.  Raises TLSUnreadable."""
    try:
        with open_regular(path) as file:
            return file.read()
    except OSError as error:
        raise TLSUnreadable(f"{path}: {error.strerror}") from None


def files_of(pairs: Sequence[CertificatePair]) -> list[Path]:
    """All files of these pairs."""
    return [path for pair in pairs for path in (pair.certificate, pair.key)]


class WatchedFiles:
    """Files that are to be read again when one of them changes."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._stamps: list[Stamp | None] = [stamp(path) for path in paths]

    def have_changed(self) -> bool:
        """Tell whether a file is another one than at the call before."""
        before, self._stamps = self._stamps, [stamp(path) for path in self._paths]
        return self._stamps != before

    def read_again(self, load: Callable[[], T]) -> T:
        """Return what `load` makes of them.

        Where it raises TLSUnreadable, all are taken for changed at the next call.
        """
        try:
            return load()
        except TLSUnreadable:
            self._stamps = []
            raise
