"""Keeps up with a peer that we dial: exchanges every so often, and at once when it helps."""

from __future__ import annotations

import random as chance
from collections.abc import Awaitable, Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from mta.interfaces import HopFailure
from mta.peers.exchange import Tally
from mta.settings import Peer

FIRST_PAUSE = 5.0  # seconds after a first failure; doubles with each
LONGEST_PAUSE = 900.0  # seconds
SHORTEST_PAUSE = 1.0  # seconds between a link that dropped and the next one
JITTER = 0.1  # of every pause, so that many customers do not dial at once


class Keeper:
    """Repeats exchanges with one peer.

    `exchange` does a whole one, `hand_over` only sends what waits for the peer, on a second
    connection while the first one is turned.  Both raise HopFailure.
    """

    log = Logger()

    def __init__(
        self,
        peer: Peer,
        exchange: Callable[[], Awaitable[Tally]],
        hand_over: Callable[[], Awaitable[None]],
        clock: IReactorTime,
        random: Callable[[], float] = chance.random,
    ) -> None:
        self._peer = peer
        self._exchange = exchange
        self._hand_over = hand_over
        self._clock = clock
        self._random = random
        self._failures = 0
        self._pause: Deferred[None] | None = None
        self._handing_over = False
        self._mail_came = False
        self._stopped = False
        self._running: Deferred[None] | None = None
        self._sending: Deferred[None] | None = None

    def start(self) -> None:
        """Begin, with an exchange at once."""
        self._running = Deferred.fromCoroutine(self._keep())
        self._running.addErrback(self._broken)

    def stop(self) -> None:
        """Dial no more, and end what is under way."""
        self._stopped = True
        for running in (self._pause, self._running, self._sending):
            if running is not None:
                running.cancel()

    def mail_came(self) -> None:
        """Mail for the peer waits: it need not wait for the next exchange."""
        if self._pause is not None and not self._failures:
            self._pause.cancel()
        elif self._pause is None and not self._stopped:
            self._mail_came = True
            if not self._handing_over:
                self._handing_over = True
                self._sending = Deferred.fromCoroutine(self._send())
                self._sending.addErrback(self._broken)

    async def _keep(self) -> None:
        while not self._stopped:
            began = self._clock.seconds()
            try:
                tally = await self._exchange()
            except HopFailure as failure:
                self._failures += 1
                pause = min(FIRST_PAUSE * 2 ** min(self._failures - 1, 20), LONGEST_PAUSE)
                self.log.warn(
                    "{peer}: {reply}; next try in {pause:.0f} s",
                    peer=self._peer.name,
                    reply=str(failure.outcome.reply),
                    pause=pause,
                )
            else:
                self._failures = 0
                lasted = self._clock.seconds() - began
                pause = (
                    SHORTEST_PAUSE if tally.lost else max(SHORTEST_PAUSE, self._peer.every - lasted)
                )
                self.log.info(
                    "{peer}: sent {sent}, received {received}",
                    peer=self._peer.name,
                    sent=tally.sent,
                    received=tally.received,
                )
            await self._sleep(pause * (1 + JITTER * (2 * self._random() - 1)))

    async def _sleep(self, seconds: float) -> None:
        if self._stopped:
            return
        self._pause = deferLater(self._clock, seconds)
        try:
            await self._pause
        except CancelledError:
            pass  # mail came, or we stop
        finally:
            self._pause = None

    async def _send(self) -> None:
        """Send what came while the connection is turned or being set up."""
        try:
            while self._mail_came and not self._stopped:
                self._mail_came = False
                await self._hand_over()
        except HopFailure as failure:
            # What was not sent waits for the next exchange.
            self.log.warn("{peer}: {reply}", peer=self._peer.name, reply=str(failure.outcome.reply))
        finally:
            self._handing_over = False

    def _broken(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("the keeper of {peer} failed", failure, peer=self._peer.name)
