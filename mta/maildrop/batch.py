"""A message in the maildrop: SMTP commands, then its content.

The content goes to the end of the file.

::

    MAIL FROM:<alice@office.example> RET=HDRS
    RCPT TO:<bob@office.example> NOTIFY=NEVER
    DATA
    (content: lines with CRLF at their ends, no dots doubled)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from mta.mail import Body, Envelope, Recipient, distinct
from mta.smtp import grammar
from mta.smtp.errors import LocalFault, Refusal
from mta.smtp.wire import CRLF

MAX_RECIPIENTS = 10_000  # of one file: what is kept in memory while it is taken
MAX_COMMAND = 4096  # octets of a line: two paths, and what DSN adds to them

_MAIL = frozenset({"SMTPUTF8", "RET", "ENVID"})
_RCPT = frozenset({"NOTIFY"})


class Malformed(Exception):
    """A file that is no message: one line for a person."""


def commands(envelope: Envelope) -> bytes:
    """The lines before the content.  Raises LocalFault where an address can't be written."""
    return b"".join(_lines(envelope))


def _lines(envelope: Envelope) -> Iterator[bytes]:
    wishes = {
        "SMTPUTF8": envelope.smtputf8,
        f"RET={envelope.ret}": envelope.ret,
        f"ENVID={grammar.encode_xtext(envelope.envid)}": envelope.envid,
    }
    yield grammar.mail_command(envelope.reverse_path, [each for each in wishes if wishes[each]])
    for recipient in envelope.recipients:
        conditions = ",".join(sorted(condition.value for condition in recipient.notify))
        parameters = [f"NOTIFY={conditions}"] if conditions else []
        yield grammar.rcpt_command(recipient.forward_path, parameters)
    yield b"DATA" + CRLF


def read_envelope(file: BinaryIO) -> Envelope:
    """Read the commands of a file, which is then at its content.

    Blocks.  Raises Malformed or OSError.
    """
    try:
        mail = grammar.parse_mail(_argument(_line(file), b"MAIL "), _MAIL)
        recipients: list[Recipient] = []
        while (line := _line(file)) != b"DATA":
            argument = _argument(line, b"RCPT ")
            recipients.append(grammar.parse_rcpt(argument, _RCPT, smtputf8=mail.smtputf8))
            if len(recipients) > MAX_RECIPIENTS:
                raise Malformed(f"more than {MAX_RECIPIENTS} recipients")
    except (Refusal, LocalFault) as error:
        raise Malformed(f"a command that is none: {error}") from None
    if not recipients:
        raise Malformed("no recipients")
    return Envelope(
        mail.reverse_path,
        distinct(recipients),
        Body.EIGHT_BIT,
        mail.smtputf8,
        mail.ret,
        mail.envid,
    )


def _line(file: BinaryIO) -> bytes:
    line = file.readline(MAX_COMMAND)
    if not line.endswith(CRLF):
        raise Malformed("a command without an end")
    return line.removesuffix(CRLF)


def _argument(line: bytes, verb: bytes) -> bytes:
    if not line.startswith(verb):
        raise Malformed(f"no {verb.decode().strip()} where one must be")
    return line.removeprefix(verb)
