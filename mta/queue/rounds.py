"""One round of attempts for one message: what is to be tried, and what came of it.

Pure: the runner does what `plan` says, and records what `judge` says.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING

from mta.interfaces import IRouter
from mta.mail import Agent, Hop, Mailbox, Notify, Outcome, Reply, Status
from mta.queue.schedule import Schedule
from mta.queued import HistoryEntry, Message, Progress, Settlement, State, Target
from mta.settings import DAY, HOUR, MINUTE
from mta.smtp import replies
from mta.smtp.errors import Refusal
from mta.smtp.forwarding import is_forwarding

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

Report = tuple[Target, Outcome]

FAULT = Outcome(Status.DEFERRED, Reply(451, "4.3.0", ("Local error in processing",)))
CROWDED = Outcome(
    Status.DEFERRED, Reply(451, "4.4.5", ("So much mail waits for this host that it takes long",))
)  # with a `wait`
FORWARD_LOOP = Outcome(Status.FAILED, replies.FORWARD_LOOP)
DELIVERED = Outcome(
    Status.DELIVERED, Reply(250, "2.1.5", ("In this mailbox already, by another recipient",))
)
RELAYED = replace(DELIVERED, status=Status.RELAYED)
_RELAYS = (Agent.MX, Agent.SMTP)
UNROUTED = Hop(Agent.REJECT, "no route")  # stands in a report for the hop that was not found
_SUCCESSES = (Status.DELIVERED, Status.RELAYED)
REPLY_LENGTH = 500  # characters of a peer's reply that logs and history keep


@dataclass(slots=True, eq=False)
class Round:
    """A message on its way: what has come back, and how many deliveries are still out.

    `untried` are the places of the recipients with a delivery that came back unattempted: they
    wait until `later`, seconds since the epoch; `crowded` is the hop that had no room for one.
    `leased_by` is the source that leased the message for its peer.  `recording` fires when what the
    round changed is recorded, once that is under way.  `is_doubtful`: an attempt was
    cut off, which may have succeeded.
    """

    message: Message
    leased_by: object = None
    reports: list[Report] = field(default_factory=list)
    outstanding: int = 0
    untried: set[int] = field(default_factory=set)
    is_doubtful: bool = False
    later: float = 0.0
    crowded: Hop | None = None
    recording: Deferred[None] | None = None

    def holds_for(self, peer: str) -> bool:
        """Whether the message was found to wait for a peer."""
        return any(
            target.hop.agent is Agent.HOLD and target.hop.next_hop == peer
            for target, _ in self.reports
        )

    def report(self, target: Target, outcome: Outcome) -> None:
        """Add what came of a target, for each recipient that it serves."""
        self.reports += [(each, outcome) for each in target.served]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a round changed, and of what the sender may have to be told.

    `news` are the reports that say something new; `expires`: how long what was delayed is
    still tried, seconds since the epoch.
    """

    settlement: Settlement
    news: tuple[Report, ...]
    failed: tuple[Report, ...]
    delayed: tuple[Report, ...]
    succeeded: tuple[Report, ...]
    expires: float

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do, so that the message is removed."""
        return all(progress.state is State.DONE for progress in self.settlement.progress)


def plan(message: Message, router: IRouter) -> tuple[list[Target], list[Report]]:
    """Route every recipient that is still open: what is to be tried, and what needs no attempt.

    A mailbox that several recipients lead to is one target.
    """
    found: dict[tuple[Mailbox, Hop], list[Target]] = {}
    settled: list[Report] = []
    reached = _reached(message, router)
    for number, progress in enumerate(message.progress):
        if not _is_open(progress):
            continue
        forward_path = progress.recipient.forward_path
        try:
            routed = router.route(forward_path, message.envelope.reverse_path)
        except Refusal as refusal:
            status = Status.FAILED if refusal.reply.is_permanent else Status.DEFERRED
            outcome = Outcome(status, refusal.reply)
            settled.append((Target(number, forward_path, UNROUTED), outcome))
            continue
        for address, hop in routed:
            if progress.settled and str(address) in progress.settled:
                continue
            forwarder = forward_path if is_forwarding(router, forward_path, address) else None
            target = Target(number, address, hop, forwarder)
            mailbox = _mailbox(address, router)
            if reached and str(mailbox) in reached:
                settled.append((target, RELAYED if hop.agent in _RELAYS else DELIVERED))
            else:
                found.setdefault((mailbox, hop), []).append(target)
    return [_one(targets) for targets in found.values()], settled


def _mailbox(address: Mailbox, router: IRouter) -> Mailbox:
    """A final address in the form in which it is compared: case means something elsewhere only."""
    if not router.is_ours(address.domain) or address.local_part.islower():
        return address
    return replace(address, local_part=address.local_part.lower())


def _one(targets: Sequence[Target]) -> Target:
    """One target for all: mail that need not be forwarded goes on as it came."""
    if len(targets) == 1:
        return targets[0]
    first = next((target for target in targets if target.forwarder is None), targets[0])
    return replace(first, also=tuple(target for target in targets if target is not first))


def _reached(message: Message, router: IRouter) -> Collection[str]:
    """The mailboxes that have their copy from an earlier attempt, whoever's it was."""
    if not any(progress.settled for progress in message.progress):
        return ()
    reached: set[str] = set()
    for progress in message.progress:
        forward_path = str(progress.recipient.forward_path)
        failed = {
            attempt.address or forward_path
            for attempt in progress.history
            if attempt.status == Status.FAILED.value
        }
        reached |= progress.settled - failed
    return {
        address.lower() if router.is_ours(address.rpartition("@")[2]) else address
        for address in reached
    }


