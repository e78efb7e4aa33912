"""Looking for the records of DKIM keys, for commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from mta.interfaces import IResolver
from mta.service.findings.finding import Finding
from mta.settings import KeyState
from mta.signing.interfaces import IResolvers
from mta.signing.keys import KeyFault, read
from mta.signing.presence import Presence
from mta.signing.publication import Publication
from mta.signing.records import name_of

# The reactor takes a while: it is imported where it begins.
if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from mta.settings import Settings
    from mta.signing.keys import PrivateKey

PAUSE = 30.0  # seconds: between two looks, as people take minutes to publish a record
MAX_TIME = 10.0  # seconds: of a look, within which each server is asked again

Keys = Mapping[str, "PrivateKey"]  # by the names of their records


def presences(
    settings: Settings, keys: Mapping[str, Keys], wait: float = 0.0
) -> Mapping[str, Presence]:
    """Look for the records of domains' keys.

    Returns what there is, by the names of the records.  Runs the reactor.  Looks again, and again,
    for `wait` seconds, until all are there.
    """
    from twisted.internet.task import react

    found: dict[str, Presence] = {name: Presence.UNKNOWN for each in keys.values() for name in each}
    failures: list[Failure] = []

    def look(reactor: Any) -> Deferred[None]:
        from twisted.internet.defer import Deferred

        from mta.service.steady import use_steady_clock

        use_steady_clock(reactor)
        looking = Deferred.fromCoroutine(_look(reactor, settings, keys, wait, found))
        return looking.addErrback(failures.append)

    with suppress(SystemExit):  # react ends with it, always
        react(look)
    for failure in failures:
        failure.raiseException()
    return found


def differences(settings: Settings) -> Iterator[Finding]:
    """Find the records in the DNS that do not fit our keys.

    Keys that can't be read are left out, as other findings tell of them.
    """
    keys: dict[str, dict[str, PrivateKey]] = {}
    for domain in settings.domains.values():
        for key in domain.dkim:
            name = name_of(key.selector, domain.name)
            with suppress(KeyFault):
                keys.setdefault(domain.name, {})[name] = read(key.file)
    found = presences(settings, keys)
    for domain in settings.domains.values():
        for number, key in enumerate(domain.dkim):
            name = name_of(key.selector, domain.name)
            presence = found.get(name, Presence.UNKNOWN)
            is_missing = presence is Presence.MISSING and key.state is not KeyState.NEXT
            if is_missing or presence is Presence.DIFFERENT:
                fault = "is not in the DNS" if is_missing else "is another in the DNS"
                yield Finding(
                    ("domains", domain.name, "dkim", number, "selector"),
                    f"the record {name} of this key {fault}: mta dkim records {domain.name}",
                )


async def _look(
    reactor: Any,
    settings: Settings,
    keys: Mapping[str, Keys],
    wait: float,
    found: dict[str, Presence],
) -> None:
    from twisted.internet.defer import Deferred, DeferredList, TimeoutError
    from twisted.internet.task import deferLater

    end = reactor.seconds() + wait
    while True:
        publication = Publication(*_resolvers(reactor, settings))
        looks = [
            Deferred.fromCoroutine(publication.look(domain, each)).addCallback(found.update)
            for domain, each in keys.items()
        ]
        with suppress(TimeoutError):
            await DeferredList(looks, fireOnOneErrback=True).addTimeout(MAX_TIME, reactor)
        is_complete = all(presence is Presence.PRESENT for presence in found.values())
        if is_complete or reactor.seconds() + PAUSE > end:
            return
        await deferLater(reactor, PAUSE)


def _resolvers(reactor: Any, settings: Settings) -> tuple[IResolver, IResolvers]:
    """A new resolver, which remembers nothing, and one that can ask others."""
    from mta.resolver import Resolver

    return Resolver(reactor, settings.resolver), _Resolvers(reactor)


@implementer(IResolvers)
class _Resolvers:
    """Resolvers that ask name servers of others, on their usual port."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def asking(self, addresses: Sequence[str]) -> IResolver:
        """See `IResolvers.asking`."""
        from mta.config.values import DNS_PORT
        from mta.resolver import Resolver

        return Resolver(self._reactor, [(address, DNS_PORT) for address in addresses])
