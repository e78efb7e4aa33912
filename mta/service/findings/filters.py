"""Checks of filters."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

from mta.service.findings.finding import Finding
from mta.settings import Settings

SECONDS = 1.0  # to connect: the start waits for it


def milters(settings: Settings) -> Iterator[Finding]:
    """`milters`: each filter can be reached."""
    for number, milter in enumerate(settings.milters):
        if reason := _why_unreachable(milter.socket):
            yield Finding(
                ("milters", number, "socket"),
                f"the filter {milter.name} can't be reached: {reason}; mail is treated by"
                f" on_failure: {milter.on_failure.value} until it runs",
            )


def _why_unreachable(place: str) -> str:
    """The reason why a filter can't be reached; empty: it can."""
    kind, _, where = place.partition(":")
    try:
        if kind == "unix":
            with closing(socket.socket(socket.AF_UNIX)) as connection:
                connection.settimeout(SECONDS)
                connection.connect(where)
        else:
            host, _, port = where.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), SECONDS).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""
