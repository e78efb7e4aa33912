"""How long hosts that say nothing may keep a connection which other mail waits for."""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mta.delivery.per_host import PerHost
from mta.link import Link
from mta.queued import Pressure

PATIENCE = 30.0  # seconds from the connection to the first MAIL; RFC 5321 asks for more at ease
LOOK_EVERY = 5.0  # seconds


class Patience:
    """Cuts a connection that stands for so long before `mail` is asked for, under `pressure`."""

    def __init__(
        self, link: Link, mail: PerHost | None, pressure: Pressure, clock: IReactorTime
    ) -> None:
        self._link = link
        self._mail = mail
        self._pressure = pressure
        self._clock = clock
        self._began = clock.seconds()
        self._timer: IDelayedCall | None = None
        self._look()

    def _look(self) -> None:
        self._timer = None
        if self._mail is None or self._mail.has_asked:
            return
        if self._pressure.is_scarce and self._clock.seconds() >= self._began + PATIENCE:
            self._link.time_out()
        else:
            self._timer = self._clock.callLater(LOOK_EVERY, self._look)

    def end(self) -> None:
        """The connection is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
