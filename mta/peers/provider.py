"""The provider's side: what peers get that dial in, on their connection or on one of ours.

RFC 821 section 3.8, RFC 2645 and RFC 1985.  `mta.access.turning` decides who may ask for what.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.delivery.steps import Steps
from mta.interfaces import IChannel, IDeliveryAgent, IHeldMail, IHeldSource, IRole, ITurnedRoles
from mta.mail import Security
from mta.peers.ledger import Ledger
from mta.peers.tally import Counted, Tally
from mta.queued import HopFailure
from mta.settings import Peer
from mta.smtp import replies
from mta.smtp.errors import Refusal
from mta.smtp.opening import SenderConfig
from mta.smtp.pipelining import KnownHosts
from mta.smtp.sender import Sender

LOST_KEEPALIVES = 2.0  # within which a peer that acknowledges nothing is lost
OVERTAKEN_GRACE = 10.0  # seconds in which a connection may end that a newer one took over from
MAX_LINKS = 5  # turned connections of one peer; all but the newest are about to end
MAX_WANTED = 100  # domains of one peer that wait for a queue run


@implementer(ITurnedRoles)
class Provider:
    """Sends peers that dialled in the mail that is held for them.

    `held` is that mail; `relay` takes it where ETRN sends it.
    """

    log = Logger()

    def __init__(
        self,
        hostname: str,
        relay: IDeliveryAgent,
        held: IHeldMail,
        ledger: Ledger,
        clock: IReactorTime,
    ) -> None:
        self._hostname = hostname
        self._relay = relay
        self._held = held
        self._ledger = ledger
        self._clock = clock
        self._in_steps = Steps(clock)
        self._hosts = KnownHosts()
        self._links: dict[str, list[HandOver]] = {}
        self._wanted: dict[str, set[str]] = {}  # of the peers with a queue run under way

    def hand_over(self, peer: Peer, domains: Collection[str]) -> IRole:
        """See `ITurnedRoles.hand_over`."""
        links = self._links.setdefault(peer.name, [])
        if len(links) >= MAX_LINKS:
            raise Refusal(replies.ATRN_REFUSED)
        demands = SenderConfig(
            self._hostname,
            security=Security.OFF,
            keepalive=peer.keepalive,
            proved=True,
            in_steps=self._in_steps,
            host=self._hosts.record(peer.name, self._clock.seconds()),
        )

        def open_source() -> IHeldSource:
            return self._held.open(peer.name, domains, peer.linger)

        return HandOver(peer.name, demands, open_source, links, self._ledger, self._clock)

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
        tally, trouble = Tally(), ""
        source = self._held.open(peer.name, domains, 0.0)
        try:
            await self._relay.deliver(peer.etrn, Counted(source, tally))
        except HopFailure as failure:
            trouble = str(failure.outcome.reply)
        finally:
            source.close()
        self._ledger.note(
            peer.name, last_exchange=time.time(), last_error=trouble, sent=tally.sent, received=0
        )
        self.log.info(
            "{peer} was sent {sent} message(s) for ETRN{trouble}",
            peer=peer.name,
            sent=tally.sent,
            trouble=trouble and f": {trouble}",
        )

    def _broken(self, failure: Failure, peer: str) -> None:
        self.log.failure("the queue run for {peer} failed", failure, peer=peer)


@implementer(IRole)
class HandOver:
    """The sender role on a connection that a peer turned.

    `open_source` gives the peer's mail when the role begins, and with that takes it from the
    `links` of the same peer that are there already.
    """

    log = Logger()

    def __init__(
        self,
        peer: str,
        demands: SenderConfig,
        open_source: Callable[[], IHeldSource],
        links: list[HandOver],
        ledger: Ledger,
        clock: IReactorTime,
    ) -> None:
        self._peer = peer
        self._demands = demands
        self._open_source = open_source
        self._links = links
        self._ledger = ledger
        self._clock = clock
        self._end: IDelayedCall | None = None

    async def converse(self, channel: IChannel) -> IRole | None:
        """See `IRole.converse`."""
        self._channel = channel
        channel.notice_loss(LOST_KEEPALIVES * self._demands.keepalive)
        self.log.info(
            "{peer} turned the connection from {client}",
            peer=self._peer,
            client=channel.remote_address,
        )
        for older in self._links:
            older.overtaken()
        self._links.append(self)
        try:
            with self._ledger.link(self._peer):
                await self._hand_over()
        finally:
            self._links.remove(self)
            if self._end is not None and self._end.active():
                self._end.cancel()
        return None

    def overtaken(self) -> None:
        """A newer connection stands: what this one has under way must end soon, as it may well
        be dead and would keep its mail from the new one."""
        if self._end is None:
            self._end = self._clock.callLater(OVERTAKEN_GRACE, self._channel.abort)

    async def _hand_over(self) -> None:
        source, began = self._open_source(), self._channel.seconds()
        tally, trouble = Tally(), "interrupted"
        sender = Sender(Counted(source, tally), self._demands)
        try:
            await sender.converse(self._channel)
            trouble = str(sender.failure or "")
        except HopFailure as failure:
            trouble = str(failure.outcome.reply)
        finally:
            source.close()
            self._ledger.note(
                self._peer,
                last_exchange=time.time(),
                last_error=trouble,
                sent=tally.sent,
                received=0,
            )
            self._tell(tally, trouble, self._channel.seconds() - began)

    def _tell(self, tally: Tally, trouble: str, lasted: float) -> None:
        """Say in the log how the connection ended."""
        if not trouble:
            self.log.info("{peer} was handed {sent} message(s)", peer=self._peer, sent=tally.sent)
            return
        self.log.warn(
            "the link of {peer} broke after {lasted:.0f} s: {trouble}; "
            "{sent} message(s) were handed over, the rest waits for its next link",
            peer=self._peer,
            lasted=lasted,
            trouble=trouble,
            sent=tally.sent,
        )
