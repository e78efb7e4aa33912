"""The inspector that authenticates senders: whose messages it judges, and whose not."""

from __future__ import annotations

from zope.interface import implementer

from mta.inspectors.authentication_config import AuthenticationConfig
from mta.inspectors.exempt import ExemptMessage
from mta.inspectors.judging import JudgedMessage
from mta.inspectors.sender_policy import SenderPolicy
from mta.interfaces import IAccessPolicy, IInspector, IMessageInspector, ISessionInspector
from mta.mail import MailArgument
from mta.session import Origin, Session
from mta.settings import Service


@implementer(IInspector)
class AuthenticationInspector:
    """Authenticates the senders of mail from outside."""

    def __init__(self, config: AuthenticationConfig, access: IAccessPolicy) -> None:
        self._config = config
        self._access = access
        self.needs_name = config.needs_name

    def session(self, session: Session) -> ISessionInspector:
        """See `IInspector.session`."""
        return _AuthenticatedSession(self._config, self._access, session)


@implementer(ISessionInspector)
class _AuthenticatedSession:
    """Authenticates the senders of one session."""

    def __init__(
        self, config: AuthenticationConfig, access: IAccessPolicy, session: Session
    ) -> None:
        self._config = config
        self._access = access
        self._session = session
        self._sender_policy = SenderPolicy(config, session)

    async def connected(self) -> None:
        """Let all clients pass."""

    async def hello(self) -> None:
        """Let all names pass."""

    async def unknown(self, line: bytes) -> None:
        """Leave the reply to the receiver."""

    async def message(self, id: str, argument: MailArgument, origin: Origin) -> IMessageInspector:
        """Begin to judge a message, to believe others about it, or neither."""
        session, config = self._session, self._config
        if self._is_judged:
            return JudgedMessage(config, session, self._sender_policy, id, argument)
        peer = config.peers.get(session.turned_peer, "")
        trusted = (peer,) if peer and peer != config.authserv_id else ()
        return ExemptMessage(id, config.authserv_id, trusted, config.settings.dmarc)

    @property
    def _is_judged(self) -> bool:
        session = self._session
        return (
            session.service is Service.SMTP
            and not session.turned_peer
            and self._access.is_outsider(session)
        )

    def close(self) -> None:
        """Forget nothing: nothing was kept."""
