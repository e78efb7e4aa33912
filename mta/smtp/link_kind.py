"""XLINK: a customer names the use of a connection that it turns.

It is our own command, for peers that have logged in, and comes before TURN or ATRN.  Without it a
connection is the main link of the peer.
"""

from __future__ import annotations

from mta.session import LinkKind
from mta.smtp import replies
from mta.smtp.dialogue import HELLO, Dialogue
from mta.smtp.errors import Refusal

KEYWORD = "XLINK"

_KINDS = {kind.value.upper().encode(): kind for kind in LinkKind}


def parse(argument: bytes) -> LinkKind:
    """Return the kind that is named.  Raises Refusal."""
    kind = _KINDS.get(argument.upper())
    if kind is None:
        raise Refusal(replies.BAD_ARGUMENT)
    return kind


async def tell_kind(dialogue: Dialogue, kind: LinkKind) -> bool:
    """Tell the peer the kind; returns whether it knows it.

    Raises what `Dialogue.command` raises.
    """
    if kind is LinkKind.MAIN:
        return True
    if not dialogue.extensions.offers(KEYWORD):
        return False
    reply = await dialogue.command(f"{KEYWORD} {kind.value.upper()}".encode(), HELLO)
    return reply.code == 250
