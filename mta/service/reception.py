"""Lists, greylisting and limits, as far as the configuration has them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from twisted.internet.threads import deferToThreadPool

from mta.access.live_recipients import AnswerSources, LiveRecipients
from mta.access.sending_limits import SendingLimits
from mta.delivery.mailbox_quotas import MailboxQuotas
from mta.inspection_settings import GreylistWhen, ListAction
from mta.inspectors.clients import ClientInspector
from mta.inspectors.greylisting import Greylisting
from mta.inspectors.lists import Lists
from mta.inspectors.quotas import QuotaInspector
from mta.inspectors.sender_policy import SenderPolicies
from mta.interfaces import (
    IAccessPolicy,
    IInspector,
    IRecipientCheck,
    IRouter,
    IToldMailboxes,
    IUsers,
)
from mta.notices.postmaster import Postmaster
from mta.pairing.mailboxes import live_domains
from mta.service.process import Process
from mta.settings import Settings


def client_inspectors(
    settings: Settings,
    process: Process,
    access: IAccessPolicy,
    lists: Lists,
    senders: SenderPolicies,
) -> Sequence[IInspector]:
    """Return the inspector of clients, where it is configured."""
    actions = {each.action for each in settings.block_lists}
    greylisting = None
    if settings.greylist.when is not GreylistWhen.NEVER or ListAction.GREYLIST in actions:
        greylisting = Greylisting(settings.greylist, process.greylist, senders, process.reactor)
    if not settings.block_lists and greylisting is None:
        return ()  # an allow list alone is of no use
    return (ClientInspector(lists, greylisting, access),)


def quota_inspectors(settings: Settings, process: Process, router: IRouter) -> Sequence[IInspector]:
    """Return the inspector of full mailboxes, where a relay may need it."""
    quotas = {name: domain.quota for name, domain in settings.domains.items() if domain.quota}
    if not quotas or not any(peer.is_trusted_with_origins for peer in settings.peers.values()):
        return ()
    in_thread = partial(deferToThreadPool, process.reactor, process.threads)
    return (QuotaInspector(router, MailboxQuotas(quotas, in_thread)),)


def sending_limits(
    settings: Settings, process: Process, users: IUsers | None
) -> SendingLimits | None:
    """Return the limits on what users and our hosts send, if any."""
    if users is None and not settings.limits.recipients_per_day:
        return None
    return SendingLimits(
        settings.limits,
        users,
        process.accounts,
        Postmaster(settings.hostname, process.intake, process.accepted_mail),
        process.meter,
        process.counters.told,
    )


def peer_recipients(
    settings: Settings, process: Process, lists: IToldMailboxes
) -> IRecipientCheck | None:
    """Return the check of recipients that peers are asked about, if any."""
    peers = live_domains(settings)
    if not peers:
        return None
    sources = AnswerSources(process.questions, process.answers, lists)
    return LiveRecipients(peers, sources, process.peer_counts)
