"""A plan: the changes of an installation, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mta.installation.interfaces import IChange, State


@dataclass(frozen=True, slots=True)
class Plan:
    """Changes that are made one after the other.

    One that fails ends it; what was made stays, and the next time only the rest is made.
    `remarks` are lines about what the plan can't do anything about.
    """

    changes: Sequence[IChange]
    remarks: Sequence[str] = field(default=())

    def needed(self) -> list[IChange]:
        """Return the changes that are still to be made.  Raises OSError or ChangeFailed."""
        return [change for change in self.changes if change.state() is State.NEEDED]

    def kept(self) -> list[str]:
        """Return lines about what stays as a person made it."""
        return [
            line
            for change in self.changes
            if change.state() is State.KEPT
            for line in change.difference()
        ]

    def apply(self) -> Iterator[str]:
        """Make all changes; yields a line for each that is made.

        Raises OSError or ChangeFailed.
        """
        for change in self.changes:
            if change.state() is State.NEEDED:
                yield change.apply()
