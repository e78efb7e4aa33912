"""Uncommitted messages as octets, for another process of the same spool.

A small body goes along.  A large one stays in its file, which the other process opens by name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zope.interface import implementer

from mta.interfaces import ILentMail
from mta.mail import Body, Envelope, Mailbox, Notify, Recipient
from mta.queued import IContent, Message, Progress
from mta.spool import origins
from mta.spool.content import SMALL, ArrivedContent, IFiledContent, InThread, MemoryContent


@implementer(ILentMail)
class LentMail:
    """Writes and reads them.  `in_thread` runs what blocks."""

    def __init__(self, in_thread: InThread) -> None:
        self._in_thread = in_thread

    async def lent(self, message: Message) -> bytes:
        """See `ILentMail.lent`."""
        content = message.content
        header, names, body = await content.header(), [], b""
        if IFiledContent.providedBy(content):
            names = [str(name) for name in content.names]
        elif content.size - len(header) <= SMALL:
            body = b"".join([piece async for piece in content.body()])
        else:
            raise ValueError(f"{message.id}: no other process can read it")
        known = {
            "id": message.id,
            "arrived": message.arrived,
            "origin": origins.encoded(message.origin),
            "envelope": _fields_of(message.envelope),
            "header": len(header),
            "size": content.size,
            "is_ascii": content.is_ascii,
            "names": names,
        }
        return json.dumps(known).encode() + b"\n" + header + body

    def borrowed(self, octets: bytes) -> Message:
        """See `ILentMail.borrowed`."""
        line, _, rest = octets.partition(b"\n")
        try:
            known = json.loads(line)
            envelope = _envelope(known["envelope"])
            return Message(
                known["id"],
                known["arrived"],
                envelope,
                self._content(known, rest),
                tuple(map(Progress, envelope.recipients)),
                origin=origins.decoded(known["origin"]),
            )
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"no message: {error!r}") from error

    def _content(self, known: dict[str, Any], rest: bytes) -> IContent:
        header, body = rest[: known["header"]], rest[known["header"] :]
        if not known["names"]:
            return MemoryContent(header, body, known["is_ascii"])
        names = [Path(name) for name in known["names"]]
        return ArrivedContent(header, known["size"], known["is_ascii"], names, self._in_thread)


def _fields_of(envelope: Envelope) -> list[Any]:
    return [
        _parts(envelope.reverse_path),
        [
            [_parts(each.forward_path), [wish.value for wish in each.notify], each.original]
            for each in envelope.recipients
        ],
        envelope.body.value,
        envelope.smtputf8,
        envelope.ret,
        envelope.envid,
        envelope.require_tls,
        envelope.outside,
        envelope.sealed,
    ]


def _envelope(fields: list[Any]) -> Envelope:
    reverse_path, recipients, body, *others = fields
    return Envelope(
        Mailbox(*reverse_path),
        tuple(
            Recipient(Mailbox(*path), frozenset(map(Notify, notify)), original)
            for path, notify, original in recipients
        ),
        Body(body),
        *others,
    )


def _parts(path: Mailbox) -> list[str]:
    return [path.local_part, path.domain]
