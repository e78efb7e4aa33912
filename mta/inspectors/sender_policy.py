"""SPF in one session, where a sender is checked once a minute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mta.authentication.spf import Identity, Result, SPFResult, check_host
from mta.mail import Mailbox
from mta.session import Session

if TYPE_CHECKING:
    from mta.inspectors.authentication_config import AuthenticationConfig

MAX_AGE = 60.0  # seconds: of a result that is used again


class SenderPolicy:
    """Checks the reverse-paths of one session.

    A client that brings many messages mostly brings them from few senders.
    """

    def __init__(self, config: AuthenticationConfig, session: Session) -> None:
        self._config = config
        self._session = session
        self._asked: tuple[Mailbox, str] | None = None
        self._result: SPFResult | None = None
        self._until = 0.0

    def remembered(self, reverse_path: Mailbox) -> SPFResult | None:
        """The result for the last sender, where this is the same."""
        if self._asked != (reverse_path, self._session.hello):
            return None
        return self._result if self._config.clock.seconds() < self._until else None

    def unanswered(self, reverse_path: Mailbox) -> SPFResult:
        """The result where the DNS has not answered."""
        identity = Identity.HELO if reverse_path.is_null else Identity.MAIL_FROM
        domain = self._session.hello if reverse_path.is_null else reverse_path.domain
        problem = "the DNS did not answer in time"
        return SPFResult(Result.TEMPERROR, domain, identity, problem=problem)

    async def check(self, reverse_path: Mailbox) -> SPFResult:
        """Check a sender."""
        config, hello = self._config, self._session.hello
        found = await check_host(
            config.resolver,
            address=self._session.client,
            mail_from=reverse_path,
            hello=hello,
            receiver=config.hostname,
            limits=config.limits,
        )
        if found.result is not Result.TEMPERROR:
            self._asked, self._result = (reverse_path, hello), found
            self._until = config.clock.seconds() + MAX_AGE
        return found