def fault_in(message: Message) -> list[Report]:
    """Defer every recipient that is still open, for a fault of our own."""
    return [
        (Target(number, progress.recipient.forward_path, UNROUTED), FAULT)
        for number, progress in enumerate(message.progress)
        if _is_open(progress)
    ]


def is_all_delivered(round: Round) -> bool:
    """Whether every recipient has its mail now, and nobody asked to be told."""
    message = round.message
    return (
        not round.untried
        and all(outcome.status in _SUCCESSES for _, outcome in round.reports)
        and not any(recipient.notify for recipient in message.envelope.recipients)
    )


def judge(round: Round, schedule: Schedule, now: float) -> Verdict:
    """What a finished round means.  `now`: seconds since the epoch."""
    message = round.message
    reports = [_at_its_age(report, message, schedule, now) for report in round.reports]
    late = () if message.warned else _late(message, reports, schedule, now)
    warned = message.warned or bool(late)
    tried = any(outcome.status is not Status.HELD and not outcome.wait for _, outcome in reports)
    attempts = message.attempts + tried
    progress = _progress(round, reports, now)
    due = min(_dues(round, reports, attempts, warned, schedule, now), default=now)
    return Verdict(
        Settlement(message.id, progress, due, attempts, warned, recovered=round.is_doubtful),
        news=tuple(report for report in reports if _is_news(message, report)),
        failed=tuple(report for report in reports if report[1].status is Status.FAILED),
        delayed=late,
        succeeded=tuple(report for report in reports if _is_success(message, report)),
        expires=min(
            (schedule.expires(target.hop, message.arrived) for target, _ in late), default=now
        ),
    )


@cache
def held_for(peer: str) -> Outcome:
    """What it means for mail that it waits for a peer."""
    text = f"Waits here for {peer}, until it calls or is reached"
    return Outcome(Status.HELD, Reply(450, "4.4.1", (text,)))


def words(reply: Reply) -> str:
    """A reply for logs and history: bounded, in one line, whatever a peer put in it."""
    text = str(reply)[:REPLY_LENGTH]
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "?" for character in text)


