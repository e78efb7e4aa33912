"""Records the outcomes that a dead process had noted on its node.

They count where a message is still that process's, or no other's: another one that has it now tries
it again, and only that all recipients have it ends that, as it does everywhere.  Nothing here goes
back: who has a message has it, and what was recorded already changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from mta.queued import State
from mta.spool.postgres import rows
from mta.spool.postgres.journal import NotedOutcome
from mta.spool.postgres.server import Connection

_DONE = State.DONE.value

# Recipients that wait go on waiting; final addresses of theirs that have the message are noted.
_END_RECIPIENTS = f"""
WITH noted AS (
    SELECT * FROM json_to_recordset(%(noted)s::json)
    AS noted (message bigint, number integer, state text, settled text, history text)
), free AS (
    SELECT id FROM schedule
    WHERE id IN (SELECT message FROM noted) AND (owner = %(owner)s OR owner IS NULL)
    FOR UPDATE
), ended AS (
    UPDATE recipient SET state = '{_DONE}', peer = '', held_domain = '',
        settled = noted.settled, history = noted.history
    FROM noted JOIN free ON free.id = noted.message
    WHERE recipient.message = noted.message AND recipient.number = noted.number
        AND recipient.state <> '{_DONE}' AND noted.state = '{_DONE}'
    RETURNING recipient.message
), begun AS (
    UPDATE recipient SET settled = noted.settled, history = noted.history
    FROM noted JOIN free ON free.id = noted.message
    WHERE recipient.message = noted.message AND recipient.number = noted.number
        AND recipient.state <> '{_DONE}' AND noted.state <> '{_DONE}'
        AND recipient.settled <> noted.settled
        AND recipient.settled::jsonb <@ noted.settled::jsonb
)
SELECT DISTINCT message FROM ended
"""  # noqa: S608 (our own words)
_COMPLETE = f"""
SELECT id FROM unnest(%s::bigint[]) AS wanted (id) WHERE NOT EXISTS (
    SELECT FROM recipient WHERE message = id AND state <> '{_DONE}'
)
"""  # noqa: S608 (our own words)


def replay(connection: Connection, owner: int, outcomes: Sequence[NotedOutcome]) -> int:
    """Record what a dead owner had noted.

    Returns how many messages it changed.
    """
    complete = [each.message for each in outcomes if _is_complete(each)]
    news = {*_remove(connection, complete), *_end_recipients(connection, owner, outcomes)}
    notices = [each for outcome in outcomes if outcome.message in news for each in outcome.notices]
    rows.insert_rows(connection, notices)
    return len(news)


def _is_complete(outcome: NotedOutcome) -> bool:
    """Tell whether nothing is left to do for the message."""
    return all(state == _DONE for state, *_ in outcome.recipients)


def _remove(connection: Connection, numbers: Collection[int]) -> list[int]:
    """Remove messages with which all is done; returns those that were there."""
    if not numbers:
        return []
    found = connection.execute("SELECT id FROM schedule WHERE id = ANY(%s)", (sorted(numbers),))
    there = rows.ids(found)
    rows.remove(connection, there)
    return there


def _end_recipients(
    connection: Connection, owner: int, outcomes: Sequence[NotedOutcome]
) -> list[int]:
    """Record progress; returns the messages that it ended for a recipient."""
    noted = [
        {
            "message": each.message,
            "number": place,
            "state": state,
            "settled": settled,
            "history": history,
        }
        for each in outcomes
        if not _is_complete(each)
        for place, (state, _, _, settled, history) in enumerate(each.recipients)
    ]
    if not noted:
        return []
    values = {"noted": json.dumps(noted), "owner": owner}
    ended = rows.ids(connection.execute(_END_RECIPIENTS, values))
    rows.remove(connection, rows.ids(connection.execute(_COMPLETE, (ended,))))
    return ended
