"""The customer's side as a whole: the peers that we dial, and our mail for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from twisted.internet.defer import DeferredList
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from mta.delivery.dialler import Dialler
from mta.interfaces import IHeldMail, IHeldMailWatch, IMailSource
from mta.peers.exchange import Exchange, NoMail
from mta.peers.keeper import Keeper
from mta.peers.ledger import Ledger
from mta.peers.tally import Tally
from mta.queued import EVERYWHERE, HopFailure
from mta.settings import Peer
from mta.smtp.receiver import Reception

SILENCE = 5.0  # seconds on a turned link after which a single exchange is over


@implementer(IHeldMailWatch)
class Customer:
    """Dials peers: now, or again and again.

    `reception` is what receivers on turned connections need; `held` is our mail for peers.
    """

    def __init__(
        self,
        dialler: Dialler,
        reception: Reception,
        held: IHeldMail,
        ledger: Ledger,
        clock: IReactorTime,
    ) -> None:
        self._dialler = dialler
        self._reception = reception
        self._held = held
        self._ledger = ledger
        self._clock = clock
        self._keepers: dict[str, Keeper] = {}

    async def exchange(
        self, peer: Peer, progress: Callable[[Tally], None] = lambda _: None
    ) -> Tally:
        """One whole exchange with a peer.  Raises ExchangeFailed."""
        exchange = Exchange(
            peer, self._dialler, self._reception, progress, self._ledger.link(peer.name)
        )
        try:
            with self._own_mail(peer) as source:
                tally = await exchange.run(source)
        except HopFailure as failure:
            self._ledger.note(peer.name, last_error=str(failure.outcome.reply))
            raise
        self._ledger.note(
            peer.name,
            last_exchange=time.time(),
            last_error=tally.trouble,
            sent=tally.sent,
            received=tally.received,
        )
        return tally

    async def exchange_once(self, peer: Peer, progress: Callable[[Tally], None]) -> Tally:
        """As `exchange`, and no longer than mail comes: the peer might hold the link for hours."""
        silence: IDelayedCall | None = None

        def changed(tally: Tally) -> None:
            nonlocal silence
            progress(tally)
            if silence is not None and silence.active():
                silence.reset(SILENCE)
            elif tally.replies:
                silence = self._clock.callLater(SILENCE, self._dialler.close_gently)

        try:
            return await self.exchange(peer, changed)
        finally:
            if silence is not None and silence.active():
                silence.cancel()

    def keep_up(self, peers: Iterable[Peer]) -> None:
        """Dial those of these peers that are to be dialled every so often."""
        for peer in peers:
            if peer.connect is not None and peer.every:
                keeper = Keeper(
                    peer,
                    partial(self.exchange, peer),
                    partial(self._hand_in, peer),
                    self._clock,
                    failed=partial(self._note_next_try, peer.name),
                )
                self._keepers[peer.name] = keeper
                keeper.start()

    def mail_came(self, peer: str) -> None:
        """See `IHeldMailWatch.mail_came`."""
        if peer in self._keepers:
            self._keepers[peer].mail_came()

    def retry(self) -> None:
        """Dial at once the peers whose next try is some time away: they may be there again."""
        for keeper in self._keepers.values():
            keeper.retry()

    def _note_next_try(self, peer: str, seconds: float) -> None:
        self._ledger.note(peer, next_try=time.time() + seconds)

    async def stop(self, grace: float) -> None:
        """Dial no more, and end what is under way, after at most `grace` seconds."""
        for keeper in self._keepers.values():
            keeper.stop()
        self._dialler.close_gently()
        ended = DeferredList([keeper.ended for keeper in self._keepers.values()])
        # Connections that do not end in time are cut: cancelled.
        await ended.addTimeout(grace, self._clock).addErrback(lambda failure: [])

    async def _hand_in(self, peer: Peer) -> None:
        """Send a peer what came for it while its link is turned.  Raises HopFailure."""
        if await self._held.count(peer.name, [EVERYWHERE], 1):
            exchange = Exchange(peer, self._dialler, self._reception)
            with self._own_mail(peer) as source:
                await exchange.hand_over(source)

    @contextmanager
    def _own_mail(self, peer: Peer) -> Iterator[IMailSource]:
        if not peer.send:
            yield NoMail()
            return
        source = self._held.open(peer.name, [EVERYWHERE], 0.0)
        try:
            yield source
        finally:
            source.close()
