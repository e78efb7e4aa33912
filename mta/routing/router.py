"""The router: forward-path to final addresses, each with its hop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from zope.interface import implementer

from mta.interfaces import IMailingLists, IOwnHost, IRouter, IToldMailboxes
from mta.mail import NULL_PATH, Hop, Mailbox, Reply
from mta.routing.expansion import MAX_ALIASES, SRS, Expander, RoutingStep
from mta.routing.local_parts import main_address
from mta.routing.reverse_paths import ReversePaths
from mta.routing.routes import Routes
from mta.settings import Domain, Settings
from mta.smtp import replies
from mta.smtp.errors import Refusal
from mta.smtp.srs import SenderRewriting

MAX_KEPT = 50_000  # steps: on the way of all addresses whose routes are kept

Routed = Sequence[tuple[Mailbox, Hop]] | Reply


@implementer(IRouter, IMailingLists, IToldMailboxes)
class Router:
    """The routes of one configuration.

    An alias with a member that can't be delivered to is refused as a whole: no member is left out
    silently.  See `Expander`, `Routes` and `ReversePaths` for what the arguments mean.
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
        self._srs = srs
        self._now = now
        self._routes_elsewhere = Routes(routes, senders or {}, default, own)
        self._routed: dict[tuple[Mailbox, Mailbox], Routed] = {}
        self.use(domains)

    @classmethod
    def from_settings(
        cls, settings: Settings, srs: SenderRewriting | None = None, own: IOwnHost | None = None
    ) -> Router:
        """Make the router of a configuration."""
        return cls(
            settings.hostname,
            settings.domains,
            settings.routes,
            settings.default_route,
            settings.senders,
            srs,
            own=own,
        )

    def use(self, domains: Mapping[str, Domain]) -> None:
        """Go by these domains of ours from now on."""
        self._domains = domains
        self._reverse_paths = ReversePaths(domains, self._srs, self._now)
        self._expander = Expander(
            self._hostname, domains, self._routes_elsewhere, self._reverse_paths
        )
        self._routed.clear()
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
        main = self._main_address(address)
        key = (main, NULL_PATH if self.is_ours(main.domain) else reverse_path)
        routed = None if self._reverse_paths.original(main) else self._routed.get(key)
        if routed is None:
            routed = self._route_anew(main, reverse_path, key)
        if isinstance(routed, Reply):
            raise Refusal(routed)
        return routed

    def rewritten(self, reverse_path: Mailbox, forwarder: Mailbox) -> Mailbox:
        """See `IRouter.rewritten`."""
        return self._reverse_paths.rewritten(reverse_path, forwarder)

    def expand(self, address: Mailbox) -> Sequence[Mailbox]:
        """See `IMailingLists.expand`."""
        if not self.is_ours(address.domain):
            raise Refusal(replies.NO_SUCH_USER)
        return [final for final, _ in self.route(address)]

    def told(self, address: Mailbox) -> bool | None:
        """See `IToldMailboxes.told`."""
        domain = self._domains.get(address.domain)
        known = domain.told if domain is not None else None
        return known.has(address.local_part) if known is not None else None

    def explain(self, address: Mailbox, reverse_path: Mailbox = NULL_PATH) -> Sequence[RoutingStep]:
        """The steps that `route` takes, the refusal last if any."""
        steps: list[RoutingStep] = []
        with suppress(Refusal):
            self._expander.follow(address, reverse_path, steps)
        return steps

    def _main_address(self, address: Mailbox) -> Mailbox:
        """The address under which the route is kept."""
        for _ in range(MAX_ALIASES):
            domain = self._domains.get(address.domain)
            if domain is None or self._reverse_paths.original(address):
                break
            main = main_address(address, domain)
            if main == address or not self.is_ours(main.domain):
                break  # on the way elsewhere, the sender of what we forward does not count
            address = main
        return address

    def _route_anew(
        self, address: Mailbox, reverse_path: Mailbox, key: tuple[Mailbox, Mailbox]
    ) -> Routed:
        """Expand an address, and keep the result: each message asks twice."""
        steps: list[RoutingStep] = []
        routed: Routed
        try:
            self._expander.follow(address, reverse_path, steps)
        except Refusal as refusal:
            if len(steps) == 1:
                raise  # quickly found, and strangers may ask for any number of them
            routed = refusal.reply
        else:
            finals: dict[Mailbox, Hop] = {}
            for step in steps:
                if step.hop is not None:
                    finals.setdefault(step.final, step.hop)
            routed = tuple(finals.items())
        if not any(step.why == SRS for step in steps):  # which we take for some days only
            self._routed[key] = routed
            self._kept += len(steps)
        if self._kept > MAX_KEPT:
            self._routed.clear()
            self._kept = 0
        return routed
