"""The look at the network before the questions of ``mta init``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from mta.commands.errand import IErrand, Progress, run
from mta.installation import firewall, host
from mta.installation.answers import Role

if TYPE_CHECKING:
    from mta.installation.network import Network

SMTP_PORT = 25
MAX_TIME = 120.0  # seconds: each of some addresses and name servers has its own limit
NOT_KNOWN = {
    Role.VPS: "once an office is paired, `mta doctor` lets it try",
    Role.SERVER: "`mta doctor` says how to try it from elsewhere",
}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The public addresses with their reverse names, and remarks."""

    names: Mapping[str, str] = field(default_factory=dict)
    remarks: Sequence[str] = ()


def surroundings(role: Role, hostname: str, ports: Sequence[int]) -> Surroundings:
    """Look around, which takes some seconds where no host answers.

    `hostname` is what the host is called, as far as that is known.  Raises Failed.
    """
    look = _Look(role, hostname, ports)
    run(look, MAX_TIME)
    return look.found


@implementer(IErrand)
class _Look:
    """The look at the network, which needs the reactor."""

    def __init__(self, role: Role, hostname: str, ports: Sequence[int]) -> None:
        self._around = role, hostname, ports
        self.found = Surroundings()

    async def take(self, reactor: Any, progress: Progress) -> None:
        """See `IErrand.take`."""
        from mta.installation.network import Network
        from mta.resolver import Resolver

        progress.step = "the look at the network"
        self.found = await _found(Network(reactor, Resolver(reactor)), *self._around)


async def _found(network: Network, role: Role, hostname: str, ports: Sequence[int]) -> Surroundings:
    own = host.outward_addresses()
    public = [address for address in own if ip_address(address).is_global]
    names = {address: await network.reverse_name(address) for address in public}
    named = await network.addresses(hostname) if hostname else ()
    others = [address for address in named if address not in own]
    remarks = [
        *await _outgoing(network, [ip_address(address).version for address in own]),
        *_firewall(ports),
        *await _incoming(network, public, others),
    ]
    if not public and not others:
        what = f"no public address, but {', '.join(own)}" if own else "no way to the Internet"
        remarks.append(f"this host has {what}: mail comes only if a router forwards port 25")
    remarks.append(
        f"port 25 from outside: whether others reach it is not known from here; {NOT_KNOWN[role]}"
    )
    return Surroundings(names, remarks)


async def _outgoing(network: Network, versions: Sequence[int]) -> Sequence[str]:
    """Lines about the ways by which no mail can leave."""
    reasons = {
        version: reason
        for version in versions
        if (reason := await network.why_no_outgoing(version))
    }
    ask = "ask your provider to open it, or use a smart host"
    if len(reasons) == len(versions):
        told = "; ".join(dict.fromkeys(reasons.values())) or "there is no way out"
        return [f"port 25 outwards is closed, so that no mail leaves: {told}; {ask}"]
    return [
        f"port 25 outwards is closed by IPv{version} ({reason}): mail leaves the other way; {ask}"
        for version, reason in reasons.items()
    ]


def _firewall(ports: Sequence[int]) -> Iterator[str]:
    """A line about ports that a firewall of this host drops."""
    closed, name = firewall.closed_ports(ports)
    if closed:
        listed = ", ".join(map(str, closed))
        opening = (
            "; ".join(f"ufw allow {port}/tcp" for port in closed)
            if name == "ufw"
            else f"accept `tcp dport {{ {listed} }}` in the chain of the hook input"
        )
        yield f"the firewall of this host ({name}) drops what comes to port {listed}: {opening}"


async def _incoming(
    network: Network, public: Sequence[str], others: Sequence[str]
) -> Sequence[str]:
    """Lines about public addresses at which a connection does not arrive here."""
    remarks = []
    for address in (*public, *others):
        if await network.reaches_us(address) is False:
            where = (
                "a firewall of this host drops it"
                if address in public
                else "no address of this host; let the router forward port 25 to it"
            )
            remarks.append(
                f"port {SMTP_PORT} of {address} can't be reached from this host itself: {where}"
            )
    return remarks
