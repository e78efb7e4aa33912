"""The looks at the peers that we dial, for their operators."""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from mta.doctor import far
from mta.service.process import Process
from mta.settings import HOUR

INTERVAL = 3 * HOUR  # seconds: what changed is known on the same day


class PeerLooks(Service):
    """Looks at the peers that we dial, every so often.

    Not at the start: a server that is restarted again and again is no burden.
    """

    log = Logger()

    def __init__(self, process: Process, clock: Any) -> None:
        self._process = process
        self._loop = LoopingCall(self._start)
        self._loop.clock = clock
        self._looking: Deferred[None] | None = None

    def startService(self) -> None:
        """Twisted calls this."""
        super().startService()
        self._loop.start(INTERVAL, now=False)

    def stopService(self) -> None:
        """Twisted calls this when the process is to end."""
        super().stopService()
        self._loop.stop()
        if self._looking is not None:
            self._looking.cancel()

    def _start(self) -> Deferred[None]:
        self._looking = Deferred.fromCoroutine(self._look())
        return self._looking

    async def _look(self) -> None:
        try:
            await far.look(self._process.configured.examined)
        except CancelledError:
            return
        except Exception:  # noqa: BLE001 - outermost: the next look may go better
            self.log.failure("a look at the peers failed")
