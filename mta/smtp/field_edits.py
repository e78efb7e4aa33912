"""Changes of a header section after the last octet of content."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mta.smtp import header
from mta.smtp.wire import CRLF
from mta.verdict import AddField, ChangeField, FieldEdit, InsertField

_NAME = re.compile(rb"[!-9;-~]+")


@dataclass(eq=False, slots=True)
class _Field:
    """A field, without octets where it was removed.

    `name` is in lower case.  Inspectors have numbers from 1.
    """

    name: bytes
    octets: bytes
    added_by: int = 0  # it came with the message
    removed_by: int = 0


class EditedSection:
    """A header section that inspectors change, one after the other.

    Our own field is on top of it.  `octets` is all of it, `section` all but our own field.  What
    follows the fields stays there.  All have seen the same fields: an inspector counts these and
    its own, and not those of others.
    """

    def __init__(self, own: bytes, section: bytes) -> None:
        self.octets = own + section
        self.section = section
        self._came = section
        self._own = _Field(b"", own)  # which has no name to be changed by
        self._fields = [self._own]
        self._rest: bytes | None = None
        self._inspector = 0

    def apply(self, edits: Sequence[FieldEdit]) -> None:
        """Make the changes of the next inspector, in order.

        Raises ValueError for what is no name of a field.
        """
        self._inspector += 1
        if not edits:
            return
        if self._rest is None and all(map(_is_on_top, edits)):
            for edit in edits:
                self._fields.insert(0, self._field(edit))
            self._join(self._came)
            return
        if self._rest is None:
            found = [_Field(header.name(each), each) for each in header.fields(self._came)]
            self._rest = self._came[sum(len(each.octets) for each in found) :]
            self._fields += found
        for edit in edits:
            match edit:
                case InsertField():
                    self._insert(edit)
                case AddField():
                    self._add(self._field(edit))
                case _:
                    self._change(edit)
        self._join(self._rest)

    def _join(self, rest: bytes) -> None:
        """Join the fields again, and what follows them."""
        self.octets = b"".join(each.octets for each in self._fields) + rest
        self.section = (
            b"".join(each.octets for each in self._fields if each is not self._own) + rest
        )

    def _seen(self) -> list[_Field]:
        """Return the fields that the inspector knows of."""
        inspector = self._inspector
        return [
            each
            for each in self._fields
            if each.added_by in (0, inspector) and each.removed_by != inspector
        ]

    def _field(self, edit: FieldEdit) -> _Field:
        return _Field(edit.name.lower(), _octets(edit), self._inspector)

    def _insert(self, edit: InsertField) -> None:
        seen, field = self._seen(), self._field(edit)
        if edit.position >= len(seen):
            self._add(field)
            return
        place = self._fields.index(seen[edit.position - 1]) + 1 if edit.position > 0 else 0
        self._fields.insert(place, field)

    def _add(self, field: _Field) -> None:
        """Add a field behind the others, before one that was cut."""
        place = len(self._fields)
        last = self._fields[-1].octets
        if last and not last.endswith(b"\n"):
            place -= 1
        self._fields.insert(place, field)

    def _change(self, edit: ChangeField) -> None:
        name = edit.name.lower()
        numbered = [each for each in self._seen() if each.name == name]
        if 0 < edit.number <= len(numbered):
            field = numbered[edit.number - 1]
            field.removed_by = 0 if edit.value else self._inspector
            field.octets = _octets(edit) if edit.value else b""
        elif edit.value:
            self._add(self._field(edit))


def _is_on_top(edit: FieldEdit) -> bool:
    """Tell whether no other field counts for an edit."""
    return isinstance(edit, InsertField) and edit.position <= 0


def _octets(edit: FieldEdit) -> bytes:
    """Return a field, whose lines after the first begin with white space."""
    if _NAME.fullmatch(edit.name) is None:
        raise ValueError(f"no name of a field: {edit.name!r}")
    lines = edit.value.rstrip(b" \t\r\n").splitlines()
    for number, line in enumerate(lines[1:], 1):
        if not line.startswith((b" ", b"\t")):
            lines[number] = b"\t" + line
    return edit.name + b":" + edit.space + CRLF.join(lines).replace(b"\0", b"") + CRLF
