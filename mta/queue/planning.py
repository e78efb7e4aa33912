"""The plan of an attempt: targets, each with its hop.

Pure: the router is asked, and nothing else.  A mailbox that several recipients lead to gets one
copy, in this attempt and in later ones.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
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
_FOR_SEALED = (Agent.HOLD, Agent.DISCARD, Agent.REJECT)
_RELAYS = (Agent.MX, Agent.SMTP)


def plan(message: Message, router: IRouter) -> tuple[list[Target], list[Report]]:
    """Route every open recipient.

    Returns what is to be tried, and the reports of what needs no attempt.
    """
    found: dict[tuple[Mailbox, Hop], list[Target]] = {}
    settled: list[Report] = []
    reached = _reached(message, router)
    for number, progress in enumerate(message.progress):
        if progress.state is State.DONE:
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
            if message.envelope.sealed and hop.agent not in _FOR_SEALED:
                settled.append((target, SEALED))
                continue
            mailbox = _mailbox(address, router)
            if reached and str(mailbox) in reached:
                is_relayed = hop.agent in _RELAYS
                settled.append((target, ALREADY_RELAYED if is_relayed else ALREADY_DELIVERED))
            else:
                found.setdefault((mailbox, hop), []).append(target)
    return [_joined(targets) for targets in found.values()], settled


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
