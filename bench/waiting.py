"""Fills a spool with messages that wait for a time to come."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from mta.mail import Envelope, Mailbox, Recipient
from mta.spool import queue_id, rows
from mta.spool.database import open_database, transaction
from mta.spool.folder import Folder

LATER = 86400.0  # seconds
HEADER = b"Subject: waits\r\n\r\n"
BODY = b"x" * 500 + b"\r\n"
_PORTION = 1000


def fill(folder: Path, number: int) -> None:
    """Put so many messages into the spool in `folder`, due in a day."""
    folder.parent.mkdir(exist_ok=True)
    connection = open_database(Folder(folder))
    for arrivals in portions(number):
        with transaction(connection):
            rows.insert(connection, arrivals)
    connection.close()


def portions(number: int) -> Iterator[Sequence[rows.Arrival]]:
    """So many messages, due in a day, in portions."""
    ids = queue_id.QueueIds(time.time)
    recipients = (Recipient(Mailbox("bob", "elsewhere.example")),)
    envelope = Envelope(Mailbox("alice", "client.example"), recipients)
    due = time.time() + LATER
    for start in range(0, number, _PORTION):
        yield [
            rows.Arrival(
                ids.next(), envelope, due + place, None, len(HEADER + BODY), True, HEADER, BODY
            )
            for place in range(start, min(start + _PORTION, number))
        ]
