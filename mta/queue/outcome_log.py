"""The log of attempts: a line for each change of a recipient."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mta.interfaces import IDeliveryMeter
from mta.mail import Agent, Outcome
from mta.queue.attempt import final_address
from mta.queue.outcomes import Report, printable
from mta.queue.waiting_log import WaitingLog
from mta.queued import Message, Target
from mta.smtp.templates import mailbox_path

MINUTE, HOUR, DAY = 60, 3600, 86400  # seconds
# The units of times below a limit, in seconds; the shortest times are not told.
_UNITS = (("", 1, 1), ("s", 1, 2 * MINUTE), ("min", MINUTE, 2 * HOUR), ("h", HOUR, 3 * DAY))


class OutcomeLog:
    """The log of one runner's attempts.

    `waiting` counts what was not even tried; `meter` counts what was.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, meter: IDeliveryMeter) -> None:
        self._meter = meter
        self.waiting = WaitingLog(clock)

    def tell(self, message: Message, changes: Sequence[Report], now: float) -> None:
        """Write a line for each target that was tried.  `now`: seconds since the epoch."""
        for target, outcome in changes:
            self._meter.attempted(target.hop, outcome)
            if outcome.wait:
                self.waiting.add({str(target.hop): 1})
            else:
                self._tell_one(message, target, outcome, now - message.arrived)

    def _tell_one(self, message: Message, target: Target, outcome: Outcome, delay: float) -> None:
        forward_path = message.envelope.recipients[target.number].forward_path
        address = final_address(target, forward_path)
        self.log.info(
            "{queue_id} {status} {forward_path}{stands_for} by {place}{at}: {reply}{after}",
            queue_id=message.id,
            status=outcome.status.value,
            forward_path=str(forward_path),
            stands_for=f" ({address})" if address else "",
            address=str(target.address),
            place=_place(target),
            hop=str(target.hop),
            at=f" [{outcome.remote}]" if outcome.remote else "",
            remote=outcome.remote,
            reply=printable(outcome.reply),
            after=_after(delay),
            delay=round(delay, 3),
        )


def _place(target: Target) -> str:
    """The hop of a target; of a Maildir, the folder."""
    hop = target.hop
    if hop.agent is Agent.MAILDIR and "{" in hop.next_hop:
        return f"{hop.agent.value}:{mailbox_path(hop.next_hop, target.address)}"
    return str(hop)


def _after(seconds: float) -> str:
    """The time that a message took, unless it is short."""
    for unit, length, limit in _UNITS:
        if seconds < limit:
            return f", after {seconds / length:.0f} {unit}" if unit else ""
    return f", after {seconds / DAY:.0f} days"
