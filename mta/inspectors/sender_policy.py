"""SPF in one session, where a sender is checked once a minute."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from mta.authentication.spf import Identity, Limits, Result, SPFResult, check_host
from mta.interfaces import IResolver
from mta.mail import Mailbox
from mta.session import Session

MAX_AGE = 60.0  # seconds: of a result that is used again


class SenderPolicies:
    """Checks the senders of all sessions.

    `hostname` is our name, `now` gives seconds since the epoch.  The time of a check is bounded
    where it is waited for.
    """

    def __init__(
        self,
        resolver: IResolver,
        hostname: str,
        clock: IReactorTime,
        now: Callable[[], float],
    ) -> None:
        self.clock = clock
        self._resolver = resolver
        self._hostname = hostname
        self._limits = Limits(now)
        self._last: SenderPolicy | None = None

    def of(self, session: Session) -> SenderPolicy:
        """Return that of a session, the same one for all its inspectors.

        These are made one right after the other: so it is enough to know the last one.
        """
        last = self._last
        if last is None or last.session is not session:
            self._last = last = SenderPolicy(self, session)
        return last

    async def check(self, session: Session, reverse_path: Mailbox) -> SPFResult:
        """Check a sender of a session."""
        return await check_host(
            self._resolver,
            address=session.client,
            mail_from=reverse_path,
            hello=session.hello,
            receiver=self._hostname,
            limits=self._limits,
        )


class SenderPolicy:
    """Checks the reverse-paths of one session.

    A client that brings many messages mostly brings them from few senders.
    """

    def __init__(self, policies: SenderPolicies, session: Session) -> None:
        self.session = session
        self._policies = policies
        self._asked: tuple[Mailbox, str] | None = None
        self._result: SPFResult | None = None
        self._until = 0.0
        self._under_way: tuple[Mailbox, str] | None = None
        self._waiting: list[Deferred[SPFResult]] = []

    def remembered(self, reverse_path: Mailbox) -> SPFResult | None:
        """The result for the last sender, where this is the same."""
        if self._asked != (reverse_path, self.session.hello):
            return None
        return self._result if self._policies.clock.seconds() < self._until else None

    def unanswered(self, reverse_path: Mailbox) -> SPFResult:
        """The result where the DNS has not answered."""
        identity = Identity.HELO if reverse_path.is_null else Identity.MAIL_FROM
        domain = self.session.hello if reverse_path.is_null else reverse_path.domain
        problem = "the DNS did not answer in time"
        return SPFResult(Result.TEMPERROR, domain, identity, problem=problem)

    async def check(self, reverse_path: Mailbox) -> SPFResult:
        """Check a sender, or wait for a check that is under way."""
        asked = (reverse_path, self.session.hello)
        if self._under_way == asked:
            waiting: Deferred[SPFResult] = Deferred()
            self._waiting.append(waiting)
            return await waiting
        self._under_way = asked
        found = self.unanswered(reverse_path)
        try:
            found = await self._policies.check(self.session, reverse_path)
        finally:  # it may have been cancelled
            self._end(found)
        if found.result is not Result.TEMPERROR:
            self._asked, self._result = asked, found
            self._until = self._policies.clock.seconds() + MAX_AGE
        return found

    def _end(self, found: SPFResult) -> None:
        """Tell the result to those that wait for it."""
        self._under_way = None
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.called:
                each.callback(found)
