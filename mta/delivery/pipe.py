"""The pipe: final delivery into a command's standard input.

There is no shell: the command is split once, and what comes from an address fills placeholders
in arguments or goes into the environment, under the names that Postfix's local(8) gives it.  The
command leads a process group, so that none that it started outlives its time.  How
the command exits says what became of the message, see sysexits.h.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress
from pathlib import PurePath
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.delivery.final import final_pieces, trace_fields
from mta.interfaces import IDeliveryAgent, IMailSource
from mta.mail import Hop, Mailbox, Outcome, Reply, Status
from mta.queued import Delivery, Target
from mta.smtp import trace
from mta.smtp.templates import UNSAFE, command_line, placeholders

PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
TIMEOUT = 900.0  # seconds that a command gets
KILL_AFTER = 10.0  # seconds that it gets to end in peace
LAST_WORDS = 5.0  # seconds that those get whom it started, and left behind
MAX_OUTPUT = 4096  # octets of what it says that are kept

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


@implementer(IDeliveryAgent)
class PipeAgent:
    """Runs the command of a hop once for each target.

    ``{sender}`` (empty for the null reverse-path), ``{recipient}``, ``{local}`` and ``{domain}``
    are filled in; an address that would make an argument an option is refused.  `timeout`: seconds.
    """

    log = Logger()

    def __init__(self, reactor: Any, timeout: float = TIMEOUT) -> None:
        self._reactor = reactor
        self._timeout = timeout

    async def deliver(self, hop: Hop, mail: IMailSource) -> None:
        """See `IDeliveryAgent.deliver`."""
        while delivery := await mail.next():
            outcomes = [await self._run(hop, delivery, target) for target in delivery.targets]
            mail.report(delivery, outcomes)

    async def _run(self, hop: Hop, delivery: Delivery, target: Target) -> Outcome:
        words = placeholders(delivery.message.envelope.reverse_path, target.address)
        try:
            filled = command_line(hop.next_hop, words)
        except ValueError as error:
            return self._no_command(hop, str(error))
        if filled is None:
            return Outcome(Status.FAILED, UNSAFE)
        command = filled[0]
        executable = shutil.which(command, path=PATH)
        if executable is None:
            return self._no_command(hop, "there is no such program")
        try:
            async with aclosing(final_pieces(delivery.message.content)) as pieces:
                head = await anext(pieces, b"")
                environment = _environment(delivery, target, words, head)
                run = self._start(executable, filled, environment)
                if run is None:
                    return _deferred("The program behind this address can't be run now")
                top = trace_fields(delivery.message.envelope.reverse_path, target.address)
                await _feed(run, top + head, pieces)
        except OSError as error:
            self.log.error(
                "{queue_id} can't be read from the spool: {reason}",
                queue_id=delivery.message.id,
                reason=str(error),
            )
            return _deferred("The queue can't be read now")
        return run.outcome(command)

    def _start(
        self, executable: str, argv: Sequence[str], environment: Mapping[str, str]
    ) -> _Run | None:
        """Run a program in a session of its own; None where that can't be done."""
        session = shutil.which("setsid", path=PATH)
        if session is not None:
            executable, argv = session, ["setsid", executable, *argv[1:]]
        run = _Run(self._reactor, self._timeout, leads_group=session is not None)
        octets = {_octets(name): _octets(value) for name, value in environment.items()}
        try:
            self._reactor.spawnProcess(run, executable, [_octets(word) for word in argv], octets)
        except OSError as error:
            self.log.error(
                "{program} can't be run: {reason}", program=executable, reason=str(error)
            )
            return None
        return run

    def _no_command(self, hop: Hop, reason: str) -> Outcome:
        self.log.error(
            "{hop} can't be run: {reason}; correct `deliver` or install the program",
            hop=str(hop),
            reason=reason,
        )
        return _deferred("The program behind this address is missing")


async def _feed(run: _Run, top: bytes, pieces: AsyncIterator[bytes]) -> None:
    """Give a program its input, and return when it has ended.  Raises OSError."""
    try:
        run.write(top)
        await run.drained()
        async for piece in pieces:
            if not run.listens:
                break  # it has seen enough: how it exits says whether that is good
            run.write(piece)
            await run.drained()
        run.close_input()
        await run.ended
    except OSError:
        run.kill()  # before it can take a part for the whole
        await run.ended
        raise
    finally:
        run.kill()


