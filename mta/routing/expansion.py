"""The steps from an address to the mailboxes and hops behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from mta.interfaces import IOwnHost
from mta.mail import NULL_PATH, Agent, Hop, Mailbox, Reply
from mta.routing.domains import (
    final_address,
    forward_of,
    forwarding_domains,
    is_too_long,
    names,
    takes_any,
)
from mta.settings import Domain
from mta.smtp import replies
from mta.smtp.errors import Refusal
from mta.smtp.grammar import has_route
from mta.smtp.srs import SenderRewriting

MAX_ADDRESSES = 10_000  # that one address may stand for
MAX_ALIASES = 50  # that may lead from one to the next
SRS = "SRS"  # why an address leads to another: it is a reverse-path that we wrote
POSTMASTER = "postmaster"

ALIAS_LOOP = Reply(550, "5.4.6", ("The aliases of this address lead in a circle",))
TOO_MANY_ADDRESSES = Reply(550, "5.4.6", ("This address stands for too many others",))


@dataclass(frozen=True, slots=True)
class Step:
    """One step on the way of an address.

    It leads to what the address stands for, to its hop, or to a refusal.  `why` names the setting
    that says so.  `final` is the address that the hop is given.
    """

    address: Mailbox
    why: str
    targets: tuple[Mailbox, ...] = ()
    final: Mailbox = NULL_PATH
    hop: Hop | None = None
    reply: Reply | None = None


class Expander:
    """Expands addresses by the tables of one configuration, which `Router` explains."""

    def __init__(
        self,
        hostname: str,
        domains: Mapping[str, Domain],
        routes: Mapping[str, Hop],
        default: Hop,
        senders: Mapping[str, Hop],
        srs: SenderRewriting | None,
        now: Callable[[], float],
        own: IOwnHost | None,
    ) -> None:
        self._hostname = hostname
        self._domains = domains
        self._routes = routes
        self._default = default
        self._senders = senders
        self._srs = srs
        self._now = now
        self._own = own
        self._forwarding = forwarding_domains(domains)

    def expand(
        self,
        address: Mailbox,
        reverse_path: Mailbox,
        through: tuple[Mailbox, ...],
        resolved: set[Mailbox],
        steps: list[Step],
    ) -> None:
        """Add the steps on the way of `address`.

        `through` are the aliases on the way to it; what is `resolved` needs no second look.
        Raises Refusal where the address, or one that it stands for, can't be delivered to.
        """
        if address in resolved and address not in through:
            return
        resolved.add(address)
        try:
            step = self._step(address, reverse_path, through, len(resolved))
        except Refusal as refusal:
            steps.append(Step(address, "refused", reply=refusal.reply))
            raise
        steps.append(step)
        for target in step.targets:
            self.expand(target, reverse_path, (*through, address), resolved, steps)

    def _step(
        self,
        address: Mailbox,
        reverse_path: Mailbox,
        through: tuple[Mailbox, ...],
        addresses: int,
    ) -> Step:
        """Return the next step of `address`.  Raises Refusal."""
        if address in through:
            raise Refusal(ALIAS_LOOP)
        if addresses > MAX_ADDRESSES or len(through) > MAX_ALIASES:
            raise Refusal(TOO_MANY_ADDRESSES)
        if not address.domain:
            return Step(address, "postmaster", (self._postmaster(),))
        domain = self._domains.get(address.domain)
        if domain is None:
            writer = NULL_PATH if through else reverse_path
            why, hop = self._route_to(address.domain, writer)
            return Step(address, why, final=address, hop=hop)
        original = self.original(address)
        if original and reverse_path.is_null:  # only bounces come back this way
            if has_route(original.local_part):
                raise Refusal(replies.ROUTE_DENIED)
            return Step(address, SRS, (original,))
        if domain.alias_of:
            return Step(address, "alias_of", (replace(address, domain=domain.alias_of),))
        why, targets = self._alias(address, domain)
        if targets:
            return Step(address, why, tuple(targets))
        final, hop = final_address(address, domain)
        forward = forward_of(address, domain)
        if forward is not None:
            if forward.keep:
                return Step(address, "forward, keeping a copy", forward.to, final, hop)
            return Step(address, "forward", forward.to)
        return Step(address, why, final=final, hop=hop)

    def _alias(self, address: Mailbox, domain: Domain) -> tuple[str, Sequence[Mailbox]]:
        """Return the kind of an address, and what it stands for.

        A mailbox stands for nothing else.  Raises Refusal.
        """
        local_part = address.local_part.lower()
        for name in names(local_part, domain):
            if name in domain.aliases:
                return "alias", domain.aliases[name]
            if name in (domain.mailboxes or ()):
                return "mailbox", ()
        if takes_any(domain) and not is_too_long(local_part, domain):
            return "any mailbox", ()
        if domain.catch_all is not None:
            return "catch_all", (domain.catch_all,)
        if local_part == POSTMASTER:
            return "postmaster", (self._postmaster(),)
        raise Refusal(replies.NO_SUCH_USER)

    def _postmaster(self) -> Mailbox:
        """Return the mailbox of the postmaster of no domain."""
        for domain in self._domains_by_kinship():
            known = {*domain.aliases, *(domain.mailboxes or ())}
            if POSTMASTER in known or domain.catch_all or takes_any(domain):
                return Mailbox(POSTMASTER, domain.name)
            if domain.mailboxes:
                return Mailbox(min(domain.mailboxes), domain.name)
        raise Refusal(replies.NO_SUCH_USER)

    def _domains_by_kinship(self) -> Iterator[Domain]:
        """Our domains, those first that our own host is in."""
        name = self._hostname
        while name:
            if name in self._domains:
                yield self._domains[name]
            name = name.partition(".")[2]
        yield from self._domains.values()

    def _route_to(self, domain: str, reverse_path: Mailbox) -> tuple[str, Hop]:
        """Return the route of another's domain, and its hop."""
        route, hop = _longest(self._routes, domain)
        why = f"route {route}"
        if hop is None:
            sender = str(reverse_path).lower()
            route, hop = sender, self._senders.get(sender)
            if hop is None:
                route, hop = _longest(self._senders, reverse_path.domain)
            why = f"sender {route}"
        if hop is None:
            why, hop = "route default", self._default
        if hop.agent is not Agent.MX:
            return why, hop
        if self._own is not None and domain.startswith("["):  # RFC 5321 section 4.1.3
            address = domain.strip("[]").removeprefix("IPv6:")
            if self._own.is_at(address):
                raise Refusal(replies.LOOPS_BACK)
        return why, replace(hop, next_hop=domain)

    def original(self, address: Mailbox) -> Mailbox | None:
        """Return the reverse-path that we rewrote to this one, if any.

        This is so only in domains that forward.
        """
        if self._srs is None or address.domain not in self._forwarding:
            return None
        return self._srs.original(address.local_part, self._now())


def _longest(hops: Mapping[str, Hop], name: str) -> tuple[str, Hop | None]:
    """Return the closest entry for a domain, and its hop.

    That is its own, or the one of the longest domain above it.
    """
    hop = hops.get(name)
    while hop is None and name:
        _, dot, name = name.removeprefix(".").partition(".")
        name = dot + name
        hop = hops.get(name)
    return name, hop
