"""The nodes that share a spool in PostgreSQL."""

from __future__ import annotations

from mta.spool.nodes import NodeProcess
from mta.spool.postgres.server import Connection

# Tools that put mail in are owners for a moment, without a node.
_NODES = """
SELECT node, version, extract(epoch FROM began)::float8,
    alive_until > clock_timestamp(),
    (SELECT count(*) FROM schedule AS s WHERE s.owner = o.id)
FROM owner AS o WHERE node <> '' ORDER BY node, id
"""


def processes(connection: Connection) -> list[NodeProcess]:
    """The processes of all nodes, those of a node together."""
    return [NodeProcess(*row) for row in connection.execute(_NODES)]
