"""The domain name system, as far as mail needs it (RFC 5321 section 5.1), over twisted.names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_address
from itertools import chain, zip_longest
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, TimeoutError
from twisted.names import client, dns
from twisted.names.error import DNSNameError, DomainError, ResolverError
from twisted.names.hosts import searchFileForAll
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath
from zope.interface import implementer

from mta.interfaces import DomainNotFound, IResolver, ResolutionFailed

HOSTS = "/etc/hosts"
RESOLV_CONF = "/etc/resolv.conf"
TIMEOUTS = (1, 3, 5, 10)  # seconds for the first try and the next ones

_Lookup = Callable[..., Deferred[Any]]


@implementer(IResolver)
class Resolver:
    """Asks `servers`, as (address, port), or those of the system where there are none."""

    def __init__(self, reactor: Any, servers: Sequence[tuple[str, int]] = ()) -> None:
        self._client = client.Resolver(
            resolv=None if servers else RESOLV_CONF,
            servers=list(servers) or None,
            timeout=TIMEOUTS,
            reactor=reactor,
        )
        self._hosts = FilePath(HOSTS)

    async def mx(self, domain: str) -> Sequence[tuple[int, str]]:
        """See `IResolver.mx`.  A null MX (RFC 7505) is the one host with an empty name."""
        answers = await self._ask(self._client.lookupMailExchange, domain)
        return [
            (payload.preference, _name(payload.name))
            for payload in answers
            if isinstance(payload, dns.Record_MX)
        ]

    async def addresses(self, host: str) -> Sequence[str]:
        """See `IResolver.addresses`.  IPv6 and IPv4 take turns, so that neither can hide the
        other's failure for long."""
        if _is_address(host):
            return [host]
        known = searchFileForAll(self._hosts, host.encode("idna"))
        if known:
            return list(dict.fromkeys(known))
        results: list[tuple[bool, Any]] = await DeferredList(
            [
                Deferred.fromCoroutine(self._ask(lookup, host))
                for lookup in (self._client.lookupIPV6Address, self._client.lookupAddress)
            ],
            consumeErrors=True,
        )
        six, four = (_addresses(answers) if succeeded else [] for succeeded, answers in results)
        found = [address for address in chain(*zip_longest(six, four)) if address]
        if not found:
            raise _worst([result for succeeded, result in results if not succeeded], host)
        return found

    async def _ask(self, lookup: _Lookup, name: str) -> Sequence[object]:
        try:
            answers, _, _ = await lookup(name.encode("idna"))
        except DNSNameError:
            raise DomainNotFound(name) from None
        except (DomainError, ResolverError, TimeoutError, OSError) as error:
            raise ResolutionFailed(f"{name}: {type(error).__name__}") from error
        except UnicodeError:
            raise DomainNotFound(name) from None
        return [answer.payload for answer in answers]


def _worst(failures: Sequence[Failure], host: str) -> Exception:
    """Why a host has no address: only when nobody failed to answer is that for good."""
    if any(failure.check(ResolutionFailed) for failure in failures):
        return ResolutionFailed(host)
    return DomainNotFound(host)


def _name(name: dns.Name) -> str:
    return name.name.decode("ascii", "replace").rstrip(".").lower()


def _addresses(answers: Sequence[object]) -> list[str]:
    return [
        str(ip_address(payload.address))
        for payload in answers
        if isinstance(payload, (dns.Record_A, dns.Record_AAAA))
    ]


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
