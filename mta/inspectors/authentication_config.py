"""The values and seams that the authentication of all messages shares."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred

from mta.inspectors.interfaces import IJudgedMail
from mta.inspectors.verifications import Verifications
from mta.interfaces import IAuthenticationMeter, IResolver
from mta.mail import canonical_domain
from mta.session import Session
from mta.settings import Authentication, Network


@dataclass(frozen=True)
class AuthenticationConfig:
    """The values and seams that the authentication of all messages shares.

    `peers` are the hosts of those that we dial, to receive from on turned connections, by their
    names.  `now` gives seconds since the epoch; `in_thread` calls a function in a thread.
    """

    settings: Authentication
    hostname: str
    resolver: IResolver
    clock: Any
    in_thread: Callable[..., Deferred[Any]]
    now: Callable[[], float]
    meter: IAuthenticationMeter
    peers: Mapping[str, str] = field(default_factory=dict)
    listeners: Collection[IJudgedMail] = ()

    @cached_property
    def authserv_id(self) -> str:
        """Our name in Authentication-Results, in canonical form."""
        return canonical_domain(self.settings.authserv_id or self.hostname).rstrip(".")

    @cached_property
    def verifications(self) -> Verifications:
        """The verification of signatures, for all messages together."""
        return Verifications(self.clock, self.in_thread)

    @property
    def needs_name(self) -> bool:
        """Tell whether forwarders are known by their names."""
        return any(isinstance(each, str) for each in self.settings.trusted_forwarders)

    def is_trusted_forwarder(self, session: Session) -> bool:
        """Tell whether the client may bring mail of others that fails."""
        return any(_is_at(session, each) for each in self.settings.trusted_forwarders)


def _is_at(session: Session, place: str | Network) -> bool:
    if isinstance(place, str):
        name = session.name.lower().rstrip(".")
        return name.endswith(place) if place.startswith(".") else name == place
    try:
        return ip_address(session.client) in place
    except ValueError:
        return False
