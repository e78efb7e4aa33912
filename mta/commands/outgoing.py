"""A message from a program that calls ``sendmail``.

What it lacks is added (RFC 6409 section 8).  Line ends may be of any kind, and a missing header
section is no mistake: cron jobs and scripts write what they like.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.header import Header as EncodedWords
from email.utils import make_msgid, quote
from itertools import chain
from typing import BinaryIO

from mta.commands.addressees import addressees, completed
from mta.mail import Mailbox
from mta.smtp import header, trace
from mta.smtp.header import MAX_HEADER
from mta.smtp.wire import CRLF

_RECIPIENTS = (b"to", b"cc", b"bcc")
_RESENT = (b"resent-to", b"resent-cc", b"resent-bcc")
_ADDRESSED = frozenset(
    {*_RECIPIENTS, *_RESENT, b"from", b"sender", b"reply-to", b"resent-from", b"resent-sender"}
)
_BLIND = frozenset({b"bcc", b"resent-bcc"})


class UnsendableMessage(Exception):
    """The message can't be sent: one line for a person."""


@dataclass(frozen=True, slots=True)
class Author:
    """The author, for a message without From:.  `name`: in words, or empty."""

    address: Mailbox
    name: str = ""

    def __str__(self) -> str:
        """Return the form that From: has, encoded where it must be.  See RFC 2047."""
        if not self.name:
            return f"<{self.address}>"
        ascii_name = f'"{quote(self.name)}"'
        name = ascii_name if self.name.isascii() else EncodedWords(self.name, "utf-8").encode()
        return f"{name} <{self.address}>"


def lines(stream: BinaryIO, *, dot_ends: bool) -> Iterator[bytes]:
    """The lines of a message with CRLF at their ends.

    Very long ones come in pieces.  Any of CRLF, LF and CR ends a line: no host would take a bare
    one (RFC 5321 section 4.1.1.4).
    NULs are left out.  With `dot_ends` a line of one dot ends the message.
    """
    at_start = True
    while piece := stream.readline(MAX_HEADER):
        while piece.endswith(b"\r") and (more := stream.readline(1)):
            piece += more
        if dot_ends and at_start and piece.rstrip(CRLF) == b".":
            return
        # A shorter piece without an end is the last one.
        at_start = piece.endswith((b"\n", b"\r")) or len(piece) < MAX_HEADER
        *whole, last = piece.replace(b"\0", b"").splitlines() or [b""]
        for line in whole:
            yield line + CRLF
        yield last + CRLF if at_start else last
    if not at_start:
        yield CRLF


class Outgoing:
    """A message: its header section, and the rest to be read."""

    def __init__(self, content: Iterator[bytes]) -> None:
        """Read the header section.  Raises UnsendableMessage."""
        self._fields: list[bytes] = []
        self._rest: Iterable[bytes] = content
        size = 0
        for line in content:
            size += len(line)
            if size > MAX_HEADER:
                raise UnsendableMessage(f"a header section of more than {MAX_HEADER} octets")
            if line == CRLF:
                break
            if self._fields and line.startswith((b" ", b"\t")):
                self._fields[-1] += line
            elif header.begins_field(line):
                self._fields.append(line)
            elif self._fields or not line.startswith(b"From "):  # which begins it in an mbox
                self._rest = chain([line], content)
                break

    def addressees(self, domain: str) -> list[Mailbox]:
        """The recipients by its own fields.

        Names without a domain are in `domain`.  Where it was sent again, only the fields of that
        count (RFC 5322 section 3.6.6).  Raises UnsendableMessage.
        """
        names = _RESENT if any(map(self._values, _RESENT)) else _RECIPIENTS
        try:
            return [
                mailbox
                for name in names
                for value in self._values(name)
                for mailbox in _addressees(value, domain)
            ]
        except ValueError as error:
            raise UnsendableMessage(f"in the header section: {error}") from None

    def remove_blind(self) -> None:
        """Leave out the fields that name blind copies."""
        self._fields = [field for field in self._fields if header.name(field) not in _BLIND]

    def complete(
        self, author: Author, userid: int, hostname: str, domain: str, now: float
    ) -> Iterator[bytes]:
        """The content, with a trace field and the fields that it lacked.

        Names without a domain, as cron writes them, are in `domain`.  `userid`: of the process;
        `now`: seconds since the epoch.  Raises UnsendableMessage where it goes round in a circle.
        """
        if len(self._values(b"received")) > trace.MAX_HOPS:
            raise UnsendableMessage("too many Received: fields: the message is in a loop")
        date = trace.date(int(now))
        missing = {
            b"date": f"Date: {date}\r\n",
            b"message-id": f"Message-ID: {make_msgid(domain=hostname)}\r\n",
            b"from": f"From: {author}\r\n",
        }
        yield f"Received: by {hostname} (from userid {userid});\r\n\t{date}\r\n".encode()
        yield b"".join(_with_domains(field, domain) for field in self._fields)
        for name, field in missing.items():
            if not self._values(name):
                yield field.replace("\r\n", "\n").replace("\n", "\r\n").encode()
        yield CRLF
        yield from self._rest

    def _values(self, name: bytes) -> list[bytes]:
        """The values of the fields of that name, unfolded."""
        return [header.value(field) for field in self._fields if header.name(field) == name]


def _addressees(value: bytes, domain: str) -> list[Mailbox]:
    """The mailboxes in a value.  Names may be in Latin-1, as old programs write them."""
    try:
        return addressees(value.decode(), domain)
    except UnicodeDecodeError:
        found = addressees(value.decode("latin-1"), domain)
        for mailbox in found:
            if mailbox.is_internationalised:
                raise ValueError(f"not an address in UTF-8: {mailbox}") from None
        return found


def _with_domains(field: bytes, domain: str) -> bytes:
    """A field whose addresses all have a domain.  Others are as they were."""
    name, colon, value = field.partition(b":")
    if header.name(field) not in _ADDRESSED or colon != b":":
        return field
    return name + colon + completed(value.decode("latin-1"), domain).encode("latin-1", "replace")
