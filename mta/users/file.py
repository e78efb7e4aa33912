"""The users file: YAML, mode 0600, written by ``mta user``.

It holds no password that can be read back, but for users who want CRAM-MD5, which can't do
without (RFC 2195).  `form` is what stands in it.  Everything here blocks.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from mta.files import Stamp, atomic_write, locked_folder, open_regular
from mta.smtp import sasl
from mta.smtp.sasl import ScramKeys
from mta.smtp.saslprep import prepare
from mta.users import form
from mta.users.addresses import normalised
from mta.users.renewed import RenewedPasswords
from mta.users.roster import HASH_SIZE, SALT_SIZE, PasswordHash, Roster, User


class UserFault(Exception):
    """Something about users that a person must put right: one line."""


class UsersUnreadable(UserFault):
    """A file with users can't be read now.  Ask again later."""


class UserFile:
    """The users file at `path`.  Every method raises UserFault.

    `owner`: the user and group whose it is to be when it is written; None: as it was.  `scram`:
    whether users get keys for SCRAM.
    """

    def __init__(
        self, path: Path, owner: tuple[int, int] | None = None, *, scram: bool = True
    ) -> None:
        self.path = path
        self.scram = scram
        self._owner = owner

    def stamp(self) -> Stamp | None:
        """A sign of the file's last change; None: there is no file."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._fault(error) from None
        return status.st_mtime_ns, status.st_ino, status.st_size

    def load(self) -> Roster:
        """All users in the file; none where there is no file."""
        try:
            with open_regular(self.path) as file:
                text = file.read()
        except FileNotFoundError:
            return Roster(decoy=secrets.token_bytes(HASH_SIZE))
        except OSError as error:
            raise self._fault(error) from None
        try:
            return form.read(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
            raise UserFault(f"{self.path}{place}: this is not YAML") from None
        except ValueError as error:
            raise UserFault(f"{self.path}: {error}") from None

    def add(
        self,
        name: str,
        password: str,
        addresses: Sequence[str] = (),
        *,
        cram_md5: bool = False,
    ) -> None:
        """Add a user; `cram_md5` keeps the password itself, for CRAM-MD5."""
        own = tuple(_checked(normalised, address) for address in addresses)
        user = self._user(_checked(prepare, name), password, cram_md5=cram_md5)
        with self._changing() as users:
            if user.name.lower() in users:
                raise UserFault(f"there is already a user {user.name}")
            users[user.name.lower()] = replace(user, addresses=own)

    def set_password(self, name: str, password: str) -> None:
        """Give a user a new password."""
        with self._changing() as users:
            old = self._existing(users, name)
            new = self._user(old.name, password, cram_md5=bool(old.cram_md5))
            users[old.name.lower()] = replace(new, addresses=old.addresses, account=old.account)

    def is_outdated(self, user: User) -> bool:
        """Tell whether a password would get other hashes today."""
        iterations = user.scram.iterations if user.scram else 0
        return iterations < sasl.ITERATIONS if self.scram else user.scram is not None

    def renew(self, user: User, password: str) -> None:
        """Hash a prepared password anew, if it is still the user's."""
        keys = self._keys(password)
        with self._changing() as users:
            now = users.get(user.name.lower())
            if now is not None and now.password == user.password:
                users[user.name.lower()] = replace(now, scram=keys)

    def edit(self, change: Callable[[str], str]) -> None:
        """Change the text of the file.  Comments in it stay."""
        with self._locked():
            try:
                with open_regular(self.path) as file:
                    text = change(file.read().decode()).encode()
                form.read(text)
            except ValueError as error:
                raise UserFault(f"{self.path}: {error}") from None
            atomic_write(self.path, text, owner=self._owner)

    def existing(self, name: str) -> User:
        """Return a user, by its name in any case."""
        return self._existing(self.load().users, name)

    def delete(self, name: str) -> None:
        """Remove a user."""
        with self._changing() as users:
            del users[self._existing(users, name).name.lower()]

    def list(self) -> Sequence[User]:
        """All users by name."""
        users = self.load().users
        return [users[name] for name in sorted(users)]

    def check(self, name: str, password: str, renewed: RenewedPasswords | None = None) -> bool:
        """Tell whether that is the user's password.

        `renewed` are those that count beside the file's.
        """
        roster = self.load()
        try:
            roster = renewed.applied(roster) if renewed else roster
        except OSError as error:
            raise UserFault(str(error)) from None
        user, prepared = self._existing(roster.users, name), _checked(prepare, password)
        new = user.successor
        return user.password.matches(prepared) or bool(new and new.password.matches(prepared))

    def _user(self, name: str, password: str, *, cram_md5: bool) -> User:
        prepared = _checked(prepare, password)
        secret = password if cram_md5 else ""
        return User(name, PasswordHash.of(prepared), self._keys(prepared), (), secret)

    def _keys(self, password: str) -> ScramKeys | None:
        if not self.scram:
            return None
        return sasl.scram_keys(password, secrets.token_bytes(SALT_SIZE), sasl.ITERATIONS)

    def _existing(self, users: Mapping[str, User], name: str) -> User:
        user = users.get(_checked(prepare, name).lower())
        if user is None:
            raise UserFault(f"there is no user {name}")
        return user

    @contextmanager
    def _changing(self) -> Iterator[dict[str, User]]:
        """The users, to be changed; written back at the end.  One process at a time."""
        with self._locked():
            roster = self.load()
            users = dict(roster.users)
            yield users
            atomic_write(self.path, form.written(Roster(users, roster.decoy)), owner=self._owner)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep others from changing the file."""
        try:
            with locked_folder(self.path.parent):
                yield
        except OSError as error:
            raise self._fault(error) from None

    def _fault(self, error: OSError) -> UserFault:
        return UsersUnreadable(f"{error.filename or self.path}: {error.strerror}")


def _checked(check: Any, text: str) -> str:
    """The result of `check` for a text that a person gave.  Raises UserFault."""
    try:
        return check(text)  # type: ignore[no-any-return]
    except ValueError as error:
        raise UserFault(f"a name, password or address: {error}") from None
