"""The deliveries that a turned connection is to hand out, in order."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from mta.queued import Delivery


class WaitingLine:
    """Deliveries as they came, those whose senders wait first."""

    def __init__(self) -> None:
        self._urgent: deque[Delivery] = deque()
        self._others: deque[Delivery] = deque()

    def __len__(self) -> int:
        return len(self._urgent) + len(self._others)

    @property
    def first(self) -> Delivery:
        """The one that is next."""
        return (self._urgent or self._others)[0]

    def append(self, delivery: Delivery) -> None:
        """Let one more wait."""
        (self._urgent if delivery.sender_waits else self._others).append(delivery)

    def popleft(self) -> Delivery:
        """Take the one that is next."""
        return (self._urgent or self._others).popleft()

    def clear(self) -> list[Delivery]:
        """Take all."""
        everything = [*self._urgent, *self._others]
        self._urgent.clear()
        self._others.clear()
        return everything

    def let_go(self, id: str) -> None:
        """Note that the sender of a message waits no more."""
        for delivery in self.clear():
            is_meant = delivery.message.id == id
            self.append(replace(delivery, sender_waits=False) if is_meant else delivery)
