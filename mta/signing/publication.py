"""The records of keys at the name servers of their domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from mta.dns_answer import RecordType
from mta.interfaces import DomainNotFound, IResolver, ResolutionFailed
from mta.signing.interfaces import IResolvers
from mta.signing.keys import PrivateKey
from mta.signing.presence import Presence, presence

MAX_SERVERS = 4  # name servers of a domain: that are asked, as more tell no more
MAX_ADDRESSES = 2  # of one name server: one of each family

# What counts where name servers do not agree: a verifier may ask any of them.
_WORST_FIRST = (Presence.DIFFERENT, Presence.MISSING, Presence.PRESENT)


class Publication:
    """Looks for the records of keys.

    The domain's own name servers are asked, each of them: an answer from our memory, or from that
    of a resolver, that there is no record would be believed for as long as it is remembered.
    """

    def __init__(self, resolver: IResolver, resolvers: IResolvers) -> None:
        self._resolver = resolver
        self._resolvers = resolvers

    async def look(self, domain: str, keys: Mapping[str, PrivateKey]) -> Mapping[str, Presence]:
        """Look for the records of a domain's keys, given by their names."""
        servers = [self._resolvers.asking(each) for each in await self._name_servers(domain)]
        found = {}
        for name, key in keys.items():
            seen = await _seen(servers, name, key)
            if not seen:  # they can't be reached, or the name is an alias to elsewhere
                seen = await _seen([self._resolver], name, key)
            found[name] = next((each for each in _WORST_FIRST if each in seen), Presence.UNKNOWN)
        return found

    async def _name_servers(self, domain: str) -> Sequence[Sequence[str]]:
        """The addresses of each of a domain's name servers, if known."""
        hosts: Sequence[str] = ()
        while domain and not hosts:
            try:
                hosts = (await self._resolver.query(domain, RecordType.NS)).records
            except ResolutionFailed:
                return []
            domain = domain.partition(".")[2]
        return [
            addresses[:MAX_ADDRESSES]
            for host in hosts[:MAX_SERVERS]
            if (addresses := await self._addresses(host))
        ]

    async def _addresses(self, host: str) -> Sequence[str]:
        try:
            return await self._resolver.addresses(host)
        except (DomainNotFound, ResolutionFailed):
            return []


async def _seen(servers: Sequence[IResolver], name: str, key: PrivateKey) -> Sequence[Presence]:
    """The presence of a record at each of these that answers."""
    answers: Sequence[tuple[bool, Any]] = await DeferredList(
        [Deferred.fromCoroutine(_ask(server, name, key)) for server in servers],
        consumeErrors=True,
    )
    for succeeded, result in answers:
        if not succeeded:
            result.trap(ResolutionFailed)
    return [result for succeeded, result in answers if succeeded]


async def _ask(server: IResolver, name: str, key: PrivateKey) -> Presence:
    answer = await server.query(name, RecordType.TXT)
    return presence(key, answer.records)
