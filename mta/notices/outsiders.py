"""Reports for outsiders, without what is behind an address.

The members of an alias, the target of a forward, the hosts that mail goes through and their
replies are not for strangers; and another sender may have caused the notice that they get (RFC
3464 section 4.2, RFC 3461 section 5.2.7).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from mta.mail import Mailbox, Outcome, Reply, Status
from mta.queued import Message, Target

Report = tuple[Target, Outcome]

MAX_WORD = 255  # characters: a longer one is no word, and patterns take long to match it
# By the subject of the enhanced status code (RFC 3463 section 3).
_TEXTS = {
    "1": "The address is not known, or can't be used",
    "2": "The mailbox does not take the message",
    "3": "The mail system does not take the message",
    "4": "The message could not be passed on",
    "5": "The mail system did not take the message",
    "6": "The content can't be passed on",
    "7": "The message is refused by policy",
}
_OTHER_TEXT = "The message could not be delivered"
_HOST = r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.[A-Za-z]{2,}"
_IP_ADDRESS = r"\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*"
_PORT = r"[A-Za-z][A-Za-z0-9_-]*:\d"
_PATH = r"(?<![A-Za-z0-9])/\w|\\"
_TELLING = re.compile(rf"@|{_HOST}|{_IP_ADDRESS}|{_PORT}|{_PATH}")
HIDDEN = "[...]"


def one_for_each(message: Message, reports: Sequence[Report]) -> tuple[list[Report], Sequence[int]]:
    """Keep one report for each address that was named.

    Returns also the numbers of the recipients that stand for several addresses.  A success is
    reported once, with the first of the addresses that one stands for.
    """
    groups: dict[int, list[Report]] = {}
    for report in reports:
        groups.setdefault(report[0].number, []).append(report)
    kept = []
    for number, group in groups.items():
        is_success = group[0][1].status in (Status.DELIVERED, Status.RELAYED)
        if not (is_success and message.progress[number].settled):
            kept.append(group[0])
    return kept, [number for number, group in groups.items() if len(group) > 1]


def public(report: Report, named: Mailbox) -> Report:
    """Return what an outsider may know of a report."""
    target, outcome = report
    reply = outcome.reply
    if target.address.matches(named):
        lines = reply.lines if outcome.remote else reply.lines[:1]  # the others tell of hosts
        text = _without_hosts(" ".join(lines), target, outcome)
    else:
        subject = reply.enhanced[2:].partition(".")[0]
        text = _TEXTS.get(subject, _OTHER_TEXT)
    shown = replace(outcome, reply=Reply(reply.code, reply.enhanced, (text,)), remote="")
    return replace(target, address=named), shown


def _without_hosts(text: str, target: Target, outcome: Outcome) -> str:
    """Return a reply without words that name hosts or addresses.

    Files and IP addresses are left out too.
    """
    names = {name.lower() for name in (outcome.remote, target.hop.next_hop) if name}
    own = str(target.address).lower()

    def shown(word: str) -> str:
        if len(word) > MAX_WORD:
            return HIDDEN
        rest = word.lower().replace(own, "")
        is_telling = _TELLING.search(rest) or any(name in rest for name in names)
        return HIDDEN if is_telling else word

    return " ".join(map(shown, text.split()))
