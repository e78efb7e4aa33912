"""Sessions with other servers that send no mail."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThreadPool
from zope.interface import implementer

from mta.delivery.dialler import NO_HOST, Dialler, Transfer
from mta.delivery.own_host import OwnHost
from mta.delivery.per_host import most_telling
from mta.doctor.examined import Examined, IProbe, NameServerSeen, SessionSeen
from mta.doctor.name_servers import NameServers
from mta.doctor.web import Web
from mta.interfaces import IChannel, IClientTLS, IOwnHost, IResolver, IRole
from mta.mail import Hop, Outcome, Reply, Status
from mta.peers.exchange import NoMail
from mta.queued import HopFailure
from mta.resolver import Resolver
from mta.settings import Settings
from mta.smtp import far_look
from mta.smtp.dialogue import HELLO, NOOP, Dialogue
from mta.smtp.opening import SenderConfig, open_session
from mta.tls import ClientTLS

PROBE_TIMEOUT = 8.0  # seconds: for one session; a silent port must not take all of a check's time
_KEYWORDS = ("ATRN", "TURN", "ETRN", "STARTTLS", "AUTH", far_look.KEYWORD)  # that checks ask for
SILENT = Outcome(
    Status.DEFERRED, Reply(451, "4.4.1", (f"no answer within {PROBE_TIMEOUT:.0f} seconds",))
)


def examined_by(reactor: Any, settings: Settings) -> Examined:
    """The installation with these settings, to be looked at from this process.

    Raises TLSFault.
    """
    threads = reactor.getThreadPool()
    resolver = Resolver(reactor, settings.resolver)
    tls = ClientTLS(settings.tls)
    dialler = Dialler(reactor, threads, settings.hostname, resolver, tls, NotOwn())
    return Examined(
        settings,
        resolver,
        OwnHost(settings.hostname, settings.own_addresses),
        new_probe(reactor, settings, resolver, tls, dialler),
        partial(deferToThreadPool, reactor, threads),
    )


def new_probe(
    reactor: Any, settings: Settings, resolver: IResolver, tls: IClientTLS, dialler: Dialler
) -> Probe:
    """The probe with these settings."""
    name_servers = NameServers(reactor, settings.resolver)
    return Probe(dialler, reactor, name_servers, Web(reactor, resolver, tls))


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

    def __init__(
        self, dialler: Dialler, clock: IReactorTime, name_servers: NameServers, web: Web
    ) -> None:
        self._dialler = dialler
        self._clock = clock
        self._name_servers = name_servers
        self._web = web

    async def name_servers(self) -> Sequence[NameServerSeen]:
        """See `IProbe.name_servers`."""
        return await self._name_servers.seen()

    async def document(self, host: str, path: str) -> str:
        """See `IProbe.document`."""
        return await self._web.document(host, path)

    async def session(
        self, hop: Hop, commands: Sequence[str] = (), needed: str = ""
    ) -> SessionSeen:
        """See `IProbe.session`."""
        role = _Session(commands, needed)
        talking = Deferred.fromCoroutine(self._talk(hop, role))
        try:
            await talking.addTimeout(PROBE_TIMEOUT, self._clock)
        except TimeoutError:
            if role.seen is None:
                raise HopFailure(SILENT) from None
        assert role.seen is not None
        return role.seen

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
    """Opens a session, measures a round trip, sends commands, and quits.

    The commands are sent where the server offers the `needed` keyword.
    """

    config: SenderConfig

    def __init__(self, commands: Sequence[str], needed: str) -> None:
        self.seen: SessionSeen | None = None
        self._commands = commands
        self._needed = needed

    async def converse(self, channel: IChannel) -> IRole | None:
        """See `IRole.converse`."""
        dialogue = Dialogue(channel)
        await open_session(dialogue, self.config)
        begin = channel.seconds()
        await dialogue.command(b"NOOP", NOOP)
        round_trip = channel.seconds() - begin
        keywords = frozenset(word for word in _KEYWORDS if dialogue.extensions.offers(word))
        replies: list[Reply] = []
        self.seen = SessionSeen(dialogue.remote, keywords, channel.tls, round_trip, replies)
        if not self._needed or dialogue.extensions.offers(self._needed):
            for command in self._commands:
                replies.append(await dialogue.command(command.encode(), HELLO))
        await dialogue.quit()
        return None
