"""One line an event: how the log is written, as text or as JSON.

`twistd` opens the log where its own options say; what a line looks like is ours to say.
"""

from __future__ import annotations

import json
import signal
import sys
import syslog
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEvent,
    formatTime,
)
from zope.interface import implementer

from mta.settings import Log

_TWISTED = ("twisted", "log_legacy")  # namespaces
_PLAIN = (str, int, float, bool, type(None))


def observer(options: Mapping[str, Any], settings: Log) -> ILogObserver | None:
    """The observer for `twistd` with these options; None where they name another one."""
    if options.get("syslog") or options.get("logger") or "logfile" not in options:
        return None
    line = _json if settings.format == "json" else _text
    return _Writer(_stream(options, settings.file), line, _LEVELS[settings.level])


@implementer(ILogObserver)
class _Writer:
    """Writes a line for each event of a level, or of those above it."""

    def __init__(self, stream: Any, line: Callable[[LogEvent], str], least: Any) -> None:
        self._stream = stream
        self._line = line
        self._wanted = {level for level in LogLevel.iterconstants() if level >= least}
        # What Twisted chats about is no event of ours.
        self._of_twisted = {level for level in self._wanted if level >= LogLevel.warn}

    def __call__(self, event: LogEvent) -> None:
        is_twisted = event.get("log_namespace", "").startswith(_TWISTED)
        wanted = self._of_twisted if is_twisted else self._wanted
        if event.get("log_level", LogLevel.info) in wanted:
            self._stream.write(self._line(event) + "\n")
            self._stream.flush()


def note(settings: Log, template: str, **fields: Any) -> None:
    """Log what a tool did: into ``log.file``, else as a system log has it for mail.

    A tool that can't write there does its work all the same.
    """
    event: LogEvent = {
        "log_format": template,
        "log_level": LogLevel.info,
        "log_time": time.time(),
        "log_namespace": "mta.commands",
        **fields,
    }
    if not settings.file:
        syslog.openlog("mta", facility=syslog.LOG_MAIL)
        syslog.syslog(_message(event))
        return
    line = _json if settings.format == "json" else _text
    with suppress(OSError):
        file = _Appended(settings.file)
        file.write(line(event) + "\n")
        file.close()


_LEVELS = {
    "debug": LogLevel.debug,
    "info": LogLevel.info,
    "warn": LogLevel.warn,
    "error": LogLevel.error,
}


def _stream(options: Mapping[str, Any], file_name: str) -> Any:
    name = options["logfile"] or file_name
    if name == "-" or (options.get("nodaemon") and not name):
        return sys.stdout
    file = _Appended(name or "twistd.log")

    def rotate(signum: int, frame: object) -> None:
        file.reopen()

    signal.signal(signal.SIGUSR1, rotate)
    return file


class _Appended:
    """A file to which several processes may append whole lines."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = self._open()

    def reopen(self) -> None:
        """Go on in a new file: this one was moved away."""
        self._file.close()
        self._file = self._open()

    def write(self, text: str) -> None:
        self._file.write(text)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _open(self) -> TextIO:
        return Path(self._path).open("a", encoding="utf-8", errors="backslashreplace")


def _text(event: LogEvent) -> str:
    level = event.get("log_level", LogLevel.info).name
    return f"{_time(int(event['log_time']))} {level:5} {_message(event)}"


def _json(event: LogEvent) -> str:
    fields: dict[str, Any] = {
        "time": _time(int(event["log_time"])),
        "level": event.get("log_level", LogLevel.info).name,
        "system": event.get("log_namespace", ""),
        "message": _message(event),
    }
    for name, value in event.items():
        if not name.startswith("log_") and isinstance(value, _PLAIN) and name not in fields:
            fields[name] = value
    return json.dumps(fields, ensure_ascii=False)


@lru_cache(maxsize=4)
def _time(second: int) -> str:
    return formatTime(second)


def _message(event: LogEvent) -> str:
    """The event's text; what has more than one line is indented, so that events stay apart."""
    try:
        text: str = event["log_format"].format_map(event)  # several times as fast as formatEvent
    except (AttributeError, LookupError, TypeError, ValueError):
        text = formatEvent(event)  # which knows more forms of fields
    failure = event.get("log_failure")
    if failure is not None:
        text = f"{text}\n{failure.getTraceback()}"
    return text.strip().replace("\n", "\n\t")
