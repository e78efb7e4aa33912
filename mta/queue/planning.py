"""The plan of an attempt: targets, each with its hop.

Pure: the router is asked, and nothing else.  A mailbox that several recipients lead to gets one
copy, in this attempt and in later ones.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import replace

from mta.interfaces import IRouter
from mta.mail import Agent, Hop, Mailbox, Outcome, Reply, Status
from mta.queue.outcomes import FAULT, Report
from mta.queued import Message, State, Target
from mta.smtp.errors import Refusal
from mta.smtp.forwarding import is_forwarding

ALREADY_DELIVERED = Outcome(
    Status.DELIVERED, Reply(250, "2.1.5", ("In this mailbox already, by another recipient",))
)
ALREADY_RELAYED = replace(ALREADY_DELIVERED, status=Status.RELAYED)
UNROUTED = Hop(Agent.REJECT, "no route")  # stands in a report for the hop that was not found
SEALED = Outcome(
    Status.DEFERRED,
    Reply(451, "4.7.0", ("It is sealed for a peer, and can only be handed to that one",)),
)
STEP = 250  # addresses: that are looked at in one step, in about a millisecond
_END = object()  # of the steps
_FOR_SEALED = (Agent.HOLD, Agent.DISCARD, Agent.REJECT)
_RELAYS = (Agent.MX, Agent.SMTP)


class Planning:
    """The plan of one attempt, which `steps` make.

    `targets` are to be tried; `settled` has the reports of what needs no attempt.  Where the router
    fails by a fault of ours, `error` says so, and everything is deferred.
    """

    __slots__ = ("_found", "_message", "_router", "error", "settled", "steps", "targets")

    def __init__(self, message: Message, router: IRouter) -> None:
        self._message = message
        self._router = router
        self._found: dict[tuple[Mailbox, Hop], list[Target]] = {}
        self.targets: Sequence[Target] = ()
        self.settled: list[Report] = []
        self.error: Exception | None = None
        self.steps = self._guarded_steps()

    def begin(self) -> Hop | None:
        """Do the first step; returns the hop that it found first.

        None where it found none, or no other step is left.
        """
        if next(self.steps, _END) is _END:
            return None
        return next((hop for _, hop in self._found), None)

    def finish(self) -> None:
        """Do all steps at once."""
        for _ in self.steps:
            pass

    def _guarded_steps(self) -> Generator[None, None, None]:
        try:
            yield from self._steps()
        except Exception as error:  # noqa: BLE001 - outermost for the router: it defers one message
            self.targets, self.settled = (), deferred_by_fault(self._message)
            self.error = error
        else:
            self.targets = [_joined(targets) for targets in self._found.values()]

    def _steps(self) -> Iterator[None]:
        """Route every open recipient."""
        message, router = self._message, self._router
        reached = _reached(message, router)
        count = 0
        for number, progress in enumerate(message.progress):
            if progress.state is State.DONE:
                continue
            forward_path = progress.recipient.forward_path
            try:
                routed = router.route(forward_path, message.envelope.reverse_path)
            except Refusal as refusal:
                status = Status.FAILED if refusal.reply.is_permanent else Status.DEFERRED
                outcome = Outcome(status, refusal.reply)
                self.settled.append((Target(number, forward_path, UNROUTED), outcome))
                routed = ()
            for address, hop in routed:
                if not (progress.settled and str(address) in progress.settled):
                    forwarder = (
                        forward_path if is_forwarding(router, forward_path, address) else None
                    )
                    self._add(Target(number, address, hop, forwarder), reached)
                count += 1
                if count % STEP == 0:
                    yield

    def _add(self, target: Target, reached: Collection[str]) -> None:
        """Let a target be tried, unless it needs no attempt."""
        if self._message.envelope.sealed and target.hop.agent not in _FOR_SEALED:
            self.settled.append((target, SEALED))
            return
        mailbox = _mailbox(target.address, self._router)
        if reached and str(mailbox) in reached:
            is_relayed = target.hop.agent in _RELAYS
            self.settled.append((target, ALREADY_RELAYED if is_relayed else ALREADY_DELIVERED))
        else:
            self._found.setdefault((mailbox, target.hop), []).append(target)


def plan(message: Message, router: IRouter) -> tuple[Sequence[Target], Sequence[Report]]:
    """Plan an attempt at once; returns targets, and reports of the others."""
    planning = Planning(message, router)
    planning.finish()
    return planning.targets, planning.settled


def deferred_by_fault(message: Message) -> list[Report]:
    """A deferral of every open recipient, for a fault of our own."""
    return [
        (Target(number, progress.recipient.forward_path, UNROUTED), FAULT)
        for number, progress in enumerate(message.progress)
        if progress.state is not State.DONE
    ]


def _mailbox(address: Mailbox, router: IRouter) -> Mailbox:
    """A final address in the form in which it is compared.

    Case means something elsewhere only.
    """
    if not router.is_ours(address.domain) or address.local_part.islower():
        return address
    return replace(address, local_part=address.local_part.lower())


def _joined(targets: Sequence[Target]) -> Target:
    """One target for all.

    Mail that need not be forwarded goes on as it came.
    """
    if len(targets) == 1:
        return targets[0]
    first = next((target for target in targets if target.forwarder is None), targets[0])
    return replace(first, also=tuple(target for target in targets if target is not first))


def _reached(message: Message, router: IRouter) -> Collection[str]:
    """The mailboxes that got their copy in an earlier attempt."""
    if not any(progress.settled for progress in message.progress):
        return ()
    reached: set[str] = set()
    for progress in message.progress:
        forward_path = str(progress.recipient.forward_path)
        failed = {
            entry.address or forward_path
            for entry in progress.history
            if entry.status == Status.FAILED.value
        }
        reached |= progress.settled - failed
    return {
        address.lower() if router.is_ours(address.rpartition("@")[2]) else address
        for address in reached
    }
