"""The replies to senders whose mail was passed through to a peer.

A refusal bears the peer's code and its words, as far as these are for strangers: printable ASCII,
cut, and without the names and addresses of hosts behind us.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from mta.mail import Outcome, Reply, Status
from mta.queue.attempt import Attempt, is_reported_success

MAX_TEXT = 200  # characters of the peer's own: what people read
REFUSALS = frozenset({550, 551, 552, 553, 554, 556})  # codes that a sender may get for content
REFUSED = 554  # in place of others, which are about our conversation with the peer
UNDEFINED = "5.0.0"  # RFC 3463 section 3.1
ABOUT_PROTOCOL = "5.5."

_ADDRESS = re.compile(r"[0-9A-Fa-f:.]*[:.][0-9A-Fa-f:.]*[0-9A-Fa-f]")
_UNSHOWN = re.compile(r"[^\x21-\x7e]+")


def sender_reply(attempt: Attempt, peer: str) -> Reply | None:
    """Return the reply to the sender after an attempt.

    None: something is left to do, for some recipients or for a notice, and the message has to be
    committed.
    """
    outcomes = [outcome for _, outcome in attempt.reports]
    if not outcomes or attempt.untried or attempt.is_doubtful:
        return None
    if all(outcome.status is Status.FAILED for outcome in outcomes):
        return _refusal(outcomes[0], peer)
    is_due = any(is_reported_success(attempt.message, report) for report in attempt.reports)
    if is_due or any(outcome.status is not Status.RELAYED for outcome in outcomes):
        return None
    enhanced = outcomes[0].reply.enhanced
    text = f"OK {attempt.message.id} accepted by {peer}"
    return Reply(250, enhanced if enhanced.startswith("2.") else "2.0.0", (text,))


def _refusal(outcome: Outcome, peer: str) -> Reply:
    reply = outcome.reply
    if not outcome.remote:  # our own words
        return reply
    code = reply.code if reply.code in REFUSALS else REFUSED
    enhanced = reply.enhanced
    if not enhanced.startswith("5.") or enhanced.startswith(ABOUT_PROTOCOL):
        enhanced = UNDEFINED
    shown = _for_strangers(reply.text, outcome.remote)
    return Reply(
        code, enhanced, (f"{peer} refused it: {shown}" if shown else f"{peer} refused it",)
    )


def _for_strangers(text: str, remote: str) -> str:
    """Return the text of a peer as strangers may see it."""
    shown = " ".join(_UNSHOWN.sub(" ", text).split())
    shown = re.sub(re.escape(remote), "(host)", shown, flags=re.IGNORECASE)
    shown = _ADDRESS.sub(_public, shown)
    return shown if len(shown) <= MAX_TEXT else f"{shown[:MAX_TEXT]}..."


def _public(found: re.Match[str]) -> str:
    """Return an address, or a word in place of a private one."""
    try:
        return found[0] if ip_address(found[0]).is_global else "(address)"
    except ValueError:
        return found[0]
