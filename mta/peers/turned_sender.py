"""The sender on a connection that a peer dialled and turned.

RFC 821 section 3.8, RFC 2645.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from mta.interfaces import IChannel, IHeldMail, IPeerMeter, IRole
from mta.peer_settings import Peer, Verify
from mta.peers.link_questions import LinkQuestions
from mta.peers.round_trip import RoundTrip
from mta.peers.sealed_waits import SealedWaits
from mta.peers.standing_links import StandingLinks
from mta.peers.status_log import PeerStatusLog
from mta.peers.tally import CountedSource, Refusals, Tally
from mta.queued import HopFailure
from mta.session import LinkKind, RecipientAnswer, RecipientQuestion
from mta.smtp.opening import SenderConfig
from mta.smtp.sender import Sender

LOST_KEEPALIVES = 2.0  # within which a peer that acknowledges nothing is lost
OVERTAKEN_TIMEOUT = 10.0  # seconds in which a connection may end that a newer one took over from


@implementer(IRole)
class TurnedSender:
    """Sends a peer its mail on the connection that it turned.

    It opens the peer's mail when it begins, and with that takes it from the `links` of the same
    peer and `kind` that are there already.
    """

    log = Logger()

    def __init__(
        self,
        peer: Peer,
        domains: Collection[str],
        config: SenderConfig,
        held: IHeldMail,
        links: StandingLinks,
        status: PeerStatusLog,
        meter: IPeerMeter,
        clock: IReactorTime,
        kind: LinkKind = LinkKind.MAIN,
    ) -> None:
        self._peer = peer
        self._domains = domains
        self.questions = LinkQuestions(clock)
        questions = self.questions if peer.verify is Verify.LIVE else None
        watch = RoundTrip(peer.name, status)
        self._config = replace(config, watch=watch, questions=questions)
        self._held = held
        self._links = links
        self._status = status
        self._meter = meter
        self._clock = clock
        self._kind = kind
        self._end: IDelayedCall | None = None

    async def converse(self, channel: IChannel) -> IRole | None:
        """See `IRole.converse`."""
        self._channel = channel
        channel.notice_loss(LOST_KEEPALIVES * self._config.keepalive)
        client = channel.remote_address
        if self._kind is LinkKind.MAIN:
            self.log.info(
                "{peer} turned the connection from {client}", peer=self._peer.name, client=client
            )
        else:
            self.log.info(
                "{peer} turned its second connection from {client}",
                peer=self._peer.name,
                client=client,
            )
        shown = self._status.link(self._peer.name, self._kind)
        try:
            with self._links.standing(self._peer, self._kind, self), shown:
                await self._send()
        finally:
            self.questions.close()
            if self._end is not None and self._end.active():
                self._end.cancel()
        return None

    async def ask(self, question: RecipientQuestion) -> RecipientAnswer:
        """Ask the peer about one of its mailboxes."""
        return await self.questions.ask(question)

    def overtaken(self) -> None:
        """End soon, as a newer connection of the peer stands.

        This one may well be dead, and would keep its mail from the new one.
        """
        if self._end is None:
            self._end = self._clock.callLater(OVERTAKEN_TIMEOUT, self._channel.abort)

    async def _send(self) -> None:
        source = self.questions.source = self._held.open(
            self._peer.name, self._domains, self._peer.linger, self._kind
        )
        began = self._channel.seconds()
        tally, error = Tally(), "interrupted"
        refusals = Refusals(self._peer.name, self._meter)
        known = self._links.not_opening
        watch = SealedWaits(self._peer.name, self._status, known, refusals)
        sender = Sender(CountedSource(source, tally, watch), self._config)
        try:
            await sender.converse(self._channel)
            error = str(sender.failure or "")
        except HopFailure as failure:
            error = str(failure.outcome.reply)
        finally:
            source.close()
            lasted = self._channel.seconds() - began
            if self._kind is LinkKind.MAIN:  # the one that operators look at
                self._status.ended(self._peer.name, tally.ended(time.time(), lasted, error))
            self._log_end(tally, error, lasted)

    def _log_end(self, tally: Tally, error: str, lasted: float) -> None:
        """Log how the connection ended."""
        if not error:
            self.log.info(
                "{peer} was sent {sent} message(s)", peer=self._peer.name, sent=tally.sent
            )
            return
        self.log.warn(
            "the link of {peer} broke after {lasted:.0f} s: {error}; "
            "{sent} message(s) were sent, the rest waits for its next link",
            peer=self._peer.name,
            lasted=lasted,
            error=error,
            sent=tally.sent,
        )
