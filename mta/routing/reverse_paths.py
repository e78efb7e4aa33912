"""The reverse-paths of forwarded mail, by the Sender Rewriting Scheme."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mta.mail import Mailbox
from mta.routing.local_parts import forwarding_domains
from mta.settings import Domain
from mta.smtp.grammar import MAX_OWN_PATH, has_route
from mta.smtp.srs import SenderRewriting


class ReversePaths:
    """Rewrites reverse-paths for the domains that forward.

    `srs` None: forwarded mail keeps its reverse-path.  `now` gives seconds since the epoch.
    """

    def __init__(
        self, domains: Mapping[str, Domain], srs: SenderRewriting | None, now: Callable[[], float]
    ) -> None:
        self._domains = domains
        self._forwarding = forwarding_domains(domains)
        self._srs = srs
        self._now = now

    def rewritten(self, reverse_path: Mailbox, forwarder: Mailbox) -> Mailbox:
        """The reverse-path of mail that `forwarder` sends on.

        A reverse-path of ours stays as it is.  So does one that can't be rewritten into a path that
        any server takes, or that might be a source route to another server.
        """
        if self._srs is None or reverse_path.is_null or reverse_path.domain in self._domains:
            return reverse_path
        if has_route(reverse_path.local_part):
            return reverse_path
        rewritten = self._srs.rewritten(reverse_path, forwarder.domain, self._now())
        return rewritten if len(f"<{rewritten}>".encode()) <= MAX_OWN_PATH else reverse_path

    def original(self, address: Mailbox) -> Mailbox | None:
        """The reverse-path that we rewrote to this address, if we did."""
        if self._srs is None or address.domain not in self._forwarding:
            return None
        return self._srs.original(address.local_part, self._now())
