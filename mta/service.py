"""The only place where the parts are joined: what `twistd mta` runs.

What lives as long as the process (spool, runner, listeners) is made once; what the
configuration says is made anew when it is read again.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import UNIXClientEndpoint, serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from twisted.python.usage import Options as UsageOptions

from mta import config, logs
from mta.delivery.local import DiscardAgent, RejectAgent
from mta.delivery.maildir import MaildirAgent
from mta.delivery.pipe import PipeAgent
from mta.delivery.relay import Dialler, RelayAgent
from mta.gate import Gate
from mta.gate.turning import Reversal
from mta.interfaces import (
    HopFailure,
    IDeliveryAgent,
    IMailSource,
    IRole,
    IUsers,
    Message,
    Session,
)
from mta.link import Link, LinkFactory
from mta.mail import Agent, Security
from mta.notices import NoticeWriter
from mta.peers.exchange import Exchange, NoMail, Tally
from mta.peers.handover import HandOver
from mta.peers.keeper import Keeper
from mta.peers.record import Records
from mta.queue.held import EVERYWHERE
from mta.queue.runner import Runner
from mta.resolver import Resolver
from mta.routing import Router
from mta.settings import Listener, ListenerTLS, Peer, Settings
from mta.smtp.intake import Depot
from mta.smtp.receiver import Receiver, Reception
from mta.smtp.sender import Demands
from mta.spool.sqlite import SqliteSpool
from mta.tls import ClientTLS, ServerTLS, TLSFault
from mta.users import DovecotUsers, UserFault, UserFile, Users

GRACE = 10.0  # seconds that running transactions get when the service stops
CERTIFICATES_EVERY = 30.0  # seconds between looks at the certificate files
TAKE_OVER_EVERY = 10.0  # seconds between looks for mail of processes that died
THREADS = 20


class Options(UsageOptions):
    """The command line of ``twistd mta``."""

    synopsis = "[options] mta [--config FILE]"
    longdesc = "A mail transfer agent whose connections carry mail both ways."
    optParameters: ClassVar = [
        [
            "config",
            "c",
            os.environ.get("MTA_CONFIG", "/etc/mta/mta.yaml"),
            "The configuration file.",
        ]
    ]


def makeService(options: Options) -> MailService:
    """Twisted calls this to make the service.  Exits with one line for each problem found."""
    from twisted.internet import reactor  # the outermost place: everybody else is given it

    path = Path(options["config"]).absolute()
    try:
        settings = config.load(path)
    except config.ConfigurationError as error:
        raise SystemExit("\n".join(map(str, error.problems))) from None
    return MailService(path, settings, reactor, options.parent or {})


class MailService(Service):
    """The whole mail transfer agent, as one service."""

    log = Logger()
    name = "mta"

    def __init__(
        self, path: Path, settings: Settings, reactor: Any, options: Mapping[str, Any]
    ) -> None:
        self._path = path
        self._settings = settings
        self._reactor = reactor
        self._options = options
        self._listening: list[_Listening] = []
        self._loops: list[LoopingCall] = []
        self._keepers: dict[str, Keeper] = {}

    def setServiceParent(self, parent: Any) -> None:
        """Twisted calls this with the application, which may be told how to log."""
        if isinstance(parent, Componentized):
            observer = logs.observer(self._options, self._settings.log)
            if observer is not None:
                parent.setComponent(ILogObserver, observer)
        super().setServiceParent(parent)

    # --- start

    def privilegedStartService(self) -> None:
        """Twisted calls this while it may still bind low ports."""
        super().privilegedStartService()
        self._bind()

    def startService(self) -> None:
        """Twisted calls this when the process is what it will be."""
        super().startService()
        if not self._listening:
            self._bind()
        try:
            self._open()
        except (TLSFault, UserFault) as error:
            raise self._fatal(str(error)) from None
        except OSError as error:
            reason = error.strerror or error
            raise self._fatal(
                f"cannot use the spool {self._settings.spool}: {reason}; "
                "it must be a folder that this user may write to"
            ) from None
        signal.signal(signal.SIGHUP, self._hung_up)
        self._reactor.callWhenRunning(self._start)

    def _fatal(self, reason: str) -> BaseException:
        """What to raise so that the process ends with this one line.

        A daemon's parent hears of no SystemExit, and would wait for ever.
        """
        foreground = self._options.get("nodaemon", True)
        return SystemExit(reason) if foreground else RuntimeError(reason)

    def _bind(self) -> None:
        """Open the listeners; nobody is answered before the reactor runs."""
        for listener in self._settings.listen:
            factory = LinkFactory(self._reactor)
            results: list[Any] = []
            endpoint = serverFromString(self._reactor, listener.endpoint)
            endpoint.listen(factory).addBoth(results.append)
            if not results or isinstance(results[0], Failure):
                reason = results[0].getErrorMessage() if results else "not ready at once"
                raise self._fatal(f"cannot listen on {listener.endpoint}: {reason}")
            self._listening.append(_Listening(listener, results[0], factory))

    def _open(self) -> None:
        """Make what lives as long as the process."""
        settings, reactor = self._settings, self._reactor
        reactor.suggestThreadPoolSize(THREADS)
        self._threads = reactor.getThreadPool()
        self._spool = SqliteSpool(Path(settings.spool), reactor, self._threads)
        self._spool.start()
        self._records = Records(Path(settings.spool))
        self._furnish(settings)
        self._runner = Runner(
            self._spool,
            self._router,
            self._agents,
            NoticeWriter(settings.hostname),
            settings.queue,
            settings.peers,
            reactor,
        )
        self._spool.on_wake = self._runner.wake
        self._runner.on_held = self._held_for

    def _furnish(self, settings: Settings) -> None:
        """Make what the configuration says.  Raises TLSFault or UserFault, and changes nothing."""
        reactor, hostname = self._reactor, settings.hostname
        pins = [peer.certificate for peer in settings.peers.values() if peer.certificate]
        server_tls = ServerTLS(settings.tls, Path(settings.spool), hostname, pins)
        client_tls = ClientTLS(settings.tls)
        router = Router(hostname, settings.domains, settings.routes, settings.default_route)
        users = self._users(settings, router)
        gate = Gate(
            settings.relay, settings.limits, settings.peers.values(), router, users, reactor
        )
        depot = Depot(
            hostname, self._spool, self._accepted, time.time, settings.limits.message_size
        )
        reversal = Reversal(
            settings.peers.values(), self._spool.count_held, self._hand_over, self._run_for
        )
        for listening in self._listening:
            listener = listening.listener
            reception = Reception(
                depot, gate, settings.limits, listener.service, listener.tls, users, reversal
            )
            listening.factory.serve(
                partial(_receiver, reception),
                server_tls,
                tls_at_once=listener.tls is ListenerTLS.IMPLICIT,
            )
        resolver = Resolver(reactor, settings.resolver)
        self._dialler = Dialler(reactor, self._threads, hostname, resolver, client_tls.towards)
        self._router = router
        self._agents = self._delivery_agents(hostname)
        self._turned = Reception(depot, gate, settings.limits)
        self._tls = (server_tls, client_tls)

    def _users(self, settings: Settings, router: Router) -> IUsers | None:
        kind, _, socket = settings.users.partition(":")
        if kind == "dovecot":
            endpoint = UNIXClientEndpoint(self._reactor, socket)
            return DovecotUsers(endpoint, self._reactor, router.is_ours)
        if not settings.users:
            return None
        certificates = {
            peer.certificate: peer.user
            for peer in settings.peers.values()
            if peer.certificate and peer.user
        }
        return Users(
            UserFile(Path(settings.users)),
            router.is_ours,
            self._reactor,
            self._threads,
            certificates,
        )

    def _delivery_agents(self, hostname: str) -> Mapping[Agent, IDeliveryAgent]:
        reactor, threads = self._reactor, self._threads
        relay = RelayAgent(self._dialler)
        return {
            Agent.MX: relay,
            Agent.SMTP: relay,
            Agent.LMTP: relay,
            Agent.MAILDIR: MaildirAgent(reactor, threads, hostname),
            Agent.PIPE: PipeAgent(reactor),
            Agent.DISCARD: DiscardAgent(),
            Agent.REJECT: RejectAgent(),
        }

    def _accepted(self, message: Message, session: Session) -> None:
        self.log.info(
            "{queue_id} accepted <{reverse_path}> from {client} by {protocol}: {size} octets",
            queue_id=message.id,
            reverse_path=str(message.envelope.reverse_path),
            client=session.client,
            protocol=session.protocol,
            identity=session.identity,
            size=message.content.size,
            recipients=len(message.envelope.recipients),
        )
        self._runner.accept(message)

    def _start(self) -> None:
        """The reactor runs."""
        Deferred.fromCoroutine(self._begin()).addErrback(self._failed, "start")

    async def _begin(self) -> None:
        await self._take_over()
        self._runner.start()
        self._keep_up(self._settings.peers)
        self._repeat(TAKE_OVER_EVERY, self._take_over)
        self._repeat(CERTIFICATES_EVERY, self._reload_certificates)
        for listening in self._listening:
            self.log.info(
                "listening on {endpoint} ({service})",
                endpoint=listening.endpoint,
                service=listening.listener.service.value,
            )
        self.log.info("ready")

    # --- peers that dial in

    def _hand_over(self, peer: Peer, domains: Collection[str]) -> IRole:
        """What a peer gets that turned its connection."""
        hostname = self._settings.hostname
        demands = Demands(hostname, security=Security.OFF, keepalive=peer.keepalive)
        open_source = partial(self._runner.held, peer.name, domains, peer.linger)
        return HandOver(peer.name, demands, open_source, partial(self._note, peer.name))

    def _run_for(self, peer: Peer, domains: Collection[str]) -> None:
        """ETRN: send a peer its mail to where it is to be sent."""
        running = Deferred.fromCoroutine(self._run(peer, domains))
        running.addErrback(self._failed, f"the queue run for {peer.name}")

    async def _run(self, peer: Peer, domains: Collection[str]) -> None:
        assert peer.etrn is not None
        source = self._runner.held(peer.name, domains)
        try:
            await self._agents[peer.etrn.agent].deliver(peer.etrn, source)
        except HopFailure as failure:
            self._note(peer.name, last_error=str(failure.outcome.reply))
        else:
            self._note(peer.name, last_exchange=time.time(), last_error="")
        finally:
            source.close()

    def _note(self, peer: str, **changes: Any) -> None:
        """Keep what became of an exchange, for people."""
        writing = deferToThreadPool(
            self._reactor, self._threads, partial(self._records.update, peer, **changes)
        )
        writing.addErrback(self._failed, f"the record of {peer}")

    # --- peers that we dial

    async def exchange(
        self, peer: Peer, progress: Callable[[Tally], None] = lambda _: None
    ) -> Tally:
        """One whole exchange with a peer.  Raises HopFailure."""
        exchange = Exchange(peer, self._dialler, self._turned, progress)
        try:
            with self._own_mail(peer) as source:
                tally = await exchange.run(source)
        except HopFailure as failure:
            self._note(peer.name, link_since=None, last_error=str(failure.outcome.reply))
            raise
        self._note(
            peer.name,
            link_since=None,
            last_exchange=time.time(),
            last_error="the connection broke" if tally.lost else "",
            sent=tally.sent,
            received=tally.received,
        )
        return tally

    async def _hand_in(self, peer: Peer) -> None:
        """Send a peer what came for it while its link is turned.  Raises HopFailure."""
        with self._own_mail(peer) as source:
            await Exchange(peer, self._dialler, self._turned).hand_over(source)

    @contextmanager
    def _own_mail(self, peer: Peer) -> Iterator[IMailSource]:
        """Our own mail that waits for a peer that we dial."""
        if not peer.send:
            yield NoMail()
            return
        source = self._runner.held(peer.name, [EVERYWHERE])
        try:
            yield source
        finally:
            source.close()

    def _keep_up(self, peers: Mapping[str, Peer]) -> None:
        """Dial these peers from now on, and no others."""
        keepers, self._keepers = self._keepers, {}
        for keeper in keepers.values():
            keeper.stop()
        for peer in peers.values():
            if peer.connect is not None and peer.every:
                keeper = Keeper(
                    peer, partial(self.exchange, peer), partial(self._hand_in, peer), self._reactor
                )
                self._keepers[peer.name] = keeper
                keeper.start()

    def _held_for(self, peer: str) -> None:
        if peer in self._keepers:
            self._keepers[peer].mail_came()

    # --- while it runs

    def _repeat(self, seconds: float, action: Callable[[], Any]) -> None:
        loop = LoopingCall(lambda: Deferred.fromCoroutine(action()))
        loop.clock = self._reactor
        loop.start(seconds, now=False).addErrback(self._failed, action.__name__)
        self._loops.append(loop)

    async def _take_over(self) -> None:
        """Mail that a process which died had leased is ours to deliver."""
        try:
            freed = await self._spool.take_over()
        except OSError as error:
            self.log.warn("spool: {error}", error=str(error))
            return
        if freed:
            self.log.info("{count} messages taken over", count=freed)
            self._runner.wake()

    async def _reload_certificates(self) -> None:
        for tls in self._tls:
            await deferToThreadPool(self._reactor, self._threads, tls.reload_if_changed)

    def _hung_up(self, signum: int, frame: object) -> None:
        self._reactor.callFromThread(self._reload)

    def _reload(self) -> None:
        """SIGHUP: read the configuration again; a bad one changes nothing."""
        try:
            settings = config.load(self._path)
            self._furnish(settings)
        except config.ConfigurationError as error:
            for problem in error.problems:
                self.log.error("{problem}", problem=str(problem))
        except (TLSFault, UserFault) as error:
            self.log.error("{error}", error=str(error))
        else:
            self._runner.reconfigure(self._router, self._agents, settings.queue, settings.peers)
            self._keep_up(settings.peers)
            for name in ("listen", "spool"):
                if getattr(settings, name) != getattr(self._settings, name):
                    self.log.warn("a changed `{name}` takes a restart", name=name)
            self._settings = replace(
                settings, listen=self._settings.listen, spool=self._settings.spool
            )
            self.log.info("{path} read again", path=str(self._path))
            return
        self.log.error("the configuration stays as it was")

    def _failed(self, failure: Failure, what: str) -> None:
        self.log.failure("{what} failed", failure, what=what)

    # --- stop

    def stopService(self) -> Deferred[None]:
        """Twisted calls this when the process is to end."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self.log.info("stopping")
        self._keep_up({})
        for loop in self._loops:
            loop.stop()
        end = self._reactor.seconds() + GRACE
        links: list[Link] = []
        for listening in self._listening:
            await maybeDeferred(listening.port.stopListening)
            links += listening.factory.links
        for link in links:
            link.close_gently()
        # Links that do not end in time are cancelled, which ends them.
        ended = DeferredList([link.ended for link in links if not link.ended.called])
        await ended.addTimeout(GRACE, self._reactor).addErrback(lambda _: None)
        await self._runner.stop(max(0.0, end - self._reactor.seconds()))
        await self._spool.stop()
        self.log.info("stopped")


@dataclass(frozen=True, slots=True)
class _Listening:
    """A listener that is open."""

    listener: Listener
    port: IListeningPort
    factory: LinkFactory

    @property
    def endpoint(self) -> str:
        """The endpoint string, with the port that the system chose where it had to."""
        address = self.port.getHost()
        if isinstance(address, (IPv4Address, IPv6Address)):
            return re.sub(r"(?<=tcp:|cp6:)0\b", str(address.port), self.listener.endpoint)
        return self.listener.endpoint


def _receiver(reception: Reception, link: Link) -> IRole:
    return Receiver(reception)
