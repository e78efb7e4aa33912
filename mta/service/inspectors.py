"""The inspectors of mail on its way in, in their order."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from twisted.internet.threads import deferToThreadPool

from mta.inspectors.authentication import AuthenticationInspector
from mta.inspectors.authentication_config import AuthenticationConfig
from mta.inspectors.lists import Lists
from mta.inspectors.sender_policy import SenderPolicies
from mta.interfaces import IAccessPolicy, IInspector, IResolver, IReverseNames, IRouter
from mta.milters import CHAIN_SECONDS, PASSING_CHAIN_SECONDS, MilterInspector, Surroundings
from mta.resolver import ReverseNames
from mta.service.passing import passed_through
from mta.service.process import Process
from mta.service.reception import client_inspectors, quota_inspectors
from mta.settings import Authentication, JunkUse, Service, Settings, Source


class Inspectors:
    """The inspectors, in order, for each source of mail.

    `lists` are those that clients are looked up in.
    `resolver` is one for questions that strangers cause.
    """

    def __init__(
        self,
        settings: Settings,
        process: Process,
        access: IAccessPolicy,
        router: IRouter,
        resolver: IResolver,
    ) -> None:
        self._reverse_names = ReverseNames(resolver, process.reactor)
        self.lists = Lists(settings.block_lists, settings.allow_lists, resolver, process.reactor)
        senders = SenderPolicies(resolver, settings.hostname, process.reactor, time.time)
        self._first: list[IInspector] = [
            *client_inspectors(settings, process, access, self.lists, senders),
            *quota_inspectors(settings, process, router),
        ]
        if settings.authentication is not None:
            config = _authentication(settings, settings.authentication, process, resolver)
            self._first.append(AuthenticationInspector(config, access, senders))
        surroundings = Surroundings(
            process.reactor,
            settings.hostname,
            process.intake,
            router,
            process.meter,
            settings.limits.message_size,
            chain_seconds(settings) / max(1, len(settings.milters)),
        )
        self._milters = [(each, MilterInspector(each, surroundings)) for each in settings.milters]

    def of(self, source: Source) -> Sequence[IInspector]:
        """Return those that look at mail from there."""
        milters = [inspector for each, inspector in self._milters if source in each.services]
        return milters if source is Source.SENDMAIL else [*self._first, *milters]

    def of_service(self, service: Service) -> Sequence[IInspector]:
        """Return those for a listener.  By ODMR alone no mail comes in."""
        return [] if service is Service.ODMR else self.of(Source(service.value))

    def names_for(self, inspectors: Sequence[IInspector]) -> IReverseNames | None:
        """Return the look-up of client names, where one of these needs it."""
        return self._reverse_names if any(each.needs_name for each in inspectors) else None


def chain_seconds(settings: Settings) -> float:
    """The seconds of all filters together for the end of a message."""
    return PASSING_CHAIN_SECONDS if passed_through(settings) else CHAIN_SECONDS


def junk_use(settings: Settings) -> JunkUse:
    """The handling of junk, whatever inspector takes mail for it."""
    return (settings.authentication or Authentication()).junk


def _authentication(
    settings: Settings, authentication: Authentication, process: Process, resolver: IResolver
) -> AuthenticationConfig:
    return AuthenticationConfig(
        authentication,
        settings.hostname,
        resolver,
        process.reactor,
        partial(deferToThreadPool, process.reactor, process.threads),
        time.time,
        process.meter,
        {
            name: peer.connect.next_hop
            for name, peer in settings.peers.items()
            if peer.connect is not None
        },
        [process.reports] if authentication.has_reports else [],
    )
