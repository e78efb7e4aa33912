"""The journal of systemd, for a server that is a unit."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

UNIT = "mta.service"
_COMMAND = ("journalctl", "--quiet", "--no-pager", "--output=json")
# What the server writes on its standard output, or what a tool told the system log.
_OURS = (f"_SYSTEMD_UNIT={UNIT}", "+", "SYSLOG_IDENTIFIER=mta")
_HAS_TIME = re.compile(r"\d{4}-\d\d-\d\dT|[\t{]")
_LEVELS = ("critical", "critical", "critical", "error", "warn", "info", "info", "debug")


def lines(since: float) -> Iterator[str]:
    """Our lines since a moment, in the form of our log.

    `since`: seconds since the epoch.

    Raises FileNotFoundError where there is no journalctl.
    """
    command = (*_COMMAND, f"--since=@{int(since)}", *_OURS)
    with subprocess.Popen(  # noqa: S603 (our own words)
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                yield _text(json.loads(line)) + "\n"
            except (ValueError, TypeError, KeyError, OverflowError):
                continue  # not an entry of this form


def _text(entry: dict[str, Any]) -> str:
    message = entry["MESSAGE"]
    if isinstance(message, list):  # octets, where not all of them can be shown
        message = bytes(message).decode("utf-8", "replace")
    if _HAS_TIME.match(message):
        return str(message)
    moment = datetime.fromtimestamp(int(entry["__REALTIME_TIMESTAMP"]) // 1_000_000, UTC)
    level = _LEVELS[int(entry.get("PRIORITY", 6)) & 7]
    return f"{moment:%Y-%m-%dT%H:%M:%S%z} {level:5} {message}"
