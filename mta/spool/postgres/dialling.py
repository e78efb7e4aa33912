"""The peers that each process dials, of those that several nodes could.

One that has a peer keeps it for as long as it is alive.
"""

from __future__ import annotations

from collections.abc import Collection

from mta.spool.postgres.server import Connection, transaction

_FREE = """
SELECT name FROM unnest(%s::text[]) AS wanted (name) WHERE NOT EXISTS (
    SELECT FROM dialled JOIN owner ON owner.id = dialled.owner
    WHERE peer = name AND alive_until >= clock_timestamp()
)
"""
# Two may have found it free: the second one sees what the first one wrote.
_TAKE = """
INSERT INTO dialled AS d (peer, owner)
SELECT name, %(ours)s FROM unnest(%(free)s::text[]) AS wanted (name) ORDER BY name
ON CONFLICT (peer) DO UPDATE SET owner = excluded.owner WHERE NOT EXISTS (
    SELECT FROM owner WHERE owner.id = d.owner AND alive_until >= clock_timestamp()
)
"""
_OURS = """
SELECT peer FROM dialled JOIN owner ON owner.id = dialled.owner
WHERE owner.id = %s AND alive_until >= clock_timestamp()
"""


def have(connection: Connection, peers: Collection[str], owner: int) -> Collection[str]:
    """Take those peers that no living process has; return ours.

    Any others that we had are free.
    """
    free = [name for (name,) in connection.execute(_FREE, ([*peers],)).fetchall()]
    if free:
        with transaction(connection):
            connection.execute(_TAKE, {"ours": owner, "free": free})
    ours = {name for (name,) in connection.execute(_OURS, (owner,)).fetchall()}
    if left := ours.difference(peers):
        delete = "DELETE FROM dialled WHERE owner = %s AND peer = ANY(%s)"
        connection.execute(delete, (owner, [*left]))
    return ours.intersection(peers)
