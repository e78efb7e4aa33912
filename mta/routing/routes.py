"""The routes of other domains, by domain or by sender."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mta.interfaces import IOwnHost
from mta.mail import Agent, Hop, Mailbox
from mta.smtp import replies
from mta.smtp.errors import Refusal


class Routes:
    """Finds the hop for a domain.

    `routes` map domains, or with a leading dot all domains below, to hops.  A domain that is in
    none takes the hop that its sender, or the sender's domain, has in `senders`, or else the
    `default`.  `own` knows the address literals that lead back to this host.
    """

    def __init__(
        self,
        routes: Mapping[str, Hop],
        senders: Mapping[str, Hop],
        default: Hop,
        own: IOwnHost | None,
    ) -> None:
        self._routes = routes
        self._senders = senders
        self._default = default
        self._own = own

    def find(self, domain: str, reverse_path: Mailbox) -> tuple[str, Hop]:
        """The route of a domain by name, and its hop.  Raises Refusal."""
        name, hop = self._find(domain, reverse_path)
        if hop.agent is not Agent.MX:
            return name, hop
        if self._own is not None and domain.startswith("["):  # RFC 5321 section 4.1.3
            address = domain.strip("[]").removeprefix("IPv6:")
            if self._own.is_at(address):
                raise Refusal(replies.LOOPS_BACK)
        return name, replace(hop, next_hop=domain)

    def _find(self, domain: str, reverse_path: Mailbox) -> tuple[str, Hop]:
        name, hop = _longest(self._routes, domain)
        if hop is not None:
            return f"route {name}", hop
        sender = str(reverse_path).lower()
        if sender in self._senders:
            return f"sender {sender}", self._senders[sender]
        name, hop = _longest(self._senders, reverse_path.domain)
        if hop is not None:
            return f"sender {name}", hop
        return "route default", self._default


def _longest(hops: Mapping[str, Hop], name: str) -> tuple[str, Hop | None]:
    """The entry of a domain or of the next one above it."""
    hop = hops.get(name)
    while hop is None and name:
        _, dot, name = name.removeprefix(".").partition(".")
        name = dot + name
        hop = hops.get(name)
    return name, hop
