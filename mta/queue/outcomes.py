"""Outcomes of our own making, and replies as the log has them."""

from __future__ import annotations

from functools import cache

from mta.mail import Outcome, Reply, Status
from mta.queued import Target
from mta.smtp import replies

Report = tuple[Target, Outcome]

MAX_REPLY_LENGTH = 500  # characters of a reply: a peer may say more than a log should hold

FAULT = Outcome(Status.DEFERRED, Reply(451, "4.3.0", ("Local error in processing",)))
CROWDED = Outcome(
    Status.DEFERRED, Reply(451, "4.4.5", ("So much mail waits for this host that it takes long",))
)  # gets a `wait`
# A process that stood still may have lost its messages to others: it asks before it tries more.
STOOD_STILL = Outcome(
    Status.DEFERRED, Reply(451, "4.3.0", ("This server stood still for a moment",)), wait=5.0
)
FORWARD_LOOP = Outcome(Status.FAILED, replies.FORWARD_LOOP)


@cache
def held_outcome(peer: str) -> Outcome:
    """The outcome of mail that waits for a peer."""
    text = f"Waits here for {peer}, until it calls or is reached"
    return Outcome(Status.HELD, Reply(450, "4.4.1", (text,)))


def printable(reply: Reply) -> str:
    """A reply as one bounded line, whatever a peer put in it."""
    text = str(reply)[:MAX_REPLY_LENGTH]
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "?" for character in text)
