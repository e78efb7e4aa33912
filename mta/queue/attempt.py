"""One attempt to deliver a message, and what its outcomes mean.

Pure: the active queue fills an attempt, the recorder writes down what `evaluate` says of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mta.mail import Agent, Hop, Mailbox, Notify, Outcome, Reply, Status
from mta.queue.outcomes import Report, held_outcome, printable
from mta.queue.schedule import Schedule
from mta.queued import MAX_HISTORY, HistoryEntry, Message, Progress, Settlement, State, Target
from mta.settings import DAY, HOUR, MINUTE

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from mta.queue.interfaces import IAttemptWatch, IHeldOutlet

_SUCCESSES = (Status.DELIVERED, Status.RELAYED)
_WAITING = (Status.DEFERRED, Status.HELD)


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt to deliver a message to all of its open recipients.

    `leased_by` is the source that leased the message for its peer.  `watch` hears of its end in
    place of the runner, until the message is committed.  `reports` are the outcomes so
    far, and `outstanding` counts the deliveries that are still out.  `untried` are the places of
    the recipients with a delivery that came back unattempted: they wait until `later`, seconds
    since the epoch; `crowded` is the hop that had no room for one.  `is_doubtful`: a delivery was
    cut off, and may have succeeded.  `looking` fire when it is known which mail goes in a
    circle, and `recording` when the result is recorded, once that is under way.
    """

    message: Message
    leased_by: IHeldOutlet | None = None
    watch: IAttemptWatch | None = None
    reports: list[Report] = field(default_factory=list)
    outstanding: int = 0
    untried: set[int] = field(default_factory=set)
    is_doubtful: bool = False
    later: float = 0.0
    crowded: Hop | None = None
    looking: list[Deferred[None]] = field(default_factory=list)
    recording: Deferred[None] | None = None

    def report(self, target: Target, outcome: Outcome) -> None:
        """Add the outcome of a target, for each recipient that it serves."""
        self.reports += [(each, outcome) for each in target.served]

    def leave_untried(self, targets: Sequence[Target]) -> None:
        """Note that these targets were not attempted."""
        self.untried.update(each.number for target in targets for each in target.served)

    def move_arrival(self, seconds: float) -> None:
        """Let the message have come so much later."""
        arrived = self.message.arrived + seconds
        self.message = replace(self.message, arrived=arrived)

    def holds_for(self, peer: str) -> bool:
        """Tell whether the message was found to wait for a peer."""
        return any(
            target.hop.agent is Agent.HOLD and target.hop.next_hop == peer
            for target, _ in self.reports
        )

    @property
    def is_all_delivered(self) -> bool:
        """Tell whether all have the mail, and no notice is wanted."""
        return (
            bool(self.reports)
            and not self.untried
            and all(outcome.status in _SUCCESSES for _, outcome in self.reports)
            and not any(recipient.notify for recipient in self.message.envelope.recipients)
        )

    @property
    def is_all_untried(self) -> bool:
        """Tell whether nothing came of it, so that nothing need be recorded."""
        return bool(self.untried) and not self.reports

    @property
    def is_futile(self) -> bool:
        """Tell whether a hop of it is crowded or left alone."""
        return self.crowded is not None or any(outcome.wait for _, outcome in self.reports)


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """The result of an attempt.

    `settlement` is to be recorded; of `failed`, `delayed` and `succeeded` the sender may have to be
    told.  `changes` are the reports that say something new; `expires`: how long what was delayed is
    still tried, seconds since the epoch.
    """

    message: Message
    settlement: Settlement
    changes: tuple[Report, ...]
    failed: tuple[Report, ...]
    delayed: tuple[Report, ...]
    succeeded: tuple[Report, ...]
    expires: float

    @property
    def is_done(self) -> bool:
        """Tell whether nothing is left to do for the message."""
        return all(progress.state is State.DONE for progress in self.settlement.progress)

    @property
    def refused(self) -> int:
        """The number of recipients that other hosts refused for good."""
        return refused_by_hosts(self.failed)


def refused_by_hosts(failed: Sequence[Report]) -> int:
    """The number of failures that are refusals of other hosts for good."""
    return sum(bool(each.remote) and each.reply.is_permanent for _, each in failed)


def evaluate(attempt: Attempt, schedule: Schedule, now: float) -> AttemptResult:
    """Evaluate an attempt that is over.  `now`: seconds since the epoch."""
    message = attempt.message
    reports = [_at_its_age(report, message, schedule, now) for report in attempt.reports]
    late = () if message.warned else _late(message, reports, schedule, now)
    warned = message.warned or bool(late)
    tried = any(outcome.status is not Status.HELD and not outcome.wait for _, outcome in reports)
    attempts = message.attempts + tried
    progress = _progress(attempt, reports, now)
    was_offered = any(map(_is_held_though_offered, reports))
    due = min(_dues(attempt, reports, attempts, warned, schedule, now), default=now)
    return AttemptResult(
        message,
        Settlement(
            message.id,
            progress,
            due,
            attempts,
            warned,
            recovered=attempt.is_doubtful,
            offered=now if was_offered else 0.0,
        ),
        changes=tuple(report for report in reports if _is_change(message, report)),
        failed=tuple(report for report in reports if report[1].status is Status.FAILED),
        delayed=late,
        succeeded=tuple(report for report in reports if is_reported_success(message, report)),
        expires=min(
            (schedule.expires(target.hop, message.arrived) for target, _ in late), default=now
        ),
    )


