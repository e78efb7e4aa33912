"""Messages out of the rows of PostgreSQL.  A damaged row harms its own message alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from mta.mail import Envelope, Mailbox, Recipient
from mta.queued import Message, Progress
from mta.spool import queue_id
from mta.spool.loading import WRONG, ContentKey, Loaded, MakeContent, message_of, words
from mta.spool.postgres.arrays import Numbers
from mta.spool.postgres.server import Connection

# Of schedule AS s and message AS m.
MESSAGE = """
s.id, s.shift, m.size, m.is_ascii, m.in_file, s.attempts, s.warned, s.recovered,
    m.local_part, m.domain, m.body, m.smtputf8, m.ret, m.envid, m.require_tls, m.outside, s.deaths,
    m.origin, octet_length(m.header) + CASE WHEN m.in_file
        THEN (SELECT coalesce(sum(octet_length(c.data)), 0) FROM chunk AS c WHERE c.message = m.id)
        ELSE octet_length(m.data) END
"""
MESSAGES = f"""
SELECT {MESSAGE} FROM schedule AS s JOIN message AS m ON m.id = s.id WHERE s.id = ANY(%s)
"""  # noqa: S608 (our own words)
RECIPIENTS = """
SELECT message, local_part, domain, notify, original, state, peer, held_domain, settled, history
FROM recipient WHERE message = ANY(%s) ORDER BY message, number
"""

MessageRow = tuple[Any, ...]  # what `MESSAGE` names
Rows = tuple[Mapping[int, MessageRow], Mapping[int, Sequence[tuple[Any, ...]]]]
NO_ROWS: Mapping[int, MessageRow] = MappingProxyType({})


def load(
    connection: Connection,
    numbers: Sequence[int],
    content: MakeContent,
    known: Mapping[int, MessageRow] = NO_ROWS,
) -> Loaded:
    """Read the messages with these ids that exist, in that order.

    `content` makes their content, `known` are rows that are read already.
    """
    loaded = Loaded()
    if not numbers:
        return loaded
    found, recipients = _read(connection, numbers, known)
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
    found, recipients = _read(connection, [number], NO_ROWS)
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


def _read(connection: Connection, numbers: Sequence[int], known: Mapping[int, MessageRow]) -> Rows:
    """The rows of messages and of their recipients.

    Within a pipeline it is one round trip.
    """
    unknown = [number for number in numbers if number not in known]
    found = dict(known)
    recipients: dict[int, list[tuple[Any, ...]]] = {}
    messages, others = connection.cursor(binary=True), connection.cursor(binary=True)
    if unknown:
        messages.execute(MESSAGES, (Numbers(unknown),))
    others.execute(RECIPIENTS, (Numbers(numbers),))
    if unknown:
        found |= {row[0]: row for row in messages.fetchall()}
    for row in others.fetchall():
        recipients.setdefault(row[0], []).append(row[1:])
    return found, recipients
