"""Forward-path to hop: domains, aliases, routes (RFC 5321 sections 3.5, 3.9 and 5).

Asked at RCPT time and again at each delivery, and never stored, so that a corrected
configuration applies to mail that is queued already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from zope.interface import implementer

from mta.interfaces import IRouter
from mta.mail import Agent, Hop, Mailbox, Reply
from mta.settings import Domain
from mta.smtp import replies
from mta.smtp.errors import Refusal

MOST_ADDRESSES = 10_000  # that one address may stand for
POSTMASTER = "postmaster"

ALIAS_LOOP = Reply(550, "5.4.6", ("The aliases of this address lead in a circle",))
TOO_MANY_ADDRESSES = Reply(550, "5.4.6", ("This address stands for too many others",))


@implementer(IRouter)
class Router:
    """The routes of one configuration.

    `routes` map domains, or with a leading dot all that is below them, to hops; what is in
    none takes the `default`.
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
        """See `IRouter.route`."""
        found: dict[Mailbox, Hop] = {}
        self._resolve(address, (), found)
        return list(found.items())

    def _resolve(
        self, address: Mailbox, through: tuple[Mailbox, ...], found: dict[Mailbox, Hop]
    ) -> None:
        """Add what `address` stands for; `through` are the aliases on the way to it."""
        domain = self._domain_of(address)
        if domain is None:
            found.setdefault(address, self._route_to(address))
        elif (targets := self._alias(address, domain)) is None:
            found.setdefault(*self._final(address, domain))
        elif address in through:
            raise Refusal(ALIAS_LOOP)
        else:
            for target in targets:
                self._resolve(target, (*through, address), found)
        if len(found) > MOST_ADDRESSES:
            raise Refusal(TOO_MANY_ADDRESSES)

    def _domain_of(self, address: Mailbox) -> Domain | None:
        """Our domain that an address is in; ``<Postmaster>`` is in ours whatever we have."""
        if address.domain:
            return self._domains.get(_canonical(address.domain))
        ours = self._domains.get(self._hostname) or next(iter(self._domains.values()), None)
        if ours is None:
            raise Refusal(replies.NO_SUCH_USER)
        return ours

    def _alias(self, address: Mailbox, domain: Domain) -> Sequence[Mailbox] | None:
        """What an address is another name for; None where it is a mailbox of its own."""
        local_part = address.local_part.lower()
        for name in self._names(local_part, domain):
            if name in domain.aliases:
                return domain.aliases[name]
            if domain.mailboxes is None or name in domain.mailboxes:
                return None
        if domain.catch_all is not None and address != domain.catch_all:
            return (domain.catch_all,)
        if local_part == POSTMASTER and domain.mailboxes:
            # RFC 5321 section 4.5.1: there is always somebody who reads it.
            return (Mailbox(min(domain.mailboxes), domain.name),)
        raise Refusal(replies.NO_SUCH_USER)

    def _final(self, address: Mailbox, domain: Domain) -> tuple[Mailbox, Hop]:
        """The mailbox behind an address, without its subaddress (RFC 5233)."""
        local_part = address.local_part
        if domain.deliver.agent in (Agent.MAILDIR, Agent.PIPE):
            local_part = local_part.lower()
            mailboxes = domain.mailboxes
            if mailboxes is None or local_part not in mailboxes:
                local_part = self._names(local_part, domain)[-1]
        return Mailbox(local_part, domain.name), _towards(domain.deliver, domain.name)

    @staticmethod
    def _names(local_part: str, domain: Domain) -> Sequence[str]:
        """The local part as it is, and without its subaddress."""
        if not domain.subaddress:
            return (local_part,)
        name, separator, _ = local_part.partition(domain.subaddress)
        return (local_part, name) if separator and name else (local_part,)

    def _route_to(self, address: Mailbox) -> Hop:
        domain = address.domain
        if domain.startswith("["):
            host = domain[1:-1].removeprefix("IPv6:").removeprefix("ipv6:")
            return Hop(Agent.SMTP, host, 25)
        name = _canonical(domain)
        hop = self._routes.get(name)
        below = name
        while hop is None and below:
            _, dot, below = below.partition(".")
            hop = self._routes.get(dot + below)
        return _towards(self._default if hop is None else hop, domain)


def _towards(hop: Hop, domain: str) -> Hop:
    """The hop for one domain: with MX, the domain says where to."""
    return replace(hop, next_hop=domain) if hop.agent is Agent.MX else hop


def _canonical(domain: str) -> str:
    """A domain in the form in which it is compared: lower case, A-labels (RFC 5890)."""
    if domain.isascii():
        return domain.lower()
    dot = "." if domain.startswith(".") else ""
    try:
        return dot + domain.removeprefix(".").encode("idna").decode("ascii").lower()
    except UnicodeError:
        return domain.lower()
