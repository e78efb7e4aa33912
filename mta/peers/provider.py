"""The provider's side: peers that dial in, and their mail.

They get it on the connection that they turned, or on one of ours (ETRN).  RFC 821 section 3.8, RFC
2645 and RFC 1985.  `mta.access.turning` decides who may ask for what.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.interfaces import IDeliveryAgent, IHeldMail, IPeerMeter, IRole, ISigner, ITurnedRoles
from mta.mail import Security
from mta.peers.sealed_waits import SealedWaits
from mta.peers.standing_links import StandingLinks
from mta.peers.status_log import PeerStatusLog
from mta.peers.tally import CountedSource, Tally, Unwatched
from mta.peers.turned_sender import TurnedSender
from mta.queued import HopFailure
from mta.session import LinkKind
from mta.settings import Peer
from mta.smtp import replies
from mta.smtp.errors import Refusal
from mta.smtp.opening import SenderConfig
from mta.smtp.pipelining import KnownHosts
from mta.smtp.steps import InSteps, at_once

MAX_LINKS = 5  # turned connections of one peer and kind; all but the newest are about to end
MAX_WANTED = 100  # domains of one peer that wait for a queue run


@implementer(ITurnedRoles)
class Provider:
    """Sends peers that dialled in the mail that is held for them.

    `held` is that mail; `relay` takes it where ETRN sends it.  `links` are their connections.
    `in_steps` does long work step by step.
    """

    log = Logger()

    def __init__(
        self,
        hostname: str,
        relay: IDeliveryAgent,
        held: IHeldMail,
        status: PeerStatusLog,
        meter: IPeerMeter,
        clock: IReactorTime,
        signer: ISigner | None = None,
        links: StandingLinks | None = None,
        in_steps: InSteps = at_once,
    ) -> None:
        self._hostname = hostname
        self._relay = relay
        self._held = held
        self._status = status
        self._meter = meter
        self._clock = clock
        self._signer = signer
        self._in_steps = in_steps
        self._hosts = KnownHosts()
        self.links = links or StandingLinks()
        self._wanted: dict[str, set[str]] = {}  # of the peers with a queue run under way

    def sender_for(self, peer: Peer, domains: Collection[str], kind: LinkKind) -> IRole:
        """See `ITurnedRoles.sender_for`."""
        if len(self.links.of(peer.name, kind)) >= MAX_LINKS:
            raise Refusal(replies.ATRN_REFUSED)
        config = SenderConfig(
            self._hostname,
            security=Security.OFF,
            keepalive=peer.keepalive,
            proved=True,
            in_steps=self._in_steps,
            host=self._hosts.record(peer.name, self._clock.seconds()),
            signer=self._signer,
            tells_origins=True,
        )
        return TurnedSender(
            peer,
            domains,
            config,
            self._held,
            self.links,
            self._status,
            self._meter,
            self._clock,
            kind,
        )

    def start_run(self, peer: Peer, domains: Collection[str]) -> None:
        """Send a peer its mail to where ETRN has it sent.

        One run at a time: what is asked for meanwhile comes next.  Raises Refusal.
        """
        wanted = self._wanted.get(peer.name)
        if wanted is None:
            self._wanted[peer.name] = set(domains)
            running = Deferred.fromCoroutine(self._run(peer))
            running.addErrback(self._broken, peer.name)
        elif len(wanted.union(domains)) > MAX_WANTED:
            raise Refusal(replies.ETRN_LATER)
        else:
            wanted.update(domains)

    async def _run(self, peer: Peer) -> None:
        try:
            while domains := self._wanted[peer.name]:
                self._wanted[peer.name] = set()
                await self._deliver(peer, domains)
        finally:
            del self._wanted[peer.name]

    async def _deliver(self, peer: Peer, domains: Collection[str]) -> None:
        assert peer.etrn is not None
        tally, error = Tally(), ""
        began = self._clock.seconds()
        source = self._held.open(peer.name, domains, 0.0)
        watch = SealedWaits(peer.name, self._status, self.links.not_opening, Unwatched())
        try:
            await self._relay.deliver(peer.etrn, CountedSource(source, tally, watch))
        except HopFailure as failure:
            error = str(failure.outcome.reply)
        finally:
            source.close()
        lasted = self._clock.seconds() - began
        self._status.ended(peer.name, tally.ended(time.time(), lasted, error))
        self.log.info(
            "{peer} was sent {sent} message(s) for ETRN{error}",
            peer=peer.name,
            sent=tally.sent,
            error=error and f": {error}",
        )

    def _broken(self, failure: Failure, peer: str) -> None:
        self.log.failure("the queue run for {peer} failed", failure, peer=peer)
