"""Counts of sessions and log-ins, kept as long as the process lives."""

from __future__ import annotations

from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from mta.access.bans import Bans
from mta.access.limits import ConcurrencyLimit, RateLimit, RecentNames
from mta.interfaces import IEvictable
from mta.session import Session
from mta.settings import DAY, HOUR, MINUTE, Limits

FAILURE_WINDOW = 10 * MINUTE  # seconds, for `limits.auth_failures`; a ban is as long
PROVEN_FACTOR = 10  # times `auth_failures` that may fail for a user where that user has logged in


@dataclass(slots=True)
class Place:
    """A session that was let in, and its host.

    `connection` None: it keeps its place.  `charged`: commands that its host is charged with.
    """

    session: Session
    host: str
    connection: IEvictable | None = None
    charged: int = 0


class Counters:
    """The counters of one process.  A reload changes their limits, and none of their counts."""

    def __init__(self, clock: IReactorTime, bans: Bans | None = None) -> None:
        defaults = Limits()  # until `use` says others
        self.admitted: dict[int, Place] = {}  # by the id of the Session, oldest first
        self.per_host = ConcurrencyLimit(defaults.connections_per_host)
        self.failures = RateLimit(defaults.auth_failures, FAILURE_WINDOW, clock)
        self.account_failures = RateLimit(defaults.auth_failures, FAILURE_WINDOW, clock)
        self.proven_failures = RateLimit(defaults.auth_failures, FAILURE_WINDOW, clock)
        self.without_mail = RateLimit(0, MINUTE, clock)
        self.messages = RateLimit(defaults.messages_per_minute, MINUTE, clock)
        self.recipients = RateLimit(defaults.recipients_per_hour, HOUR, clock)
        self.told = RateLimit(1, DAY, clock)  # accounts of which the postmaster was told, perhaps
        self.tried = RecentNames()  # users whose log-ins failed, by host
        self.bans = bans or Bans(clock.seconds)

    def use(self, limits: Limits) -> None:
        """Use these limits from now on."""
        self.per_host.limit = limits.connections_per_host
        self.failures.limit = self.account_failures.limit = limits.auth_failures
        self.proven_failures.limit = PROVEN_FACTOR * limits.auth_failures
        self.messages.limit = limits.messages_per_minute
        self.recipients.limit = limits.recipients_per_hour
