"""XWAITING: behind a relay, a sender waits for our reply.

It is our own parameter of MAIL, on connections that a peer of ours has turned.  Without it the
relay has answered the sender already, and a refusal makes a notice, perhaps to a forged address.
"""

from __future__ import annotations

from mta.session import Session

KEYWORD = "XWAITING"
MAX_WAIT = 60.0  # seconds: then the relay takes the message itself, as if we did not answer
SURE_WAIT = 45.0  # seconds since MAIL in which a refusal still comes in time, the way included


def note_time(session: Session, seconds: float) -> None:
    """Note that all of a message came in so many seconds."""
    client = session.forwarded
    if client is not None and seconds > SURE_WAIT:
        client.sender_waits = False
