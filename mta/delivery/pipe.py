"""The pipe agent: final delivery into a command's standard input.

There is no shell: the command is split once, and the parts of an address fill placeholders in
arguments or go into the environment, under the names that Postfix's local(8) gives them.  The
command leads a process group, so that no process that it started outlives its time.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from twisted.logger import Logger
from zope.interface import implementer

from mta.delivery.command_process import CommandProcess, deferred
from mta.delivery.final import final_pieces, trace_fields
from mta.interfaces import IDeliveryAgent, IMailSource
from mta.limited_log import LimitedLog
from mta.mail import Hop, Mailbox, Outcome, Status
from mta.queued import Delivery, Target
from mta.session import LOCAL_ADDRESS, Origin
from mta.smtp.templates import UNSAFE, command_line, placeholders

PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
TIMEOUT = 900.0  # seconds: for a command, which may be a mail filter with DNS look-ups


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
        self._limited = LimitedLog(self.log)

    async def deliver(self, hop: Hop, mail: IMailSource) -> None:
        """See `IDeliveryAgent.deliver`."""
        while delivery := await mail.next():
            outcomes = [await self._run(hop, delivery, target) for target in delivery.targets]
            mail.report(delivery, outcomes)

    async def _run(self, hop: Hop, delivery: Delivery, target: Target) -> Outcome:
        values = placeholders(delivery.message.envelope.reverse_path, target.address)
        try:
            filled = command_line(hop.next_hop, values)
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
                head = await _first(pieces)
                environment = _environment(delivery, target, values)
                run = self._start(executable, filled, environment)
                if run is None:
                    return deferred("The program behind this address can't be run now")
                fields = trace_fields(delivery.message.envelope.reverse_path, target.address)
                await _feed(run, fields + head, pieces)
        except OSError as error:
            self.log.error(
                "{queue_id} can't be read from the spool: {reason}",
                queue_id=delivery.message.id,
                reason=str(error),
            )
            return deferred("The queue can't be read now")
        return run.outcome(command)

    def _start(
        self, executable: str, argv: Sequence[str], environment: Mapping[str, str]
    ) -> CommandProcess | None:
        """Start a program as the leader of its session, if possible.

        None where the program can't be started.
        """
        session = shutil.which("setsid", path=PATH)
        if session is not None:
            executable, argv = session, ["setsid", executable, *argv[1:]]
        run = CommandProcess(self._reactor, self._timeout, leads_group=session is not None)
        octets = {_octets(name): _octets(value) for name, value in environment.items()}
        try:
            self._reactor.spawnProcess(run, executable, [_octets(word) for word in argv], octets)
        except OSError as error:
            reason = error.strerror or str(error)
            self._limited.error(
                executable, "{program} can't be run: {reason}", program=executable, reason=reason
            )
            return None
        return run

    def _no_command(self, hop: Hop, reason: str) -> Outcome:
        self.log.error(
            "{hop} can't be run: {reason}; correct `deliver` or install the program",
            hop=str(hop),
            reason=reason,
        )
        return deferred("The program behind this address is missing")


async def _first(pieces: AsyncIterator[bytes]) -> bytes:
    """The first piece, or nothing.

    In Python 3.11, ``anext`` with a default takes a tuple apart that a Deferred gives.
    """
    async for piece in pieces:
        return piece
    return b""


async def _feed(run: CommandProcess, beginning: bytes, pieces: AsyncIterator[bytes]) -> None:
    """Give a program its input, and return when it has ended.  Raises OSError."""
    try:
        run.write(beginning)
        await run.drained()
        async for piece in pieces:
            if not run.listens:
                break  # it needs no more: how it exits says whether that is good
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


def _environment(
    delivery: Delivery, target: Target, values: Mapping[str, str]
) -> Mapping[str, str]:
    """The environment of a command."""
    forward_path = delivery.recipient(target).forward_path
    return {
        "PATH": PATH,
        "SENDER": values["sender"],
        "RECIPIENT": values["recipient"],
        "LOCAL": values["local"],
        "DOMAIN": values["domain"],
        "EXTENSION": _extension(forward_path, target.address),
        "ORIGINAL_RECIPIENT": str(forward_path),
        "QUEUE_ID": delivery.message.id,
        **_client(delivery.message.origin),
    }


def _extension(named: Mailbox, final: Mailbox) -> str:
    """The detail that was cut off an address (RFC 5233)."""
    local, mailbox = named.local_part, final.local_part
    if not local.lower().startswith(mailbox.lower()):
        return ""
    return local[len(mailbox) + 1 :]


def _client(origin: Origin) -> Mapping[str, str]:
    """The SMTP client of the message, as far as it is known."""
    if not (origin.protocol or origin.told_by):
        return {}
    known = {
        "CLIENT_HELO": origin.hello,
        "CLIENT_ADDRESS": "localhost" if origin.address == LOCAL_ADDRESS else origin.address,
        "CLIENT_PROTOCOL": origin.protocol,
    }
    return {name: value for name, value in known.items() if value}


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "replace")
