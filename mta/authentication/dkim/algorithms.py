"""The signature algorithms: RSA and Ed25519, both with SHA-256.

RFC 8301 and RFC 8463.  The functions of `cryptography` compute without Python's lock: callers with
other work run these in a thread.
"""

from __future__ import annotations

import hashlib
from enum import Enum, unique
from functools import lru_cache

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from mta.authentication.dkim.result import ResultCode, Unverified

MIN_RSA_BITS = 1024  # RFC 8301 section 3.2: shorter keys must not count
MAX_RSA_BITS = 8192  # bits: twice what verifiers must take, and still a matter of a millisecond
MAX_EXPONENT_BITS = 64  # as OpenSSL has it for long keys: a check takes as long as it is

PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
PublicKey = rsa.RSAPublicKey | ed25519.Ed25519PublicKey


@unique
class Algorithm(Enum):
    """An algorithm, by its name in ``a=``."""

    RSA = "rsa-sha256"
    ED25519 = "ed25519-sha256"

    @property
    def key_type(self) -> str:
        """Its ``k=`` in a key record."""
        return self.value.partition("-")[0]


def algorithm_of(key: PrivateKey) -> Algorithm:
    """The algorithm that a private key is for."""
    return Algorithm.RSA if isinstance(key, rsa.RSAPrivateKey) else Algorithm.ED25519


@lru_cache(maxsize=256)  # few keys sign most mail, and a key that was used before is quicker
def public_key(algorithm: Algorithm, octets: bytes) -> PublicKey:
    """The key of a key record.  Raises Unverified where it is none, or not to be used."""
    try:
        if algorithm is Algorithm.ED25519:
            return ed25519.Ed25519PublicKey.from_public_bytes(octets)
        key = load_der_public_key(octets)  # SubjectPublicKeyInfo, or RSAPublicKey of RFC 8017
    except (ValueError, UnsupportedAlgorithm):
        raise Unverified(ResultCode.PERMERROR, "the key can't be read") from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise Unverified(ResultCode.PERMERROR, "the key is of another type than it says")
    if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise Unverified(ResultCode.POLICY, f"the key has {key.key_size} bits")
    bits = key.public_numbers().e.bit_length()
    if bits > MAX_EXPONENT_BITS:
        raise Unverified(ResultCode.POLICY, f"the key has an exponent of {bits} bits")
    return key


def verifies(key: PublicKey, signature: bytes, data: bytes) -> bool:
    """Tell whether this is the key's signature of the data."""
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, padding.PKCS1v15(), SHA256())
        else:  # of the digest, and not of the data: RFC 8463 section 3
            key.verify(signature, hashlib.sha256(data).digest())
    except InvalidSignature:
        return False
    return True


def sign(key: PrivateKey, data: bytes) -> bytes:
    """The key's signature of the data."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), SHA256())
    return key.sign(hashlib.sha256(data).digest())
