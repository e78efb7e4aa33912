"""The only place where the parts are joined: what `twistd mta` runs.

What lives as long as the process (spool, runner, listeners) is made once; what the
configuration says is made anew when it is read again.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import UNIXClientEndpoint, serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from twisted.python.usage import Options as UsageOptions

from mta import config, logs, systemd, workers
from mta.delivery.local import DiscardAgent, RejectAgent
from mta.delivery.maildir import MaildirAgent
from mta.delivery.pipe import PipeAgent
from mta.delivery.relay import Dialler, RelayAgent
from mta.gate import Gate, hosts
from mta.gate.turning import Reversal
from mta.interfaces import (
    IDeliveryAgent,
    IMeter,
    IRole,
    IUsers,
    Message,
    Session,
)
from mta.link import Link, LinkFactory
from mta.mail import Agent
from mta.metrics import Metrics, MetricsFault, NoMeter, site
from mta.notices import NoticeWriter
from mta.peers.customer import Customer
from mta.peers.provider import Provider
from mta.peers.tally import Tally
from mta.proxied import ProxiedFactory
from mta.queue.held import HeldMail
from mta.queue.runner import Runner
from mta.resolver import Resolver
from mta.routing import Router
from mta.settings import Listener, Peer, Queue, Settings
from mta.smtp.intake import Depot
from mta.smtp.receiver import Receiver, Reception
from mta.smtp.srs import SenderRewriting
from mta.spool.folder import secret_key
from mta.spool.records import Ledger, Records
from mta.spool.sqlite import SqliteSpool
from mta.tls import ClientTLS, ServerTLS, TLSFault
from mta.users import DovecotUsers, UserFault, UserFile, Users

GRACE = 10.0  # seconds that running transactions get when the service stops
SORTING = 5.0  # seconds that peers wait for the runner to find out whose the newest mail is
CERTIFICATES_EVERY = 10.0  # seconds between looks at the certificate files
TAKE_OVER_EVERY = 10.0  # seconds between looks for mail of processes that died
THREADS = 20
OPEN_FILES = 65536
BACKLOG = 1024  # connections that wait until we take them; any burst would fill Twisted's 50
_FIXED = ("listen", "spool", "metrics", "log")  # settings that live as long as the process
PROXIED = "haproxy:"  # in front of the endpoint of a listener behind a proxy


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
        self._meter: IMeter = NoMeter()
        self._watched: IListeningPort | None = None
        self._is_ready = False
        self._inherited = workers.inherited()
        self._workers = workers.Workers(reactor, settings.queue.workers)

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
        if not self._inherited:
            self._workers.take_place()
        self._allow_open_files()
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

    @staticmethod
    def _allow_open_files() -> None:
        """Each connection is an open file, and the usual limit is about what one attack takes."""
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = OPEN_FILES if most == resource.RLIM_INFINITY else min(most, OPEN_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))

    def _fatal(self, reason: str) -> BaseException:
        """What to raise so that the process ends with this one line.

        A daemon's parent hears of no SystemExit, and would wait for ever.
        """
        foreground = self._options.get("nodaemon", True)
        return SystemExit(reason) if foreground else RuntimeError(reason)

    def _bind(self) -> None:
        """Open the listeners; nobody is answered before the reactor runs."""
        for number, listener in enumerate(self._settings.listen):
            factory = LinkFactory(self._reactor)
            description = listener.endpoint.removeprefix(PROXIED)
            if description.startswith("tcp") and ":backlog=" not in description:
                description += f":backlog={BACKLOG}"
            is_proxied = listener.endpoint.startswith(PROXIED)
            front = ProxiedFactory(factory, self._reactor) if is_proxied else factory
            if self._inherited:
                port = workers.adopt(self._reactor, self._inherited[number], front)
                stop = port.stopReading  # a socket's file is the first process's to remove
            else:
                port = self._listen(listener.endpoint, description, front)
                stop = port.stopListening
            self._listening.append(_Listening(listener, port, factory, stop))
        if self._settings.metrics and self._watched is None and not self._inherited:
            self._bind_metrics(self._settings.metrics)

    def _listen(self, name: str, description: str, factory: IProtocolFactory) -> IListeningPort:
        """Open the listener that the configuration calls by that name."""
        results: list[Any] = []
        serverFromString(self._reactor, description).listen(factory).addBoth(results.append)
        if not results or isinstance(results[0], Failure):
            reason = results[0].getErrorMessage() if results else "not ready at once"
            raise self._fatal(f"cannot listen on {name}: {reason}")
        port: IListeningPort = results[0]
        return port

    def _bind_metrics(self, description: str) -> None:
        """Open the listener of those who watch."""
        try:
            metrics = Metrics(self)
        except MetricsFault as fault:
            raise self._fatal(str(fault)) from None
        self._meter = metrics
        self._watched = self._listen(description, description, site(metrics, self._health))

    def _open(self) -> None:
        """Make what lives as long as the process."""
        settings, reactor = self._settings, self._reactor
        reactor.suggestThreadPoolSize(THREADS)
        self._threads = reactor.getThreadPool()
        self._spool = SqliteSpool(
            Path(settings.spool), reactor, self._threads, reserve=settings.limits.free_space
        )
        self._spool.start()
        self._srs = SenderRewriting(secret_key(Path(settings.spool)))
        self._ledger = Ledger(Records(Path(settings.spool)), reactor, self._threads)
        self._furnish(settings)
        self._runner = Runner(
            self._spool,
            self._router,
            self._agents,
            NoticeWriter(settings.hostname),
            _share(settings.queue),
            settings.peers,
            reactor,
        )
        self._spool.on_wake = self._runner.wake
        self._spool.on_retry = self._runner.retry
        self._spool.on_recall = self._runner.recall
        self._spool.on_commit = self._meter.committed
        self._runner.on_outcome = self._meter.attempted
        self._runner.on_held = lambda peer: self._customer.mail_came(peer)

    def _furnish(self, settings: Settings) -> None:
        """Make what the configuration says.  Raises TLSFault or UserFault, and changes nothing."""
        reactor, hostname = self._reactor, settings.hostname
        pins = [peer.certificate for peer in settings.peers.values() if peer.certificate]
        server_tls = ServerTLS(settings.tls, Path(settings.spool), hostname, pins)
        client_tls = ClientTLS(settings.tls)
        router = Router(
            hostname,
            settings.domains,
            settings.routes,
            settings.default_route,
            settings.senders,
            self._srs,
        )
        users = self._users(settings, router)
        gate = Gate(
            settings.relay, settings.limits, settings.peers.values(), router, users, reactor
        )
        depot = Depot(
            hostname,
            self._spool,
            self._accepted,
            time.time,
            settings.limits.message_size,
            settings.submission.hide_client,
        )
        resolver = Resolver(reactor, settings.resolver)
        dialler = partial(Dialler, reactor, self._threads, hostname, resolver, client_tls.towards)
        relay = RelayAgent(dialler())
        provider = Provider(hostname, relay, self._held, self._ledger, reactor)
        reversal = Reversal(
            settings.peers.values(),
            self._count_held,
            provider.hand_over,
            provider.start_run,
        )
        for listening in self._listening:
            listener = listening.listener
            reception = Reception(
                depot,
                gate,
                settings.limits,
                listener.service,
                listener.tls,
                users,
                reversal,
                partial(hosts.is_in, networks=settings.relay.xclient),
                router.expand if settings.submission.expn else None,
                self._meter.replied,
            )
            listening.factory.serve(partial(self._receiver, reception), server_tls)
        self._router = router
        self._agents = self._delivery_agents(settings, relay)
        self._customer = Customer(
            dialler(),
            Reception(depot, gate, settings.limits),
            self._held,
            self._spool.count_held,
            self._ledger,
            reactor,
        )
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

    def _delivery_agents(
        self, settings: Settings, relay: RelayAgent
    ) -> Mapping[Agent, IDeliveryAgent]:
        reactor, threads, hostname = self._reactor, self._threads, settings.hostname
        quotas = {name: domain.quota for name, domain in settings.domains.items() if domain.quota}
        return {
            Agent.MX: relay,
            Agent.SMTP: relay,
            Agent.LMTP: relay,
            Agent.MAILDIR: MaildirAgent(reactor, threads, hostname, quotas),
            Agent.PIPE: PipeAgent(reactor),
            Agent.DISCARD: DiscardAgent(),
            Agent.REJECT: RejectAgent(),
        }

    async def _count_held(self, peer: str, domains: Collection[str], most: int) -> int:
        """As `IQueue.count_held`, with what was accepted a moment ago."""
        end = self._reactor.seconds() + SORTING
        while self._runner.is_about_to_hold(peer) and self._reactor.seconds() < end:
            await deferLater(self._reactor, 0.005)
        return await self._spool.count_held(peer, domains, most)

    def _held(self, peer: str, domains: Collection[str], linger: float) -> HeldMail:
        return self._runner.held(peer, domains, linger)

    def _receiver(self, reception: Reception, link: Link) -> IRole:
        self._meter.session(reception.service)
        return Receiver(reception)

    def _accepted(self, message: Message, session: Session) -> None:
        self._meter.accepted(session.service)
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
        self._keep_up_with_peers()
        self._repeat(TAKE_OVER_EVERY, self._take_over)
        self._repeat(CERTIFICATES_EVERY, self._reload_certificates)
        if self._inherited:
            workers.live_no_longer_than_first(self._reactor)
            self.log.info("worker ready")
            return
        for listening in self._listening:
            self.log.info(
                "listening on {endpoint} ({service})",
                endpoint=listening.endpoint,
                service=listening.listener.service.value,
            )
        if self._watched is not None:
            endpoint = _shown(self._settings.metrics, self._watched)
            self.log.info("listening on {endpoint} (metrics)", endpoint=endpoint)
        self._start_workers()
        self.log.info("ready")
        self._is_ready = True
        systemd.notify("READY=1")
        if interval := systemd.watchdog_interval():
            self._repeat(interval, self._say_we_live)

    def _start_workers(self) -> None:
        arguments = workers.twistd_arguments(self._options, str(self._path))
        self._workers.start(arguments, [listening.port for listening in self._listening])

    def _keep_up_with_peers(self) -> None:
        """Dial the peers, which is for the first process alone."""
        if not self._inherited:
            self._customer.keep_up(self._settings.peers.values())

    # --- while it runs

    def _repeat(self, seconds: float, action: Callable[[], Any]) -> None:
        loop = LoopingCall(lambda: Deferred.fromCoroutine(action()))
        loop.clock = self._reactor
        loop.start(seconds, now=False).addErrback(self._failed, action.__name__)
        self._loops.append(loop)

    async def _say_we_live(self) -> None:
        systemd.notify("WATCHDOG=1")

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
        customer = self._customer
        try:
            settings = config.load(self._path)
            self._furnish(settings)
        except config.ConfigurationError as error:
            for problem in error.problems:
                self.log.error("{problem}", problem=str(problem))
        except (TLSFault, UserFault) as error:
            self.log.error("{error}", error=str(error))
        else:
            self._runner.reconfigure(
                self._router, self._agents, _share(settings.queue), settings.peers
            )
            Deferred.fromCoroutine(customer.stop(GRACE)).addErrback(self._failed, "reload")
            self._keep_up_with_peers()
            fixed = {name: getattr(self._settings, name) for name in _FIXED}
            for name, value in fixed.items():
                if getattr(settings, name) != value:
                    self.log.warn("a changed `{name}` takes a restart", name=name)
            if settings.queue.workers != self._settings.queue.workers:
                self.log.warn("a changed `queue.workers` takes a restart")
            self._settings = replace(settings, **fixed)
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
        self._is_ready = False
        systemd.notify("STOPPING=1")
        customer = Deferred.fromCoroutine(self._customer.stop(GRACE))
        for loop in self._loops:
            loop.stop()
        end = self._reactor.seconds() + GRACE
        others = Deferred.fromCoroutine(self._workers.stop(2 * GRACE))
        links: list[Link] = []
        for listening in self._listening:
            await maybeDeferred(listening.stop)
            links += listening.factory.links
        for link in links:
            link.close_gently()
        if self._watched is not None:
            await maybeDeferred(self._watched.stopListening)
        # Links that do not end in time are cancelled, which ends them.
        ended = DeferredList([link.ended for link in links if not link.ended.called])
        await ended.addTimeout(GRACE, self._reactor).addErrback(lambda _: None)
        await customer
        await self._runner.stop(max(0.0, end - self._reactor.seconds()))
        await self._ledger.flush()
        await self._spool.stop()
        await others
        self.log.info("stopped")

    # --- for those who watch

    def census(self) -> Mapping[str, tuple[int, float]]:
        """See `Observed.census`."""
        return self._spool.census()

    def links(self) -> Mapping[str, bool]:
        """See `Observed.links`."""
        records = Records(Path(self._settings.spool))
        return {name: records.link_since(name) is not None for name in self._settings.peers}

    async def _health(self) -> str:
        """What is wrong, in one line; empty: nothing."""
        if not self._is_ready:
            return "starting or stopping"
        try:
            await self._spool.next_due()
        except OSError as error:
            return f"the spool can't be read: {error}"
        return ""

    # --- without listeners

    async def turn(self, peer: Peer, progress: Callable[[Tally], None]) -> Tally:
        """Do nothing but one exchange with a peer, and deliver what it brings.

        For a process that lives for this alone, on the spool of a server that is up or down.
        Raises HopFailure, TLSFault, UserFault and OSError.
        """
        self._open()
        await self._take_over()
        self._runner.start()
        try:
            await self._quiet(SORTING)  # so that mail of ours is known to wait for the peer
            tally = await self._customer.exchange_once(peer, progress)
            await self._quiet(GRACE)
        finally:
            await self._stop()
        return tally

    async def _quiet(self, longest: float) -> None:
        """Return when the runner has nothing to do, at the latest after so many seconds."""
        end = self._reactor.seconds() + longest
        while not self._runner.is_idle and self._reactor.seconds() < end:
            await deferLater(self._reactor, 0.02)


@dataclass(frozen=True, slots=True)
class _Listening:
    """A listener that is open."""

    listener: Listener
    port: IListeningPort
    factory: LinkFactory
    stop: Callable[[], Any]

    @property
    def endpoint(self) -> str:
        """The endpoint string, with the port that the system chose where it had to."""
        return _shown(self.listener.endpoint, self.port)


def _share(queue: Queue) -> Queue:
    """What each of the worker processes may do of what all may do together: something, at least."""
    return replace(
        queue,
        concurrency=-(-queue.concurrency // queue.workers),
        per_destination=-(-queue.per_destination // queue.workers),
    )


def _shown(endpoint: str, port: IListeningPort) -> str:
    """An endpoint string, with the port that the system chose where it had to."""
    address = port.getHost()
    if isinstance(address, (IPv4Address, IPv6Address)):
        return re.sub(r"(?<=tcp:|cp6:)0\b", str(address.port), endpoint)
    return endpoint
