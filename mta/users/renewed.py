"""New passwords of users, beside the users file.

The server may not write that file.  They are in the spool, and all processes of the server share
them.  A new password counts beside the old one until it was used, and instead of it from then on.
A password that the operator sets in the users file ends that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from zope.interface import implementer

from mta.files import Stamp, atomic_write, locked_folder, open_regular, stamp
from mta.shared_tables.interfaces import IDocuments
from mta.smtp.sasl import scram_keys
from mta.smtp.saslprep import prepare
from mta.users import form
from mta.users.roster import PasswordHash, Roster, Secret, User

NAME = "renewed-passwords.json"
MAX_OCTETS = 2**20  # of the file that are read: bounds the memory


@dataclass(frozen=True, slots=True)
class _Renewal:
    """The new passwords of one user.

    `replaces` is a sign of the password in the users file; `current` counts instead of it, `next`
    beside that.
    """

    replaces: str
    current: Secret | None
    next: Secret | None

    def applied(self, user: User) -> User:
        """The user with the new passwords."""
        if self.current is not None:
            user = replace(user, password=self.current.password, scram=self.current.scram)
        return replace(user, successor=self.next)


@implementer(IDocuments)
class RenewedPasswords:
    """The file in a spool folder.  All methods block, and raise OSError.

    As documents for other nodes they are by user, whatever the users file says here.
    """

    def __init__(self, spool: Path) -> None:
        self._path = spool / NAME
        self._told: tuple[Stamp | None, Mapping[str, bytes]] = (None, {})  # see `_documents`

    def stamp(self) -> Stamp | None:
        """A sign of the file's last change; None: there is no file."""
        return stamp(self._path)

    def applied(self, roster: Roster) -> Roster:
        """The users of the users file, with their new passwords."""
        renewals = self._read(roster)
        users = {
            name: renewals[name].applied(user) if name in renewals else user
            for name, user in roster.users.items()
        }
        return replace(roster, users=users)

    def renew(self, roster: Roster, name: str, password: str) -> None:
        """Let a user have another password, beside the one that counts."""
        user = roster.users[name.lower()]
        with self._changing(roster) as renewals:
            known = renewals.get(name.lower())
            current = known.current if known else None
            scram = current.scram if current else user.scram
            prepared = prepare(password)
            # With the salt of the old one: a client is told one salt for both.
            keys = scram_keys(prepared, scram.salt, scram.iterations) if scram else None
            new = Secret(PasswordHash.of(prepared), keys)
            renewals[name.lower()] = _Renewal(_sign(user), current, new)

    def use(self, roster: Roster, name: str, new: Secret) -> bool:
        """Let a new password count alone.  False: another process was faster."""
        with self._changing(roster) as renewals:
            known = renewals.get(name.lower())
            if known is None or known.next != new:
                return False
            renewals[name.lower()] = replace(known, current=new, next=None)
            return True

    def stamps(self) -> Mapping[str, object]:
        """See `IDocuments.stamps`."""
        return self._documents()

    def read(self, name: str) -> bytes:
        """See `IDocuments.read`."""
        return self._documents().get(name, b"")

    def take(self, documents: Mapping[str, bytes]) -> None:
        """See `IDocuments.take`."""
        new = {name: json.loads(document) for name, document in documents.items() if document}
        with locked_folder(self._path.parent):
            kept = {name: each for name, each in self._entries().items() if name not in documents}
            self._write(kept | new)

    def _documents(self) -> Mapping[str, bytes]:
        """The entries for other nodes.

        The file, which has all of them, is read again only where it was replaced.
        """
        now = self.stamp()
        if now is None or now != self._told[0]:
            entries = self._entries().items()
            self._told = now, {name: json.dumps(entry).encode() for name, entry in entries}
        return self._told[1]

    def _entries(self) -> dict[str, Any]:
        """The entries of the file."""
        try:
            with open_regular(self._path) as file:
                document = json.loads(file.read(MAX_OCTETS))
                return {**document}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError):
            raise self._damaged() from None

    def _damaged(self) -> OSError:
        return OSError(
            f"{self._path} is damaged: remove it; peers that renewed a secret need a new line"
        )

    def _write(self, entries: Mapping[str, Any]) -> None:
        atomic_write(self._path, json.dumps(entries).encode())

    def _read(self, roster: Roster) -> dict[str, _Renewal]:
        """The renewals of passwords that are still in the users file."""
        try:
            renewals = {name: _renewal(name, entry) for name, entry in self._entries().items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            raise self._damaged() from None
        return {
            name: renewal
            for name, renewal in renewals.items()
            if name in roster.users and renewal.replaces == _sign(roster.users[name])
        }

    @contextmanager
    def _changing(self, roster: Roster) -> Iterator[dict[str, _Renewal]]:
        """The renewals, to be changed; written back at the end.  One process at a time."""
        with locked_folder(self._path.parent):
            renewals = self._read(roster)
            yield renewals
            self._write({name: _document(name, renewal) for name, renewal in renewals.items()})


def _sign(user: User) -> str:
    """A sign of a user's password in the users file."""
    return sha256(user.password.salt + user.password.digest).hexdigest()


def _document(name: str, renewal: _Renewal) -> dict[str, Any]:
    secrets = {"current": renewal.current, "next": renewal.next}
    return {"replaces": renewal.replaces} | {
        key: form.entry_of(User(name, secret.password, secret.scram))
        for key, secret in secrets.items()
        if secret is not None
    }


def _renewal(name: str, entry: Any) -> _Renewal:
    """One entry of the file.  Raises ValueError, TypeError, KeyError or AttributeError."""
    secrets = {}
    for key in ("current", "next"):
        if key in entry:
            user = form.user_of(name, entry[key])
            secrets[key] = Secret(user.password, user.scram)
    return _Renewal(entry["replaces"], secrets.get("current"), secrets.get("next"))
