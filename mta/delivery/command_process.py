"""One run of a pipe's command: its input, output and end.

How the command exits decides the outcome, see sysexits.h.
"""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress
from pathlib import PurePath
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.mail import Outcome, Reply, Status

KILL_AFTER = 10.0  # seconds: for a command to end in peace, before it is killed
LEFTOVER_TIMEOUT = 5.0  # seconds: for processes that the command left behind with its output
MAX_OUTPUT = 4096  # octets: of its output that are kept, as they become a reply

EX_OK, EX_TEMPFAIL = 0, 75
_NOT_RUN = (126, 127)  # no program of that name, or none that we may run (POSIX)
_FAILURES = {
    64: "5.3.5",  # EX_USAGE: called in a wrong way
    65: "5.6.0",  # EX_DATAERR: does not like the content
    67: "5.1.1",  # EX_NOUSER
    68: "5.1.2",  # EX_NOHOST
    73: "5.2.0",  # EX_CANTCREAT: the mailbox
    77: "5.7.0",  # EX_NOPERM
    78: "5.3.5",  # EX_CONFIG
}

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


@implementer(IPushProducer)
class CommandProcess(ProcessProtocol):
    """One run of a command.  `ended` fires when it is over, pipes and all.

    Processes that it leaves behind may go on, but their output is not read for long.  With
    `leads_group`, a signal reaches all processes that it has started, too.
    """

    transport: Any  # a Process, which is more than its interface says

    def __init__(self, clock: IReactorTime, timeout: float, leads_group: bool) -> None:
        self.ended: Deferred[None] = Deferred()
        self.listens = True
        self._clock = clock
        self._timeout = timeout
        self._leads_group = leads_group
        self._group = 0
        self._deadline: IDelayedCall | None = None
        self._is_late = False
        self._has_exited = False
        self._room: Deferred[None] | None = None
        self._output = b""
        self._end: Any = None

    # --- for the agent

    def write(self, data: bytes) -> None:
        """Send octets to the standard input."""
        self.transport.write(data)

    async def drained(self) -> None:
        """Wait until the command has read most of what was written."""
        if self._room is not None:
            await self._room

    def close_input(self) -> None:
        """Let the command see the end of its input."""
        self.transport.unregisterProducer()
        self.transport.closeStdin()

    def kill(self) -> None:
        """End the command at once, where it has not ended."""
        if self._end is not None:
            return
        self._signal("KILL")
        # The processes that it has started may keep the pipes open for as long as they like.
        self.transport.loseConnection()

    def outcome(self, command: str) -> Outcome:
        """The outcome of the run of `command`."""
        name = PurePath(command).name
        if self._is_late:
            return deferred(f"{name} took too long")
        if self._end.signal is not None:
            return deferred(f"{name} was ended by signal {self._end.signal}")
        status = self._end.exitCode
        if status == EX_OK:
            return Outcome(Status.DELIVERED, Reply(250, "2.0.0", (f"Delivered to {name}",)))
        lines = self._output_lines() or (f"{name} ended with status {status}",)
        if status == EX_TEMPFAIL or status in _NOT_RUN:
            return Outcome(Status.DEFERRED, Reply(451, "4.3.0", lines))
        return Outcome(Status.FAILED, Reply(554, _FAILURES.get(status, "5.3.0"), lines))

    def _output_lines(self) -> tuple[str, ...]:
        lines = self._output.decode("utf-8", "replace").splitlines()
        return tuple(filter(None, (_CONTROL.sub(" ", line).strip() for line in lines)))

    def _time_out(self) -> None:
        if self._has_exited:
            self.transport.loseConnection()
            return
        self._is_late = True
        self._deadline = self._clock.callLater(KILL_AFTER, self.kill)
        self._signal("TERM")

    def _signal(self, name: str) -> None:
        # To the group before the command itself is waited for: its number is still taken then.
        if self._leads_group and self._group:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._group, signal.Signals[f"SIG{name}"])
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess(name)

    # --- Twisted calls these

    def connectionMade(self) -> None:
        """Start the timer, and take part in back pressure."""
        self._deadline = self._clock.callLater(self._timeout, self._time_out)
        self._group = self.transport.pid or 0
        self.transport.registerProducer(self, True)

    def outReceived(self, data: bytes) -> None:
        """Keep output, up to `MAX_OUTPUT`."""
        self._output += data[: MAX_OUTPUT - len(self._output)]

    def errReceived(self, data: bytes) -> None:
        """Keep errors among the output."""
        self.outReceived(data)

    def inConnectionLost(self) -> None:
        """Write no more: the command has closed its input."""
        self.stopProducing()

    def processEnded(self, reason: Failure) -> None:
        """End the run: the command has ended, and its pipes are closed."""
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._end = reason.value
        self.stopProducing()
        self.ended.callback(None)

    def processExited(self, reason: Failure) -> None:
        """Note that the command has ended.

        Other processes may still hold its pipes.
        """
        if self._deadline is not None and self._deadline.active():
            self._deadline.reset(LEFTOVER_TIMEOUT)
            self._has_exited = True

    def pauseProducing(self) -> None:
        """Let the writer wait: the pipe is full."""
        if self._room is None:
            self._room = Deferred()

    def resumeProducing(self) -> None:
        """Let the writer go on."""
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)

    def stopProducing(self) -> None:
        """Let the writer end."""
        self.listens = False
        self.resumeProducing()


def deferred(text: str) -> Outcome:
    """The outcome of a run that should be repeated later."""
    return Outcome(Status.DEFERRED, Reply(451, "4.3.0", (text,)))
