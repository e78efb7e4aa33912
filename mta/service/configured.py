"""All parts that are made of the configuration, in one value.

A reload makes another one, puts it in its place, and closes the old one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from mta.access import AccessPolicy
from mta.access.far_looks import FarLooks
from mta.access.local import ClientNames
from mta.access.mailbox_lists import MailboxLists
from mta.access.renewals import Renewals
from mta.access.sending_limits import SendingLimits
from mta.access.turning import Reversal
from mta.delivery.dialler import Dialler
from mta.delivery.local import DiscardAgent, RejectAgent
from mta.delivery.maildir import MaildirAgent
from mta.delivery.own_host import OwnHost
from mta.delivery.pipe import PipeAgent
from mta.delivery.relay import RelayAgent
from mta.doctor.answers import Answers
from mta.doctor.examined import Examined
from mta.doctor.probe import new_probe
from mta.inspectors.lists import Lists
from mta.interfaces import (
    IAccessPolicy,
    IDeliveryAgent,
    IInspector,
    INotices,
    IReversal,
    ISigner,
    IUsers,
)
from mta.mail import Agent
from mta.peers.customer import Customer
from mta.peers.provider import Provider
from mta.queue.config import RunnerConfig
from mta.reporting.sender import ReportSender
from mta.resolver import Resolver
from mta.routing import Router
from mta.sealing.seals import Seals, seals
from mta.service.inspectors import Inspectors, junk_use
from mta.service.open_files import affordable
from mta.service.passing import pass_through
from mta.service.process import Process
from mta.service.reception import peer_recipients, sending_limits
from mta.service.sealing import notices, opener
from mta.service.signing import signer
from mta.settings import Limits, Listener, Queue, Settings, Source
from mta.smtp.authors import AuthorCheck
from mta.smtp.forwarding import ForwardLoopCheck
from mta.smtp.receiver_config import ReceiverConfig
from mta.tls import ClientTLS, ServerTLS
from mta.users.dovecot import DovecotUsers
from mta.users.file import UserFile
from mta.users.local import Users
from mta.users.renewed import RenewedPasswords

_log = Logger()


@dataclass(frozen=True, slots=True)
class Configured:
    """The parts made of the settings, and of nothing that changes.

    `receivers`: what the receivers of each listener share, in the order of `settings.listen`.
    """

    settings: Settings
    router: Router
    agents: Mapping[Agent, IDeliveryAgent]
    notices: INotices
    customer: Customer
    receivers: Sequence[ReceiverConfig]
    server_tls: ServerTLS
    client_tls: ClientTLS
    users: IUsers | None
    examined: Examined
    reports: ReportSender | None
    sending: SendingLimits | None
    local_inspectors: Sequence[IInspector]
    lists: Lists
    seals: Seals | None

    @property
    def runner(self) -> RunnerConfig:
        """The part of it that the runner goes by."""
        return RunnerConfig(
            self.router,
            self.agents,
            self.notices,
            self.queue,
            self.settings.peers,
            self.customer,
            self.sending,
        )

    @property
    def queue(self) -> Queue:
        """The limits of `queue`, for one of its `workers` processes."""
        queue = self.settings.queue
        return replace(
            queue,
            concurrency=-(-queue.concurrency // queue.workers),
            per_destination=-(-queue.per_destination // queue.workers),
        )

    async def close(self, timeout: float) -> None:
        """Dial no more, and close connections.

        Exchanges under way end after at most `timeout` seconds.
        """
        await self.customer.stop(timeout)
        if isinstance(self.users, DovecotUsers):
            self.users.close()


def configure(
    settings: Settings, process: Process, mailbox_lists: Mapping[str, bytes]
) -> Configured:
    """Make the parts of the settings, and change nothing.

    `mailbox_lists` are lists of ours, by the peer that may want one.  Raises TLSFault, UserFault
    or SealKeyFault.
    """
    return _Maker(settings, process, mailbox_lists).make()


class _Maker:
    """Makes the parts, each of those before it.

    Those that may fail are first: no other would have to be closed then.
    """

    def __init__(
        self, settings: Settings, process: Process, mailbox_lists: Mapping[str, bytes]
    ) -> None:
        self._settings = settings
        self._process = process
        self._own_mailboxes = mailbox_lists
        pins = [peer.certificate for peer in settings.peers.values() if peer.certificate]
        self._server_tls = ServerTLS(settings.tls, process.folder, settings.hostname, pins)
        self._client_tls = ClientTLS(settings.tls)
        self._own = OwnHost(settings.hostname, settings.own_addresses)
        self._router = Router.from_settings(settings, process.srs, self._own)
        self._seals = seals(self._router, settings.peers.values())
        self._opener = opener(settings, process)
        self._users = self._make_users()
        self._sending = sending_limits(settings, process, self._users)
        self._renewals = Renewals(
            settings.peers.values(),
            self._users if isinstance(self._users, Users) else None,
            process.reactor,
        )
        self._mailbox_lists = MailboxLists(settings.peers.values(), process.told_mailboxes)
        self._resolver = Resolver(process.reactor, settings.resolver)
        self._signer = signer(self._settings, self._process)
        # One of its own: what strangers make us ask takes neither places nor memory of ours.
        self._strangers = Resolver(process.reactor, settings.resolver)
        self._examined = self._make_examined()
        self._far_looks = FarLooks(
            settings.peers.values(), Answers(self._examined, process.reactor), process.reactor
        )

    def make(self) -> Configured:
        settings, process = self._settings, self._process
        relay = RelayAgent(self._dialler(self._signer))
        provider = Provider(
            settings.hostname,
            relay,
            process.held,
            process.peer_status,
            process.peer_counts,
            process.reactor,
            self._signer,
            process.links,
            process.in_steps,
        )
        reversal = Reversal(settings.peers.values(), process.held, provider)
        access = self._access()
        inspectors = Inspectors(settings, process, access, self._router, self._strangers)
        shared = self._shared(access, inspectors)
        return Configured(
            settings,
            self._router,
            self._agents(relay),
            notices(settings.hostname, process.in_steps, self._seals),
            self._customer(shared),
            [self._receiver(each, shared, reversal, inspectors) for each in settings.listen],
            self._server_tls,
            self._client_tls,
            self._users,
            self._examined,
            self._reports(),
            self._sending,
            inspectors.of(Source.SENDMAIL),
            inspectors.lists,
            self._seals,
        )

    def _reports(self) -> ReportSender | None:
        """Return what sends reports on judged mail, where these are wanted."""
        settings, process = self._settings, self._process
        if settings.authentication is None or not settings.authentication.has_reports:
            return None
        return ReportSender(
            settings,
            process.report_store,
            process.intake,
            process.accepted_mail,
            self._strangers,
            partial(deferToThreadPool, process.reactor, process.threads),
            time.time,
        )

    def _shared(self, access: IAccessPolicy, inspectors: Inspectors) -> ReceiverConfig:
        """Return what the receivers of all listeners share."""
        settings, process = self._settings, self._process
        looking = inspectors.of(Source.SMTP)
        return ReceiverConfig(
            settings.hostname,
            process.intake,
            process.accepted_mail,
            access,
            settings.limits,
            time.time,
            checks=[AuthorCheck(access), ForwardLoopCheck(self._router)],
            inspectors=looking,
            reverse_names=inspectors.names_for(looking),
            pass_through=pass_through(settings, process, self._router, self._sending),
            second_copies=process.second_copies,
            opener=self._opener,
            junk=junk_use(settings),
            node=settings.node,
            turns=process.turns,
            content_order=process.content_order,
        )

    def _access(self) -> IAccessPolicy:
        settings, process = self._settings, self._process
        return AccessPolicy(
            settings.relay,
            self._limits(),
            settings.peers.values(),
            self._router,
            self._users,
            process.counters,
            self._sending,
            peer_recipients(settings, process, self._router),
        )

    def _dialler(self, signer: ISigner | None = None) -> Dialler:
        return Dialler(
            self._process.reactor,
            self._process.threads,
            self._settings.hostname,
            self._resolver,
            self._client_tls,
            self._own,
            self._settings.relay.private_exchangers,
            self._process.pressure,
            signer,
            attended=self._process.attended,
            in_steps=self._process.in_steps,
        )

    def _customer(self, receiver: ReceiverConfig) -> Customer:
        process = self._process
        return Customer(
            self._dialler(self._signer),
            receiver,
            process.held,
            process.peer_status,
            process.reactor,
            self._own_mailboxes,
        )

    def _make_examined(self) -> Examined:
        settings, process = self._settings, self._process
        return Examined(
            settings,
            self._resolver,
            self._own,
            new_probe(process.reactor, settings, self._resolver, self._client_tls, self._dialler()),
            partial(deferToThreadPool, process.reactor, process.threads),
        )

    def _limits(self) -> Limits:
        """The limits, with no more connections than there are open files for."""
        limits = self._settings.limits
        connections = affordable(limits.connections)
        if connections < limits.connections:
            _log.warn(
                "only {count} connections at a time: `limits.connections` takes more open files"
                " than this process may have",
                count=connections,
            )
        return replace(limits, connections=connections)

    def _receiver(
        self,
        listener: Listener,
        shared: ReceiverConfig,
        reversal: IReversal,
        inspectors: Inspectors,
    ) -> ReceiverConfig:
        """Return what the receivers of one listener share."""
        settings = self._settings
        looking = inspectors.of_service(listener.service)
        return replace(
            shared,
            service=listener.service,
            inspectors=looking,
            reverse_names=inspectors.names_for(looking),
            tls=listener.tls,
            users=self._users,
            reversal=reversal,
            pairing=self._process.pairing,
            renewals=self._renewals,
            mailboxes=self._mailbox_lists,
            far_looks=self._far_looks,
            names=ClientNames(
                settings.relay.networks,
                settings.relay.xclient,
                settings.local_names,
                settings.home_domain,
                settings.relay.xforward,
            ),
            lists=self._router if settings.submission.expn else None,
            meter=self._process.meter,
            cleartext_auth=listener.allow_cleartext_auth,
            hide_client=settings.submission.hide_client,
        )

    def _make_users(self) -> IUsers | None:
        settings, process = self._settings, self._process
        kind, _, socket = settings.users.partition(":")
        if kind == "dovecot":
            endpoint = UNIXClientEndpoint(process.reactor, socket)
            return DovecotUsers(endpoint, process.reactor, self._router)
        if not settings.users:
            return None
        certificates = {
            peer.certificate: peer.user
            for peer in settings.peers.values()
            if peer.certificate and peer.user
        }
        return Users(
            UserFile(Path(settings.users), scram=settings.submission.scram),
            self._router,
            process.reactor,
            process.hashing,
            certificates,
            channel_binding=settings.submission.channel_binding,
            renewed=RenewedPasswords(process.folder),
            is_first=process.is_first,
        )

    def _agents(self, relay: RelayAgent) -> Mapping[Agent, IDeliveryAgent]:
        settings, process = self._settings, self._process
        quotas = {name: domain.quota for name, domain in settings.domains.items() if domain.quota}
        return {
            Agent.MX: relay,
            Agent.SMTP: relay,
            Agent.LMTP: relay,
            Agent.MAILDIR: MaildirAgent(
                process.reactor,
                process.threads,
                settings.hostname,
                quotas,
                process.content_order,
            ),
            Agent.PIPE: PipeAgent(process.reactor),
            Agent.DISCARD: DiscardAgent(),
            Agent.REJECT: RejectAgent(),
        }
