"""The pairings that wait for their office, in a file.

It is in the spool, and all processes of the server share it.  It holds hashes of secrets, and
passwords that only the secret opens: with the file alone one can neither pair nor log in.
"""

from __future__ import annotations

import hmac
import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from mta.files import atomic_write, locked_folder
from mta.mail import Reply
from mta.session import CLOCK_TOLERANCE, PairingRequest
from mta.settings import DAY, MINUTE
from mta.smtp.errors import Refusal

NAME = "pairings.json"
LIFETIME = 15 * MINUTE  # seconds: for a person to copy one line
MAX_WRONG = 5  # wrong secrets: after them a pairing is over
MAX_PAIRINGS = 100  # in the file: beyond them, the oldest is forgotten
REMEMBERED = DAY  # seconds: so long we can tell that a pairing has expired
MAX_OCTETS = 2**20  # of the file that are read: bounds the memory
PASSWORD_SIZE = 32  # octets, all of them ASCII

EXPIRED = Reply(550, "5.7.0", ("This pairing has expired",))
USED = Reply(550, "5.7.0", ("This pairing has been used",))
WRONG_TOO_OFTEN = Reply(550, "5.7.0", ("This pairing is over: wrong secrets came",))


@dataclass(frozen=True, slots=True)
class Pairing:
    """One pairing.

    `secret` is a hash of it; `sealed` the password, which the secret opens; `used_by` a hash of the
    nonce that came with it, empty before.  Times are seconds since the epoch.
    """

    id: str
    peer: str
    user: str
    domains: Sequence[str]
    secret: str = field(repr=False)
    sealed: str = field(repr=False)
    opened: float
    expires: float
    wrong: int = 0
    used_by: str = ""

    def is_open(self, now: float) -> bool:
        """Tell whether an office may still use it."""
        return not self.used_by and self.wrong < MAX_WRONG and self.is_in_time(now)

    def is_in_time(self, now: float) -> bool:
        """Tell whether it has not expired.

        It has where the clock shows a time before it.
        """
        return self.opened - CLOCK_TOLERANCE <= now < self.expires


@dataclass(frozen=True, slots=True)
class Grant:
    """The user and password that a pairing gives an office."""

    peer: str
    user: str
    password: str = field(repr=False)
    domains: Sequence[str]
    is_repeated: bool = False


def new_password() -> str:
    """A password of which nothing can be guessed."""
    return secrets.token_urlsafe(PASSWORD_SIZE * 3 // 4)


class Pairings:
    """The file in a spool folder.  All methods block, and raise OSError."""

    def __init__(self, spool: Path, now: Callable[[], float] = time.time) -> None:
        self._path = spool / NAME
        self._now = now

    def open(
        self, peer: str, user: str, domains: Sequence[str], password: str
    ) -> tuple[Pairing, str]:
        """Open a pairing; returns it, and its secret.  Others of the same peer are over."""
        secret = secrets.token_bytes(16)
        now = self._now()
        pairing = Pairing(
            secrets.token_hex(8),
            peer,
            user,
            tuple(domains),
            sha256(secret).hexdigest(),
            _sealed(password.encode(), secret).hex(),
            now,
            now + LIFETIME,
        )
        with self._changing() as pairings:
            pairings[:] = [each for each in pairings if each.peer != peer][-MAX_PAIRINGS + 1 :]
            pairings.append(pairing)
        return pairing, secret.hex()

    def redeem(self, request: PairingRequest) -> Grant | None:
        """The grant for a request.

        None: there is no such pairing, or the secret is wrong.  Raises Refusal where the secret is
        right, and the pairing is over.
        """
        if not any(each.id == request.id for each in self.read()):
            return None  # strangers make no work for the disk
        secret = bytes.fromhex(request.secret)
        with self._changing() as pairings:
            index = next((i for i, each in enumerate(pairings) if each.id == request.id), None)
            if index is None:
                return None
            pairing = pairings[index]
            if not hmac.compare_digest(pairing.secret, sha256(secret).hexdigest()):
                pairings[index] = replace(pairing, wrong=pairing.wrong + 1)
                return None
            nonce = sha256(bytes.fromhex(request.nonce)).hexdigest()
            is_repeated = hmac.compare_digest(pairing.used_by, nonce)
            _require_usable(pairing, self._now(), is_repeated=is_repeated)
            pairings[index] = replace(pairing, used_by=nonce)
        password = _sealed(bytes.fromhex(pairing.sealed), secret).decode()
        return Grant(pairing.peer, pairing.user, password, pairing.domains, is_repeated)

    def end(self, peer: str) -> None:
        """End the pairings of a peer."""
        if any(each.peer == peer for each in self.read()):
            with self._changing() as pairings:
                pairings[:] = [each for each in pairings if each.peer != peer]

    def waiting(self) -> Sequence[Pairing]:
        """The pairings that are open."""
        return [each for each in self.read() if each.is_open(self._now())]

    def read(self) -> Sequence[Pairing]:
        """All that are remembered; none where the file is damaged."""
        try:
            with self._path.open("rb") as file:
                document = json.loads(file.read(MAX_OCTETS))
            return [Pairing(**each) for each in document]
        except (FileNotFoundError, ValueError, TypeError):
            return ()

    @contextmanager
    def _changing(self) -> Iterator[list[Pairing]]:
        """The pairings, to be changed; written back at the end.  One process at a time."""
        with locked_folder(self._path.parent):
            before = list(self.read())
            pairings = list(before)
            try:
                yield pairings
            finally:
                oldest = self._now() - REMEMBERED
                pairings = [each for each in pairings if each.expires > oldest]
                if pairings != before:
                    text = json.dumps([asdict(each) for each in pairings])
                    atomic_write(self._path, text.encode())


def _require_usable(pairing: Pairing, now: float, *, is_repeated: bool) -> None:
    """Raise Refusal for a pairing that is over."""
    if pairing.wrong >= MAX_WRONG:
        raise Refusal(WRONG_TOO_OFTEN)
    if not pairing.is_in_time(now):
        raise Refusal(EXPIRED)
    if pairing.used_by and not is_repeated:
        raise Refusal(USED)


def _sealed(password: bytes, secret: bytes) -> bytes:
    """Seal a password, or open it, by a key of its length."""
    key = hmac.digest(secret, b"password", "sha256")
    return bytes(one ^ other for one, other in zip(password, key, strict=True))
