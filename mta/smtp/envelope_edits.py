"""Changes of an envelope after the last octet of content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mta.mail import Envelope, Mailbox
from mta.verdict import AddRecipient, ChangeSender, EnvelopeEdit, RemoveRecipient


def edited(envelope: Envelope, edits: Sequence[EnvelopeEdit]) -> Envelope:
    """Return the envelope with these changes, made in order.  It may have no recipient then."""
    for edit in edits:
        match edit:
            case ChangeSender():
                envelope = _with_sender(envelope, edit)
            case AddRecipient():
                envelope = _with_recipient(envelope, edit)
            case _:
                envelope = _without_recipient(envelope, edit)
    return envelope


def _with_sender(envelope: Envelope, edit: ChangeSender) -> Envelope:
    return replace(
        envelope,
        reverse_path=edit.reverse_path,
        ret=envelope.ret if edit.ret is None else edit.ret,
        envid=envelope.envid if edit.envid is None else edit.envid,
        smtputf8=_needs_utf8(envelope, edit.reverse_path),
    )


def _with_recipient(envelope: Envelope, edit: AddRecipient) -> Envelope:
    added = edit.recipient
    if any(each.forward_path.matches(added.forward_path) for each in envelope.recipients):
        return envelope
    return replace(
        envelope,
        recipients=(*envelope.recipients, added),
        smtputf8=_needs_utf8(envelope, added.forward_path),
    )


def _without_recipient(envelope: Envelope, edit: RemoveRecipient) -> Envelope:
    left = [
        each for each in envelope.recipients if not each.forward_path.matches(edit.forward_path)
    ]
    return replace(envelope, recipients=tuple(left))


def _needs_utf8(envelope: Envelope, address: Mailbox) -> bool:
    return envelope.smtputf8 or address.is_internationalised
