"""Changes of a header section after the last octet of content."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mta.smtp import header
from mta.smtp.wire import CRLF
from mta.verdict import AddField, ChangeField, FieldEdit, InsertField

_NAME = re.compile(rb"[!-9;-~]+")
_LINE_END = re.compile(rb"\r\n|\r|\n")


class EditedSection:
    """A header section that inspectors change.

    Our own field is on top of it.  `octets` is all of it, `section` all but our own field.  What
    follows the fields stays there.
    """

    def __init__(self, own: bytes, section: bytes) -> None:
        self.octets = own + section
        self.section = section
        self._own = own
        self._fields = [own]
        self._rest: bytes | None = None

    def apply(self, edits: Sequence[FieldEdit]) -> None:
        """Make changes, in order.  Raises ValueError for what is no name of a field."""
        if not edits:
            return
        if self._rest is None:
            self._fields += header.fields(self.section)
            self._rest = self.octets[sum(map(len, self._fields)) :]
        for edit in edits:
            match edit:
                case InsertField():
                    self._fields.insert(max(0, edit.position), _field(edit.name, edit.value))
                case AddField():
                    self._add(_field(edit.name, edit.value))
                case _:
                    self._change(edit)
        self.octets = b"".join(self._fields) + self._rest
        self.section = b"".join(each for each in self._fields if each is not self._own) + self._rest

    def _add(self, field: bytes) -> None:
        """Add a field behind the others, before one that was cut."""
        place = len(self._fields)
        if not self._fields[-1].endswith(b"\n"):
            place -= 1
        self._fields.insert(place, field)

    def _change(self, edit: ChangeField) -> None:
        name = edit.name.lower()
        places = (
            place
            for place, field in enumerate(self._fields)
            if field is not self._own and header.name(field) == name
        )
        numbered = dict(enumerate(places, 1))
        place = numbered.get(edit.number)
        if place is None:
            if edit.value:
                self._add(_field(edit.name, edit.value))
        elif edit.value:
            self._fields[place] = _field(edit.name, edit.value)
        else:
            del self._fields[place]


def _field(name: bytes, value: bytes) -> bytes:
    """Return a field, whose lines after the first begin with white space."""
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"no name of a field: {name!r}")
    first, *others = _LINE_END.split(value.rstrip(b" \t\r\n"))
    folded = [first, *(line if line.startswith((b" ", b"\t")) else b"\t" + line for line in others)]
    return name + b": " + CRLF.join(folded).replace(b"\0", b"") + CRLF
