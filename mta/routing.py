"""Forward-path to hop: domains, aliases, routes (RFC 5321 sections 3.5, 3.9 and 5).

Asked at RCPT time and again at each delivery, and never stored, so that a corrected
configuration applies to mail that is queued already.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from zope.interface import implementer

from mta.interfaces import IOwnHost, IRouter
from mta.mail import NULL_PATH, Agent, Hop, Mailbox, Reply
from mta.settings import Domain, Forward
from mta.smtp import replies
from mta.smtp.errors import Refusal
from mta.smtp.grammar import MAX_LOCAL_PART, MAX_OWN_PATH, has_route
from mta.smtp.srs import SenderRewriting

MAX_ADDRESSES = 10_000  # that one address may stand for
MAX_ALIASES = 50  # that may lead from one to the next
MAX_KEPT = 50_000  # steps on the way of all addresses whose routes are kept
SRS = "SRS"  # why an address leads to another: it is a reverse-path that we wrote
POSTMASTER = "postmaster"

ALIAS_LOOP = Reply(550, "5.4.6", ("The aliases of this address lead in a circle",))
TOO_MANY_ADDRESSES = Reply(550, "5.4.6", ("This address stands for too many others",))

Routed = Sequence[tuple[Mailbox, Hop]] | Reply


@dataclass(frozen=True, slots=True)
class Step:
    """One step on the way of an address: to what it stands for, to its hop, or to a refusal.

    `why` names the setting that says so.  `final` is the address that the hop is given.
    """

    address: Mailbox
    why: str
    targets: tuple[Mailbox, ...] = ()
    final: Mailbox = NULL_PATH
    hop: Hop | None = None
    reply: Reply | None = None


@implementer(IRouter)
class Router:
    """The routes of one configuration.

    `routes` map domains, or with a leading dot all that is below them, to hops; what is in
    none takes the hop that its sender, or the sender's domain, has in `senders`, or else the
    `default`.  What an address of ours sends on to elsewhere was written by anybody: `senders` do
    not count for it.  An alias with a member that can't be delivered to is refused as a
    whole: nobody is left out silently.

    Somebody always reads what is sent to the postmaster (RFC 5321 section 4.5.1).  Where an
    address leaves open who that is, it is the postmaster of the domain that `hostname` is in,
    or else of our first domain; where that domain has none, the alphabetically first mailbox.

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
        self._hostname = hostname
        self._domains = domains
        self._routes = routes
        self._default = default
        self._srs = srs
        self._own = own
        self._now = now
        self._senders = senders or {}
        self._forwarding = _forwarding(domains)
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
        routed = None if self._original(name) else self._routed.get(key)
        if routed is None:
            routed = self._route_anew(name, reverse_path, key)
        if isinstance(routed, Reply):
            raise Refusal(routed)
        return routed

    def _main_name(self, address: Mailbox) -> Mailbox:
        """The one name, of the many that lead to a list, under which its members are kept."""
        for _ in range(MAX_ALIASES):
            domain = self._domains.get(address.domain)
            name = None if domain is None else self._other_name(address, domain)
            if name is None or name == address:
                break
            address = name
        return address

    def _other_name(self, address: Mailbox, domain: Domain) -> Mailbox | None:
        """The address that this one is only another name for."""
        if self._original(address):
            return None
        if domain.alias_of:
            return replace(address, domain=domain.alias_of)
        for name in _names(address.local_part.lower(), domain):
            if name in domain.aliases:
                return Mailbox(name, domain.name)
            if name in domain.forward and _drops_subaddress(domain, domain.forward[name]):
                return Mailbox(name, domain.name)
            if name in (domain.mailboxes or ()):
                return None
        return None if _takes_any(domain) else domain.catch_all

    def _route_anew(
        self, address: Mailbox, reverse_path: Mailbox, key: tuple[Mailbox, Mailbox]
    ) -> Routed:
        """Resolve an address, and keep what it leads to: each message asks twice."""
        steps: list[Step] = []
        routed: Routed
        try:
            self._resolve(address, reverse_path, (), set(), steps)
        except Refusal as refusal:
            if len(steps) == 1:
                raise  # quickly found, and anybody may ask for any number of them
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
        """The steps that `route` takes; where it refuses, the last one says so."""
        steps: list[Step] = []
        with suppress(Refusal):
            self._resolve(address, reverse_path, (), set(), steps)
        return steps

    def _original(self, address: Mailbox) -> Mailbox | None:
        """Whose reverse-path we rewrote to this one, in a domain that forwards."""
        if self._srs is None or address.domain not in self._forwarding:
            return None
        return self._srs.original(address.local_part, self._now())

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

    def _resolve(
        self,
        address: Mailbox,
        reverse_path: Mailbox,
        through: tuple[Mailbox, ...],
        resolved: set[Mailbox],
        steps: list[Step],
    ) -> None:
        """Add the steps on the way of `address`.

        `through` are the aliases on the way to it; what is `resolved` needs no second look.
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
            self._resolve(target, reverse_path, (*through, address), resolved, steps)

    def _step(
        self,
        address: Mailbox,
        reverse_path: Mailbox,
        through: tuple[Mailbox, ...],
        addresses: int,
    ) -> Step:
        """What `address` stands for, or where it goes.  Raises Refusal."""
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
        original = self._original(address)
        if original and reverse_path.is_null:  # only bounces come back this way
            if has_route(original.local_part):
                raise Refusal(replies.ROUTE_DENIED)
            return Step(address, SRS, (original,))
        if domain.alias_of:
            return Step(address, "alias_of", (replace(address, domain=domain.alias_of),))
        why, targets = self._alias(address, domain)
        if targets:
            return Step(address, why, tuple(targets))
        final, hop = _final(address, domain)
        forward = _forward(address, domain)
        if forward is not None:
            if forward.keep:
                return Step(address, "forward, keeping a copy", forward.to, final, hop)
            return Step(address, "forward", forward.to)
        return Step(address, why, final=final, hop=hop)

    def _alias(self, address: Mailbox, domain: Domain) -> tuple[str, Sequence[Mailbox]]:
        """What an address is another name for, nothing where it is a mailbox of its own; and why.

        Raises Refusal.
        """
        local_part = address.local_part.lower()
        for name in _names(local_part, domain):
            if name in domain.aliases:
                return "alias", domain.aliases[name]
            if name in (domain.mailboxes or ()):
                return "mailbox", ()
        if _takes_any(domain) and not _is_too_long(local_part, domain):
            return "any mailbox", ()
        if domain.catch_all is not None:
            return "catch_all", (domain.catch_all,)
        if local_part == POSTMASTER:
            return "postmaster", (self._postmaster(),)
        raise Refusal(replies.NO_SUCH_USER)

    def _postmaster(self) -> Mailbox:
        """Who reads what is sent to the postmaster of nowhere in particular."""
        for domain in self._domains_by_kinship():
            known = {*domain.aliases, *(domain.mailboxes or ())}
            if POSTMASTER in known or domain.catch_all or _takes_any(domain):
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
        """The hop for a domain that is not ours, and which route it is."""
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


def _longest(hops: Mapping[str, Hop], name: str) -> tuple[str, Hop | None]:
    """The entry of a domain, or of the longest one that it is below, and its hop."""
    hop = hops.get(name)
    while hop is None and name:
        _, dot, name = name.removeprefix(".").partition(".")
        name = dot + name
        hop = hops.get(name)
    return name, hop


def _forward(address: Mailbox, domain: Domain) -> Forward | None:
    """Where a mailbox's mail goes on to, as it is named in full or without its subaddress."""
    for name in _names(address.local_part.lower(), domain):
        if name in domain.forward or name in (domain.mailboxes or ()):
            return domain.forward.get(name)
    return None


