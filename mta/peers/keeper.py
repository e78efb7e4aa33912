"""Keeps up with a peer that we dial: exchanges every so often, and at once when it helps."""

from __future__ import annotations

import random as chance
from collections.abc import Awaitable, Callable

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mta.peers.exchange import ExchangeFailed
from mta.peers.tally import Tally
from mta.queue.event import Event
from mta.queued import HopFailure
from mta.settings import Peer

MIN_PAUSE = 1.0  # seconds between two exchanges; doubles with each failure in a row
MAX_PAUSE = 900.0  # seconds
LONG_LINK = 10.0  # seconds after which a turned link was held for us, or had much to carry
LINGERED = 3.0  # seconds without mail on a turned link that the peer must have held, then
JITTER = 0.1  # of every pause, so that many customers do not dial at once


class Keeper:
    """Repeats exchanges with one peer.

    `exchange` does a whole one.  `hand_over` only sends what waits for the peer, if anything
    does: on a second connection while the first one is turned.  Both raise HopFailure.
    `failed` hears, after a failure, in how many seconds the next exchange is due.  `ended`
    fires when, after `stop`, all is over.
    """

    log = Logger()

    def __init__(
        self,
        peer: Peer,
        exchange: Callable[[], Awaitable[Tally]],
        hand_over: Callable[[], Awaitable[None]],
        clock: IReactorTime,
        random: Callable[[], float] = chance.random,
        failed: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._peer = peer
        self._exchange = exchange
        self._hand_over = hand_over
        self._failed = failed
        self._clock = clock
        self._random = random
        self._exchanging = False
        self._failures = 0  # exchanges in a row
        self._short_links = 0  # in a row, with a peer that holds its links
        self._holds_links = False
        self._send_failures = 0  # second connections in a row
        self._next = Event(clock)
        self._outgoing = Event(clock)
        self._stopped = False

    def start(self) -> None:
        """Begin, with an exchange at once."""
        loops = [self._keep(), self._send()] if self._peer.send else [self._keep()]
        self.ended = DeferredList(map(Deferred.fromCoroutine, loops), consumeErrors=True)

    def stop(self) -> None:
        """Dial no more.  What is under way ends when its connections do."""
        self._stopped = True
        self._next.set()
        self._outgoing.set()

    def mail_came(self) -> None:
        """Mail for the peer waits: it need not wait for the next exchange."""
        if not self._peer.send:
            return
        if self._exchanging and not self._send_failures:
            self._outgoing.set()
        elif not self._exchanging and not self._failures:
            self._next.set()

    def retry(self) -> None:
        """After failures, try again now: a person wants it, or has seen that the peer is there."""
        if self._failures and not self._exchanging:
            self._next.set()
        if self._send_failures:
            self._outgoing.set()

    async def _keep(self) -> None:
        """One exchange after the other."""
        while not self._stopped:
            self._exchanging = True
            pause = await self._exchange_once()
            self._exchanging = False
            if not self._stopped:
                await self._next.wait(self._jittered(pause))

    async def _exchange_once(self) -> float:
        """Returns for how many seconds to wait then."""
        began = self._clock.seconds()
        try:
            tally = await self._exchange()
        except CancelledError:
            raise
        except HopFailure as failure:
            moved = isinstance(failure, ExchangeFailed) and failure.tally.has_moved_mail
            return self._pause_after(str(failure.outcome.reply), worked=moved)
        except Exception:  # noqa: BLE001 - outermost: a bug must not end the exchanges
            self.log.failure("an exchange with {peer} failed", peer=self._peer.name)
            return self._pause_after("a fault of our own", worked=False)
        self._holds_links = self._holds_links or tally.turned_for >= LONG_LINK
        counts = f"sent {tally.sent}, received {tally.received}"
        if tally.lost:
            worked = tally.has_moved_mail or tally.turned_for >= LONG_LINK
            return self._pause_after(f"{tally.trouble} ({counts})", worked=worked)
        self.log.info("{peer}: {counts}", peer=self._peer.name, counts=counts)
        self._failures = 0
        return self._pause_after_success(tally, self._clock.seconds() - began)

    def _pause_after(self, trouble: str, *, worked: bool) -> float:
        """Seconds to wait after a failure; one that `worked` before that is no failure in a row."""
        self._failures = 0 if worked else self._failures + 1
        pause = back_off(self._failures or 1)
        if not self._stopped:
            self._failed(pause)
            self.log.warn(
                "{peer}: {trouble}; next try in {pause:.0f} s",
                peer=self._peer.name,
                trouble=trouble,
                pause=pause,
            )
        return pause

    def _pause_after_success(self, tally: Tally, lasted: float) -> float:
        """Seconds to wait: few after a link that was held, and might be held again."""
        every = max(MIN_PAUSE, self._peer.every - lasted)
        if tally.turned_for >= LONG_LINK:
            self._short_links = 0
            return MIN_PAUSE
        if tally.turned and (self._holds_links or tally.quiet_for >= LINGERED):
            # Such as when the peer reads its configuration again.
            self._short_links += 1
            return min(back_off(self._short_links), every)
        return every

    async def _send(self) -> None:
        """Send what comes while the connection is turned, and what was not taken before."""
        while not self._stopped:
            pause = back_off(self._send_failures) if self._send_failures else self._peer.every
            await self._outgoing.wait(self._jittered(pause))
            if self._exchanging and not self._stopped:
                await self._send_once()

    async def _send_once(self) -> None:
        try:
            await self._hand_over()
        except CancelledError:
            raise
        except HopFailure as failure:
            self._send_failures += 1
            self.log.warn("{peer}: {reply}", peer=self._peer.name, reply=str(failure.outcome.reply))
        except Exception:  # noqa: BLE001 - outermost, as above
            self._send_failures += 1
            self.log.failure("sending to {peer} failed", peer=self._peer.name)
        else:
            self._send_failures = 0

    def _jittered(self, seconds: float) -> float:
        return seconds * (1 + JITTER * (2 * self._random() - 1))


def back_off(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    return float(min(MIN_PAUSE * 2 ** min(failures - 1, 20), MAX_PAUSE))
