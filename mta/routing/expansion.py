"""The expansion of an address: aliases, lists, forwards (RFC 5321 section 3.9)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from mta.mail import NULL_PATH, Hop, Mailbox, Reply
from mta.routing.local_parts import Kind, final_delivery, forward_of, lookup, takes_any
from mta.routing.reverse_paths import ReversePaths
from mta.routing.routes import Routes
from mta.settings import Domain
from mta.smtp import replies
from mta.smtp.errors import Refusal
from mta.smtp.grammar import has_route

MAX_ADDRESSES = 10_000  # addresses: that one may stand for, as each is resolved
MAX_ALIASES = 50  # aliases: that lead from one to the next, as resolving is recursive
SRS = "SRS"  # the reason of a step from a reverse-path that we rewrote
POSTMASTER = "postmaster"

ALIAS_LOOP = Reply(550, "5.4.6", ("The aliases of this address lead in a circle",))
TOO_MANY_ADDRESSES = Reply(550, "5.4.6", ("This address stands for too many others",))


@dataclass(frozen=True, slots=True)
class RoutingStep:
    """One step of an address, to other addresses or a hop.

    `reply` is set in place of both where the address is refused.

    `why` names the setting that decides.  `final` is the address that the hop is given.
    """

    address: Mailbox
    why: str
    targets: tuple[Mailbox, ...] = ()
    final: Mailbox = NULL_PATH
    hop: Hop | None = None
    reply: Reply | None = None


class Expander:
    """Expands an address step by step, to hops or a refusal.

    Mail to the postmaster always has a reader (RFC 5321 section 4.5.1).  Where an address leaves
    open which one, it is the postmaster of the domain that `hostname` is in, or else of our first
    domain; where that domain has none, the alphabetically first mailbox.
    """

    def __init__(
        self,
        hostname: str,
        domains: Mapping[str, Domain],
        routes: Routes,
        reverse_paths: ReversePaths,
    ) -> None:
        self._hostname = hostname
        self._domains = domains
        self._routes = routes
        self._reverse_paths = reverse_paths

    def follow(self, address: Mailbox, reverse_path: Mailbox, steps: list[RoutingStep]) -> None:
        """Add the steps on the way of `address`.

        Where one of them is a refusal, that is the last.  Raises Refusal.
        """
        self._follow(address, reverse_path, (), set(), steps)

    def _follow(
        self,
        address: Mailbox,
        reverse_path: Mailbox,
        through: tuple[Mailbox, ...],
        resolved: set[Mailbox],
        steps: list[RoutingStep],
    ) -> None:
        """Follow `address`, which was reached `through` those aliases.

        An address that is `resolved` is not followed twice.
        """
        if address in resolved and address not in through:
            return
        resolved.add(address)
        try:
            if address in through:
                raise Refusal(ALIAS_LOOP)
            if len(resolved) > MAX_ADDRESSES or len(through) > MAX_ALIASES:
                raise Refusal(TOO_MANY_ADDRESSES)
            step = self._step(address, reverse_path, is_forwarded=bool(through))
        except Refusal as refusal:
            steps.append(RoutingStep(address, "refused", reply=refusal.reply))
            raise
        steps.append(step)
        for target in step.targets:
            self._follow(target, reverse_path, (*through, address), resolved, steps)

    def _step(self, address: Mailbox, reverse_path: Mailbox, *, is_forwarded: bool) -> RoutingStep:
        """The step of one address.  Raises Refusal."""
        if not address.domain:
            return RoutingStep(address, "postmaster", (self._postmaster(),))
        domain = self._domains.get(address.domain)
        if domain is None:
            # A stranger may have written what an address of ours forwards.
            sender = NULL_PATH if is_forwarded else reverse_path
            why, hop = self._routes.find(address.domain, sender)
            return RoutingStep(address, why, final=address, hop=hop)
        original = self._reverse_paths.original(address)
        if original and reverse_path.is_null:  # only bounces come back this way
            if has_route(original.local_part):
                raise Refusal(replies.ROUTE_DENIED)
            return RoutingStep(address, SRS, (original,))
        if domain.alias_of:
            target = replace(address, domain=domain.alias_of)
            return RoutingStep(address, "alias_of", (target,))
        return self._local_step(address, domain)

    def _local_step(self, address: Mailbox, domain: Domain) -> RoutingStep:
        """The step of an address in a domain of ours.  Raises Refusal."""
        kind, name = lookup(address.local_part, domain)
        match kind:
            case Kind.ALIAS:
                # An alias without members is a mailbox.
                if targets := domain.aliases[name]:
                    return RoutingStep(address, kind.value, tuple(targets))
            case Kind.CATCH_ALL:
                assert domain.catch_all is not None
                return RoutingStep(address, kind.value, (domain.catch_all,))
            case Kind.NONE if name == POSTMASTER:
                return RoutingStep(address, "postmaster", (self._postmaster(),))
            case Kind.NONE:
                raise Refusal(replies.NO_SUCH_USER)
        final, hop = final_delivery(address, domain)
        _, forward = forward_of(address, domain)
        if forward is None:
            return RoutingStep(address, kind.value, final=final, hop=hop)
        if forward.keep:
            return RoutingStep(address, "forward, keeping a copy", forward.to, final, hop)
        return RoutingStep(address, "forward", forward.to)

    def _postmaster(self) -> Mailbox:
        """The postmaster where the address leaves the domain open."""
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