def _drops_subaddress(domain: Domain, forward: Forward) -> bool:
    """Whether mail for all subaddresses of a forwarded mailbox has the same ends."""
    return not forward.keep or domain.deliver.agent in (Agent.MAILDIR, Agent.PIPE)


def _final(address: Mailbox, domain: Domain) -> tuple[Mailbox, Hop]:
    """Where an address of ours goes that stands for itself."""
    hop, name = domain.deliver, address.local_part
    if hop.agent is Agent.MX:
        hop = replace(hop, next_hop=domain.name)
    elif hop.agent in (Agent.MAILDIR, Agent.PIPE):
        whole, *rest = _names(name.lower(), domain)
        name = rest[0] if rest and whole not in (domain.mailboxes or ()) else whole
    return Mailbox(name, domain.name), hop


def _forwarding(domains: Mapping[str, Domain]) -> frozenset[str]:
    """The domains of ours with an address that leads elsewhere, at whatever remove."""
    leads_to = {
        name: {target.domain for targets in _all_targets(domain) for target in targets}
        for name, domain in domains.items()
    }
    found = {name for name, targets in leads_to.items() if not targets <= domains.keys()}
    while more := {name for name in leads_to.keys() - found if leads_to[name] & found}:
        found |= more
    return frozenset(found)


def _all_targets(domain: Domain) -> Iterator[Sequence[Mailbox]]:
    """What the aliases, forwards and the catch-all of a domain lead to."""
    yield from domain.aliases.values()
    yield from (forward.to for forward in domain.forward.values())
    if domain.catch_all:
        yield (domain.catch_all,)
    if domain.alias_of:
        yield (Mailbox("", domain.alias_of),)


def _names(local_part: str, domain: Domain) -> Sequence[str]:
    """The local part as it is, and without its subaddress where it has one."""
    if not domain.subaddress:
        return (local_part,)
    name, separator, _ = local_part.partition(domain.subaddress)
    return (local_part, name) if separator and name else (local_part,)


def _is_too_long(local_part: str, domain: Domain) -> bool:
    """Whether a local part can be no mailbox here (RFC 5321 section 4.5.3.1.1)."""
    is_final = domain.deliver.agent in (Agent.MAILDIR, Agent.PIPE)
    return is_final and len(_names(local_part, domain)[-1].encode()) > MAX_LOCAL_PART


def _takes_any(domain: Domain) -> bool:
    """Whether every local part exists, as far as we can tell.

    A domain that goes on elsewhere and says nothing of mailboxes leaves it to the next host.
    """
    says_nothing = not (domain.mailboxes or domain.aliases or domain.catch_all)
    return domain.mailboxes is None or (says_nothing and domain.deliver.agent is not Agent.MAILDIR)
