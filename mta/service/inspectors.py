"""The inspectors of mail on its way in, in their order."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from twisted.internet.threads import deferToThreadPool

from mta.inspectors.authentication import AuthenticationInspector
from mta.inspectors.authentication_config import AuthenticationConfig
from mta.interfaces import IAccessPolicy, IInspector, IResolver
from mta.service.process import Process
from mta.settings import Authentication, JunkUse, Settings


def inspectors(
    settings: Settings, process: Process, access: IAccessPolicy, resolver: IResolver
) -> Sequence[IInspector]:
    """Make the inspectors that are configured.

    `resolver` is one for questions that strangers cause.
    """
    found: list[IInspector] = []
    if settings.authentication is not None:
        config = _authentication(settings, settings.authentication, process, resolver)
        found.append(AuthenticationInspector(config, access))
    return found


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
    )
