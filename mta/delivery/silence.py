"""The limit on silent connections while other mail waits for one."""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mta.delivery.per_host import PerHost
from mta.link import Link
from mta.queued import Pressure

MAX_SILENCE = 30.0  # seconds: from connection to first MAIL; RFC 5321 asks for more at ease
LOOK_EVERY = 5.0  # seconds: the pressure may begin while a connection is silent


class SilenceLimit:
    """Ends a connection on which `mail` is not asked for in time.

    Only under `pressure`: other mail waits for a connection.
    """

    def __init__(self, link: Link, mail: PerHost, pressure: Pressure, clock: IReactorTime) -> None:
        self._link = link
        self._mail = mail
        self._pressure = pressure
        self._clock = clock
        self._began = clock.seconds()
        self._timer: IDelayedCall | None = None
        self._look()

    def _look(self) -> None:
        self._timer = None
        if self._mail.has_asked:
            return
        if self._pressure.is_scarce and self._clock.seconds() >= self._began + MAX_SILENCE:
            self._link.time_out()
        else:
            self._timer = self._clock.callLater(LOOK_EVERY, self._look)

    def stop(self) -> None:
        """Stop watching: the connection is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
