"""One exchange with a peer, in a process of its own."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import deferLater

from mta.metrics import NullMeter
from mta.pairing.mailboxes import domains_with_mailboxes, lists_for_relays
from mta.peers.interfaces import ITallyWatch
from mta.peers.tally import Tally
from mta.service.configured import configure
from mta.service.process import STOP_TIMEOUT, Process
from mta.settings import Peer, Settings
from mta.spool.folder import Folder
from mta.spool.owner_rows import SUSPECT_DELAY
from mta.spool.place import SpoolPlace
from mta.spool.wakeup import Signal, wake_processes

MAX_START_WAIT = 5.0  # seconds in which mail of ours comes to wait for the peer, before we dial
IDLE_CHECK_INTERVAL = 0.02  # seconds: a person waits for the end of the command


async def exchange_alone(settings: Settings, peer: Peer, watch: ITallyWatch, reactor: Any) -> Tally:
    """Hold one exchange, and deliver the mail that it brings.

    It works beside a server that runs, or without one.  Raises HopFailure, TLSFault, UserFault and
    OSError.
    """
    process = Process(SpoolPlace.of(settings), reactor, NullMeter())
    process.attended = True
    configured = configure(settings, process, lists_for_relays(settings))
    configured.router.use(domains_with_mailboxes(settings))
    process.use(configured)
    await process.take_over()
    process.runner.start()
    try:
        await _idle(process, MAX_START_WAIT)
        if await process.spool.keeps_suspects():  # else it waits for a process that lives longer
            await deferLater(reactor, SUSPECT_DELAY)
            await _idle(process, MAX_START_WAIT)
        tally = await process.configured.customer.exchange_once(peer, watch)
        await _idle(process, STOP_TIMEOUT)
    finally:
        await process.configured.close(STOP_TIMEOUT)
        await process.stop(STOP_TIMEOUT)
    if not tally.lost:
        wake_processes(Folder(process.folder), Signal.RETRY)  # the peer is there again
    return tally


async def _idle(process: Process, timeout: float) -> None:
    """Return when the runner has nothing to do, or after `timeout` seconds."""
    end = process.reactor.seconds() + timeout
    while not process.runner.is_idle and process.reactor.seconds() < end:
        await deferLater(process.reactor, IDLE_CHECK_INTERVAL)
