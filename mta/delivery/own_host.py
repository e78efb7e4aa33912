"""The names and addresses of this host (RFC 5321 section 5.1)."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from zope.interface import implementer

from mta.interfaces import IOwnHost

_UNASSIGNED = ("240.0.0.1", "100::1")  # reserved (RFC 1112), discarded (RFC 6666): on no interface
_THIS_NETWORK = IPv4Network("0.0.0.0/8")  # RFC 1122 section 3.2.1.3: this host, as loopback is
# The last 32 bits are an address of IPv4, mapped (RFC 4291 section 2.5.5) or translated (RFC 2765,
# RFC 6052, RFC 8215): a network with a translator leads there.
_WRAPPING = [
    IPv6Network(prefix)
    for prefix in (
        *("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96"),
        *("64:ff9b::/96", "64:ff9b:1::/96"),
    )
]
_PRIVATE = [
    ip_network(network)
    for network in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),  # RFC 1918, RFC 4193
        *("169.254.0.0/16", "fe80::/10"),  # RFC 3927, RFC 4291 section 2.5.6
        "fec0::/10",  # RFC 3879, of former times
    )
]


def is_private(address: str) -> bool:
    """Tell whether only a private network has that address."""
    ends = _ends(address)
    return any(end in network for end in ends for network in _PRIVATE)


def is_on_interface(address: str) -> bool:
    """Tell whether an interface of this host has that address."""
    # Where any address can be bound (net.ipv4.ip_nonlocal_bind), this way of asking says nothing.
    return _can_bind(address) is True and _can_bind(_UNASSIGNED[":" in address]) is False


def _can_bind(address: str) -> bool | None:
    """Tell whether an address can be bound.

    None: without a socket that is unknown.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        probe = socket.socket(family, socket.SOCK_DGRAM)
    except OSError:
        return None
    with probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


@implementer(IOwnHost)
class OwnHost:
    """This host by its name and the addresses of its interfaces.

    `addresses` are ours, too, though no interface has them.  `is_on_interface` asks the system.
    """

    def __init__(
        self,
        hostname: str,
        addresses: Collection[str] = (),
        is_on_interface: Callable[[str], bool] = is_on_interface,
    ) -> None:
        self._hostname = hostname.rstrip(".").lower()
        self._addresses = {_plain(address) for address in addresses}
        self._is_on_interface = is_on_interface

    def is_named(self, host: str) -> bool:
        """See `IOwnHost.is_named`."""
        name = host.rstrip(".").lower()
        return name in (self._hostname, "localhost") or name.endswith(".localhost")

    def is_at(self, address: str) -> bool:
        """See `IOwnHost.is_at`."""
        return any(self._has(end) for end in _ends(address))

    def _has(self, address: IPv4Address | IPv6Address) -> bool:
        """Tell whether that very address is one of ours."""
        if address.is_loopback or address.is_unspecified or address in self._addresses:
            return True
        if address.version == 4 and address in _THIS_NETWORK:
            return True
        return not address.is_multicast and self._is_on_interface(str(address))


def _ends(address: str) -> list[IPv4Address | IPv6Address]:
    """The places where packets to that address end.

    The network that 6to4 makes of an address of IPv4 is behind that address (RFC 3056 section 2).
    """
    plain = _plain(address)
    gateway = plain.sixtofour if isinstance(plain, IPv6Address) else None
    return [plain] if gateway is None else [plain, gateway]


def _plain(address: str) -> IPv4Address | IPv6Address:
    """The address that is meant, where IPv6 only wraps one of IPv4."""
    plain = ip_address(address)
    if plain.version == 4 or plain.is_loopback or plain.is_unspecified:
        return plain
    is_wrapped = any(plain in network for network in _WRAPPING)
    return IPv4Address(int(plain) & 0xFFFFFFFF) if is_wrapped else plain
