"""Bans of hosts and users after failed log-ins, shared by all processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mta.access.limits import RecentNames
from mta.interfaces import ILogInStore
from mta.session import Ban

MAX_BANS = 1000  # kept at once; the one that ends first is forgotten


class Bans:
    """The bans in force, and the users that logged in from hosts.

    They are in memory, and in the `store`, where other processes and the commands see them; `now`
    gives seconds since the epoch.
    """

    def __init__(self, now: Callable[[], float], store: ILogInStore | None = None) -> None:
        self._now = now
        self._store = store
        self._bans: dict[tuple[str, str], Ban] = {}
        self._proven = RecentNames()

    async def refresh(self) -> None:
        """Read the changes that other processes and the operator made."""
        record = await self._store.changed() if self._store is not None else None
        if record is not None:
            self._bans = {ban.key: ban for ban in record.bans}
            for host, user in record.proven:
                self._proven.add(host, user)

    def find(self, host: str, user: str = "") -> Ban | None:
        """The ban in force of a host, or of a user there."""
        for key in ((host, ""), (host, user)):
            ban = self._bans.get(key)
            if ban is not None and ban.is_in_force(self._now()):
                return ban
        return None

    def add(self, host: str, user: str, failures: int, users: Sequence[str], seconds: float) -> Ban:
        """Ban a host, or a user there, for `seconds` from now on."""
        now = self._now()
        ban = Ban(host, user, now, now + seconds, failures, tuple(users))
        kept = [other for other in self._bans.values() if other.is_in_force(now)]
        kept = sorted(kept, key=lambda other: other.until)[-MAX_BANS + 1 :]
        self._bans = {other.key: other for other in (*kept, ban)}
        if self._store is not None:
            self._store.add_ban(ban)
        return ban

    def prove(self, host: str, user: str) -> None:
        """Note that a user has logged in from a host."""
        if user not in self._proven.of(host):
            self._proven.add(host, user)
            if self._store is not None:
                self._store.add_proven(host, user)

    def proven(self, host: str) -> Sequence[str]:
        """The users that have logged in from a host."""
        return self._proven.of(host)
