"""The results of checks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class State(Enum):
    """The state of what a check looked at, the worst last.

    UNKNOWN: it could not be seen, which is not the same as wrong.
    """

    OK = "ok"
    UNKNOWN = "unknown"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Result:
    """One line of a check, and what to do about it.

    `peer`: the peer that we dial which it is about, and which is told of it.
    """

    state: State
    text: str
    remedy: str = ""
    peer: str = ""

    def of(self, peer: str) -> Result:
        """Return the same about a peer."""
        return replace(self, peer=peer)


def ok(text: str) -> Result:
    """The result where all is well."""
    return Result(State.OK, text)


def unknown(text: str, remedy: str = "") -> Result:
    """The result where nothing could be seen."""
    return Result(State.UNKNOWN, text, remedy)


def warn(text: str, remedy: str = "") -> Result:
    """The result where mail goes, and not as well as it could."""
    return Result(State.WARN, text, remedy)


def bad(text: str, remedy: str = "") -> Result:
    """The result where mail is lost, refused or stands still."""
    return Result(State.BAD, text, remedy)
