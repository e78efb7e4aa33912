"""XMAILBOXES: a customer tells its provider which mailboxes it has.

It is our own command, for peers that have logged in.  ``CHECK`` names the list by its digest, and
the reply begins with SEND where the provider has another one; ``PART`` brings the next piece in
base64, ``END`` the end.  A list that is not taken is no failure of anything else.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256

from mta.smtp.dialogue import HELLO, Dialogue

KEYWORD = "XMAILBOXES"
PART_SIZE = 9000  # octets: 12000 in base64, within one line of the receiver's
SEND = "SEND"  # the first word of the reply to CHECK where the list is wanted


def digest_of(document: bytes) -> str:
    """The name of a list."""
    return sha256(document).hexdigest()


async def tell_mailboxes(dialogue: Dialogue, document: bytes) -> None:
    """Tell the peer our list, where it has another one.

    Raises what `Dialogue.command` raises.
    """
    if not document or not dialogue.extensions.offers(KEYWORD):
        return
    digest = digest_of(document)
    reply = await dialogue.command(f"{KEYWORD} CHECK {digest}".encode(), HELLO)
    if reply.code != 250 or not reply.text.startswith(SEND):
        return
    for start in range(0, len(document), PART_SIZE):
        part = b64encode(document[start : start + PART_SIZE])
        reply = await dialogue.command(f"{KEYWORD} PART ".encode() + part, HELLO)
        if reply.code != 250:
            return
    await dialogue.command(f"{KEYWORD} END {digest}".encode(), HELLO)
