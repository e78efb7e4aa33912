"""The journal of outcomes that the database could not take.

While the database is away, deliveries under way end.  What became of them is noted in a file of
this node, on stable storage, until it is recorded.  A process that dies before that leaves its file
to the next one on its node, see `mta.spool.postgres.replay`.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from twisted.logger import Logger

from mta.files import create, sync
from mta.limited_log import LimitedLog
from mta.queued import Notice, Settlement
from mta.settings import MIB
from mta.spool import queue_id
from mta.spool.content import InThread
from mta.spool.postgres import rows
from mta.spool.rows import Arrival, progress_columns

MAX_SIZE = 32 * MIB  # octets: thousands of outcomes, some of them with a notice


@dataclass(frozen=True, slots=True)
class NotedOutcome:
    """The outcome of an attempt.

    `recipients` has the columns of each one's progress; none: all of them have the message.
    `notices` are to be sent if it is news.
    """

    message: int
    recipients: Sequence[Sequence[str]] = ()
    notices: Sequence[rows.MessageRows] = ()

    def encoded(self) -> bytes:
        """The line of a file."""
        notices = [
            {
                "message": each.message,
                "recipients": each.recipients,
                "header": base64.b64encode(each.header).decode(),
                "body": base64.b64encode(each.body).decode(),
            }
            for each in self.notices
        ]
        return json.dumps([self.message, self.recipients, notices]).encode() + b"\n"

    @classmethod
    def decoded(cls, line: bytes) -> NotedOutcome:
        """Read such a line.  Raises ValueError, LookupError or TypeError."""
        message, recipients, notices = json.loads(line)
        return cls(
            int(message),
            [[str(column) for column in each] for each in recipients],
            [
                rows.MessageRows(
                    each["message"],
                    each["recipients"],
                    base64.b64decode(each["header"], validate=True),
                    base64.b64decode(each["body"], validate=True),
                )
                for each in notices
            ],
        )


class OutcomeJournal:
    """The outcomes that one owner could not record yet."""

    log: ClassVar[Logger] = Logger()

    def __init__(
        self, path: Path, in_thread: InThread, ids: queue_id.QueueIds, now: Callable[[], float]
    ) -> None:
        """`ids` gives notices their numbers; `now`: seconds since the epoch."""
        self._path = path
        self._in_thread = in_thread
        self._ids = ids
        self._now = now
        self._limited = LimitedLog(self.log)
        self._noted: set[str] = set()
        self._lines: deque[tuple[str, bytes]] = deque()  # of messages, that are not in the file yet
        self._lock = threading.Lock()

    async def note(self, settlement: Settlement) -> None:
        """Note what can't be recorded now, unless it is noted already."""
        recipients = [progress_columns(progress) for progress in settlement.progress]
        notices = [self._notice(each) for each in settlement.notices]
        number = queue_id.decode(settlement.id)
        await self._append({settlement.id: NotedOutcome(number, recipients, notices)})

    async def note_delivered(self, ids: Collection[str]) -> None:
        """The same of messages that all recipients have."""
        await self._append({id: NotedOutcome(queue_id.decode(id)) for id in ids})

    async def recorded(self, ids: Collection[str]) -> None:
        """Forget outcomes: they are recorded."""
        if not self._noted:
            return
        self._noted.difference_update(ids)
        if not self._noted:
            with suppress(OSError):  # what is recorded twice changes nothing
                await self._in_thread(self._clear)

    async def _append(self, outcomes: Mapping[str, NotedOutcome]) -> None:
        new = outcomes.keys() - self._noted
        if not new:
            return
        self._noted |= new
        self._lines += [(id, outcomes[id].encoded()) for id in outcomes if id in new]
        try:
            await self._in_thread(self._write)
        except OSError as error:
            self._limited.error(
                "journal",
                "outcomes can't be noted: should this process die now, mail is sent twice: {error}",
                error=str(error),
            )

    def _notice(self, notice: Notice) -> rows.MessageRows:
        content = notice.content
        arrival = Arrival(
            data=notice.body,
            header=notice.header,
            number=self._ids.next(),
            envelope=notice.envelope,
            due=self._now(),
            owner=None,
            size=len(content),
            is_ascii=content.isascii(),
            origin=notice.origin,
        )
        return rows.of(arrival)

    def _clear(self) -> None:
        with self._lock:
            if not self._noted:  # nothing was noted since
                self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        """Write all that waits, in a thread.

        Another thread may have written ours by then.  What can't be written is noted no more, so
        that it is tried again.
        """
        with self._lock:
            lines = {}
            while self._lines:
                id, line = self._lines.popleft()
                lines[id] = line
            if not lines:
                return
            try:
                self._append_to_file(b"".join(lines.values()))
            except OSError:
                self._noted.difference_update(lines)
                raise

    def _append_to_file(self, lines: bytes) -> None:
        """Put lines on stable storage.  Raises OSError."""
        is_new = not self._path.exists()
        descriptor = create(self._path, os.O_WRONLY | os.O_APPEND)
        try:
            if os.fstat(descriptor).st_size > MAX_SIZE:
                text = f"it has more than {MAX_SIZE // MIB} MiB"
                raise OSError(errno.EFBIG, text, str(self._path))
            # A write before may have left half of a line, which ends here.
            octets = b"\n" + lines
            if os.write(descriptor, octets) < len(octets):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            sync(self._path.parent)


def outcomes_in(path: Path) -> list[NotedOutcome]:
    """The outcomes that a dead owner had noted.

    A line that it has not written whole is left out.  Raises OSError.
    """
    try:
        octets = path.read_bytes()
    except FileNotFoundError:
        return []
    found = []
    for line in octets.splitlines():
        with suppress(ValueError, LookupError, TypeError):
            found.append(NotedOutcome.decoded(line))
    return found
