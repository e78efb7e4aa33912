"""Addresses of clients: as one host for limits, and in networks."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from mta.settings import Network

HOST_PREFIX = 64  # bits of an IPv6 address that one customer has the rest of


@lru_cache(maxsize=1024)
def address_of(client: str) -> IPv4Address | IPv6Address | None:
    """The client's address; None where it has none.

    An IPv4 address that is mapped into IPv6 is an IPv4 address.
    """
    try:
        address = ip_address(client)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=1024)
def key(client: str) -> str:
    """The name under which a client is counted.

    An IPv4 address is a host, in IPv6 a network is.
    """
    address = address_of(client)
    if isinstance(address, IPv6Address):
        return str(ip_network((int(address), HOST_PREFIX), strict=False))
    return client if address is None else str(address)


def is_in(client: str, networks: Iterable[Network]) -> bool:
    """Tell whether the client is in one of these networks.

    A client without an address is in none.
    """
    address = address_of(client)
    return address is not None and any(address in network for network in networks)
