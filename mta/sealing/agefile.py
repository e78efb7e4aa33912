"""Files in the age format, sealed and opened while their octets come.

Behind the header is the payload, in chunks of 64 KiB, each with a code of its own.  So much is in
memory, whatever the size, and a chunk takes some ten microseconds.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from mta.interfaces import NotOpened
from mta.sealing import stanzas
from mta.sealing.keys import PrivateKey, PublicKey

CHUNK = 64 * 1024  # octets: of what is sealed
CODE = 16  # octets: behind each chunk
NONCE = 16  # octets: in front of the payload
MAX_HEADER = 32 * 1024  # octets: some hundred recipients


class Sealing:
    """One file on its way to being sealed."""

    def __init__(self, recipients: Sequence[PublicKey]) -> None:
        file_key, nonce = os.urandom(stanzas.FILE_KEY), os.urandom(NONCE)
        self._ready = bytearray(stanzas.written(file_key, recipients) + nonce)
        self._chunks = _Chunks(file_key, nonce)
        self._rest = bytearray()

    def add(self, octets: bytes) -> bytes:
        """Seal octets; return what is ready of the file."""
        self._rest += octets
        while len(self._rest) > CHUNK:  # the last chunk is marked: one is kept back
            self._ready += self._chunks.seal(bytes(self._rest[:CHUNK]), last=False)
            del self._rest[:CHUNK]
        ready, self._ready = bytes(self._ready), bytearray()
        return ready

    def end(self) -> bytes:
        """The rest of the file."""
        return bytes(self._ready) + self._chunks.seal(bytes(self._rest), last=True)


class Opening:
    """One file on its way to being opened."""

    def __init__(self, keys: Sequence[PrivateKey]) -> None:
        self._keys = keys
        self._chunks: _Chunks | None = None
        self._rest = bytearray()

    def add(self, octets: bytes) -> bytes:
        """Open octets; return what is ready of the content.  Raises NotOpened."""
        self._rest += octets
        if self._chunks is None and not self._begin():
            return b""
        assert self._chunks is not None
        ready = bytearray()
        while len(self._rest) > CHUNK + CODE:
            ready += self._chunks.open(bytes(self._rest[: CHUNK + CODE]), last=False)
            del self._rest[: CHUNK + CODE]
        return bytes(ready)

    def end(self) -> bytes:
        """The rest of the content.  Raises NotOpened."""
        if self._chunks is None:
            raise NotOpened("it is cut off")
        return self._chunks.open(bytes(self._rest), last=True)

    def _begin(self) -> bool:
        """Read the header and the nonce, once they are there."""
        end = stanzas.end_of_header(bytes(self._rest))
        if (end or len(self._rest)) > MAX_HEADER:
            raise NotOpened("its header does not end")
        if not end or len(self._rest) < end + NONCE:
            return False
        file_key = stanzas.file_key(bytes(self._rest[:end]), self._keys)
        self._chunks = _Chunks(file_key, bytes(self._rest[end : end + NONCE]))
        del self._rest[: end + NONCE]
        return True


class _Chunks:
    """The chunks of one payload, in order."""

    def __init__(self, file_key: bytes, nonce: bytes) -> None:
        self._cipher = ChaCha20Poly1305(stanzas.derived(file_key, b"payload", nonce))
        self._number = 0

    def seal(self, chunk: bytes, *, last: bool) -> bytes:
        return self._cipher.encrypt(self._nonce(last), chunk, None)

    def open(self, chunk: bytes, *, last: bool) -> bytes:
        is_first = self._number == 0
        try:
            opened = self._cipher.decrypt(self._nonce(last), chunk, None)
        except InvalidTag:
            raise NotOpened("it is damaged, or cut off") from None
        if not opened and not is_first:
            raise NotOpened("its last chunk is empty")
        return opened

    def _nonce(self, last: bool) -> bytes:
        nonce = self._number.to_bytes(11, "big") + bytes([last])
        self._number += 1
        return nonce


def sealed(octets: bytes, recipients: Sequence[PublicKey]) -> bytes:
    """A whole file."""
    sealing = Sealing(recipients)
    return sealing.add(octets) + sealing.end()


def opened(file: bytes, keys: Sequence[PrivateKey]) -> bytes:
    """The content of a whole file.  Raises NotOpened."""
    opening = Opening(keys)
    return opening.add(file) + opening.end()