def final_address(target: Target, forward_path: Mailbox) -> str:
    """The address that a forward-path stands for; empty where that is itself."""
    return "" if target.address == forward_path else str(target.address)


def _at_its_age(report: Report, message: Message, schedule: Schedule, now: float) -> Report:
    """The report, or a failure where the message is too old."""
    target, outcome = report
    if outcome.status not in _WAITING:
        return report
    if now < schedule.expires(target.hop, message.arrived):
        return report
    said = f"{outcome.remote} said: " if outcome.remote else ""
    lines = (f"Gave up after {_duration(now - message.arrived)}", f"({said}{outcome.reply})")
    return target, Outcome(Status.FAILED, Reply(554, "5.4.7", lines))


def _duration(seconds: float) -> str:
    """Seconds in words, roughly."""
    for size, name in ((DAY, "days"), (HOUR, "hours"), (MINUTE, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"


def _late(
    message: Message, reports: Sequence[Report], schedule: Schedule, now: float
) -> tuple[Report, ...]:
    """The reports of mail whose sender has to be warned."""
    return tuple(
        (target, outcome)
        for target, outcome in reports
        if outcome.status in _WAITING and schedule.must_warn(target.hop, message.arrived, now)
    )


def _progress(attempt: Attempt, reports: Sequence[Report], now: float) -> tuple[Progress, ...]:
    """The progress of each recipient after this attempt."""
    own: dict[int, list[Report]] = {}
    for report in reports:
        own.setdefault(report[0].number, []).append(report)
    return tuple(
        progress
        if progress.state is State.DONE
        else _advanced(
            _with_history(progress, own.get(number, ()), attempt.message, now),
            own.get(number, ()),
            number in attempt.untried,
        )
        for number, progress in enumerate(attempt.message.progress)
    )


def _with_history(
    progress: Progress, reports: Sequence[Report], message: Message, now: float
) -> Progress:
    """The progress with a line of history for each change."""
    changes = [report for report in reports if _is_change(message, report)]
    for target, outcome in changes[-MAX_HISTORY:]:  # an alias may stand for thousands
        entry = HistoryEntry(
            now,
            str(target.hop),
            outcome.status.value,
            printable(outcome.reply),
            final_address(target, progress.recipient.forward_path),
            outcome.remote,
        )
        progress = progress.with_attempt(entry)
    return progress


def _advanced(progress: Progress, reports: Sequence[Report], untried: bool) -> Progress:
    """The progress with its new state."""
    ended, deferred = [], untried
    held: list[Target] = []
    for target, outcome in reports:
        if outcome.status is Status.DEFERRED:
            deferred = True
        elif outcome.status is Status.HELD:
            held.append(target)
        else:
            ended.append(str(target.address))
    progress = replace(progress, peer="", domain="", settled=progress.settled.union(ended))
    if deferred:
        return replace(progress, state=State.WAITING)
    if held:
        peer, domain = held[0].hop.next_hop, held[0].address.domain
        return replace(progress, state=State.HELD, peer=peer, domain=domain)
    return replace(progress, state=State.DONE)


def _dues(
    attempt: Attempt,
    reports: Sequence[Report],
    attempts: int,
    warned: bool,
    schedule: Schedule,
    now: float,
) -> Iterator[float]:
    """The times at which each open recipient needs another look."""
    message = attempt.message
    if attempt.untried:
        yield max(now, attempt.later)
    for target, outcome in reports:
        if outcome.wait:
            yield schedule.resume_due(target.hop, outcome.wait, message.arrived, now, warned=warned)
        elif outcome.status is Status.DEFERRED:
            yield schedule.retry_due(target.hop, attempts, message.arrived, now, warned=warned)
        elif outcome.status is Status.HELD:
            yield schedule.held_due(target.hop, message.arrived, warned)


def _is_held_though_offered(report: Report) -> bool:
    """Tell whether a peer was offered what goes on waiting for it."""
    target, outcome = report
    return outcome.status is Status.HELD and outcome != held_outcome(target.hop.next_hop)


def _is_change(message: Message, report: Report) -> bool:
    """Tell whether a report is news.

    It is none that mail is still held, or still untried.
    """
    target, outcome = report
    progress = message.progress[target.number]
    if outcome.wait and progress.history:
        last = progress.history[-1]
        return (last.hop, last.reply) != (str(target.hop), printable(outcome.reply))
    peer = target.hop.next_hop
    return not (
        progress.state is State.HELD and progress.peer == peer and outcome == held_outcome(peer)
    )


def is_reported_success(message: Message, report: Report) -> bool:
    """Tell whether the sender hears of a success from us (RFC 3461)."""
    target, outcome = report
    if Notify.SUCCESS not in message.envelope.recipients[target.number].notify:
        return False
    return outcome.status is Status.DELIVERED or (
        outcome.status is Status.RELAYED and not outcome.notifies
    )
