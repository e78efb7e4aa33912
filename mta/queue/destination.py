"""A destination: one hop, its deliveries, and its sessions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mta.mail import Agent, Hop
from mta.queue.batch_delay import FULL_BATCH, BatchDelay
from mta.queue.fair_queue import FairQueue
from mta.queue.grouping import is_for_many
from mta.queued import Delivery
from mta.settings import Queue

if TYPE_CHECKING:
    from mta.queue.delivery_session import DeliverySession

LOCAL = frozenset({Agent.MAILDIR, Agent.DISCARD, Agent.REJECT})
MAX_LOCAL_SESSIONS = 2  # while one batch is written, the next one is gathered
MANY = "many"  # stands for the senders of what is for many Maildirs
FIRST_SESSIONS = 2  # to a hop that has not taken anything yet


@dataclass(slots=True, eq=False)
class Destination:
    """A hop, and all that concerns it.

    `limit` is how many sessions it may have.  `starting` counts those that have not asked for mail
    yet; `idle` are those without mail, the latest at the end.  `batch_delay` is there where mail is
    written in batches.
    """

    hop: Hop
    limit: int
    waiting: FairQueue[Delivery] = field(default_factory=FairQueue)
    sessions: set[DeliverySession] = field(default_factory=set)
    idle: list[DeliverySession] = field(default_factory=list)
    starting: int = 0
    in_line: bool = False
    batch_delay: BatchDelay | None = None

    @property
    def is_local(self) -> bool:
        """Tell whether its agent waits for no other process."""
        return self.hop.agent in LOCAL

    def throttled(self) -> None:
        """Halve the sessions of a hop that took nothing for now."""
        self.limit = max(1, self.limit // 2)

    def answered(self, settings: Queue) -> None:
        """Give the hop one session more, as far as the settings do."""
        self.limit = min(self.limit + 1, max_sessions(self.hop, settings))

    def put(self, delivery: Delivery) -> None:
        """Let a delivery wait behind those of its sender.

        Those for many Maildirs wait behind one another: other mail goes between them.
        """
        key = MANY if is_for_many(delivery) else delivery.message.envelope.reverse_path
        self.waiting.put(key, delivery)

    def put_back(self, deliveries: Iterable[Delivery]) -> None:
        """Let deliveries that were taken already be the next ones."""
        self.waiting.put_back(None, deliveries)

    def wants_session(self, *, is_down: bool) -> bool:
        """Tell whether one more session may begin, and has mail."""
        batch = FULL_BATCH if self.batch_delay is not None else 1
        busy = len(self.sessions) - len(self.idle)
        limit = 1 if is_down else self.limit
        return len(self.waiting) > self.starting * batch and busy < limit


def max_sessions(hop: Hop, settings: Queue) -> int:
    """The number of sessions that a hop may ever have."""
    limit, places = settings.per_destination, settings.concurrency
    if hop.agent in LOCAL:
        return min(limit, MAX_LOCAL_SESSIONS)
    return min(limit, max(1, places - places // 4))  # one alone may not have all of them


def first_sessions(hop: Hop, settings: Queue) -> int:
    """The number of sessions of a hop that took no mail yet."""
    return min(FIRST_SESSIONS, max_sessions(hop, settings))