@implementer(IPushProducer)
class _Run(ProcessProtocol):
    """One run of a command.  `ended` is called back when it is over, pipes and all.

    How the command itself exits is what counts.  Whom it leaves behind may go on, but is not
    listened to for long.  With `leads_group`, a signal reaches whomever it has started, too.
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
        """Return when the command has taken most of what was written, or listens no more."""
        if self._room is not None:
            await self._room

    def close_input(self) -> None:
        """Let the command see the end of its input."""
        self.transport.unregisterProducer()
        self.transport.closeStdin()

    def kill(self) -> None:
        """End it at once, where it has not ended."""
        if self._end is not None:
            return
        self._signal("KILL")
        # Those whom it has started may keep the pipes open for as long as they like.
        self.transport.loseConnection()

    def outcome(self, command: str) -> Outcome:
        """What the end of `command` means."""
        name = PurePath(command).name
        if self._is_late:
            return _deferred(f"{name} took too long")
        if self._end.signal is not None:
            return _deferred(f"{name} was ended by signal {self._end.signal}")
        status = self._end.exitCode
        if status == EX_OK:
            return Outcome(Status.DELIVERED, Reply(250, "2.0.0", (f"Delivered to {name}",)))
        said = self._said() or (f"{name} ended with status {status}",)
        if status == EX_TEMPFAIL or status in _NOT_RUN:
            return Outcome(Status.DEFERRED, Reply(451, "4.3.0", said))
        return Outcome(Status.FAILED, Reply(554, _FAILURES.get(status, "5.3.0"), said))

    def _said(self) -> tuple[str, ...]:
        lines = self._output.decode("utf-8", "replace").splitlines()
        return tuple(filter(None, (_CONTROL.sub(" ", line).strip() for line in lines)))

    def _late(self) -> None:
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
        self._deadline = self._clock.callLater(self._timeout, self._late)
        self._group = self.transport.pid or 0
        self.transport.registerProducer(self, True)

    def outReceived(self, data: bytes) -> None:
        self._output += data[: MAX_OUTPUT - len(self._output)]

    def errReceived(self, data: bytes) -> None:
        self.outReceived(data)

    def inConnectionLost(self) -> None:
        self.stopProducing()

    def processEnded(self, reason: Failure) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._end = reason.value
        self.stopProducing()
        self.ended.callback(None)

    def processExited(self, reason: Failure) -> None:
        """Twisted calls this when the command has ended, and others may still hold its pipes."""
        if self._deadline is not None and self._deadline.active():
            self._deadline.reset(LAST_WORDS)
            self._has_exited = True

    def pauseProducing(self) -> None:
        if self._room is None:
            self._room = Deferred()

    def resumeProducing(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)

    def stopProducing(self) -> None:
        self.listens = False
        self.resumeProducing()


def _environment(
    delivery: Delivery, target: Target, words: Mapping[str, str], head: bytes
) -> Mapping[str, str]:
    """What the command finds in its environment; `head` begins with the header section."""
    forward_path = delivery.recipient(target).forward_path
    return {
        "PATH": PATH,
        "SENDER": words["sender"],
        "RECIPIENT": words["recipient"],
        "LOCAL": words["local"],
        "DOMAIN": words["domain"],
        "EXTENSION": _extension(forward_path, target.address),
        "ORIGINAL_RECIPIENT": str(forward_path),
        "QUEUE_ID": delivery.message.id,
        **_client(delivery.message.id, head),
    }


def _extension(named: Mailbox, final: Mailbox) -> str:
    """The detail that was cut off an address (RFC 5233)."""
    local, mailbox = named.local_part, final.local_part
    if not local.lower().startswith(mailbox.lower()):
        return ""
    return local[len(mailbox) + 1 :]


def _client(queue_id: str, head: bytes) -> Mapping[str, str]:
    """Who handed us the message, as the Received: field says that we put on top of it."""
    client = trace.client(head, queue_id)
    if client is None:
        return {}
    known = {
        "CLIENT_HELO": client.hello,
        "CLIENT_ADDRESS": client.address,
        "CLIENT_PROTOCOL": client.protocol,
    }
    return {name: value for name, value in known.items() if value}


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _deferred(text: str) -> Outcome:
    return Outcome(Status.DEFERRED, Reply(451, "4.3.0", (text,)))
