"""The resolver, for all that mail asks of the domain name system."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.dns_answer import Answer, RecordType
from mta.interfaces import DomainNotFound, IResolver, ResolutionFailed
from mta.mail import is_address
from mta.resolver.cache import Cache
from mta.resolver.hosts_file import HostsFile
from mta.resolver.lookups import Lookups
from mta.resolver.name_servers import NameServers
from mta.resolver.names import to_octets
from mta.resolver.resolv_conf import ConfiguredServers, SystemServers
from mta.resolver.transport import Transport

HOSTS = Path("/etc/hosts")
RESOLV_CONF = Path("/etc/resolv.conf")
FAMILIES = RecordType.AAAA, RecordType.A


@implementer(IResolver)
class Resolver:
    """Answers from the hosts file, from memory, or by asking name servers.

    These are `servers`, as (address, port), or those of the system where there are none.  Addresses
    in the `hosts` file come first.
    """

    def __init__(
        self,
        reactor: Any,
        servers: Sequence[tuple[str, int]] = (),
        hosts: Path = HOSTS,
        resolv_conf: Path = RESOLV_CONF,
        random: Random | None = None,
    ) -> None:
        listed = ConfiguredServers(servers) if servers else SystemServers(resolv_conf)
        name_servers = NameServers(listed, Transport(reactor), reactor, random or SystemRandom())
        self._lookups = Lookups(name_servers, Cache(reactor), reactor)
        self._hosts = HostsFile(hosts)

    async def query(self, name: str, kind: RecordType) -> Answer:
        """See `IResolver.query`."""
        try:
            octets = to_octets(name)
        except DomainNotFound:
            return Answer(exists=False)
        return await self._lookups.answer((octets, kind))

    async def mx(self, domain: str) -> Sequence[tuple[int, str]]:
        """See `IResolver.mx`.  A null MX (RFC 7505) is the one host with an empty name."""
        return await self._records(domain, RecordType.MX)

    async def addresses(self, host: str) -> Sequence[str]:
        """See `IResolver.addresses`.

        IPv6 and IPv4 alternate, so that neither can hide the other's failure for long.  Raises
        DomainNotFound where a host has no address, ResolutionFailed where that is uncertain.
        """
        if is_address(host):
            return [host]
        known = self._hosts.addresses(to_octets(host))
        if known:
            return known
        results: list[tuple[bool, Any]] = await DeferredList(
            [Deferred.fromCoroutine(self._records(host, kind)) for kind in FAMILIES],
            consumeErrors=True,
        )
        six, four = (records if succeeded else () for succeeded, records in results)
        found = [address for address in chain(*zip_longest(six, four)) if address is not None]
        if not found:
            raise _worst([result for succeeded, result in results if not succeeded], host)
        return found

    async def _records(self, name: str, kind: RecordType) -> Sequence[Any]:
        answer = await self.query(name, kind)
        if not answer.exists:
            raise DomainNotFound(name)
        return answer.records


def _worst(failures: Sequence[Failure], host: str) -> Exception:
    """The reason why a host has no address.

    It is so for good only where each question was answered.
    """
    for failure in failures:
        if isinstance(failure.value, ResolutionFailed):
            return failure.value
    return DomainNotFound(host)
