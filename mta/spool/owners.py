"""Owners: the processes that use a spool, known by their locks."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from mta.files import create, sync
from mta.spool import attempts, queue_id, wakeup
from mta.spool.folder import Folder, numbers_in

_LOCK = ".lock"


class Owner:
    """The lock of one owner: our own, or of a dead one."""

    def __init__(self, folder: Folder, number: int, descriptor: int) -> None:
        self.number = number
        self._folder = folder
        self._descriptor = descriptor

    @property
    def wakeup_pipe(self) -> Path:
        """The FIFO that wakes this owner."""
        return _path(self._folder, self.number).with_suffix(wakeup.SUFFIX)

    @property
    def attempts(self) -> Path:
        """The file that notes what this owner tries, see `mta.spool.attempts`."""
        return _path(self._folder, self.number).with_suffix(attempts.SUFFIX)

    @property
    def outcomes(self) -> Path:
        """The file of outcomes that it could not record; see `mta.spool.postgres.journal`."""
        return _path(self._folder, self.number).with_suffix(".outcomes")

    def remove(self) -> None:
        """Remove the files of an owner whose messages are free; unlock it.

        Raises OSError; what is left then is found at the next look.
        """
        for number in self._folder.incoming_of(self.number):
            self._folder.incoming(self.number, number).unlink(missing_ok=True)
        self.wakeup_pipe.unlink(missing_ok=True)
        self.attempts.unlink(missing_ok=True)
        self.outcomes.unlink(missing_ok=True)
        _path(self._folder, self.number).unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Unlock it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def register(folder: Folder, ids: queue_id.QueueIds) -> Owner:
    """Become an owner.  Raises OSError."""
    while True:
        number = ids.next()
        try:
            descriptor = create(_path(folder, number), os.O_RDWR | os.O_EXCL)
        except FileExistsError:
            continue
        owner = Owner(folder, number, descriptor)
        try:
            # Another process may have met the file before its lock, and have removed it.
            if _lock(descriptor) and os.fstat(descriptor).st_nlink:
                sync(folder.owners)  # a name that lost power forgets would never be taken over
                return owner
        except OSError:
            owner.close()
            raise
        owner.close()


def dead_owners(folder: Folder, ours: int) -> Iterator[Owner]:
    """Owners that have died, each with its lock held.

    Those whose locks can't be opened now are found later.  Raises OSError.
    """
    for number in _numbers(folder):
        if number == ours:
            continue
        try:
            descriptor = os.open(_path(folder, number), os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # another process was faster, or there are too many open files
        owner = Owner(folder, number, descriptor)
        try:
            is_dead = _lock(descriptor)
        except OSError:  # it can't be known now
            is_dead = False
        if is_dead:
            yield owner
        else:
            owner.close()


def live_owners(folder: Folder) -> frozenset[int]:
    """The owners that live.  Raises OSError."""
    alive = set(_numbers(folder))
    for owner in dead_owners(folder, ours=0):
        alive.discard(owner.number)
        owner.close()
    return frozenset(alive)


def known_owners(folder: Folder) -> frozenset[int]:
    """All owners: living ones, and dead ones that nothing took over from.

    Raises OSError.
    """
    return frozenset(_numbers(folder))


def without_lock(folder: Folder) -> Iterator[Path]:
    """Files of owners that have no lock.

    A loss of power may leave them.  Raises OSError.
    """
    found = list(folder.owners.iterdir())
    locks = {path.stem for path in folder.owners.iterdir() if path.suffix == _LOCK}
    for path in found:
        if path.suffix in (wakeup.SUFFIX, attempts.SUFFIX) and path.stem not in locks:
            yield path


def _numbers(folder: Folder) -> list[int]:
    return list(numbers_in(folder.owners, _LOCK))


def _path(folder: Folder, number: int) -> Path:
    return folder.owners / f"{queue_id.encode(number)}{_LOCK}"


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
