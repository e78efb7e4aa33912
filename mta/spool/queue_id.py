"""Queue ids: names of queued messages that sort by time.

A queue id is a number of 63 bits: microseconds since the epoch, then ten bits that differ
between processes.  People see it as 13 characters of base 32 without the letters I, L, O, U.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

MAX_MOMENT = 253402300799.0  # seconds since the epoch: the year 9999, the last that Python knows

_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [first + second for first in _DIGITS for second in _DIGITS]  # of ten bits
_SHIFTS = range(50, -1, -10)  # of six pairs, behind one digit
_FORM = re.compile(f"[0-7][{_DIGITS}]{{12}}")
_AS_PYTHON = str.maketrans(_DIGITS, "0123456789abcdefghijklmnopqrstuv")  # what int() reads
_PROCESS_BITS = 10


class QueueIds:
    """Makes queue ids for one process, each greater than the one before."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._last = 0
        self._process = secrets.randbits(_PROCESS_BITS)

    def next(self) -> int:
        """A new queue id, also when the clock steps back."""
        self._last = max(int(self._now() * 1_000_000), self._last + 1)
        return self._last << _PROCESS_BITS | self._process


def encode(number: int) -> str:
    """The queue id as people see it."""
    return _DIGITS[number >> 60 & 31] + "".join([_PAIRS[number >> at & 1023] for at in _SHIFTS])


def decode(text: str) -> int:
    """The number behind a queue id.  Raises ValueError where `text` is none."""
    if not _FORM.fullmatch(text):
        raise ValueError(f"{text!r}: not a queue id")
    return int(text.translate(_AS_PYTHON), 32)


def arrival(number: int) -> float:
    """The time at which a message began to arrive.

    In seconds since the epoch.
    """
    return (number >> _PROCESS_BITS) / 1_000_000


def earliest(moment: float) -> int:
    """The least id of messages that arrived at `moment` or later.

    In seconds since the epoch.
    """
    return int(moment * 1_000_000) << _PROCESS_BITS
