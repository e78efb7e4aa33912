"""The backlog: mail in the spool that waits for a crowded hop."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.logger import Logger

from mta.interfaces import ILeases
from mta.mail import Hop
from mta.queue.attempt import Attempt
from mta.queue.fair_queue import FairQueue
from mta.queued import Message
from mta.settings import HOUR

MIN_WAIT = 600.0  # seconds until mail for a crowded hop is looked at again, room or not
WAIT_FOR_EACH = 0.01  # seconds more, for each message that waits for that hop already
MAX_WAIT = HOUR  # seconds: what is forgotten here comes back after it
MAX_REMEMBERED = 100_000  # messages: each is an id in memory


class Backlog:
    """Remembers which messages wait for which hop to have room.

    No more than `MAX_REMEMBERED`: the others come back when they are due.
    """

    log = Logger()

    def __init__(self, queue: ILeases) -> None:
        self._queue = queue
        self._waiting: dict[Hop, FairQueue[str]] = {}
        self._count = 0
        self._fetching: set[Hop] = set()

    def __contains__(self, hop: Hop) -> bool:
        """Tell whether any mail waits for a hop."""
        return hop in self._waiting

    def wait(self, hop: Hop) -> float:
        """The seconds after which one more message for a hop is due."""
        waiting = len(self._waiting.get(hop, ()))
        return min(MIN_WAIT + WAIT_FOR_EACH * waiting, MAX_WAIT)

    def remember(self, attempt: Attempt) -> None:
        """Remember what a crowded hop could not take of an attempt."""
        if attempt.crowded is not None:
            self.add(attempt.crowded, attempt.message)

    def add(self, hop: Hop, message: Message) -> None:
        """Remember that a message waits for a hop to have room."""
        if self._count < MAX_REMEMBERED:
            self._count += 1
            waiting = self._waiting.setdefault(hop, FairQueue())
            waiting.put(message.envelope.reverse_path, message.id)

    def take(self, hop: Hop, limit: int) -> list[str]:
        """Remove at most `limit` messages, of each sender one after the other."""
        waiting = self._waiting.get(hop, FairQueue())
        taken = [waiting.take() for _ in range(min(limit, len(waiting)))]
        self._count -= len(taken)
        if not waiting:
            self._waiting.pop(hop, None)
        return taken

    def forget(self, hop: Hop) -> None:
        """Forget the mail of a hop: it is not to be hurried."""
        self._count -= len(self._waiting.pop(hop, ()))

    def begin_fetch(self, hop: Hop) -> bool:
        """Note that mail for a hop is fetched; False: it is already."""
        if hop in self._fetching:
            return False
        self._fetching.add(hop)
        return True

    async def fetch(self, hop: Hop, limit: int) -> Sequence[Message]:
        """Lease some of the mail for a hop, after `begin_fetch`.

        It is due some time anyway, so a spool that can't be read is borne.
        """
        try:
            return await self._queue.lease(self.take(hop, limit))
        except OSError as error:
            self.log.error("the spool can't be read: {error}", error=str(error))
            return ()
        finally:
            self._fetching.discard(hop)
