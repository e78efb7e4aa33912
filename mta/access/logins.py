"""Rules for failed log-ins: bans, delays, and exemptions.

A host with too many is banned: no user can log in from there for a while, and all else goes on.
Where many users share an address (a trusted network, a proxy, this machine) only the user at that
address is banned.  A user that has logged in from an address before is exempt from a ban for
failures of other users there, and a peer from any ban there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable

from twisted.logger import Logger

from mta.access import hosts
from mta.access.counters import FAILURE_WINDOW, Counters
from mta.access.limits import failure_delay
from mta.mail import Reply
from mta.session import LOCAL_ADDRESS, Ban, Session
from mta.settings import MINUTE, Network
from mta.smtp.errors import Refusal

TOO_MANY_FAILURES = Reply(421, "4.7.0", ("Too many failed log-ins, try again later",))
MAX_NAME = 64  # characters of a user name in the log


class LogIns:
    """The rules for log-ins.

    `shared`: the networks where an address stands for many users.  `peers`: the users that are
    peers, in lower case.
    """

    log = Logger()

    def __init__(
        self, counters: Counters, shared: Iterable[Network], peers: Collection[str] = ()
    ) -> None:
        self._counters = counters
        self._shared = tuple(shared)
        self._peers = peers

    def auth(self, session: Session) -> None:
        """See `ILogInPolicy.auth`.  A user that is exempt from the ban may be about to log in."""
        bans, host = self._counters.bans, hosts.key(session.client)
        ban = bans.find(host)
        if ban and not any(self._is_exempt(host, user, ban) for user in bans.proven(host)):
            raise Refusal(TOO_MANY_FAILURES)

    def authenticated(self, session: Session, user: str) -> float:
        """See `ILogInPolicy.authenticated`."""
        host, name = hosts.key(session.client), user.lower()
        is_proven = self._is_proven(host, name)
        self._require_no_ban(host, name)
        self._counters.bans.prove(host, name)
        # An attacker must not learn by the time whether the password was right.
        return 0.0 if is_proven else self._account_delay(name)

    def auth_failed(self, session: Session, user: str, is_known: bool) -> float:
        """See `ILogInPolicy.auth_failed`.

        Unknown names count as those of users do: no reply tells them apart.
        """
        counters, host = self._counters, hosts.key(session.client)
        name = user.lower() if is_known else _digest(user)
        self._require_no_ban(host, name)
        if self._is_proven(host, name):
            counters.proven_failures.add(f"{host} {name}")
        else:
            counters.account_failures.add(name)
        target = name if self._is_shared(session.client) else ""
        group = f"{host} {target}"
        if is_known:
            counters.tried.add(group, user)
        count = counters.failures.add(group)
        self.log.warn(
            "log-in failed from {client} as {user} ({count} of {limit} in {minutes:.0f} minutes)",
            client=session.client,
            user=_printable(user) if is_known else "an unknown user",
            count=count,
            limit=counters.failures.limit,
            minutes=FAILURE_WINDOW / MINUTE,
        )
        # An unknown name may be a password, and no ban has it: see `_require_no_ban`.
        if counters.failures.is_exhausted(group) and (is_known or not target):
            self._ban(host, target, group)
        return max(failure_delay(count), self._account_delay(name))

    def _ban(self, host: str, target: str, group: str) -> None:
        counters = self._counters
        users = counters.tried.of(group)
        failures = counters.failures.count(group)
        counters.bans.add(host, target, failures, users, FAILURE_WINDOW)
        counters.failures.forget(group)
        counters.tried.forget(group)
        self.log.warn(
            "no log-ins{user} from {host} for {minutes:.0f} minutes: {count} failed ({users})",
            user=f" of {_printable(target)}" if target else "",
            host=host,
            minutes=FAILURE_WINDOW / MINUTE,
            count=failures,
            users=", ".join(map(_printable, users)) or "unknown users",
        )

    def _require_no_ban(self, host: str, name: str) -> None:
        """Raise Refusal for a user that is banned and not exempt."""
        ban = self._counters.bans.find(host, name)
        is_over_limit = self._counters.failures.is_exhausted(f"{host} {name}")
        if is_over_limit or (ban and not self._is_exempt(host, name, ban)):
            raise Refusal(TOO_MANY_FAILURES)

    def _is_exempt(self, host: str, name: str, ban: Ban) -> bool:
        """Tell whether a ban is for failures of others than this user.

        Only a user that has logged in from there before is exempt; a peer is then in any case.
        """
        tried = {ban.user, *(user.lower() for user in ban.users)}
        return self._is_proven(host, name) and (name in self._peers or name not in tried)

    def _is_proven(self, host: str, name: str) -> bool:
        """Tell whether the user logged in there, and failed seldom since."""
        return name in self._counters.bans.proven(
            host
        ) and not self._counters.proven_failures.is_exhausted(f"{host} {name}")

    def _account_delay(self, name: str) -> float:
        """The delay of a log-in for an account with many failures anywhere."""
        over = self._counters.account_failures.count(name) - self._counters.account_failures.limit
        return failure_delay(over) if over > 0 else 0.0

    def _is_shared(self, client: str) -> bool:
        return client == LOCAL_ADDRESS or hosts.is_in(client, self._shared)


def _digest(name: str) -> str:
    """A key for an unknown name, which may be a password."""
    return hashlib.sha256(name.lower().encode("utf-8", "replace")).hexdigest()


def _printable(name: str) -> str:
    shown = name[:MAX_NAME]
    return shown if shown.isprintable() else ascii(shown)
