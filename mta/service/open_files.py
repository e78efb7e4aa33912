"""Open files: as many as we may have, and how many connections they are enough for."""

from __future__ import annotations

import resource

WANTED = 65536
RESERVED = 48  # for the spool, the log, threads that write, and connections of our own


def allow() -> None:
    """Each connection is an open file, and the usual limit is about what one attack takes."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if most == resource.RLIM_INFINITY else min(most, WANTED)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def affordable(connections: int) -> int:
    """So many of these connections as there are open files for: two each, one for its content."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return connections
    return max(1, min(connections, (limit - RESERVED) // 2))
