"""Limits on what users and our hosts send in a day."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.access.account_table import Kind, user_account
from mta.access.accounts import Accounts
from mta.access.limits import RateLimit
from mta.interfaces import IFailureWatch, ILimitMeter, IPostmaster, IUsers
from mta.mail import Reply
from mta.session import Origin, Session
from mta.settings import DAY, Limits, Service, UserLimits
from mta.smtp.errors import Refusal

SUSPENDED = Reply(450, "4.7.1", ("Sending is suspended for this user, ask the postmaster",))
TOO_MANY_TODAY = Reply(450, "4.7.1", ("Too many recipients in 24 hours, try again later",))

_BY_AUTH = frozenset({Service.SMTP.value, Service.SUBMISSION.value})
_NO_LIMITS = UserLimits()


@implementer(IFailureWatch)
class SendingLimits:
    """The rules of one configuration.  `users` None: there are no log-ins."""

    log = Logger()

    def __init__(
        self,
        limits: Limits,
        users: IUsers | None,
        accounts: Accounts,
        postmaster: IPostmaster,
        meter: ILimitMeter,
        told: RateLimit,
    ) -> None:
        self._limits = limits
        self._users = users
        self._accounts = accounts
        self._postmaster = postmaster
        self._meter = meter
        self._told = told

    async def admit(self, session: Session) -> UserLimits:
        """Return the limits of the user who begins a message.

        Raises Refusal where the user is suspended.
        """
        user = session.identity
        if self._users is None or not user:
            return _NO_LIMITS
        account = await self._users.account(user)
        if account.is_suspended or await self._accounts.is_suspended(user):
            raise Refusal(SUSPENDED)
        return account.limits

    async def limits_of(self, session: Session) -> UserLimits:
        """Return the limits of the user of a session."""
        if self._users is None or not session.identity:
            return _NO_LIMITS
        return (await self._users.account(session.identity)).limits

    async def recipient(self, account: str, own: UserLimits) -> None:
        """Count a recipient of an account.  Raises Refusal."""
        limit = _first(own.recipients_per_day, self._limits.recipients_per_day)
        if not limit or await self._accounts.recipients.take(account, limit):
            return
        if self._told.take(account):
            self._meter.limited(Kind.RECIPIENTS.value)
            await self._tell_of_recipients(account, limit)
        raise Refusal(TOO_MANY_TODAY)

    def failed(self, origin: Origin, number: int) -> None:
        """See `IFailureWatch.failed`."""
        if self._users is not None and origin.user and origin.service in _BY_AUTH:
            counting = Deferred.fromCoroutine(
                self._count_failures(self._users, origin.user, number)
            )
            counting.addErrback(self._not_counted)

    async def _count_failures(self, users: IUsers, user: str, number: int) -> None:
        own = (await users.account(user)).limits
        limit = _first(own.failures_per_hour, self._limits.failures_per_hour)
        if not limit:
            return
        total = await self._accounts.failures.add(user_account(user), number)
        if total < limit:
            return
        reason = f"{total} recipients were refused within an hour"
        if not await self._accounts.suspend(user, reason):
            return
        self._meter.limited(Kind.FAILURES.value)
        self.log.warn("{user} is suspended: {reason}", user=user, reason=reason)
        await self._postmaster.tell(
            f"{user} is suspended",
            f"{reason[0].upper()}{reason[1:]}, of mail that {user} has sent; the limit is {limit}"
            " (limits.failures_per_hour). So many unknown or unwilling recipients are a sign of"
            " spam, which is sent with a password that others have learnt."
            f"\n\nNo mail is taken from {user} until `mta user resume {user}`: programs keep it and"
            f" try again. Give {user} a new password first, by `mta user passwd {user}`. What is in"
            f" the queue is still sent: `mta queue list --user {user}` shows it, and"
            f" `mta queue hold --user {user}` keeps it.",
        )

    async def _tell_of_recipients(self, account: str, limit: int) -> None:
        if not await self._accounts.is_to_be_told(f"{Kind.RECIPIENTS.value} {account}", DAY):
            return
        self.log.warn(
            "{account} has had {limit} recipients in 24 hours, and gets no more for now",
            account=account,
            limit=limit,
        )
        name = account.partition(" ")[2]
        await self._postmaster.tell(
            f"{name} has reached the limit of recipients",
            f"The {account} has sent to {limit} recipients in 24 hours, as many as"
            " limits.recipients_per_day allows. Further ones are refused for now, with 450:"
            " programs keep the mail and try again."
            "\n\nWhere that is right, a higher limit helps: for all in the configuration, or for"
            " one user in the users file (limits: {recipients_per_day: 2000})."
            " Where it is not, `mta user suspend NAME` ends it, and a new password.",
        )

    def _not_counted(self, failure: Failure) -> None:
        self.log.failure("failures of a user can't be counted", failure)


def _first(own: int | None, general: int) -> int:
    """The limit of a user, or else that of all."""
    return general if own is None else own
