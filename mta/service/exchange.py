"""One exchange with a peer, by a process that lives for this alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater

from mta.metrics import NullMeter
from mta.peers.interfaces import ITallyWatch
from mta.peers.tally import Tally
from mta.service.configured import configure
from mta.service.process import Process
from mta.settings import Peer, Settings
from mta.spool.folder import Folder
from mta.spool.wakeup import Signal, wake_processes

SETTLING = 5.0  # seconds in which mail of ours comes to wait for a peer, before it is dialled
STOP_TIMEOUT = 10.0  # seconds that deliveries of what came have then


async def exchange_alone(settings: Settings, peer: Peer, watch: ITallyWatch, reactor: Any) -> Tally:
    """Hold one exchange, and deliver what it brings, whether the server is up or down.

    Raises HopFailure, TLSFault, UserFault and OSError.
    """
    process = Process(Path(settings.spool), reactor, NullMeter())
    process.begin(configure(settings, process))
    await process.take_over()
    process.runner.start()
    try:
        await _quiet(process, SETTLING)
        tally = await process.configured.customer.exchange_once(peer, watch)
        await _quiet(process, STOP_TIMEOUT)
    finally:
        await process.configured.close(STOP_TIMEOUT)
        await process.stop(STOP_TIMEOUT)
    if not tally.lost:
        wake_processes(Folder(process.folder), Signal.RETRY)  # the peer is there again
    return tally


async def _quiet(process: Process, longest: float) -> None:
    """Return when the runner has nothing to do, at the latest after so many seconds."""
    end = process.reactor.seconds() + longest
    while not process.runner.is_idle and process.reactor.seconds() < end:
        await deferLater(process.reactor, 0.02)
