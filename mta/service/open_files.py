"""The limit on open files, and the connections that it allows."""

from __future__ import annotations

import resource

MAX_FILES = 65536  # files: more than any limit of connections that makes sense
RESERVED = 48  # files: for the spool, the log, threads that write, and connections of our own


def allow() -> None:
    """Raise the limit of this process as far as the system allows.

    Each connection is an open file, and one attack can open as many as the usual limit.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def affordable(connections: int) -> int:
    """The number of connections, of so many, that we have files for.

    Each takes two: one is for content.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return connections
    return max(1, min(connections, (limit - RESERVED) // 2))
