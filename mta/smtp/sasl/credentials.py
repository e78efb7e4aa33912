"""The secrets of users, for the server's side of SASL."""

from __future__ import annotations

from dataclasses import dataclass, field

from zope.interface import Interface


@dataclass(frozen=True, slots=True)
class ScramKeys:
    """The keys that a server keeps of a password.  See RFC 5802 section 3.

    `successor` are those of a new password of the same user, with the same salt and iterations.
    """

    salt: bytes
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)
    successor: ScramKeys | None = None


class ICredentials(Interface):
    """The secrets of users.

    Every method may raise AuthenticationUnavailable.  `user` is a prepared name.
    """

    async def verify_password(user: str, password: str) -> bool:
        """Return whether that is the user's password.

        It takes as long where there is no such user.
        """

    async def scram_keys(user: str) -> ScramKeys:
        """Return the user's keys.

        Where there is no such user, no password fits the keys, and their salt stays the same, so
        that the answer doesn't tell.
        """

    async def proved(user: str, keys: ScramKeys) -> None:
        """Note which keys of the user the client has proved."""

    async def cram_secret(user: str) -> str | None:
        """Return the plain secret of a user that wants CRAM-MD5, else None."""
