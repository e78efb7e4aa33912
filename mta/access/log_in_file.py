"""The file of bans and log-ins, in the spool, for all processes.

Where it is lost a banned client may try again too early, so it is replaced whole and never synced.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.files import Stamp, atomic_write, locked_folder, stamp
from mta.interfaces import ILogInStore
from mta.limited_log import LimitedLog
from mta.session import Ban, LogInRecord

NAME = "log-ins.json"
MAX_BANS = 1000  # in the file: beyond them, the one that ends first is forgotten
MAX_PROVEN = 1000  # pairs in the file: beyond them, the first one is forgotten
MAX_OCTETS = 4 * 2**20  # of the file that are read: bounds the memory


class LogInFile:
    """The file in a spool folder.  All methods block."""

    def __init__(self, spool: Path, now: Callable[[], float] = time.time) -> None:
        self._path = spool / NAME
        self._now = now

    def stamp(self) -> Stamp | None:
        """A value that differs when the file was replaced; None: no file."""
        return stamp(self._path)

    def read(self) -> LogInRecord:
        """The bans in force, and the log-ins.

        There are none where the file is damaged.  Raises OSError.
        """
        try:
            with self._path.open("rb") as file:
                document = json.loads(file.read(MAX_OCTETS))
            bans = [Ban(**{**ban, "users": tuple(ban["users"])}) for ban in document["bans"]]
            proven = tuple((str(host), str(user)) for host, user in document["proven"])
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return LogInRecord()
        return LogInRecord(tuple(ban for ban in bans if ban.is_in_force(self._now())), proven)

    def add_ban(self, ban: Ban) -> None:
        """Add a ban.  Raises OSError."""
        with self._changing() as record:
            others = sorted(
                (other for other in record.bans if other.key != ban.key),
                key=lambda other: other.until,
            )
            self._write(replace(record, bans=(*others[-MAX_BANS + 1 :], ban)))

    def add_proven(self, host: str, user: str) -> None:
        """Add a user who has logged in from a host.  Raises OSError."""
        with self._changing() as record:
            others = [pair for pair in record.proven if pair != (host, user)]
            self._write(replace(record, proven=(*others[-MAX_PROVEN + 1 :], (host, user))))

    def lift(self, names: Collection[str] = ()) -> Sequence[Ban]:
        """End the bans of these hosts and users; without names, all.

        Returns those that ended.  Raises OSError.
        """
        if not self.read().bans:
            return ()
        wanted = {name.lower() for name in names}
        with self._changing() as record:
            lifted = [ban for ban in record.bans if not wanted or wanted & _names(ban)]
            kept = tuple(ban for ban in record.bans if ban not in lifted)
            self._write(replace(record, bans=kept))
        return lifted

    @contextmanager
    def _changing(self) -> Iterator[LogInRecord]:
        """Lock the file for its next content; gives the present one."""
        with locked_folder(self._path.parent):
            yield self.read()

    def _write(self, record: LogInRecord) -> None:
        atomic_write(self._path, json.dumps(asdict(record)).encode(), durable=False)


def _names(ban: Ban) -> set[str]:
    """The names that a ban is lifted by: host and users."""
    return {ban.host.lower(), *(user.lower() for user in (ban.user, *ban.users) if user)}


@implementer(ILogInStore)
class SharedLogIns:
    """The file as a running process uses it: in threads.

    A ban that can't be written counts in this process.
    """

    log = Logger()

    def __init__(self, file: LogInFile, in_thread: Callable[..., Deferred[Any]]) -> None:
        self._file = file
        self._in_thread = in_thread
        self._limited = LimitedLog(self.log)
        self._stamp: Stamp | None = None
        self._adding = 0
        self._unwritten: dict[tuple[str, str], Ban] = {}  # the latest ones

    async def changed(self) -> LogInRecord | None:
        """See `ILogInStore.changed`."""
        stamp = self._file.stamp()
        if stamp == self._stamp or self._adding:
            return None
        self._stamp = stamp
        try:
            found: LogInRecord = await self._in_thread(self._file.read)
        except OSError as error:
            self._stamp = None  # it is tried again
            self._limited.warn("read", "the log-ins can't be read: {error}", error=str(error))
            return None
        return None if self._adding else replace(found, bans=self._with_unwritten(found.bans))

    def _with_unwritten(self, bans: Sequence[Ban]) -> tuple[Ban, ...]:
        return tuple(({ban.key: ban for ban in bans} | self._unwritten).values())

    def add_ban(self, ban: Ban) -> None:
        """See `ILogInStore.add_ban`."""
        self._unwritten[ban.key] = ban
        while len(self._unwritten) > MAX_BANS:
            del self._unwritten[next(iter(self._unwritten))]
        written = self._add(self._file.add_ban, ban)
        written.addCallback(lambda _: self._unwritten.pop(ban.key, None)).addErrback(self._failed)

    def add_proven(self, host: str, user: str) -> None:
        """See `ILogInStore.add_proven`."""
        self._add(self._file.add_proven, host, user).addErrback(self._failed)

    def _add(self, function: Callable[..., None], *arguments: object) -> Deferred[Any]:
        self._adding += 1
        return self._in_thread(function, *arguments).addBoth(self._added)

    def _failed(self, failure: Failure) -> None:
        failure.trap(OSError)
        self._limited.warn(
            "write", "a log-in can't be noted: {error}", error=failure.getErrorMessage()
        )

    def _added(self, result: object) -> object:
        self._adding -= 1
        self._stamp = None  # others may have written as well: look again
        return result
