"""The journal of systemd, for a server that is a unit."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

UNIT = "mta.service"
PAUSE = 0.25  # seconds after which an entry is shown as it is, whatever may belong to it
_PIECE = 65536  # octets
_COMMAND = ("journalctl", "--quiet", "--no-pager", "--output=json")
# What the server writes on its standard output, or what a tool told the system log.
_OURS = (f"_SYSTEMD_UNIT={UNIT}", "+", "SYSLOG_IDENTIFIER=mta")
_HAS_TIME = re.compile(r"\d{4}-\d\d-\d\dT|[\t{]")
_LEVELS = ("critical", "critical", "critical", "error", "warn", "info", "info", "debug")


def lines(since: float, *, follow: bool = False) -> Iterator[str]:
    """Our lines since a moment, in the form of our log.

    `since`: seconds since the epoch.  `follow`: go on with those that come; empty text says that
    none has come.

    Raises FileNotFoundError where there is no journalctl.
    """
    following = ("--follow", "--no-tail") if follow else ()
    command = (*_COMMAND, *following, f"--since=@{int(since)}", *_OURS)
    with subprocess.Popen(  # noqa: S603 (our own words)
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        for line in _lines_from(process.stdout.fileno(), PAUSE if follow else None):
            try:
                yield _text(json.loads(line)) + "\n" if line else ""
            except (ValueError, TypeError, KeyError, OverflowError):
                continue  # not an entry of this form


def _lines_from(descriptor: int, pause: float | None) -> Iterator[bytes]:
    """The lines that come, and an empty one after each pause."""
    rest = b""
    while True:
        if not select.select([descriptor], [], [], pause)[0]:
            yield b""
            continue
        octets = os.read(descriptor, _PIECE)
        if not octets:
            return
        *whole, rest = (rest + octets).split(b"\n")
        yield from whole


def _text(entry: dict[str, Any]) -> str:
    message = entry["MESSAGE"]
    if isinstance(message, list):  # octets, where not all of them can be shown
        message = bytes(message).decode("utf-8", "replace")
    if _HAS_TIME.match(message):
        return str(message)
    moment = datetime.fromtimestamp(int(entry["__REALTIME_TIMESTAMP"]) // 1_000_000, UTC)
    level = _LEVELS[int(entry.get("PRIORITY", 6)) & 7]
    return f"{moment:%Y-%m-%dT%H:%M:%S%z} {level:5} {message}"
