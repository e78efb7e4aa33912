"""The private keys that sign mail: RSA and Ed25519, in PEM files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from mta.files import open_regular

MAX_OCTETS = 64 * 1024  # of a file: more than any key has
MIN_RSA_BITS = 1024  # verifiers take no shorter ones (RFC 8301 section 3.2)
RSA_BITS = 2048  # what signers should have (RFC 8301 section 3.2)


RSA, ED25519 = "rsa-sha256", "ed25519-sha256"  # algorithms: RFC 6376, RFC 8463


class KeyFault(Exception):
    """A fault of a key that the operator must mend: one line."""


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A key that signs, and its algorithm: the ``a=`` of its signatures."""

    key: RSAPrivateKey | Ed25519PrivateKey
    algorithm: str

    @property
    def kind(self) -> str:
        """The kind of the key: the ``k=`` of its record."""
        return self.algorithm.partition("-")[0]

    @property
    def public(self) -> bytes:
        """The octets of the public key: ``p=`` before base64."""
        public = self.key.public_key()
        if isinstance(self.key, Ed25519PrivateKey):
            return public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def is_short(self) -> bool:
        """Tell whether signers should have a longer one."""
        return isinstance(self.key, RSAPrivateKey) and self.key.key_size < RSA_BITS


def read(path: Path) -> PrivateKey:
    """Read a key: PKCS#1 or PKCS#8, in PEM, without a passphrase.  Raises KeyFault."""
    octets = octets_of(path)
    try:
        return parse(octets)
    except ValueError as error:
        raise KeyFault(f"{path}: {error}") from None


def octets_of(path: Path) -> bytes:
    """The octets of a file.  Raises KeyFault."""
    try:
        with open_regular(path) as file:
            return file.read(MAX_OCTETS)
    except OSError as error:
        raise KeyFault(f"{path}: {error.strerror}") from None


def parse(octets: bytes) -> PrivateKey:
    """Make a key of the octets of a PEM file.  Raises ValueError, which says what is wrong."""
    try:
        # The validation takes 36 ms, with primes; a signature shows a fault, too.
        key = load_pem_private_key(octets, None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise ValueError("is encrypted; remove its passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("holds no PEM private key") from None
    if isinstance(key, RSAPrivateKey):
        if key.key_size < MIN_RSA_BITS:
            raise ValueError(
                f"has {key.key_size} bits, which no verifier takes: {MIN_RSA_BITS} at least,"
                f" {RSA_BITS} is usual"
            )
        if not _is_sound(key):
            raise ValueError("is damaged: its signatures are wrong")
        return PrivateKey(key, RSA)
    if isinstance(key, Ed25519PrivateKey):
        return PrivateKey(key, ED25519)
    raise ValueError("holds a key that DKIM has no use for; expected RSA or Ed25519")


def _is_sound(key: RSAPrivateKey) -> bool:
    try:
        signature = key.sign(b"", PKCS1v15(), SHA256())
        key.public_key().verify(signature, b"", PKCS1v15(), SHA256())
    except (ValueError, InvalidSignature):
        return False
    return True
