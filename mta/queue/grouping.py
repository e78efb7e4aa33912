"""The deliveries of an attempt: its targets by hop and forwarder.

Pure: the sources of held mail are asked, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mta.mail import Agent, Hop, Mailbox
from mta.queue.attempt import Attempt
from mta.queue.held_sources import HeldSources
from mta.queue.interfaces import IHeldOutlet
from mta.queue.outcomes import held_outcome
from mta.queued import Delivery, Target

MAX_TARGETS = 64  # of one delivery to Maildirs: other mail for that hop is between the next ones


@dataclass(frozen=True, slots=True)
class Group:
    """The deliveries for one hop.

    `forwarder` is the address of ours whose mail this is, where it is forwarded.  `source` is there
    for held mail whose peer has turned a connection.
    """

    deliveries: Sequence[Delivery]
    forwarder: Mailbox | None
    source: IHeldOutlet | None


def grouped(attempt: Attempt, targets: Sequence[Target], held: HeldSources) -> Sequence[Group]:
    """Group the targets of an attempt.

    What is only held is reported to the attempt.
    """
    groups: dict[tuple[Hop, Mailbox | None], list[Target]] = {}
    sources: dict[Hop, IHeldOutlet] = {}
    for target in targets:
        hop = target.hop
        if hop.agent is Agent.HOLD:
            source = held.taking(target, attempt.leased_by)
            if source is None:
                attempt.report(target, held_outcome(hop.next_hop))
                continue
            sources[hop] = source
        groups.setdefault((hop, target.forwarder), []).append(target)
    return [
        Group(_deliveries(attempt, hop, targets), forwarder, sources.get(hop))
        for (hop, forwarder), targets in groups.items()
    ]


def is_for_many(delivery: Delivery) -> bool:
    """Tell whether a delivery is one of several, for many Maildirs."""
    return len(delivery.targets) == MAX_TARGETS and delivery.targets[0].hop.agent is Agent.MAILDIR


def _deliveries(attempt: Attempt, hop: Hop, targets: Sequence[Target]) -> Sequence[Delivery]:
    length = MAX_TARGETS if hop.agent is Agent.MAILDIR else len(targets)
    return [
        Delivery(
            attempt.message,
            tuple(targets[start : start + length]),
            sender_waits=attempt.watch is not None,
        )
        for start in range(0, len(targets), length)
    ]
