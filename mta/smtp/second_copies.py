"""Messages that a peer brings again: it has not seen our reply.

Checks and filters may say something else of the second copy.  Then our answer is that of the first
one all the same: a message that we have is not refused.
"""

from __future__ import annotations

from collections.abc import Sequence

from mta.interfaces import ITakenMail
from mta.mail import Recipient, Reply
from mta.session import Origin
from mta.smtp import replies


class SecondCopies:
    """Knows first copies: in the spool, or under way in this process.

    A link is dialled again when what came on the last one is settled, but a reload makes a new one.
    """

    def __init__(self, taken: ITakenMail) -> None:
        self._taken = taken
        self._under_way: set[tuple[str, str]] = set()

    def begin(self, origin: Origin) -> bool:
        """Note that all of a message is here.

        To be ended by `end`.  False: another copy is under way.
        """
        key = _key(origin)
        if key in self._under_way:
            return False
        self._under_way.add(key)
        return True

    def end(self, origin: Origin) -> None:
        """Note that a message is taken, or refused."""
        self._under_way.discard(_key(origin))

    async def reply(self, origin: Origin, recipients: Sequence[Recipient]) -> Reply | None:
        """Return the reply in place of a refusal.

        None: this is no second copy.
        """
        if not origin.is_remembered:
            return None
        if _key(origin) in self._under_way:
            return replies.UNDER_WAY
        try:
            has_all = await self._taken.has_taken(origin, recipients)
        except OSError:
            return replies.LOCAL_ERROR
        return replies.ALREADY_TAKEN if has_all else None


def _key(origin: Origin) -> tuple[str, str]:
    return origin.turned_peer, origin.told_id
