"""What the log says of attempts: a line for each recipient that something is new of."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mta.queue.rounds import Report, final_address, words
from mta.queue.waiting_log import WaitingLog
from mta.queued import Message


class OutcomeLog:
    """The log of one runner's attempts; `waiting` counts what was not even tried."""

    log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self.waiting = WaitingLog(clock)

    def tell(self, message: Message, news: Sequence[Report], now: float) -> None:
        """One line for each target that was tried.  `now`: seconds since the epoch."""
        for report in news:
            if report[1].wait:
                self.waiting.add({str(report[0].hop): 1})
            else:
                self._tell_one(message, report, now - message.arrived)

    def _tell_one(self, message: Message, report: Report, delay: float) -> None:
        target, outcome = report
        forward_path = message.envelope.recipients[target.number].forward_path
        address = final_address(target, forward_path)
        self.log.info(
            "{queue_id} {status} {forward_path}{stands_for} by {hop}{at}: {reply} ({delay:.3f} s)",
            queue_id=message.id,
            status=outcome.status.value,
            forward_path=str(forward_path),
            stands_for=f" ({address})" if address else "",
            address=str(target.address),
            hop=str(target.hop),
            at=f" [{outcome.remote}]" if outcome.remote else "",
            remote=outcome.remote,
            reply=words(outcome.reply),
            delay=delay,
        )
