"""The loop that dials one peer again and again."""

from __future__ import annotations

import random as chance
from collections.abc import Callable

from twisted.application.internet import backoffPolicy
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mta.peers.exchange import ExchangeFailed
from mta.peers.interfaces import IExchanges
from mta.peers.tally import Tally
from mta.queue.event import Event
from mta.queued import HopFailure
from mta.settings import Peer

MIN_PAUSE = 1.0  # seconds between two exchanges; doubles with each failure in a row
MAX_PAUSE = 900.0  # seconds: a provider that is back is found within a quarter of an hour
LONG_LINK = 10.0  # seconds after which a turned link was held for us, or had much to carry
LINGERED = 3.0  # seconds without mail on a turned link that the peer must have held, then
JITTER = 0.1  # of every pause, so that many customers do not dial at once

_pause_after = backoffPolicy(MIN_PAUSE, MAX_PAUSE, factor=2.0, jitter=float)  # `random` jitters


class DialLoop:
    """Repeats exchanges with one peer.

    While it `may_dial` not, as another node does, our own mail is sent all the same.  `ended` fires
    when, after `stop`, all is over.  `random` gives numbers from 0 up to 1.
    """

    log = Logger()

    def __init__(
        self,
        peer: Peer,
        exchanges: IExchanges,
        clock: IReactorTime,
        random: Callable[[], float] = chance.random,
        *,
        may_dial: bool = True,
    ) -> None:
        self.peer = peer.name
        self._peer = peer
        self._may_dial = may_dial
        self._exchanges = exchanges
        self._clock = clock
        self._random = random
        self._exchanging = False
        self._failures = 0  # exchanges in a row
        self._short_links = 0  # in a row, with a peer that holds its links
        self._holds_links = False
        self._send_failures = 0  # second connections in a row
        self._due = Event(clock)
        self._send_due = Event(clock)
        self._stopped = False

    def start(self) -> None:
        """Begin, with an exchange at once."""
        loops = [self._dial(), self._send()] if self._peer.send else [self._dial()]
        self.ended = DeferredList(map(Deferred.fromCoroutine, loops), consumeErrors=True)

    def allow(self, *, may_dial: bool) -> None:
        """Dial from now on, or begin no exchange any more."""
        is_new, self._may_dial = may_dial and not self._may_dial, may_dial
        if is_new:
            self._failures = 0
            if not self._exchanging:
                self._due.set()

    def stop(self) -> None:
        """Dial no more.  What is under way ends when its connections do."""
        self._stopped = True
        self._due.set()
        self._send_due.set()

    def mail_came(self) -> None:
        """Send new mail for the peer before the next exchange."""
        if not self._peer.send:
            return
        if self._sends_alone and not self._send_failures:
            self._send_due.set()
        elif not self._sends_alone and not self._failures:
            self._due.set()

    @property
    def _sends_alone(self) -> bool:
        """Tell whether our own mail waits for no exchange to begin."""
        return self._exchanging or not self._may_dial

    def retry(self) -> None:
        """Try again now, after failures: the peer may be there again."""
        if self._failures and not self._exchanging:
            self._due.set()
        if self._send_failures:
            self._send_due.set()

    async def _dial(self) -> None:
        """One exchange after the other."""
        while not self._stopped:
            if not self._may_dial:
                await self._due.wait(MAX_PAUSE)
                continue
            self._exchanging = True
            pause = await self._exchange_once()
            self._exchanging = False
            if not self._stopped:
                await self._due.wait(self._jittered(pause))

    async def _exchange_once(self) -> float:
        """Hold one exchange; returns for how many seconds to wait then."""
        began = self._clock.seconds()
        try:
            tally = await self._exchanges.exchange(self._peer)
        except CancelledError:
            raise
        except HopFailure as failure:
            moved = isinstance(failure, ExchangeFailed) and failure.tally.has_moved_mail
            return self._failed(str(failure.outcome.reply), worked=moved)
        except Exception:  # noqa: BLE001 - outermost: a bug must not end the exchanges
            self.log.failure("an exchange with {peer} failed", peer=self._peer.name)
            return self._failed("a fault of our own", worked=False)
        self._holds_links = self._holds_links or tally.turned_for >= LONG_LINK
        counts = f"sent {tally.sent}, received {tally.received}"
        if tally.lost:
            worked = tally.has_moved_mail or tally.turned_for >= LONG_LINK
            return self._failed(f"{tally.error} ({counts})", worked=worked)
        self.log.info("{peer}: {counts}", peer=self._peer.name, counts=counts)
        self._failures = 0
        return self._succeeded(tally, self._clock.seconds() - began)

    def _failed(self, error: str, *, worked: bool) -> float:
        """The seconds to wait after a failure.

        An exchange that `worked` before it failed is no failure in a row.
        """
        self._failures = 0 if worked else self._failures + 1
        pause = _pause_after(max(self._failures - 1, 0))
        if not self._stopped:
            self._exchanges.note_next_try(self._peer, pause)
            self.log.warn(
                "{peer}: {error}; next try in {pause:.0f} s",
                peer=self._peer.name,
                error=error,
                pause=pause,
            )
        return pause

    def _succeeded(self, tally: Tally, lasted: float) -> float:
        """The seconds to wait after an exchange.

        Few after a link that the peer held: it might hold the next one, too.
        """
        every = max(MIN_PAUSE, self._peer.every - lasted)
        if tally.turned_for >= LONG_LINK:
            self._short_links = 0
            return MIN_PAUSE
        if tally.turned and (self._holds_links or tally.quiet_for >= LINGERED):
            # Such as when the peer reads its configuration again.
            self._short_links += 1
            return min(_pause_after(self._short_links - 1), every)
        return every

    async def _send(self) -> None:
        """Send what comes while the connection is turned, or is another node's.

        And every so often what the peer did not take before.
        """
        while not self._stopped:
            pause = (
                _pause_after(self._send_failures - 1) if self._send_failures else self._peer.every
            )
            await self._send_due.wait(self._jittered(pause))
            if self._sends_alone and not self._stopped:
                await self._send_once()

    async def _send_once(self) -> None:
        try:
            await self._exchanges.send_held(self._peer)
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
