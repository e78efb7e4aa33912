"""The request for our mail behind our own: TURN, ATRN, ETRN.

RFC 821 section 3.8, RFC 2645, RFC 1985.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mta.interfaces import IRole, ITurnReplies
from mta.mail import Reply
from mta.session import LinkKind
from mta.smtp.dialogue import MAIL, TURN, Dialogue
from mta.smtp.errors import PeerFault
from mta.smtp.link_kind import tell_kind
from mta.smtp.mailbox_list import tell_mailboxes

UNKNOWN_FORM = frozenset({500, 501})
BAD_SEQUENCE = 503  # RFC 5321 section 4.2.2
NO_QUICK_LINK = Reply(504, "5.5.4", ("The peer takes no second link: set `links: 1`",))


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """The commands that ask for our mail: TURN, ATRN or ETRNs.

    `replies` is told of each reply.  `second_forms` are asked for once where the peer does not know
    the form of a command (500, 501).  After a positive reply to TURN or ATRN, `next_role` takes the
    connection (RFC 821 section 3.8, RFC 2645 section 5.3), as a link of this `kind`.
    `mailboxes` is the list of ours, which the peer may want to know.
    """

    commands: Sequence[str]
    replies: ITurnReplies
    next_role: IRole | None = None
    second_forms: Mapping[str, str] = field(default_factory=dict)
    mailboxes: bytes = b""
    kind: LinkKind = LinkKind.MAIN


async def ask_for_turn(
    dialogue: Dialogue, request: TurnRequest, *, reset_first: bool
) -> IRole | None:
    """Ask for our mail; returns the role to take next.

    `reset_first`: the peer may be in a transaction.  Raises what `Dialogue` raises, and PeerFault
    where the peer says more than its reply to what turned the connection.
    """
    if reset_first:
        await _reset(dialogue)
    await tell_mailboxes(dialogue, request.mailboxes)
    if not await tell_kind(dialogue, request.kind):
        request.replies.replied(NO_QUICK_LINK)
        await dialogue.quit()
        return None
    for command in request.commands:
        reply = await _ask(dialogue, command)
        if reply.code in UNKNOWN_FORM and command in request.second_forms:
            reply = await _ask(dialogue, request.second_forms[command])
        has_turned = request.next_role is not None and reply.code == 250
        if has_turned and not dialogue.is_quiet:
            # Nothing may come before our greeting: it could only pretend to be commands.
            raise PeerFault("octets after the reply that turned the connection")
        request.replies.replied(reply)
        if has_turned:
            return request.next_role
    await dialogue.quit()
    return None


async def _ask(dialogue: Dialogue, command: str) -> Reply:
    """The reply to one command."""
    reply = await dialogue.command(command.encode(), TURN)
    if reply.code == BAD_SEQUENCE:  # the peer thinks that a transaction is open
        await _reset(dialogue)
        reply = await dialogue.command(command.encode(), TURN)
    return reply


async def _reset(dialogue: Dialogue) -> None:
    """End a transaction that may be open.

    The reply does not matter: a peer that takes no mail need not know RSET.
    """
    await dialogue.command(b"RSET", MAIL)
