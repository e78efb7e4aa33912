"""Limits on the mail in memory, in all and for each hop.

What a slow hop can't take yet must not keep the mail of others out.  So no hop has more in
memory than is still free: one alone may have half of all, two a third each, and there
always is room for another.  What is over that waits in the spool until its hop has room.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeVar

from mta.mail import Hop, Mailbox
from mta.queued import Delivery, Message
from mta.settings import KIB

K = TypeVar("K", bound=Hashable)

MAX_SIZE = 256 * KIB  # octets; of a larger message, no more than that is in memory
SENDERS_PART = 8  # a sender with few messages may have this part of what is free, at a full hop


class ActiveLimits:
    """Limits the active queue to so many messages and octets of content.

    A single message may be larger: whatever its size, it has to go some time.  Loads are in
    messages; one whose content is far above the average counts more than once.
    """

    def __init__(self, max_messages: int, max_octets: int) -> None:
        self._max_messages = max_messages
        self._max_octets = max_octets
        self._max_size = min(MAX_SIZE, max_octets)
        self._messages = 0
        self._octets = 0
        self._loads: dict[Hop, int] = {}
        self._senders: dict[tuple[Hop, Mailbox], int] = {}

    # --- messages

    def enter(self, message: Message) -> None:
        """Count a message that is under way."""
        self._messages += 1
        self._octets += self._size(message)

    def leave(self, message: Message) -> None:
        """Count a message no more."""
        self._messages -= 1
        self._octets -= self._size(message)

    def is_full_for(self, message: Message) -> bool:
        """Tell whether a message has to wait until others have left."""
        if not self._messages:
            return False
        return (
            self._messages >= self._max_messages
            or self._octets + self._size(message) > self._max_octets
        )

    @property
    def room(self) -> int:
        """The number of messages that can enter, whatever their size."""
        if self._messages and self._octets + self._max_size > self._max_octets:
            return 0
        return max(0, self._max_messages - self._messages)

    @property
    def has_ample_room(self) -> bool:
        """Tell whether it pays to look for more."""
        return self._messages <= self._max_messages // 2 and self._octets <= self._max_octets // 2

    # --- their deliveries

    def begin(self, delivery: Delivery) -> None:
        """Count a delivery that waits in memory for its hop."""
        self._count(delivery, 1)

    def end(self, delivery: Delivery) -> None:
        """Count a delivery no more."""
        self._count(delivery, -1)

    def is_crowded(self, hop: Hop, message: Message) -> bool:
        """Tell whether a hop has its share of the memory.

        A sender with few messages there may send one more all the same.
        """
        load, free = self._loads.get(hop, 0), self._free
        if load <= max(free, 0):
            return False
        share = self._senders.get((hop, message.envelope.reverse_path), 0)
        return load > 3 * free or share >= free // SENDERS_PART

    def space(self, hop: Hop) -> int:
        """The number of messages that a hop may be given.

        None before it has worked off half of its share.
        """
        load, free = self._loads.get(hop, 0), self._free
        return 0 if load > free / 2 else max(1, int((free - load) / 2))

    @property
    def _free(self) -> float:
        octets = (self._max_octets - self._octets) * self._max_messages / self._max_octets
        return min(self._max_messages - self._messages, octets)

    def _size(self, message: Message) -> int:
        return min(message.content.size, self._max_size)

    def _count(self, delivery: Delivery, sign: int) -> None:
        message, hop = delivery.message, delivery.targets[0].hop
        size = self._size(message) * self._max_messages / self._max_octets
        weight = sign * max(1, round(size))
        _add(self._loads, hop, weight)
        _add(self._senders, (hop, message.envelope.reverse_path), weight)


def _add(counts: dict[K, int], key: K, weight: int) -> None:
    """Add to a count.  A key without a count goes, as strangers choose their names."""
    count = counts.get(key, 0) + weight
    if count:
        counts[key] = count
    else:
        counts.pop(key, None)
