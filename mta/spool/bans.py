"""Who may not log in for a while: one small file in the spool, for all processes and tools.

Losing it lets somebody try again too early, so it is replaced whole and never synced.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.files import atomic_write
from mta.interfaces import Ban, IBanStore

NAME = "bans.json"
MAX_BANS = 1000  # in the file; the one that ends first is forgotten
MAX_OCTETS = 4 * 2**20  # of the file that are read

Stamp = tuple[int, int, int] | None


class BanFile:
    """The bans in a spool folder.  All methods block."""

    def __init__(self, spool: Path, now: Callable[[], float] = time.time) -> None:
        self._path = spool / NAME
        self._now = now

    def stamp(self) -> Stamp:
        """Something that differs when the file was written anew; None: there is none."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size

    def read(self) -> Sequence[Ban]:
        """The bans that are in force; none where the file is not one of ours.  Raises OSError."""
        try:
            with self._path.open("rb") as file:
                found = [_ban(entry) for entry in json.loads(file.read(MAX_OCTETS))]
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return ()
        return [ban for ban in found if ban.is_in_force(self._now())]

    def add(self, ban: Ban) -> None:
        """Keep one more.  Raises OSError."""
        with self._changing() as bans:
            bans[:] = [other for other in bans if other.key != ban.key]
            bans.sort(key=lambda other: other.until)
            bans[:] = [*bans[-MAX_BANS + 1 :], ban]

    def lift(self, names: Collection[str] = ()) -> Sequence[Ban]:
        """End the bans of these hosts and users, without names all; returns which.

        Raises OSError.
        """
        wanted = {name.lower() for name in names}
        lifted: list[Ban] = []
        if not self.read():
            return lifted
        with self._changing() as bans:
            for ban in list(bans):
                if not wanted or wanted & _names(ban):
                    bans.remove(ban)
                    lifted.append(ban)
        return lifted

    @contextmanager
    def _changing(self) -> Iterator[list[Ban]]:
        """The bans, to be changed; written back at the end.  One process at a time."""
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            flock(folder, LOCK_EX)
            bans = list(self.read())
            yield bans
            octets = json.dumps([asdict(ban) for ban in bans]).encode()
            atomic_write(self._path, octets, durable=False)
        finally:
            os.close(folder)


def _ban(entry: Any) -> Ban:
    return Ban(**{**entry, "users": tuple(entry["users"])})


def _names(ban: Ban) -> set[str]:
    """What a person may call a ban by: its host, or a user that was tried."""
    return {ban.host.lower(), *(user.lower() for user in (ban.user, *ban.users) if user)}


@implementer(IBanStore)
class SharedBans:
    """The file as a running process keeps up with it: in a thread."""

    log = Logger()

    def __init__(self, file: BanFile, in_thread: Callable[..., Deferred[Any]]) -> None:
        self._file = file
        self._in_thread = in_thread
        self._stamp: Stamp = None
        self._adding = 0

    async def changed(self) -> Sequence[Ban] | None:
        """See `IBanStore.changed`."""
        stamp = self._file.stamp()
        if stamp == self._stamp or self._adding:
            return None
        self._stamp = stamp
        try:
            found: Sequence[Ban] = await self._in_thread(self._file.read)
        except OSError as error:
            self.log.warn("the bans can't be read: {error}", error=str(error))
            return None
        return None if self._adding else found

    def add(self, ban: Ban) -> None:
        """See `IBanStore.add`."""
        self._adding += 1
        self._in_thread(self._file.add, ban).addErrback(self._failed).addBoth(self._added)

    def _failed(self, failure: Failure) -> None:
        failure.trap(OSError)
        self.log.warn("a ban can't be written: {error}", error=failure.getErrorMessage())

    def _added(self, result: object) -> object:
        self._adding -= 1
        self._stamp = None  # others may have written as well: look again
        return result
