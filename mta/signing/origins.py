"""The mail that is ours to sign, by where it comes from."""

from __future__ import annotations

from enum import Enum
from ipaddress import IPv6Address, ip_address

from mta.queued import Delivery
from mta.session import LOCAL_ADDRESS, Origin
from mta.settings import Service, Settings
from mta.smtp import header

LISTENERS = frozenset(service.value for service in Service)
OUR_SERVICES = frozenset({Service.SMTP.value, Service.SUBMISSION.value})  # that relay


class Claim(Enum):
    """The reason to sign a message."""

    NONE = "it comes from elsewhere"
    OURS = "it comes from a user, a network or a program of ours"
    HANDED_IN = "it comes from a peer that logged in, which may have signed it"


class Origins:
    """Tells why a delivery is to be signed.

    Mail from elsewhere never is, though its From: may name a domain of ours: not where it is
    forwarded, nor where it waits for a peer.
    """

    def __init__(self, settings: Settings) -> None:
        self._networks = settings.relay.networks
        self._peers = {peer.user.lower() for peer in settings.peers.values() if peer.user}

    def claim(self, delivery: Delivery) -> Claim:
        """Return the reason to sign a delivery."""
        origin = delivery.message.origin
        if not self._is_ours(origin):
            return Claim.NONE
        if origin.user.lower() in self._peers:
            return Claim.HANDED_IN
        is_forwarded = any(target.forwarder is not None for target in delivery.targets)
        has_known_author = origin.user and origin.address != LOCAL_ADDRESS
        # A program that hands in what came from elsewhere, as filters do, looks like any other.
        return Claim.NONE if is_forwarded and not has_known_author else Claim.OURS

    def _is_ours(self, origin: Origin) -> bool:
        if origin.address == LOCAL_ADDRESS and origin.service not in LISTENERS:
            return True
        if origin.turned_peer or origin.service not in OUR_SERVICES:
            return False
        if origin.user:
            return True
        # An origin that was told proves nothing: the host that told it has to be ours.
        client = origin.told_by or origin.address
        if origin.told_by and not origin.is_internal_there:
            return False
        try:
            address = ip_address(client)
        except ValueError:
            return False
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return any((mapped or address) in network for network in self._networks)


def was_forwarded(section: bytes) -> bool:
    """Tell whether an address before us has sent the mail on."""
    return bool(header.count(section, b"delivered-to"))
