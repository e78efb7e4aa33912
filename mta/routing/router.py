"""The router of one configuration, which remembers what it has found."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from zope.interface import implementer

from mta.interfaces import IOwnHost, IRouter
from mta.mail import NULL_PATH, Hop, Mailbox, Reply
from mta.routing.domains import drops_subaddress, names, takes_any
from mta.routing.expansion import MAX_ALIASES, SRS, Expander, Step
from mta.settings import Domain
from mta.smtp import replies
from mta.smtp.errors import Refusal
from mta.smtp.grammar import MAX_OWN_PATH, has_route
from mta.smtp.srs import SenderRewriting

MAX_KEPT = 50_000  # steps on the way of all addresses whose routes are kept

Routed = Sequence[tuple[Mailbox, Hop]] | Reply


@implementer(IRouter)
class Router:
    """The routes of one configuration.

    `routes` map domains, or with a leading dot all that is below them, to hops; what is in
    none takes the hop that its sender, or the sender's domain, has in `senders`, or else the
    `default`.  What an address of ours sends on to elsewhere may have any author, so `senders` do
    not count for it.  An alias with a member that can't be delivered to is refused as a whole: no
    member is left out silently.

    There is always a postmaster (RFC 5321 section 4.5.1).  An address without a domain means that
    of the domain that `hostname` is in, or else of our first domain; where that domain has none,
    the alphabetically first mailbox.

    `srs` None: forwarded mail keeps its reverse-path.  `now` gives seconds since the epoch.  `own`
    knows the address literals that lead back to this host.
    """

    def __init__(
        self,
        hostname: str,
        domains: Mapping[str, Domain],
        routes: Mapping[str, Hop],
        default: Hop,
        senders: Mapping[str, Hop] | None = None,
        srs: SenderRewriting | None = None,
        now: Callable[[], float] = time.time,
        own: IOwnHost | None = None,
    ) -> None:
        self._domains = domains
        self._srs = srs
        self._now = now
        self._expander = Expander(hostname, domains, routes, default, senders or {}, srs, now, own)
        self._routed: dict[tuple[Mailbox, Mailbox], Routed] = {}
        self._kept = 0

    def is_ours(self, domain: str) -> bool:
        """See `IRouter.is_ours`."""
        return domain in self._domains

    def route(
        self, address: Mailbox, reverse_path: Mailbox = NULL_PATH
    ) -> Sequence[tuple[Mailbox, Hop]]:
        """See `IRouter.route`.

        Where final delivery is ours, the address is the mailbox: in lower case, without its
        subaddress (RFC 5233).  Elsewhere it is what the sender wrote.
        """
        name = self._main_name(address)
        key = (name, NULL_PATH if self.is_ours(name.domain) else reverse_path)
        routed = None if self._expander.original(name) else self._routed.get(key)
        if routed is None:
            routed = self._route_anew(name, reverse_path, key)
        if isinstance(routed, Reply):
            raise Refusal(routed)
        return routed

    def _main_name(self, address: Mailbox) -> Mailbox:
        """Return the main name of an address.

        Of all names that lead to a list, its members are kept under that one.
        """
        for _ in range(MAX_ALIASES):
            domain = self._domains.get(address.domain)
            name = None if domain is None else self._other_name(address, domain)
            if name is None or name == address:
                break
            address = name
        return address

    def _other_name(self, address: Mailbox, domain: Domain) -> Mailbox | None:
        """The address that this one is only another name for."""
        if self._expander.original(address):
            return None
        if domain.alias_of:
            return replace(address, domain=domain.alias_of)
        for name in names(address.local_part.lower(), domain):
            if name in domain.aliases:
                return Mailbox(name, domain.name)
            if name in domain.forward and drops_subaddress(domain, domain.forward[name]):
                return Mailbox(name, domain.name)
            if name in (domain.mailboxes or ()):
                return None
        return None if takes_any(domain) else domain.catch_all

    def _route_anew(
        self, address: Mailbox, reverse_path: Mailbox, key: tuple[Mailbox, Mailbox]
    ) -> Routed:
        """Resolve an address, and remember the result.  Each message asks twice."""
        steps: list[Step] = []
        routed: Routed
        try:
            self._expander.expand(address, reverse_path, (), set(), steps)
        except Refusal as refusal:
            if len(steps) == 1:
                raise  # quickly found, and a client may ask for any number of them
            routed = refusal.reply
        else:
            finals: dict[Mailbox, Hop] = {}
            for step in steps:
                if step.hop is not None:
                    finals.setdefault(step.final, step.hop)
            routed = tuple(finals.items())
        if not any(step.why == SRS for step in steps):  # that is true for some days only
            self._routed[key] = routed
            self._kept += len(steps)
        if self._kept > MAX_KEPT:
            self._routed.clear()
            self._kept = 0
        return routed

    def explain(self, address: Mailbox, reverse_path: Mailbox = NULL_PATH) -> Sequence[Step]:
        """Return the steps that `route` takes.  Where it refuses, the last one says so."""
        steps: list[Step] = []
        with suppress(Refusal):
            self._expander.expand(address, reverse_path, (), set(), steps)
        return steps

    def rewritten(self, reverse_path: Mailbox, forwarder: Mailbox) -> Mailbox:
        """See `IRouter.rewritten`.

        What is ours we may send as it is; what can't be rewritten in a path that any server takes,
        or might be a route in the hands of another, goes on as it came.
        """
        if self._srs is None or reverse_path.is_null or self.is_ours(reverse_path.domain):
            return reverse_path
        if has_route(reverse_path.local_part):
            return reverse_path
        rewritten = self._srs.rewritten(reverse_path, forwarder.domain, self._now())
        return rewritten if len(f"<{rewritten}>".encode()) <= MAX_OWN_PATH else reverse_path

    def expand(self, address: Mailbox) -> Sequence[Mailbox]:
        """The final addresses behind one of our own (EXPN).  Raises Refusal."""
        if not self.is_ours(address.domain):
            raise Refusal(replies.NO_SUCH_USER)
        return [final for final, _ in self.route(address)]
