"""What counts as one host, and which network it is in."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from mta.settings import Network

HOST_PREFIX = 64  # bits of an IPv6 address that one customer has the rest of


@lru_cache(maxsize=1024)
def parse(client: str) -> IPv4Address | IPv6Address | None:
    """The client's address, a mapped IPv4 address as what it is; None: it has none."""
    try:
        address = ip_address(client)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=1024)
def key(client: str) -> str:
    """What counts as one host: an IPv4 address, a network of IPv6 addresses."""
    address = parse(client)
    if isinstance(address, IPv6Address):
        return str(ip_network((int(address), HOST_PREFIX), strict=False))
    return client if address is None else str(address)


def is_in(client: str, networks: Iterable[Network]) -> bool:
    """Whether the client is in one of these networks; who has no address never is."""
    address = parse(client)
    return address is not None and any(address in network for network in networks)
