"""The changes that a filter asks for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from mta.mail import Recipient
from mta.milters import packets
from mta.milters.packets import FilterFailure, Packet
from mta.queued import IDraft
from mta.smtp import grammar
from mta.smtp.content import LineCheck
from mta.smtp.errors import Refusal
from mta.verdict import (
    AddField,
    AddRecipient,
    ChangeField,
    ChangeSender,
    EnvelopeEdit,
    FieldEdit,
    InsertField,
    RemoveRecipient,
    Verdict,
)

REPLACE_BODY = b"b"  # a piece of another body
MAX_EDITS = 1000  # of fields and of recipients, each: one costs a look at all fields
MAX_NUMBER = 2**31  # of fields; above it are negative numbers
MAX_FIELD = 256 * 1024  # octets of a value: more than a whole header section of honest mail

_NAME = re.compile(rb"[!-9;-~]+")
_MAIL_PARAMETERS = frozenset({"RET", "ENVID"})
_RCPT_PARAMETERS = frozenset({"NOTIFY", "ORCPT"})


class Changes:
    """Gathers the changes, none of which counts before the verdict.

    `keeps_leading_space`: values of fields come with the space behind the colon.
    """

    def __init__(self, *, keeps_leading_space: bool = False) -> None:
        self._keeps_leading_space = keeps_leading_space
        self._fields: list[FieldEdit] = []
        self._envelope: list[EnvelopeEdit] = []

    def add(self, packet: Packet) -> None:
        """Note a change.  Raises FilterFailure for what is none, or can't be made."""
        read = _READERS.get(packet.command)
        if read is None:
            raise FilterFailure(f"{packet.command!r} is no change and no verdict")
        edit = read(packet.data)
        edits: list[FieldEdit | EnvelopeEdit]
        if isinstance(edit, FieldEdit):
            edits = self._fields  # type: ignore[assignment]
            if self._keeps_leading_space:
                edit = replace(edit, space=b"")
        else:
            edits = self._envelope  # type: ignore[assignment]
        if len(edits) >= MAX_EDITS:
            raise FilterFailure(f"more than {MAX_EDITS} changes")
        edits.append(edit)

    def verdict(self, *, hold: str = "", discard: bool = False, body: IDraft | None) -> Verdict:
        """Return the verdict on a message with these changes."""
        return Verdict(tuple(self._fields), hold, discard, tuple(self._envelope), body)

    def described(self) -> str:
        """The changes in words, for the log."""
        counts = {
            "fields added": (AddField, InsertField),
            "fields changed": (ChangeField,),
            "sender changed": (ChangeSender,),
            "recipients added": (AddRecipient,),
            "recipients removed": (RemoveRecipient,),
        }
        found = {
            words: sum(isinstance(each, kinds) for each in (*self._fields, *self._envelope))
            for words, kinds in counts.items()
        }
        return ", ".join(f"{count} {words}" for words, count in found.items() if count)


class NewBody:
    """Another body for a message, written to a draft as it comes.

    `problem` says why it can't be taken.
    """

    def __init__(self, draft: IDraft, limit: int, *, in_lines: bool) -> None:
        self.draft = draft
        self.problem = ""
        self._limit = limit
        self._size = 0
        self._lines = LineCheck() if in_lines else None

    async def write(self, piece: bytes) -> None:
        """Take the next octets.  Raises OSError where they can't be stored."""
        self._size += len(piece)
        if self._size > self._limit:
            self.problem = f"a body of more than {self._limit} octets"
        if self.problem:
            return
        if self._lines is not None:
            self._lines.feed(piece)
        await self.draft.write(piece)

    def end(self) -> None:
        """Note that it is complete."""
        if self._lines is not None:
            self._lines.end()
            if self._lines.broken:
                self.problem = "a body with lines that do not end in CRLF, or with NUL"


def _name(octets: bytes) -> bytes:
    if not _NAME.fullmatch(octets):
        raise FilterFailure(f"no name of a field: {octets!r}")
    return octets


def _name_and_value(data: bytes) -> tuple[bytes, bytes]:
    strings = packets.strings_of(data)
    if len(strings) != 2 or len(strings[1]) > MAX_FIELD:
        raise FilterFailure("no name and value of a field")
    return _name(strings[0]), strings[1]


def _number(data: bytes) -> tuple[int, bytes]:
    number, rest = packets.number_of(data)
    if number >= MAX_NUMBER:
        raise FilterFailure("the number of a field is below zero")
    return number, rest


def _add_field(data: bytes) -> AddField:
    return AddField(*_name_and_value(data))


def _insert_field(data: bytes) -> InsertField:
    position, rest = _number(data)
    return InsertField(position, *_name_and_value(rest))


def _change_field(data: bytes) -> ChangeField:
    number, rest = _number(data)
    name, value = _name_and_value(rest)
    return ChangeField(name, max(1, number), value)  # 0 is 1 to sendmail, too


def _change_sender(data: bytes) -> ChangeSender:
    path, parameters = _path_and_parameters(data)
    wanted = _known(parameters, _MAIL_PARAMETERS)
    try:
        parsed = grammar.parse_mail(
            b"FROM:" + path + wanted + b" SMTPUTF8", _MAIL_PARAMETERS | {"SMTPUTF8"}
        )
    except Refusal as refusal:
        raise FilterFailure(f"no sender: {refusal.reply}") from None
    given = {name: b" " + name.encode() + b"=" in wanted.upper() for name in _MAIL_PARAMETERS}
    return ChangeSender(
        parsed.reverse_path,
        parsed.ret if given["RET"] else None,
        parsed.envid if given["ENVID"] else None,
    )


def _add_recipient(data: bytes) -> AddRecipient:
    return AddRecipient(_recipient(*_path_and_parameters(data)))


def _remove_recipient(data: bytes) -> RemoveRecipient:
    path, _ = _path_and_parameters(data)
    return RemoveRecipient(_recipient(path, b"").forward_path)


def _recipient(path: bytes, parameters: bytes) -> Recipient:
    wanted = _known(parameters, _RCPT_PARAMETERS)
    try:
        return grammar.parse_rcpt(b"TO:" + path + wanted, _RCPT_PARAMETERS, smtputf8=True)
    except Refusal as refusal:
        raise FilterFailure(f"no recipient: {refusal.reply}") from None


def _path_and_parameters(data: bytes) -> tuple[bytes, bytes]:
    """Return a path, whose brackets may be missing, and ESMTP parameters."""
    strings = packets.strings_of(data)
    if len(strings) > 2:
        raise FilterFailure("no address with parameters")
    path, *parameters = strings
    if not path.startswith(b"<"):
        path = b"<" + path + b">"
    return path, b"".join(parameters)


def _known(parameters: bytes, known: frozenset[str]) -> bytes:
    """Return the parameters that a filter may give.  Others are left out."""
    words = (
        word
        for word in parameters.split()
        if word.partition(b"=")[0].upper().decode("latin-1") in known
    )
    return b"".join(b" " + word for word in words)


_READERS: Mapping[bytes, Callable[[bytes], FieldEdit | EnvelopeEdit]] = {
    b"h": _add_field,
    b"i": _insert_field,
    b"m": _change_field,
    b"e": _change_sender,
    b"+": _add_recipient,
    b"2": _add_recipient,
    b"-": _remove_recipient,
}
