"""The verdict of an inspector, and the changes of fields in it."""

from __future__ import annotations

from dataclasses import dataclass

from mta.mail import Envelope


@dataclass(frozen=True, slots=True)
class AddField:
    """A field to add behind all others.  `value` may be folded, by either kind of line end."""

    name: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class InsertField:
    """A field to add before the one at `position`.

    Our own Received: field counts: 0 is above it, 1 below.
    """

    position: int
    name: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class ChangeField:
    """A field to change, or without a `value` to remove.

    `number` counts those of that name from the top, from 1; our own Received: field does not count.
    Where there is none of that number, it is added.
    """

    name: bytes
    number: int
    value: bytes = b""


FieldEdit = AddField | InsertField | ChangeField


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a message that is to be taken.

    `hold` says why it is to be kept for the operator.  `discard`: take it, and deliver it to
    no address.  `envelope`: the one to go on with.
    """

    edits: tuple[FieldEdit, ...] = ()
    hold: str = ""
    discard: bool = False
    envelope: Envelope | None = None


ACCEPT = Verdict()
