"""The header of an age file: the keys that open it.

It ends in a code by which a change shows.  Of the kinds of recipients that there are, X25519
alone is written; others are passed over.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mta.interfaces import NotOpened
from mta.sealing.keys import PrivateKey, PublicKey

VERSION = b"age-encryption.org/v1\n"
FILE_KEY = 16  # octets
_KIND = "X25519"
_INFO = b"age-encryption.org/v1/X25519"
_NONCE = bytes(12)  # each key wraps once
_COLUMNS = 64  # of base64 in a line
_END = re.compile(rb"^--- ([A-Za-z0-9+/]{43})\n", re.MULTILINE)
_ARGUMENTS = re.compile(r"-> [!-~]+(?: [!-~]+)*")


class UnknownKey(NotOpened):
    """None of our keys opens it."""


def derived(key: bytes, info: bytes, salt: bytes = b"") -> bytes:
    """A key of 32 octets that is derived from another one."""
    return HKDF(SHA256(), 32, salt or None, info).derive(key)


def written(file_key: bytes, recipients: Iterable[PublicKey]) -> bytes:
    """The header of a file with that key, for these recipients."""
    lines = [VERSION]
    for recipient in recipients:
        share, wrapped = _wrapped(file_key, recipient)
        lines.append(b"-> %s %s\n%s\n" % (_KIND.encode(), _base64(share), _base64(wrapped)))
    signed = b"".join(lines) + b"---"
    return signed + b" " + _base64(_code(file_key, signed)) + b"\n"


def _wrapped(file_key: bytes, recipient: PublicKey) -> tuple[bytes, bytes]:
    """A share of a new secret, and the file's key under that."""
    private = X25519PrivateKey.generate()
    share = private.public_key().public_bytes_raw()
    secret = private.exchange(X25519PublicKey.from_public_bytes(recipient.octets))
    key = derived(secret, _INFO, share + recipient.octets)
    return share, ChaCha20Poly1305(key).encrypt(_NONCE, file_key, None)


def end_of_header(octets: bytes) -> int:
    """The place behind a header; 0: it is not complete.  Raises NotOpened where it is none."""
    if not octets.startswith(VERSION[: len(octets)]):
        raise NotOpened("it does not begin as a sealed file does")
    end = _END.search(octets)
    return end.end() if end else 0


def file_key(header: bytes, keys: Sequence[PrivateKey]) -> bytes:
    """The key of a file, by its header.  Raises NotOpened."""
    signed, _, code = header.rpartition(b" ")
    for stanza in _stanzas(header):
        if stanza.arguments[0] != _KIND or len(stanza.arguments) != 2:
            continue
        for key in keys:
            found = _unwrapped(_octets(stanza.arguments[1]), stanza.body, key)
            if found is not None:
                if not hmac.compare_digest(_code(found, signed), _octets(code.decode().strip())):
                    raise NotOpened("its header was changed")
                return found
    raise UnknownKey("none of the keys here opens it")


@dataclass(frozen=True, slots=True)
class _Stanza:
    """The part of a header that is for one recipient."""

    arguments: Sequence[str]
    body: bytes


def _stanzas(header: bytes) -> Iterable[_Stanza]:
    """The parts for recipients.  Raises NotOpened where the form is wrong."""
    lines = iter(header.decode("latin-1").split("\n")[1:-2])
    for line in lines:
        if not _ARGUMENTS.fullmatch(line):
            raise NotOpened("its header is damaged")
        body = ""
        for part in lines:
            body += part
            if len(part) != _COLUMNS:
                break
        yield _Stanza(line.split(" ")[1:], _octets(body))


def _unwrapped(share: bytes, wrapped: bytes, key: PrivateKey) -> bytes | None:
    """The file's key; None where it was not wrapped for this one."""
    if len(share) != 32 or len(wrapped) != FILE_KEY + 16:
        raise NotOpened("its header is damaged")
    private = X25519PrivateKey.from_private_bytes(key.octets)
    try:
        secret = private.exchange(X25519PublicKey.from_public_bytes(share))
        derived_key = derived(secret, _INFO, share + key.public.octets)
        return ChaCha20Poly1305(derived_key).decrypt(_NONCE, wrapped, None)
    except (InvalidTag, ValueError):  # a ValueError: the share is one of the few that are no keys
        return None


def _code(file_key: bytes, signed: bytes) -> bytes:
    return hmac.digest(derived(file_key, b"header"), signed, "sha256")


def _base64(octets: bytes) -> bytes:
    return b64encode(octets).rstrip(b"=")


def _octets(text: str) -> bytes:
    """The octets of base64 without padding, in its one right form.  Raises NotOpened."""
    try:
        octets = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        octets = b""
    if _base64(octets) != text.encode():
        raise NotOpened("its header is damaged")
    return octets
