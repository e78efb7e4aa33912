"""The log of attempts: a line for each change of a recipient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mta.interfaces import IDeliveryMeter
from mta.mail import Agent, Outcome
from mta.queue.attempt import final_address
from mta.queue.outcomes import Report, printable
from mta.queue.waiting_log import WaitingLog
from mta.queued import Message, Target
from mta.smtp.steps import InSteps, at_once
from mta.smtp.templates import mailbox_path

STEP = 64  # lines: written in one step, in about a millisecond
MINUTE, HOUR, DAY = 60, 3600, 86400  # seconds
# The units of times below a limit, in seconds; the shortest times are not told.
_UNITS = (("", 1, 1), ("s", 1, 2 * MINUTE), ("min", MINUTE, 2 * HOUR), ("h", HOUR, 3 * DAY))


class OutcomeLog:
    """The log of one runner's attempts.

    `waiting` counts what was not even tried; `meter` counts what was.  `in_steps` does long work
    step by step.
    """

    log = Logger()

    def __init__(
        self, clock: IReactorTime, meter: IDeliveryMeter, in_steps: InSteps = at_once
    ) -> None:
        self._meter = meter
        self._in_steps = in_steps
        self.waiting = WaitingLog(clock)

    def tell(self, message: Message, changes: Sequence[Report], now: float) -> None:
        """Write a line for each target that was tried.  `now`: seconds since the epoch."""
        for _ in self._steps(message, changes, now - message.arrived):
            pass

    async def tell_beside(self, message: Message, changes: Sequence[Report], now: float) -> None:
        """Write these lines; where they are many, other work goes on."""
        if is_long(changes):
            await self._in_steps(self._steps(message, changes, now - message.arrived))
        else:
            self.tell(message, changes, now)

    def _steps(self, message: Message, changes: Sequence[Report], delay: float) -> Iterator[None]:
        for number, (target, outcome) in enumerate(changes, 1):
            self._meter.attempted(target.hop, outcome)
            if outcome.wait:
                self.waiting.add({str(target.hop): 1})
            else:
                self._tell_one(message, target, outcome, delay)
            if number % STEP == 0:
                yield

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


def is_long(changes: Sequence[Report]) -> bool:
    """Tell whether these are many lines."""
    return len(changes) > STEP


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
