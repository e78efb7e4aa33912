"""Checks of names: our own, and those of our domains."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_address
from pathlib import Path

from mta.delivery.own_host import is_private
from mta.dns_answer import RecordType
from mta.doctor.examined import Examined
from mta.doctor.result import Result, bad, ok, unknown, warn
from mta.interfaces import DomainNotFound


async def own_name(examined: Examined) -> AsyncIterator[Result]:
    """Look for the addresses of the host's name."""
    name = examined.settings.hostname
    trap = _named_loopback(examined.hosts, name)
    if trap:
        yield warn(
            f"{examined.hosts} gives {name} the address {trap}",
            f"remove the name from that line: programs here take {name} for a host apart",
        )
    if examined.is_dialling or examined.awaits_pairing:
        yield ok(f"{name} needs no address: mail comes through a peer that we dial")
        return
    addresses = await public_addresses(examined)
    if not addresses:
        yield bad(f"{name} has no address in the DNS", f"publish an A record: mta dns {name}")
    for address in addresses:
        if is_private(address) or ip_address(address).is_loopback:
            yield bad(
                f"{name} has {address} in the DNS, which only a private network reaches",
                "publish the public address",
            )
        elif examined.own.is_at(address):
            yield ok(f"{name} is {address}, an address of this host")
        else:
            yield unknown(
                f"{name} is {address}, which no interface of this host has",
                "right behind a router that forwards its ports: list it in `own_addresses`",
            )


async def reverse_names(examined: Examined) -> AsyncIterator[Result]:
    """Look whether each address leads back to the name (RFC 1912)."""
    name = examined.settings.hostname
    if examined.is_dialling or examined.awaits_pairing:
        return
    for address in await public_addresses(examined):
        pointer = ip_address(address).reverse_pointer
        answer = await examined.resolver.query(pointer, RecordType.PTR)
        names = [str(found).rstrip(".").lower() for found in answer.records]
        family = "IPv6" if ":" in address else "IPv4"
        if name.lower() in names:
            yield ok(f"{address} is called {name}")
        elif names:
            yield warn(
                f"{address} is called {', '.join(names)}, and not {name}",
                f"let the provider of the address name it {name}, or set `hostname: {names[0]}`",
            )
        else:
            yield bad(
                f"{address} has no name: many servers refuse mail from it",
                f"let the provider of the address name it {name} (PTR), or do not send by {family}",
            )


async def exchangers(examined: Examined) -> AsyncIterator[Result]:
    """Look where the world sends the mail of our domains."""
    dialled = {
        peer.connect.next_hop.lower()
        for peer in examined.settings.peers.values()
        if peer.connect is not None
    }
    for domain in examined.settings.domains:
        if examined.awaits_pairing:
            yield unknown(
                f"mail for {domain}: this office has no relay yet, where it could be sent",
                "mta pair, here and on the relay; then mta dns names the records",
            )
            continue
        hosts = await exchanger_hosts(examined, domain)
        if isinstance(hosts, Result):
            yield hosts
        elif await includes_us(examined, hosts):
            yield ok(f"mail for {domain} is sent to this host")
        elif any(host.lower() in dialled for host in hosts):
            yield ok(f"mail for {domain} is sent to {hosts[0]}, which we dial")
        elif dialled:
            yield unknown(
                f"mail for {domain} is sent to {', '.join(hosts)}",
                "right if that host hands it to the peer that we dial",
            )
        else:
            yield bad(
                f"mail for {domain} is sent to {', '.join(hosts)}, and not here",
                f"publish another MX record: mta dns {domain}",
            )


async def exchanger_hosts(examined: Examined, domain: str) -> Sequence[str] | Result:
    """The hosts that take the mail of a domain.

    The best comes first.  A result says what is wrong instead."""
    try:
        hosts = [host for _, host in sorted(await examined.resolver.mx(domain))]
    except DomainNotFound:
        return bad(f"{domain} does not exist in the DNS", f"mta dns {domain}")
    if not hosts:
        return bad(f"{domain} has no MX record", f"publish it: mta dns {domain}")
    if hosts == [""]:
        return bad(f"{domain} says that it takes no mail (RFC 7505)", f"mta dns {domain}")
    return hosts


async def public_addresses(examined: Examined) -> Sequence[str]:
    """The addresses that the DNS has for the host's name.

    The file of names that the system knows is left out.
    """
    found: list[str] = []
    for kind in (RecordType.A, RecordType.AAAA):
        answer = await examined.resolver.query(examined.settings.hostname, kind)
        found.extend(map(str, answer.records))
    return found


async def includes_us(examined: Examined, hosts: Sequence[str]) -> bool:
    """Tell whether one of these hosts is this one."""
    for host in hosts:
        if examined.own.is_named(host):
            return True
        try:
            addresses = await examined.resolver.addresses(host)
        except DomainNotFound:
            continue
        if any(examined.own.is_at(address) for address in addresses):
            return True
    return False


async def texts_of(examined: Examined, name: str, version: str) -> Sequence[str]:
    """The texts at a name that begin with this, in any case."""
    answer = await examined.resolver.query(name, RecordType.TXT)
    texts = [octets.decode("utf-8", "replace") for octets in answer.records]
    return [text for text in texts if text.lower().startswith(version)]


def _named_loopback(hosts: Path, name: str) -> str:
    """The loopback address that the file gives to a name; empty: none."""
    try:
        lines = hosts.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        address, *names = line.partition("#")[0].split() or [""]
        if address.startswith("127.") and name.lower() in map(str.lower, names):
            return address
    return ""
