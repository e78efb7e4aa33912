"""The changes that other programs make."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from zope.interface import implementer

from mta.installation.interfaces import ChangeFailed, IChange, State

SYSTEM_PATH = ":/usr/sbin:/sbin"  # which `su` leaves out
TIMEOUT = 330.0  # seconds: the unit lets a start take 300


@implementer(IChange)
class Command:
    """A command that is run once, where it is `needed`."""

    def __init__(self, command: Sequence[str], *, needed: bool) -> None:
        self.title = " ".join(command)
        self._command = command
        self._needed = needed

    def state(self) -> State:
        """See `IChange.state`."""
        return State.NEEDED if self._needed else State.DONE

    def difference(self) -> Sequence[str]:
        """See `IChange.difference`."""
        return [f"run {self.title}"]

    def apply(self) -> str:
        """See `IChange.apply`."""
        run(self._command)
        self._needed = False
        return f"ran {self.title}"


def run(command: Sequence[str]) -> str:
    """Run a program; returns what it printed.  Raises ChangeFailed."""
    try:
        ended = subprocess.run(  # noqa: S603 (what the operator has agreed to)
            command,
            env=os.environ | {"PATH": os.environ.get("PATH", "") + SYSTEM_PATH},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
    except OSError as error:
        raise ChangeFailed(f"{command[0]} can't be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise ChangeFailed(f"{' '.join(command)} does not end") from None
    if ended.returncode:
        lines = (ended.stderr or ended.stdout).strip().splitlines() or ["no reason given"]
        raise ChangeFailed(f"{' '.join(command)} failed: {' '.join(lines[-1].split())}")
    return ended.stdout
