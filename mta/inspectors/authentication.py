"""The inspector that authenticates senders: whose messages it judges, and whose not."""

from __future__ import annotations

from zope.interface import implementer

from mta.inspectors.authentication_config import AuthenticationConfig
from mta.inspectors.exempt import ExemptMessage, RelayResults
from mta.inspectors.judging import JudgedMessage
from mta.inspectors.sender_policy import SenderPolicies, SenderPolicy
from mta.interfaces import IAccessPolicy, IInspector, IMessageInspector, ISessionInspector
from mta.mail import MailArgument, canonical_domain
from mta.session import Origin, Session
from mta.settings import Service

_NONE: frozenset[str] = frozenset()


@implementer(IInspector)
class AuthenticationInspector:
    """Authenticates the senders of mail from outside."""

    def __init__(
        self, config: AuthenticationConfig, access: IAccessPolicy, senders: SenderPolicies
    ) -> None:
        self._config = config
        self._access = access
        self._senders = senders
        self.needs_name = config.needs_name

    def session(self, session: Session) -> ISessionInspector:
        """See `IInspector.session`."""
        sender_policy = self._senders.of(session)
        return _AuthenticatedSession(self._config, self._access, session, sender_policy)


@implementer(ISessionInspector)
class _AuthenticatedSession:
    """Authenticates the senders of one session."""

    def __init__(
        self,
        config: AuthenticationConfig,
        access: IAccessPolicy,
        session: Session,
        sender_policy: SenderPolicy,
    ) -> None:
        self._config = config
        self._access = access
        self._session = session
        self._sender_policy = sender_policy

    async def connected(self) -> None:
        """Let all clients pass."""

    async def hello(self) -> None:
        """Let all names pass."""

    async def unknown(self, line: bytes) -> None:
        """Leave the reply to the receiver."""

    async def message(self, id: str, argument: MailArgument, origin: Origin) -> IMessageInspector:
        """Begin to judge a message, to believe others about it, or neither."""
        session, config = self._session, self._config
        relay = RelayResults(id, config.authserv_id, self._trusted, config.settings.dmarc)
        if self._is_judged:
            return JudgedMessage(config, session, self._sender_policy, id, argument, relay)
        return ExemptMessage(relay)

    @property
    def _trusted(self) -> frozenset[str]:
        """The names under which results of others are believed.

        They are those of a relay that we have dialled: by which we call it, and it itself, unless
        the name is that of its client.
        """
        session = self._session
        dialled = self._config.peers.get(session.turned_peer)
        if dialled is None:
            return _NONE
        names = (dialled, session.hello) if session.told is None else (dialled,)
        return frozenset(canonical_domain(name).rstrip(".") for name in names) - {
            self._config.authserv_id
        }

    @property
    def _is_judged(self) -> bool:
        """Tell whether the client is known, and is none of ours.

        On a turned connection it is the relay's, where that does not tell who came to it.
        """
        session = self._session
        is_known = not session.turned_peer or session.told is not None
        return session.service is Service.SMTP and is_known and self._access.is_outsider(session)

    def close(self) -> None:
        """Forget nothing: nothing was kept."""
