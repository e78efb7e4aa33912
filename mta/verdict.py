"""The verdict of an inspector: changes of a message, and its fate."""

from __future__ import annotations

from dataclasses import dataclass

from mta.mail import Mailbox, Recipient
from mta.queued import IDraft


@dataclass(frozen=True, slots=True)
class AddField:
    """A field to add behind all others.

    `value` may be folded, by either kind of line end; `space` stands between it and the colon.
    """

    name: bytes
    value: bytes
    space: bytes = b" "


@dataclass(frozen=True, slots=True)
class InsertField:
    """A field to add before the one at `position`.

    Our own Received: field counts: 0 is above it, 1 below.  What other inspectors have added does
    not count.
    """

    position: int
    name: bytes
    value: bytes
    space: bytes = b" "


@dataclass(frozen=True, slots=True)
class ChangeField:
    """A field to change, or without a `value` to remove.

    `number` counts those of that name from the top, from 1; our own Received: field does not count,
    nor what other inspectors have added.  Where there is none of that number, it is added.
    """

    name: bytes
    number: int
    value: bytes = b""
    space: bytes = b" "


FieldEdit = AddField | InsertField | ChangeField


@dataclass(frozen=True, slots=True)
class ChangeSender:
    """Another reverse-path.  `ret` and `envid` are as MAIL has them; None: they stay."""

    reverse_path: Mailbox
    ret: str | None = None
    envid: str | None = None


@dataclass(frozen=True, slots=True)
class AddRecipient:
    """One more recipient, where it is not one yet."""

    recipient: Recipient


@dataclass(frozen=True, slots=True)
class RemoveRecipient:
    """A recipient to leave out, where there is such a one.  Case does not count."""

    forward_path: Mailbox


EnvelopeEdit = ChangeSender | AddRecipient | RemoveRecipient


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a message that is to be taken.

    `hold` says why it is to be kept for the operator.  `discard`: take it, and deliver it to
    no address.  `body` has another one in place of what came; it belongs to the message then.
    `junk` says why it is to be taken for junk, and is otherwise empty.
    """

    edits: tuple[FieldEdit, ...] = ()
    hold: str = ""
    discard: bool = False
    envelope_edits: tuple[EnvelopeEdit, ...] = ()
    body: IDraft | None = None
    junk: str = ""


ACCEPT = Verdict()
