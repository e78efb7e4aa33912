"""Messages out of the rows of PostgreSQL.  A damaged row harms its own message alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mta.mail import Envelope, Mailbox, Recipient
from mta.queued import Message, Progress
from mta.spool import queue_id
from mta.spool.loading import WRONG, ContentKey, Loaded, MakeContent, message_of, words
from mta.spool.postgres.server import Connection

MESSAGES = """
SELECT s.id, s.shift, m.size, m.is_ascii, m.in_file, s.attempts, s.warned, s.recovered,
    m.local_part, m.domain, m.body, m.smtputf8, m.ret, m.envid, m.require_tls, m.outside, s.deaths,
    m.origin, octet_length(m.header) + CASE WHEN m.in_file
        THEN (SELECT coalesce(sum(octet_length(c.data)), 0) FROM chunk AS c WHERE c.message = m.id)
        ELSE octet_length(m.data) END
FROM schedule AS s JOIN message AS m ON m.id = s.id WHERE s.id = ANY(%s)
"""
RECIPIENTS = """
SELECT message, local_part, domain, notify, original, state, peer, held_domain, settled, history
FROM recipient WHERE message = ANY(%s) ORDER BY message, number
"""

Rows = tuple[Mapping[int, tuple[Any, ...]], Mapping[int, Sequence[tuple[Any, ...]]]]


def load(connection: Connection, numbers: Sequence[int], content: MakeContent) -> Loaded:
    """Read the messages with these ids that exist, in that order.

    `content` makes their content.
    """
    loaded = Loaded()
    if not numbers:
        return loaded
    found, recipients = _read(connection, numbers)
    for number in numbers:
        if number not in found:
            continue
        *row, origin, length = found[number]
        try:
            message = message_of(tuple(row), recipients.get(number, ()), content, origin)
            if length != message.content.size:
                raise ValueError(f"its content has {length} octets and not {message.content.size}")
        except WRONG as error:
            loaded.damaged[number] = words(error)
        else:
            loaded.messages.append(message)
            if row[-1]:
                loaded.suspects.add(number)
    return loaded


def salvage(connection: Connection, number: int, content: MakeContent) -> Message:
    """Read what can be read of a damaged message, for the operator."""
    found, recipients = _read(connection, [number])
    row = found[number]
    _, _, size, is_ascii, in_file, attempts, _, _, local_part, domain, *_ = row
    paths = tuple(Recipient(Mailbox(*each[:2])) for each in recipients.get(number, ()))
    return Message(
        id=queue_id.encode(number),
        arrived=queue_id.arrival(number),
        envelope=Envelope(Mailbox(local_part, domain), paths),
        content=content(ContentKey(number, size, is_ascii, in_file)),
        progress=tuple(map(Progress, paths)),
        attempts=attempts,
    )


def _read(connection: Connection, numbers: Sequence[int]) -> Rows:
    """The rows of messages and of their recipients, in one round trip."""
    wanted = (list(numbers),)
    with connection.pipeline():
        messages = connection.execute(MESSAGES, wanted)
        others = connection.execute(RECIPIENTS, wanted)
        found = {row[0]: row for row in messages}
        recipients: dict[int, list[tuple[Any, ...]]] = {}
        for number, *row in others:
            recipients.setdefault(number, []).append(tuple(row))
    return found, recipients
