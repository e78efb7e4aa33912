"""Messages of another spool, put into this one as they were."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from mta.queued import Entry, Settlement
from mta.spool import queue_id
from mta.spool.drafts import Draft, Incoming
from mta.spool.interfaces import IToolSpool
from mta.spool.rows import Arrival
from mta.sync import result_of


@dataclass(frozen=True, slots=True)
class Restored:
    """A message to be inserted, and what attempts have made of it.

    `hold` says why it is on hold; None: it is not.
    """

    arrival: Arrival
    settlement: Settlement
    hold: str | None


def restored(spool: IToolSpool, draft: Draft, entry: Entry, owner: int) -> Restored:
    """Read a message of another spool into a draft.  Raises SpoolFull or OSError.

    It is inserted as the owner's, and settled in the same transaction.  What a process that is gone
    had leased may have been delivered.
    """
    message = entry.message
    result_of(_write(draft, message.content.body()))
    header = result_of(message.content.header())
    arrival = spool.arrival(Incoming(draft, message.envelope, header, message.origin))
    was_leased = math.isinf(entry.due) and not entry.on_hold
    settlement = Settlement(
        message.id,
        message.progress,
        queue_id.arrival(arrival.number) if math.isinf(entry.due) else entry.due,
        message.attempts,
        message.warned,
        recovered=message.recovered or was_leased,
    )
    shift = message.arrived - queue_id.arrival(arrival.number)
    arrival = replace(arrival, owner=owner, due=math.inf, on_hold="", reason="", shift=shift)
    return Restored(arrival, settlement, entry.reason if entry.on_hold else None)


async def _write(draft: Draft, body: AsyncIterator[bytes]) -> None:
    async for piece in body:
        await draft.write(piece)
