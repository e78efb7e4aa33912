"""The limit on open files, and the connections that it allows."""

from __future__ import annotations

import resource
import sys

MAX_FILES = 65536  # files: more than any limit of connections that makes sense
MAX_REFUSED = 10_000  # connections that wait for their refusal: as many as one attack has
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
    return max(1, min(connections, (_limit() - RESERVED) // 2))


def left(connections: int) -> int:
    """The number of connections to be refused that may wait beside these."""
    return max(0, min(MAX_REFUSED, _limit() - RESERVED - 2 * connections))


def _limit() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit
