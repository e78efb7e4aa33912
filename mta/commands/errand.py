"""Errands: commands that take steps in the reactor, each with its line."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from zope.interface import Interface

from mta import config
from mta.commands.console import Failed, printable
from mta.pairing.request import PairingRefused
from mta.queued import HopFailure

# The reactor takes a while: it is imported where an errand begins.
if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure


class IErrand(Interface):
    """The steps of a command."""

    async def take(reactor: Any, progress: Progress) -> None:
        """Take all steps.

        A failure is PairingRefused, HopFailure, OSError, TLSFault, UserFault or ConfigurationError.
        """


class Progress:
    """The step that is taken, and its line.

    `problems` counts what is wrong, and did not end the errand.
    """

    def __init__(self) -> None:
        self.step = ""
        self.problems = 0

    def done(self, text: str) -> None:
        """Say what became of the step."""
        print(printable(f"{self.step}: {text}"), flush=True)

    def problem(self, text: str) -> None:
        """Say what is wrong with the step, and go on."""
        self.problems += 1
        self.done(text)


def run(errand: IErrand, timeout: float) -> Progress:
    """Run the reactor until an errand is over, or `timeout` seconds.

    Raises Failed with the step that failed.
    """
    from twisted.internet.task import react

    progress = Progress()
    results: list[Failure | None] = []

    def start(reactor: Any) -> Deferred[None]:
        from twisted.internet.defer import Deferred

        from mta.service.steady import use_steady_clock

        use_steady_clock(reactor)
        steps = Deferred.fromCoroutine(errand.take(reactor, progress))
        return steps.addTimeout(timeout, reactor).addBoth(results.append)

    with suppress(SystemExit):  # react ends with it, always
        react(start)
    if not results:
        raise Failed(f"{progress.step}: interrupted")
    (failure,) = results
    if failure is not None:
        raise Failed(printable(f"{progress.step}: {_reason(failure, timeout)}"))
    return progress


def _reason(failure: Failure, timeout: float) -> str:
    """The reason of a failure.  Raises what is a fault of our own."""
    from twisted.internet.defer import TimeoutError

    from mta.sealing.keys import SealKeyFault
    from mta.tls import TLSFault
    from mta.users.file import UserFault

    failure.trap(
        PairingRefused,
        HopFailure,
        TimeoutError,
        OSError,
        TLSFault,
        UserFault,
        SealKeyFault,
        config.ConfigurationError,
    )
    error = failure.value
    if isinstance(error, HopFailure):
        return str(error.outcome.reply)
    if isinstance(error, TimeoutError):
        return f"not over after {timeout:.0f} seconds"
    return str(error)
