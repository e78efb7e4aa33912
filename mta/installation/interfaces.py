"""The seams of an installation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import Enum

from zope.interface import Attribute, Interface


class State(Enum):
    """The state of a change before it is applied."""

    DONE = "done"  # nothing is left to do
    NEEDED = "needed"
    KEPT = "kept"  # a person's choice is in the way, and stays


class IChange(Interface):
    """One thing that an installation makes: a file, a folder, an account."""

    title: str = Attribute("The thing, in a few words.")

    def state() -> State:
        """Return the present state.  Raises OSError."""

    def difference() -> Sequence[str]:
        """Return lines for a person: the change, or the reason against it."""

    def apply() -> str:
        """Make the change; returns one line, what was done.

        Raises OSError, or ChangeFailed.
        """


class ChangeFailed(Exception):
    """A change that could not be made: one line for the operator."""


class IUsers(Interface):
    """A store of the users of a mail server."""

    def names() -> Collection[str]:
        """Return the names of the users that there are.  Raises OSError or ChangeFailed."""

    def add(name: str, password: str, addresses: Sequence[str]) -> None:
        """Add a user.  Raises OSError or ChangeFailed."""
