"""Checks of listeners."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mta.service.findings.finding import Finding, Keys
from mta.settings import Settings

MAX_SOCKET_PATH = 107  # octets; the system's structure has 108, with a zero at the end


def sockets(settings: Settings) -> Iterator[Finding]:
    """`listen`, `metrics`: the files of UNIX sockets can be made."""
    for keys, endpoint in endpoints_of(settings):
        path = socket_path(endpoint)
        if path and (reason := _why_no_socket(path)):
            yield Finding(keys, f"cannot listen on {endpoint}: {reason}", True)


def metrics(settings: Settings) -> Iterator[Finding]:
    """`metrics`: the package for it is installed."""
    if settings.metrics:
        from mta.metrics import MetricsFault, require_prometheus  # and an HTTP server with it

        try:
            require_prometheus()
        except MetricsFault as fault:
            yield Finding(("metrics",), str(fault), True)


def endpoints_of(settings: Settings) -> Iterator[tuple[Keys, str]]:
    """The endpoints of all listeners, each with the keys of its setting."""
    for number, listener in enumerate(settings.listen):
        yield ("listen", number, "endpoint"), listener.endpoint
    if settings.metrics:
        yield ("metrics",), settings.metrics


def socket_path(endpoint: str) -> Path | None:
    """The file of a listener on a UNIX socket."""
    kind, _, rest = endpoint.partition(":")
    if kind != "unix":
        return None
    return Path(re.sub(r"\\(.)", r"\1", re.split(r"(?<!\\):", rest)[0]))


def _why_no_socket(path: Path) -> str:
    """The reason why there can't be a socket; empty: there can."""
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        return f"a socket's path has {MAX_SOCKET_PATH} octets at most"
    with suppress(OSError):
        if not path.parent.is_dir():
            return f"{path.parent}: there is no such folder"
        if path.exists() and not path.is_socket():
            return f"{path}: is there, and is no socket"
    return ""
