"""Who may not log in for a while, and who is spared: in memory, and where all processes see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mta.access.limits import Recent
from mta.interfaces import ILogInStore
from mta.session import Ban

MAX_BANS = 1000  # kept at once; the one that ends first is forgotten


class Bans:
    """The bans as one process sees them, and the users who have logged in from each host.

    `store` is where the other processes and the tools see them, `now` gives seconds since the
    epoch.
    """

    def __init__(self, now: Callable[[], float], store: ILogInStore | None = None) -> None:
        self._now = now
        self._store = store
        self._bans: dict[tuple[str, str], Ban] = {}
        self._proven = Recent()

    async def refresh(self) -> None:
        """Take up what other processes and people have changed."""
        record = await self._store.changed() if self._store is not None else None
        if record is not None:
            self._bans = {ban.key: ban for ban in record.bans}
            for host, user in record.proven:
                self._proven.add(host, user)

    def find(self, host: str, user: str = "") -> Ban | None:
        """The ban of a host, or of a user at that host, that is in force."""
        for key in ((host, ""), (host, user)):
            ban = self._bans.get(key)
            if ban is not None and ban.is_in_force(self._now()):
                return ban
        return None

    def begin(
        self, host: str, user: str, failures: int, users: Sequence[str], seconds: float
    ) -> Ban:
        """Ban a host, or a user at a host, for so many seconds from now on."""
        now = self._now()
        ban = Ban(host, user, now, now + seconds, failures, tuple(users))
        kept = [other for other in self._bans.values() if other.is_in_force(now)]
        kept = sorted(kept, key=lambda other: other.until)[-MAX_BANS + 1 :]
        self._bans = {other.key: other for other in (*kept, ban)}
        if self._store is not None:
            self._store.add_ban(ban)
        return ban

    def prove(self, host: str, user: str) -> None:
        """Remember that a user has logged in from a host."""
        if user not in self._proven.of(host):
            self._proven.add(host, user)
            if self._store is not None:
                self._store.add_proven(host, user)

    def proven(self, host: str) -> Sequence[str]:
        """The users who have logged in from a host."""
        return self._proven.of(host)
