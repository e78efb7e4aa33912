"""The hosts of a hop, in order (RFC 5321 section 5.1).

Names are looked up here; `mta.delivery.dialler` connects.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from mta.delivery.exchangers import exchangers
from mta.delivery.own_host import is_private
from mta.interfaces import DomainNotFound, IOwnHost, IResolver, ResolutionFailed
from mta.mail import Agent, Hop, Outcome, Reply, Status
from mta.queued import HopFailure
from mta.smtp.replies import LOOPS_BACK

SMTP_PORT = 25


@dataclass(frozen=True, slots=True)
class Host:
    """A host of a hop, with its addresses in order.

    Where it has none, `failure` says what that means for the mail.
    """

    name: str
    addresses: Sequence[str] = ()
    failure: Outcome | None = None


class HostFinder:
    """Finds the hosts of hops by the DNS.

    `own` and the exchangers behind it are left out, as mail would come back from there.  `private`:
    an exchanger that a domain names may be in a private network.
    """

    log = Logger()

    def __init__(
        self,
        resolver: IResolver,
        own: IOwnHost,
        private: bool = True,
        shuffle: Callable[[list[tuple[int, str]]], None] = random.shuffle,
    ) -> None:
        self._resolver = resolver
        self._own = own
        self._private = private
        self._shuffle = shuffle

    async def hosts(self, hop: Hop) -> AsyncIterator[Host]:
        """The hosts of a hop, the best first.  Raises HopFailure where there can be none."""
        if hop.agent is not Agent.MX:
            yield await self._configured(hop.next_hop)
            return
        if hop.next_hop.startswith("["):
            yield self._literal(hop)
            return
        found = False
        for names in await self._exchangers(hop.next_hop):
            hosts = await gatherResults(
                [Deferred.fromCoroutine(self._exchanger(hop, name)) for name in names]
            )
            others = [host for host in hosts if host is not None]
            if len(others) < len(hosts):
                break
            for host in others:
                found = True
                yield host
        if not found:
            raise HopFailure(Outcome(Status.FAILED, LOOPS_BACK))

    async def _exchangers(self, domain: str) -> list[list[str]]:
        try:
            return await exchangers(self._resolver, domain, self._shuffle)
        except DomainNotFound as error:
            raise HopFailure(_failed("5.1.2", f"Domain not found: {error}")) from error
        except ResolutionFailed as error:
            raise HopFailure(_unresolved(error)) from error

    async def _exchanger(self, hop: Hop, name: str) -> Host | None:
        """An exchanger of a domain; None: it is this host."""
        if self._own.is_named(name):
            return None
        try:
            addresses = await self._resolver.addresses(name)
        except DomainNotFound:
            what = "The domain" if name == hop.next_hop else "The domain's mail exchanger"
            return Host(name, (), _failed("5.4.4", f"{what} has no address: {name}"))
        except ResolutionFailed as error:
            return Host(name, (), _unresolved(error))
        if any(self._is_own(hop, address) for address in addresses):
            return None
        return self._public(name, addresses)

    def _public(self, name: str, addresses: Sequence[str]) -> Host:
        """A host, with those of its addresses that a stranger may name."""
        usable = [address for address in addresses if self._private or not is_private(address)]
        if not usable:
            text = f"The mail exchanger is in a private network: {name}"
            return Host(name, (), _failed("5.4.4", text))
        return Host(name, usable)

    def _is_own(self, hop: Hop, address: str) -> bool:
        """Tell whether mail for that address would come back to us."""
        return (hop.port or SMTP_PORT) == SMTP_PORT and self._own.is_at(address)

    async def _configured(self, name: str) -> Host:
        """A host that the configuration names.

        A fault of its name can be corrected there: mail waits for that.
        """
        try:
            return Host(name, await self._resolver.addresses(name))
        except ResolutionFailed as error:
            return Host(name, (), _unresolved(error))
        except DomainNotFound as error:
            self.log.error(
                "there is no host {name}; correct `routes` or `deliver`, or the DNS",
                name=str(error),
            )
            text = f"The next host is not to be found: {error}"
            return Host(name, (), Outcome(Status.DEFERRED, Reply(451, "4.3.5", (text,))))

    def _literal(self, hop: Hop) -> Host:
        """The host that an address literal names (RFC 5321 section 4.1.3)."""
        text = hop.next_hop.strip("[]").removeprefix("IPv6:")
        try:
            address = str(ip_address(text))
        except ValueError:
            return Host(text, (), _failed("5.1.2", f"Not an address: {hop.next_hop}"))
        if self._is_own(hop, address):
            raise HopFailure(Outcome(Status.FAILED, LOOPS_BACK))
        return self._public(address, [address])


def _unresolved(error: ResolutionFailed) -> Outcome:
    text = f"The name servers do not answer: {error}"
    return Outcome(Status.DEFERRED, Reply(451, "4.4.3", (text,)))


def _failed(enhanced: str, text: str) -> Outcome:
    return Outcome(Status.FAILED, Reply(550, enhanced, (text,)))
