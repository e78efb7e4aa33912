"""Leasing messages for one owner, in the committer's thread: what is damaged is put aside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from sqlite3 import Connection, DatabaseError

from mta.queued import IContent
from mta.spool import leases, queue_id, rows
from mta.spool.content import FileContent, InThread, RowContent
from mta.spool.database import ReadConnection, is_damage
from mta.spool.folder import Folder
from mta.spool.loading import ContentKey, Loaded, load

Choose = Callable[[Connection], list[int]]


class Leasing:
    """Leases what is chosen.  `unreadable` are the ids of what can't even be put aside.

    `tries_suspects`: whether this process has lived long enough for what others died on.
    """

    def __init__(
        self, folder: Folder, owner: int, reader: ReadConnection, in_thread: InThread
    ) -> None:
        self.unreadable: set[int] = set()
        self.tries_suspects = False
        self._folder = folder
        self._owner = owner
        self._reader = reader
        self._in_thread = in_thread

    def lease(self, connection: Connection, choose: Choose) -> Loaded:
        """Lease all together.  Raises sqlite3.Error, also where rows can't be changed."""
        return self._lease(connection, self._chosen(connection, choose))

    def lease_readable(self, connection: Connection, choose: Choose) -> Loaded:
        """Lease one after the other, where the file is damaged; what can't be changed is left."""
        loaded = Loaded()
        for number in self._chosen(connection, choose):
            connection.execute("SAVEPOINT one")
            try:
                loaded.add(self._lease(connection, [number]))
            except DatabaseError as error:
                connection.execute("ROLLBACK TO one")
                if not is_damage(error):
                    raise
                self.unreadable.add(number)
                loaded.damaged[number] = f"its rows can't be changed: {error}"
            connection.execute("RELEASE one")
        return loaded

    def content(self, key: ContentKey) -> IContent:
        """The content of a message, to be read in threads."""
        if key.in_file:
            path = self._folder.content(key.number)
            read_header = partial(self._in_thread, self._reader.call, rows.header, key.number)
            return FileContent(key.size, key.is_ascii, path, self._in_thread, read_header)
        read = partial(self._in_thread, self._reader.call, rows.content, key.number)
        return RowContent(key.size, key.is_ascii, queue_id.encode(key.number), read)

    def _chosen(self, connection: Connection, choose: Choose) -> list[int]:
        return leases.without_suspects(connection, choose(connection), one=self.tries_suspects)

    def _lease(self, connection: Connection, chosen: Sequence[int]) -> Loaded:
        leases.lease(connection, chosen, self._owner)
        loaded = load(connection, chosen, self._folder, self.content)
        if loaded.damaged:
            leases.hold_damaged(connection, loaded.damaged)
        return loaded
