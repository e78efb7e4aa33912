"""Answers that are remembered until their time is over (RFC 2308)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from mta.dns_answer import Answer, RecordType

MAX_ENTRIES = 10_000  # answers; clients choose the domains of mail
MAX_OCTETS = 16 * 1024 * 1024  # of all responses: one may have 64 KiB
ENTRY_OCTETS = 500  # of memory that an answer takes beside its response, about

Question = tuple[bytes, RecordType]


@dataclass(frozen=True, slots=True)
class Timed:
    """An answer that holds for some seconds.

    `size`: octets of the responses that it is made of.
    """

    answer: Answer
    seconds: float
    size: int


class Cache:
    """Remembers answers, the least recently used of which gives way."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._entries: OrderedDict[Question, tuple[Timed, float]] = OrderedDict()
        self._octets = 0

    def get(self, question: Question) -> Answer | None:
        """The answer, if it is remembered."""
        entry = self._entries.get(question)
        if entry is None:
            return None
        timed, until = entry
        if until <= self._clock.seconds():
            self._drop(question)
            return None
        self._entries.move_to_end(question)
        return timed.answer

    def put(self, question: Question, timed: Timed) -> None:
        """Remember an answer, if it holds for any time."""
        if question in self._entries:
            self._drop(question)
        if timed.seconds <= 0:
            return
        self._entries[question] = timed, self._clock.seconds() + timed.seconds
        self._octets += timed.size + ENTRY_OCTETS
        while len(self._entries) > MAX_ENTRIES or self._octets > MAX_OCTETS:
            self._drop(next(iter(self._entries)))

    def _drop(self, question: Question) -> None:
        timed, _ = self._entries.pop(question)
        self._octets -= timed.size + ENTRY_OCTETS
