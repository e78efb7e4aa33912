"""The customer's side: peers that we dial, and mail for them."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from twisted.internet.defer import DeferredList
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from mta.delivery.dialler import Dialler
from mta.interfaces import IHeldMail, IHeldMailWatch, IMailSource
from mta.peers.dial_loop import DialLoop
from mta.peers.exchange import Exchange, ExchangeFailed, NoMail
from mta.peers.interfaces import IExchanges, ITallyWatch
from mta.peers.quick_link import QuickLink
from mta.peers.round_trip import RoundTrip
from mta.peers.status_log import PeerStatusLog
from mta.peers.tally import Tally
from mta.queued import EVERYWHERE
from mta.settings import Peer
from mta.smtp.receiver_config import ReceiverConfig

OWN_LINGER = 30.0  # seconds that a second connection stays for more of our mail: one log-in for all
MAX_SILENCE = 5.0  # seconds on a turned link after which a single exchange is over


@implementer(IExchanges, IHeldMailWatch)
class Customer:
    """Dials peers: now, or again and again.

    `receiver` is what receivers on turned connections need; `held` is our mail for peers; `status`
    is told what becomes of it; `mailboxes` are lists of ours, by the peer that may want one.
    """

    def __init__(
        self,
        dialler: Dialler,
        receiver: ReceiverConfig,
        held: IHeldMail,
        status: PeerStatusLog,
        clock: IReactorTime,
        mailboxes: Mapping[str, bytes] | None = None,
    ) -> None:
        self._dialler = dialler
        self._receiver = receiver
        self._held = held
        self._status = status
        self._clock = clock
        self._mailboxes = mailboxes or {}
        self._loops: dict[str, DialLoop] = {}
        self._quick_loops: list[DialLoop] = []

    async def exchange(self, peer: Peer, watch: ITallyWatch | None = None) -> Tally:
        """See `IExchanges.exchange`.  Raises ExchangeFailed."""
        exchange = Exchange(
            peer,
            self._dialler,
            self._receiver,
            watch,
            self._status.link(peer.name),
            self._mailboxes.get(peer.name, b""),
            link_watch=RoundTrip(peer.name, self._status),
        )
        began = self._clock.seconds()
        try:
            with self._own_mail(peer) as source:
                tally = await exchange.run(source)
        except ExchangeFailed as failure:
            error, lasted = str(failure.outcome.reply), self._clock.seconds() - began
            self._status.failed(peer.name, failure.tally.ended(time.time(), lasted, error))
            raise
        lasted = self._clock.seconds() - began
        self._status.ended(peer.name, tally.ended(time.time(), lasted, tally.error))
        return tally

    async def exchange_once(self, peer: Peer, watch: ITallyWatch) -> Tally:
        """Hold one exchange, no longer than mail comes.

        Else the peer might hold the link for hours.
        """
        silence = _Silence(self._dialler, self._clock, watch)
        try:
            return await self.exchange(peer, silence)
        finally:
            silence.stop()

    async def send_held(self, peer: Peer) -> None:
        """See `IExchanges.send_held`."""
        if await self._held.count(peer.name, [EVERYWHERE], 1):
            watch = RoundTrip(peer.name, self._status)
            exchange = Exchange(peer, self._dialler, self._receiver, link_watch=watch)
            with self._own_mail(peer, OWN_LINGER) as source:
                await exchange.send(source)

    def note_next_try(self, peer: Peer, seconds: float) -> None:
        """See `IExchanges.note_next_try`."""
        self._status.note(peer.name, next_try=time.time() + seconds)

    def keep_up(self, peers: Iterable[Peer], ours: Collection[str] | None = None) -> None:
        """Dial those of these peers that have `every`, again and again.

        `ours`: the ones that no other node dials; None: all.
        """
        for peer in peers:
            if peer.is_dialled:
                may_dial = ours is None or peer.name in ours
                loop = DialLoop(peer, self, self._clock, may_dial=may_dial)
                self._loops[peer.name] = loop
                loop.start()
                if peer.links > 1:
                    self._start_quick_link(peer, may_dial=may_dial)

    def allow(self, ours: Collection[str]) -> None:
        """Dial these peers alone, and those no more that another node dials."""
        for loop in self._all_loops():
            loop.allow(may_dial=loop.peer in ours)

    def _start_quick_link(self, peer: Peer, *, may_dial: bool) -> None:
        """Hold a link for questions and small mail, too.  Our own mail has no use for it."""
        exchanges = QuickLink(self._dialler, self._receiver, self._status)
        own = replace(peer, send=False)
        loop = DialLoop(own, exchanges, self._clock, may_dial=may_dial)
        self._quick_loops.append(loop)
        loop.start()

    def mail_came(self, peer: str) -> None:
        """See `IHeldMailWatch.mail_came`."""
        if peer in self._loops:
            self._loops[peer].mail_came()

    def retry(self) -> None:
        """Dial at once the peers that failed: they may be there again."""
        for loop in self._all_loops():
            loop.retry()

    async def stop(self, timeout: float) -> None:
        """Dial no more, and end exchanges after at most `timeout` seconds."""
        for loop in self._all_loops():
            loop.stop()
        self._dialler.close_gently()
        ended = DeferredList([loop.ended for loop in self._all_loops()])
        # Connections that do not end in time are cut: cancelled.
        await ended.addTimeout(timeout, self._clock).addErrback(lambda failure: [])

    def _all_loops(self) -> Iterable[DialLoop]:
        return (*self._loops.values(), *self._quick_loops)

    @contextmanager
    def _own_mail(self, peer: Peer, linger: float = 0.0) -> Iterator[IMailSource]:
        if not peer.send:
            yield NoMail()
            return
        source = self._held.open(peer.name, [EVERYWHERE], linger)
        try:
            yield source
        finally:
            source.close()


@implementer(ITallyWatch)
class _Silence:
    """Closes a turned link on which nothing has moved for a while."""

    def __init__(self, dialler: Dialler, clock: IReactorTime, watch: ITallyWatch) -> None:
        self._dialler = dialler
        self._clock = clock
        self._watch = watch
        self._timer: IDelayedCall | None = None

    def changed(self, tally: Tally) -> None:
        """See `ITallyWatch.changed`."""
        self._watch.changed(tally)
        if self._timer is not None and self._timer.active():
            self._timer.reset(MAX_SILENCE)
        elif tally.replies:
            self._timer = self._clock.callLater(MAX_SILENCE, self._dialler.close_gently)

    def stop(self) -> None:
        """Close nothing any more."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
