"""Copies a spool into a database, or out of it.

No server may work with either.  What is copied keeps its queue id, history and due time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice

from mta.queued import Entry, Filter
from mta.spool.database import SpoolUnusable
from mta.spool.listing import DAMAGED
from mta.spool.place import SpoolPlace

_BATCH_SIZE = 100  # messages in one commit: bounds the memory


@dataclass(slots=True)
class Copy:
    """The copying of one spool to another place.  Everything blocks, and raises OSError.

    `left`: the ids of messages that are damaged, and stay behind.
    """

    source: SpoolPlace
    target: SpoolPlace
    left: list[str] = field(default_factory=list)

    def require_rest(self) -> None:
        """Raise SpoolUnusable where a copy would not be whole."""
        if self.source.name == self.target.name:
            raise SpoolUnusable(f"{self.source.name} can't be copied to itself")
        if not self.source.exists():
            raise SpoolUnusable(f"{self.source.name}: there is no spool")
        for place in (self.source, self.target):
            if place.is_in_use():
                raise SpoolUnusable(f"a server works with {place.name}: stop it first")
        with closing(self.target.tools()) as tools:
            if tools.count(Filter()):
                raise SpoolUnusable(f"{self.target.name} has messages already")

    def count(self) -> int:
        """Count the messages that are to be copied."""
        with closing(self.source.tools()) as tools:
            return tools.count(Filter())

    def portions(self) -> Iterator[int]:
        """Copy all, in portions; gives the number of messages in each.

        Standing holds, and the memory of what peers brought, come first.
        """
        holds = self.target.holds()
        for hold in self.source.holds().current():
            holds.add(hold)
        with (
            closing(self.source.tools()) as old,
            closing(self.target.tools()) as new,
            new.sync_spool() as spool,
        ):
            spool.restore_taken(old.taken())
            entries = self._whole(old.find(Filter()))
            while portion := list(islice(entries, _BATCH_SIZE)):
                spool.restore(portion)
                yield len(portion)

    def _whole(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        for entry in entries:
            if entry.state == DAMAGED:
                self.left.append(entry.message.id)
            else:
                yield entry
