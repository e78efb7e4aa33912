"""The first messages by a new link: to ourselves, by the relay.

There is one for each domain, as each may fail alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from mta.mail import Mailbox, Status
from mta.pairing.request import PairingRefused
from mta.pairing.trial import TrialRole
from mta.peers.interfaces import ITallyWatch
from mta.peers.tally import Tally
from mta.service.exchange import exchange_alone
from mta.service.pairing import converse, logged_in
from mta.settings import Peer, Settings

_GOOD = {Status.DELIVERED.value, Status.RELAYED.value, Status.HELD.value}


@implementer(ITallyWatch)
class Trial:
    """Messages to addresses of ours, by a relay that we dial."""

    def __init__(self, settings: Settings, peer: Peer, reactor: Any) -> None:
        self._settings = settings
        self._peer = peer
        self._reactor = reactor

    async def send(self, addresses: Sequence[Mailbox]) -> Mapping[Mailbox, str]:
        """Hand the relay a message for each address.

        Returns those that it refused, with the reason.  Raises PairingRefused and TLSFault.
        """
        hop = self._peer.connect
        assert hop is not None
        role = TrialRole(logged_in(self._settings, hop), addresses)
        await converse(self._settings, self._peer, role, self._reactor)
        return role.refusals

    async def fetch(self, addresses: Sequence[Mailbox]) -> Mapping[Mailbox, str]:
        """Fetch the mail of these domains; returns the addresses whose message came.

        Each with the reason why it is not delivered, empty where it is.  Raises PairingRefused,
        HopFailure, TLSFault, UserFault and OSError.
        """
        arrivals = _Arrivals(addresses)
        # Of these alone: the relay refuses the request as a whole for a domain that it refused.
        peer = replace(self._peer, domains=tuple(address.domain for address in addresses))
        with arrivals.watched():
            tally = await exchange_alone(self._settings, peer, self, self._reactor)
        if tally.lost:
            raise PairingRefused(tally.error)
        return arrivals.seen

    def changed(self, tally: Tally) -> None:
        """See `ITallyWatch.changed`."""


@implementer(ILogObserver)
class _Arrivals:
    """The outcomes of deliveries to some addresses, as the log has them."""

    def __init__(self, addresses: Sequence[Mailbox]) -> None:
        self.seen: dict[Mailbox, str] = {}
        self._addresses = {str(address): address for address in addresses}

    def __call__(self, event: LogEvent) -> None:
        """Note the outcome in an event, if it has one."""
        address = self._addresses.get(str(event.get("forward_path", "")))
        if address is not None and "status" in event:
            reason = "" if event["status"] in _GOOD else str(event["reply"])
            self.seen[address] = self.seen.get(address) or reason

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note what comes meanwhile."""
        globalLogPublisher.addObserver(self)
        try:
            yield
        finally:
            globalLogPublisher.removeObserver(self)