def final_address(target: Target, forward_path: Mailbox) -> str:
    """The address that a forward-path stands for; empty where that is itself."""
    return "" if target.address == forward_path else str(target.address)


def _is_open(progress: Progress) -> bool:
    """Whether a round has to do with this recipient."""
    return progress.state is not State.DONE


def _at_its_age(report: Report, message: Message, schedule: Schedule, now: float) -> Report:
    """The report, or a failure where the message has grown too old to be tried again."""
    target, outcome = report
    if outcome.status not in (Status.DEFERRED, Status.HELD):
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
    return tuple(
        (target, outcome)
        for target, outcome in reports
        if outcome.status in (Status.DEFERRED, Status.HELD)
        and schedule.must_warn(target.hop, message.arrived, now)
    )


def _progress(round: Round, reports: Sequence[Report], now: float) -> tuple[Progress, ...]:
    """How far each recipient has come after this round."""
    own: dict[int, list[Report]] = {}
    for report in reports:
        own.setdefault(report[0].number, []).append(report)
    return tuple(
        _advanced(progress, own.get(number, ()), number in round.untried, round.message, now)
        if _is_open(progress)
        else progress
        for number, progress in enumerate(round.message.progress)
    )


def _advanced(
    progress: Progress, reports: Sequence[Report], untried: bool, message: Message, now: float
) -> Progress:
    for target, outcome in (report for report in reports if _is_news(message, report)):
        attempt = HistoryEntry(
            now,
            str(target.hop),
            outcome.status.value,
            words(outcome.reply),
            final_address(target, progress.recipient.forward_path),
            outcome.remote,
        )
        progress = progress.with_attempt(attempt)
    ended, deferred = [], untried
    held: list[Target] = []
    for target, outcome in reports:
        if outcome.status is Status.DEFERRED:
            deferred = True
        elif outcome.status is Status.HELD:
            held.append(target)
        else:
            ended.append(str(target.address))
    progress = replace(progress, peer="", domain="")
    settled = progress.settled.union(ended)
    if not deferred and not held:
        return replace(progress, state=State.DONE, settled=settled)
    if deferred:
        return replace(progress, state=State.WAITING, settled=settled)
    peer, domain = held[0].hop.next_hop, held[0].address.domain
    return replace(progress, state=State.HELD, peer=peer, domain=domain, settled=settled)


def _dues(
    round: Round,
    reports: Sequence[Report],
    attempts: int,
    warned: bool,
    schedule: Schedule,
    now: float,
) -> Iterator[float]:
    """When each open recipient would have the message looked at again."""
    message = round.message
    if round.untried:
        yield max(now, round.later)
    for target, outcome in reports:
        if outcome.wait:
            yield schedule.resume_due(target.hop, outcome.wait, message.arrived, now, warned=warned)
        elif outcome.status is Status.DEFERRED:
            yield schedule.retry_due(target.hop, attempts, message.arrived, now, warned=warned)
        elif outcome.status is Status.HELD:
            yield schedule.held_due(target.hop, message.arrived, warned)


def _is_news(message: Message, report: Report) -> bool:
    """Whether a report says more than that held mail is still held, or untried mail untried."""
    target, outcome = report
    progress = message.progress[target.number]
    if outcome.wait and progress.history:
        last = progress.history[-1]
        return (last.hop, last.reply) != (str(target.hop), words(outcome.reply))
    peer = target.hop.next_hop
    return not (
        progress.state is State.HELD and progress.peer == peer and outcome == held_for(peer)
    )


def _is_success(message: Message, report: Report) -> bool:
    """Whether the sender asked to hear of this and nobody else will tell it (RFC 3461)."""
    target, outcome = report
    if Notify.SUCCESS not in message.envelope.recipients[target.number].notify:
        return False
    return outcome.status is Status.DELIVERED or (
        outcome.status is Status.RELAYED and not outcome.notifies
    )
