"""Forward-path to hop: domains, aliases, routes (RFC 5321 sections 3.5, 3.9 and 5).

Asked at RCPT time and again at each delivery, and never stored, so that a corrected
configuration applies to mail that is queued already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import idna
from zope.interface import implementer

from mta.interfaces import IRouter
from mta.mail import Agent, Hop, Mailbox, Reply
from mta.settings import Domain
from mta.smtp import replies
from mta.smtp.errors import Refusal

MOST_ADDRESSES = 10_000  # that one address may stand for
MOST_ALIASES = 50  # that may lead from one to the next
POSTMASTER = "postmaster"

ALIAS_LOOP = Reply(550, "5.4.6", ("The aliases of this address lead in a circle",))
TOO_MANY_ADDRESSES = Reply(550, "5.4.6", ("This address stands for too many others",))


@implementer(IRouter)
class Router:
    """The routes of one configuration.

    `routes` map domains, or with a leading dot all that is below them, to hops; what is in
    none takes the `default`.  An alias with a member that can't be delivered to is refused as a
    whole: nobody is left out silently.

    Somebody always reads what is sent to the postmaster (RFC 5321 section 4.5.1).  Where an
    address leaves open who that is, it is the postmaster of the domain that `hostname` is in,
    or else of our first domain; where that domain has none, the alphabetically first mailbox.
    """

    def __init__(
        self,
        hostname: str,
        domains: Mapping[str, Domain],
        routes: Mapping[str, Hop],
        default: Hop,
    ) -> None:
        self._hostname = _canonical(hostname)
        self._domains = {_canonical(name): domain for name, domain in domains.items()}
        self._routes = {_canonical(name): hop for name, hop in routes.items()}
        self._default = default

    def is_ours(self, domain: str) -> bool:
        """See `IRouter.is_ours`."""
        return _canonical(domain) in self._domains

    def route(self, address: Mailbox) -> Sequence[tuple[Mailbox, Hop]]:
        """See `IRouter.route`.

        Where final delivery is ours, the address is the mailbox: in lower case, without its
        subaddress (RFC 5233).  Elsewhere it is what the sender wrote.
        """
        found: dict[Mailbox, Hop] = {}
        self._resolve(address, (), set(), found)
        return list(found.items())

    def expand(self, address: Mailbox) -> Sequence[Mailbox]:
        """The final addresses behind one of our own (EXPN).  Raises Refusal."""
        if not self.is_ours(address.domain):
            raise Refusal(replies.NO_SUCH_USER)
        return [final for final, _ in self.route(address)]

    def _resolve(
        self,
        address: Mailbox,
        through: tuple[Mailbox, ...],
        resolved: set[Mailbox],
        found: dict[Mailbox, Hop],
    ) -> None:
        """Add what `address` stands for to `found`.

        `through` are the aliases on the way to it; what is `resolved` needs no second look.
        """
        if address in through:
            raise Refusal(ALIAS_LOOP)
        if address in resolved:
            return
        resolved.add(address)
        if len(resolved) > MOST_ADDRESSES or len(through) > MOST_ALIASES:
            raise Refusal(TOO_MANY_ADDRESSES)
        domain = self._domains.get(_canonical(address.domain))
        targets: Sequence[Mailbox] | None
        if not address.domain:
            targets = (self._postmaster(),)
        elif domain is None:
            found[address] = self._route_to(address.domain)
            return
        else:
            targets = self._alias(address, domain)
            if targets is None:
                found.setdefault(*_final(address, domain))
                return
        for target in targets:
            self._resolve(target, (*through, address), resolved, found)

    def _alias(self, address: Mailbox, domain: Domain) -> Sequence[Mailbox] | None:
        """What an address is another name for; None where it is a mailbox of its own."""
        local_part = address.local_part.lower()
        for name in _names(local_part, domain):
            if name in domain.aliases:
                return domain.aliases[name]
            if name in (domain.mailboxes or ()):
                return None
        if _takes_any(domain):
            return None
        if domain.catch_all is not None:
            return (domain.catch_all,)
        if local_part == POSTMASTER:
            return (self._postmaster(),)
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

    def _route_to(self, domain: str) -> Hop:
        """The hop for a domain that is not ours."""
        name = _canonical(domain)
        hop = self._routes.get(name)
        below = name
        while hop is None and below:
            _, dot, below = below.partition(".")
            hop = self._routes.get(dot + below)
        if hop is None:
            hop = self._default
        if hop.agent is not Agent.MX:
            return hop
        if name.startswith("["):  # an address literal, RFC 5321 section 4.1.3
            return Hop(Agent.SMTP, name[1:-1].removeprefix("ipv6:"), 25)
        return replace(hop, next_hop=name)


def _final(address: Mailbox, domain: Domain) -> tuple[Mailbox, Hop]:
    """Where an address of ours goes that stands for itself."""
    hop, name = domain.deliver, address.local_part
    if hop.agent is Agent.MX:
        hop = replace(hop, next_hop=_canonical(domain.name))
    elif hop.agent in (Agent.MAILDIR, Agent.PIPE):
        whole, *rest = _names(name.lower(), domain)
        name = rest[0] if rest and whole not in (domain.mailboxes or ()) else whole
    return Mailbox(name, domain.name), hop


def _names(local_part: str, domain: Domain) -> Sequence[str]:
    """The local part as it is, and without its subaddress where it has one."""
    if not domain.subaddress:
        return (local_part,)
    name, separator, _ = local_part.partition(domain.subaddress)
    return (local_part, name) if separator and name else (local_part,)


def _takes_any(domain: Domain) -> bool:
    """Whether every local part exists, as far as we can tell.

    A domain that goes on elsewhere and says nothing of mailboxes leaves it to the next host.
    """
    says_nothing = not (domain.mailboxes or domain.aliases or domain.catch_all)
    return domain.mailboxes is None or (says_nothing and domain.deliver.agent is not Agent.MAILDIR)


def _canonical(domain: str) -> str:
    """A domain in the form in which it is compared: lower case, A-labels (RFC 5890)."""
    if domain.isascii():
        return domain.lower()
    dot = "." if domain.startswith(".") else ""
    try:
        return dot + idna.encode(domain.removeprefix("."), uts46=True).decode("ascii")
    except idna.IDNAError:  # found nowhere, which the sender is told later
        return domain.lower()
