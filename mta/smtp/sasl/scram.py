"""SCRAM-SHA-256: the forms of its messages, and its arithmetic.  See RFC 5802 and RFC 7677."""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode
from functools import lru_cache

from mta.smtp.sasl.credentials import ScramKeys
from mta.smtp.sasl.mechanisms import AuthenticationFailed

SALT_SIZE = 16  # octets
ITERATIONS = 600_000  # what OWASP advises for PBKDF2 with SHA-256: some tenths of a second
MIN_ITERATIONS = 4096  # RFC 7677 section 4
MAX_ITERATIONS = 2_000_000  # a hostile server could otherwise keep its client busy for hours
MAX_DERIVED = 100  # secrets of ours, with the salts of the servers, whose keys are kept

_NONCE = rb"[!-+\--~]+"  # printable, without the comma
_BASE64 = rb"[A-Za-z0-9+/]+={0,2}"
_MORE = rb"(?:,[A-Za-z]=[^,]*)*"  # extensions: not known, not harmful (RFC 5802 section 5.1)
CLIENT_FIRST = re.compile(
    rb"((n|y|p=[A-Za-z0-9.\-]+),(?:a=([^,]+))?,)(n=([^,]+),r=(%b)%b)" % (_NONCE, _MORE)
)
CLIENT_FINAL = re.compile(rb"(c=(%b),r=(%b)%b),p=(%b)" % (_BASE64, _NONCE, _MORE, _BASE64))
SERVER_FIRST = re.compile(rb"r=(%b),s=(%b),i=([1-9][0-9]{0,9})%b" % (_NONCE, _BASE64, _MORE))


def scram_keys(password: str, salt: bytes, iterations: int) -> ScramKeys:
    """Return the keys that a server keeps of a prepared password."""
    salted = salted_password(password, salt, iterations)
    stored_key = hashlib.sha256(hmac_sha256(salted, b"Client Key")).digest()
    return ScramKeys(salt, iterations, stored_key, hmac_sha256(salted, b"Server Key"))


def salted_password(password: str, salt: bytes, iterations: int) -> bytes:
    """Return the SaltedPassword of RFC 5802: tenths of a second of work."""
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)


@lru_cache(maxsize=MAX_DERIVED)
def own_salted_password(password: str, salt: bytes, iterations: int) -> bytes:
    """Return the same for a secret of ours.  It is computed once for each salt (section 5.1)."""
    return salted_password(password, salt, iterations)


def hmac_sha256(key: bytes, text: bytes) -> bytes:
    """Return the HMAC of RFC 5802."""
    return hmac.digest(key, text, "sha256")


def xor(left: bytes, right: bytes) -> bytes:
    """Combine a proof with a signature.  Raises AuthenticationFailed."""
    if len(left) != len(right):
        raise AuthenticationFailed("a SCRAM proof of the wrong length")
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def escaped(name: str) -> bytes:
    """Return a user name as messages write it."""
    return name.replace("=", "=3D").replace(",", "=2C").encode()


def unescaped(name: bytes) -> bytes:
    """Undo `escaped`.  Raises AuthenticationFailed."""
    if re.search(rb"=(?!2C|3D)", name):
        raise AuthenticationFailed("malformed SCRAM user name")
    return name.replace(b"=2C", b",").replace(b"=3D", b"=")


def decoded(text: bytes) -> bytes:
    """Decode base64.  Raises AuthenticationFailed."""
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise AuthenticationFailed("malformed base64 in a SCRAM message") from None
