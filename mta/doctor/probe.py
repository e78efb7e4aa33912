"""Sessions with other servers that send no mail."""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from mta.delivery.dialler import NO_HOST, Dialler, Transfer
from mta.delivery.own_host import OwnHost
from mta.delivery.per_host import most_telling
from mta.doctor.examined import Examined, IProbe, SessionSeen
from mta.interfaces import IChannel, IOwnHost, IRole
from mta.mail import Hop, Outcome
from mta.peers.exchange import NoMail
from mta.queued import HopFailure
from mta.resolver import Resolver
from mta.settings import Settings
from mta.smtp.dialogue import MAIL, NOOP, RCPT, Dialogue
from mta.smtp.opening import SenderConfig, open_session
from mta.tls import ClientTLS

_KEYWORDS = ("ATRN", "TURN", "ETRN", "STARTTLS", "AUTH", "PIPELINING", "CHUNKING", "SMTPUTF8")


def examined_by(reactor: Any, settings: Settings) -> Examined:
    """The installation with these settings, to be looked at from this process.

    Raises TLSFault.
    """
    own = OwnHost(settings.hostname, settings.own_addresses)
    resolver = Resolver(reactor, settings.resolver)
    dialler = Dialler(
        reactor,
        reactor.getThreadPool(),
        settings.hostname,
        resolver,
        ClientTLS(settings.tls),
        NotOwn(),
    )
    return Examined(settings, resolver, own, Probe(dialler))


@implementer(IOwnHost)
class NotOwn:
    """No host is our own: we may probe our own ports."""

    def is_named(self, host: str) -> bool:
        """See `IOwnHost.is_named`."""
        return False

    def is_at(self, address: str) -> bool:
        """See `IOwnHost.is_at`."""
        return False


@implementer(IProbe)
class Probe:
    """Reaches other hosts as the relay does."""

    def __init__(self, dialler: Dialler) -> None:
        self._dialler = dialler

    async def session(self, hop: Hop) -> SessionSeen:
        """See `IProbe.session`."""
        role = _Session()
        await self._talk(hop, role)
        assert role.seen is not None
        return role.seen

    async def rcpt(self, hop: Hop, reverse_path: str, forward_path: str) -> int:
        """See `IProbe.rcpt`."""
        role = _Session(f"MAIL FROM:<{reverse_path}>", f"RCPT TO:<{forward_path}>")
        await self._talk(hop, role)
        return role.code

    async def _talk(self, hop: Hop, role: _Session) -> None:
        failures: list[Outcome] = []
        async for candidate in self._dialler.addresses(hop, failures):
            try:
                await self._dialler.talk(hop, candidate, _Probing(role))
                return
            except HopFailure as failure:
                failures.append(failure.outcome)
        raise HopFailure(most_telling(failures or [NO_HOST]))


class _Probing(Transfer):
    """A transfer of nothing."""

    def __init__(self, role: _Session) -> None:
        super().__init__(NoMail())
        self._role = role

    def new_sender(self, config: SenderConfig) -> IRole:
        """Return the role, with the configuration of this connection."""
        self._role.config = config
        return self._role


@implementer(IRole)
class _Session:
    """Opens a session, measures a round trip, and quits.

    `transaction` are commands that come before QUIT, MAIL and RCPT.
    """

    config: SenderConfig

    def __init__(self, *transaction: str) -> None:
        self.seen: SessionSeen | None = None
        self.code = 0
        self._transaction = transaction

    async def converse(self, channel: IChannel) -> IRole | None:
        """See `IRole.converse`."""
        dialogue = Dialogue(channel)
        await open_session(dialogue, self.config)
        begin = channel.seconds()
        await dialogue.command(b"NOOP", NOOP)
        self.seen = SessionSeen(
            dialogue.remote,
            frozenset(word for word in _KEYWORDS if dialogue.extensions.offers(word)),
            channel.tls is not None,
            channel.seconds() - begin,
        )
        for command, stage in zip(self._transaction, (MAIL, RCPT), strict=False):
            self.code = (await dialogue.command(command.encode(), stage)).code
            if self.code >= 300:
                break
        await dialogue.quit()
        return None
