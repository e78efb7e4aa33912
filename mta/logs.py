"""One line an event: how the log is written, as text or as JSON.

`twistd` opens the log where its own options say; what a line looks like is ours to say.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping
from typing import Any

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    formatTime,
)
from twisted.python.logfile import LogFile
from zope.interface import provider

from mta.settings import Log

_PLAIN = (str, int, float, bool, type(None))


def observer(options: Mapping[str, Any], settings: Log) -> ILogObserver | None:
    """The observer for `twistd` with these options; None where they name another one."""
    if options.get("syslog") or options.get("logger") or "logfile" not in options:
        return None
    stream = _stream(options)
    line = _json if settings.format == "json" else _text

    @provider(ILogObserver)
    def write(event: LogEvent) -> None:
        stream.write(line(event) + "\n")
        stream.flush()

    level = LogLevelFilterPredicate(_LEVELS[settings.level])
    # What the old modules of Twisted chat about is no event of ours.
    level.setLogLevelForNamespace("log_legacy", LogLevel.warn)
    return FilteringLogObserver(write, [level])


_LEVELS = {
    "debug": LogLevel.debug,
    "info": LogLevel.info,
    "warn": LogLevel.warn,
    "error": LogLevel.error,
}


def _stream(options: Mapping[str, Any]) -> Any:
    name = options["logfile"]
    if name == "-" or (options.get("nodaemon") and not name):
        return sys.stdout
    file = LogFile.fromFullPath(name or "twistd.log", rotateLength=None)

    def rotate(signum: int, frame: object) -> None:
        file.reopen()

    signal.signal(signal.SIGUSR1, rotate)
    return file


def _text(event: LogEvent) -> str:
    level = event.get("log_level", LogLevel.info).name
    return f"{formatTime(event['log_time'])} {level:5} {_message(event)}"


def _json(event: LogEvent) -> str:
    fields: dict[str, Any] = {
        "time": formatTime(event["log_time"]),
        "level": event.get("log_level", LogLevel.info).name,
        "system": event.get("log_namespace", ""),
        "message": _message(event),
    }
    for name, value in event.items():
        if not name.startswith("log_") and isinstance(value, _PLAIN) and name not in fields:
            fields[name] = value
    return json.dumps(fields, ensure_ascii=False)


def _message(event: LogEvent) -> str:
    """The event's text; what has more than one line is indented, so that events stay apart."""
    text = formatEvent(event)
    failure = event.get("log_failure")
    if failure is not None:
        text = f"{text}\n{failure.getTraceback()}"
    return text.strip().replace("\n", "\n\t")
