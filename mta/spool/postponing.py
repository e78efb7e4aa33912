"""Puts off the messages for hops that are down, in bulk.

Which hop a recipient waits for is what its last attempt says, or, where it has had none, the
default for its domain.  Mail that waits for another hop by now is only delayed by it.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from mta.mail import Agent
from mta.spool import queue_id
from mta.spool.database import is_damage

MAX_EXAMINED = 2000  # messages read in one transaction: others want to commit, too

_DUE = f"""
SELECT message.id, shift, warned, CASE
    WHEN history = '[]' THEN '{Agent.MX.value}:' || recipient.domain
    WHEN json_valid(history) THEN history ->> '$[#-1][1]' END
FROM (SELECT id, shift, warned FROM message WHERE due <= ? AND owner IS NULL ORDER BY due LIMIT ?)
    AS message
JOIN recipient ON recipient.message = message.id AND state = 'waiting'
"""  # noqa: S608 (our own words)


def postpone(
    connection: sqlite3.Connection,
    now: float,
    dues: Mapping[str, float],
    warn_after: float,
    give_up_after: float,
) -> Counter[str]:
    """Put off messages that wait for nothing but these hops.

    `dues`: the new due time of each hop's mail.  A message that has to be given up or warned about
    before is due then; one that should have been already stays.  Where a row is damaged, nothing is
    put off: the process that leases it puts it on hold.  Returns how many it were, by hop.
    """
    try:
        rows = connection.execute(_DUE, (now, MAX_EXAMINED)).fetchall()
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        rows = []
    put_off = later(rows, now, dues, warn_after, give_up_after)
    connection.execute(
        "UPDATE message SET due = new.value ->> 1 FROM json_each(?) AS new"
        " WHERE message.id = new.value ->> 0 AND owner IS NULL",
        (json.dumps([(number, due) for number, (due, _) in put_off.items()]),),
    )
    return Counter(hop for _, hop in put_off.values())


def later(
    rows: Iterable[tuple[Any, ...]],
    now: float,
    dues: Mapping[str, float],
    warn_after: float,
    give_up_after: float,
) -> dict[int, tuple[float, str]]:
    """Choose new due times of messages that can be put off.

    Returns these and the hops.  `rows`: the number, shift, warned and hop of each waiting
    recipient.  For the rest see `postpone`.
    """
    found: dict[int, tuple[float, str]] = {}
    others: set[int] = set()
    for number, shift, warned, hop in rows:
        if not isinstance(shift, float):  # damaged
            continue
        due = dues.get(hop, 0.0)
        arrived = queue_id.arrival(number) + shift
        due = min(due, arrived + give_up_after)
        if warn_after and not warned:
            due = min(due, arrived + warn_after)
        if due <= now:
            others.add(number)
        elif number not in found or due < found[number][0]:
            found[number] = due, hop
    return {number: value for number, value in found.items() if number not in others}
