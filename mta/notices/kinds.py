"""The kinds of notice, their wording, and advice for the sender."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mta.mail import Notify, Outcome, Status
from mta.notices.outsiders import Report
from mta.queued import Message

_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")


@dataclass(frozen=True, slots=True)
class Kind:
    """The wording of one kind of notice."""

    subject: str
    opening: str
    closing: str = ""


FAILED = Kind(
    "Your message could not be delivered",
    "Your message could not be delivered to the following addresses. It will not be tried again.",
)
LOST = Kind(
    "A notice could not be delivered",
    "A message without a reverse-path, as notices are, could not be delivered to the following"
    " addresses. It will not be tried again. Its sender can't be told, so you are.",
)
DELAYED = Kind(
    "Your message is delayed",
    "Your message has not yet reached the following addresses. It is still being tried.",
    "You need not send it again. You will be told if it can't be delivered in the end.",
)
SUCCEEDED = Kind(
    "Your message was delivered",
    "You asked to be told: your message has reached the following addresses.",
)


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of a notice for one status of an outcome.

    `condition` is that of NOTIFY, `action` the field of RFC 3464 section 2.3.3, `status` the
    enhanced status code where the reply has none.
    """

    kind: Kind
    condition: Notify
    action: str
    status: str


TERMS = {
    Status.FAILED: Terms(FAILED, Notify.FAILURE, "failed", "5.0.0"),
    Status.DEFERRED: Terms(DELAYED, Notify.DELAY, "delayed", "4.0.0"),
    Status.HELD: Terms(DELAYED, Notify.DELAY, "delayed", "4.0.0"),
    Status.DELIVERED: Terms(SUCCEEDED, Notify.SUCCESS, "delivered", "2.0.0"),
    Status.RELAYED: Terms(SUCCEEDED, Notify.SUCCESS, "relayed", "2.0.0"),
}

# By the beginning of the enhanced status code (RFC 3463).
_ADVICE = {
    "5.1.8": "The server does not accept your own address; ask your postmaster about it.",
    "5.1.7": "The server does not accept your own address; ask your postmaster about it.",
    "5.1.": "Check the address for mistakes, and send your message again to the right one.",
    "5.2.2": "The mailbox is full; tell its owner by another way, or try again later.",
    "5.2.3": "Your message is too large; send less, or share large files by another way.",
    "5.3.4": "Your message is too large; send less, or share large files by another way.",
    "5.4.7": "The server could not be reached in time; try again later, or by another way.",
    "5.7.": "The server refuses the message by its policy; the recipient may be able to"
    " change that, so try to reach them by another way.",
}
_OTHER_ADVICE = "Try to reach the recipient by another way."
GENERAL_ADVICE = "If you can't tell from this what to do, show it to your postmaster."


def advice(outcome: Outcome) -> str:
    """Advice for the sender after a failure."""
    status = enhanced_status(outcome)
    return next((_ADVICE[start] for start in _ADVICE if status.startswith(start)), _OTHER_ADVICE)


def enhanced_status(outcome: Outcome) -> str:
    """The enhanced status code, as well as the reply gives it.

    Its class is that of the outcome, whatever the class of the reply is.
    """
    enhanced, default = outcome.reply.enhanced, TERMS[outcome.status].status
    return default[0] + enhanced[1:] if _ENHANCED.fullmatch(enhanced) else default


def is_wanted(message: Message, report: Report) -> bool:
    """Tell whether the sender wants this report (RFC 3461 section 4.1)."""
    target, outcome = report
    notify = message.envelope.recipients[target.number].notify
    condition = TERMS[outcome.status].condition
    if not notify:
        return condition is not Notify.SUCCESS
    return condition in notify
