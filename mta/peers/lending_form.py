"""The form in which processes lend mail: JSON, and octets behind it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from mta.mail import Agent, Hop, Mailbox, Outcome, Reply, Status
from mta.queued import Target

# Octets: a header section and a small body, and an envelope that is no mailing list.  Mail with
# more is committed as ever.
MAX_LENT = 2**20
LET_GO = b"let go"  # the lender's word: the sender waits no more

_Numbers = tuple[int, str, str, Sequence["_Numbers"]]


@dataclass(frozen=True, slots=True)
class LentDelivery:
    """A delivery in that form: `message` is in octets still."""

    targets: tuple[Target, ...]
    message: bytes

    def encoded(self) -> bytes:
        """Return all of it in octets."""
        peer = self.targets[0].hop.next_hop
        line = json.dumps([peer, [_numbers(target) for target in self.targets]])
        return line.encode() + b"\n" + self.message

    @classmethod
    def decoded(cls, octets: bytes) -> LentDelivery:
        """Read what `encoded` wrote.  Raises ValueError."""
        line, _, message = octets.partition(b"\n")
        try:
            peer, targets = json.loads(line)
            hop = Hop(Agent.HOLD, peer)
            found = tuple(_target(each, hop) for each in targets)
        except (TypeError, LookupError) as error:
            raise ValueError(f"no delivery: {error!r}") from error
        if not found:
            raise ValueError("a delivery to no address")
        return cls(found, message)


def encoded_outcomes(outcomes: Sequence[Outcome]) -> bytes:
    """Return outcomes in octets."""
    found = []
    for outcome in outcomes:
        reply = outcome.reply
        said = [reply.code, reply.enhanced, reply.lines]
        found.append([outcome.status.value, said, outcome.remote, outcome.notifies])
    return json.dumps(found).encode()


def decoded_outcomes(octets: bytes) -> Sequence[Outcome]:
    """Read what `encoded_outcomes` wrote.  Raises ValueError."""
    try:
        return [
            Outcome(Status(status), Reply(code, enhanced, tuple(lines)), remote, notifies)
            for status, (code, enhanced, lines), remote, notifies in json.loads(octets)
        ]
    except TypeError as error:
        raise ValueError(f"no outcomes: {error!r}") from error


def _numbers(target: Target) -> _Numbers:
    address, also = target.address, [_numbers(each) for each in target.also]
    return target.number, address.local_part, address.domain, also


def _target(numbers: _Numbers, hop: Hop) -> Target:
    number, local_part, domain, also = numbers
    others = tuple(_target(each, hop) for each in also)
    return Target(number, Mailbox(local_part, domain), hop, also=others)
