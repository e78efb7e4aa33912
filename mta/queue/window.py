"""How much mail is in memory at once, and whose it is.

What a slow hop can't take yet must not keep the mail of others out.  So no hop has more in
memory than is still free: one alone may have half of the window, two a third each, and there
always is room for another.  What is over that waits in the spool until its hop has room.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import TypeVar

from mta.mail import Hop, Mailbox
from mta.queue.turns import Turns
from mta.queued import Delivery, Message
from mta.settings import KIB

K = TypeVar("K", bound=Hashable)

LARGEST = 256 * KIB  # octets; of a larger message, no more than that is in memory
SENDERS_SHARE = 8  # a sender with few messages may have this part of what is free, at a full hop
MAX_REMEMBERED = 100_000  # messages in the spool whose hop we know


class Window:
    """What is under way: at most `max_messages` messages with `max_octets` octets of content.

    A single message may be larger: whatever its size, it has to go some time.  Loads are in
    messages; one whose content is far above the average counts more than once.
    """

    def __init__(self, max_messages: int, max_octets: int) -> None:
        self._max_messages = max_messages
        self._max_octets = max_octets
        self._largest = min(LARGEST, max_octets)
        self._messages = 0
        self._octets = 0
        self._loads: Counter[Hop] = Counter()
        self._shares: Counter[tuple[Hop, Mailbox]] = Counter()

    # --- messages

    def enter(self, message: Message) -> None:
        """A message is under way."""
        self._messages += 1
        self._octets += self._size(message)

    def leave(self, message: Message) -> None:
        """A message is out of our hands."""
        self._messages -= 1
        self._octets -= self._size(message)

    def is_full_for(self, message: Message) -> bool:
        """Whether a message has to wait until others have left."""
        if not self._messages:
            return False
        return (
            self._messages >= self._max_messages
            or self._octets + self._size(message) > self._max_octets
        )

    @property
    def room(self) -> int:
        """How many messages can enter, whatever their size."""
        if self._messages and self._octets + self._largest > self._max_octets:
            return 0
        return max(0, self._max_messages - self._messages)

    @property
    def has_ample_room(self) -> bool:
        """Whether it pays to look for more."""
        return self._messages <= self._max_messages // 2 and self._octets <= self._max_octets // 2

    # --- their deliveries

    def begin(self, delivery: Delivery) -> None:
        """A delivery waits in memory for its hop."""
        self._count(delivery, 1)

    def end(self, delivery: Delivery) -> None:
        """A delivery has come back."""
        self._count(delivery, -1)

    def is_crowded(self, hop: Hop, message: Message) -> bool:
        """Whether a hop has its share of what can be in memory.

        A sender with few messages there may send one more all the same.
        """
        load, free = self._loads[hop], self._free
        if load <= max(free, 0):
            return False
        share = self._shares[hop, message.envelope.reverse_path]
        return load > 3 * free or share >= free // SENDERS_SHARE

    def space(self, hop: Hop) -> int:
        """How many more messages a hop may be given, once it has worked off half of its share."""
        load, free = self._loads[hop], self._free
        return 0 if load > free / 2 else max(1, int((free - load) / 2))

    @property
    def _free(self) -> float:
        octets = (self._max_octets - self._octets) * self._max_messages / self._max_octets
        return min(self._max_messages - self._messages, octets)

    def _size(self, message: Message) -> int:
        return min(message.content.size, self._largest)

    def _count(self, delivery: Delivery, sign: int) -> None:
        message, hop = delivery.message, delivery.targets[0].hop
        size = self._size(message) * self._max_messages / self._max_octets
        weight = sign * max(1, round(size))
        _add(self._loads, hop, weight)
        _add(self._shares, (hop, message.envelope.reverse_path), weight)


def _add(counter: Counter[K], key: K, weight: int) -> None:
    """Count, and forget who has nothing: names are anybody's choice."""
    counter[key] += weight
    if not counter[key]:
        del counter[key]


class Surplus:
    """The messages that were put by because their hops were crowded, by queue id.

    No more than `MAX_REMEMBERED`: the others come back when they are due.
    """

    def __init__(self) -> None:
        self._waiting: dict[Hop, Turns[str]] = {}
        self._count = 0

    def put(self, hop: Hop, message: Message) -> None:
        """Remember that a message waits in the spool for a hop to have room."""
        if self._count < MAX_REMEMBERED:
            self._count += 1
            self._waiting.setdefault(hop, Turns()).put(message.envelope.reverse_path, message.id)

    def of(self, hop: Hop) -> int:
        """How many wait for a hop."""
        return len(self._waiting.get(hop, ()))

    def take(self, hop: Hop, most: int) -> list[str]:
        """At most `most` of them, each sender in turn."""
        waiting = self._waiting.get(hop, Turns())
        taken = [waiting.take() for _ in range(min(most, len(waiting)))]
        self._count -= len(taken)
        if not waiting:
            self._waiting.pop(hop, None)
        return taken

    def forget(self, hop: Hop) -> None:
        """Its mail is not to be hurried."""
        self._count -= self.of(hop)
        self._waiting.pop(hop, None)
