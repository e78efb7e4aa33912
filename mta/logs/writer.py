"""The log of the server: an observer of Twisted's events.

An option of `twistd` that names a log goes before ``log.file``; the form of a line is ours in any
case.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    formatEvent,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.logs.file import open_log, reason
from mta.logs.lines import json_line, text_line, visible
from mta.settings import Log

_TWISTED = ("twisted", "log_legacy")  # namespaces of Twisted's own events


def observer(options: Mapping[str, Any], settings: Log, node: str = "") -> LogWriter | None:
    """Return the observer for `twistd`; None where its options name another one.

    `node`: see `LogWriter`.  Raises OSError where the log can't be written.
    """
    if options.get("syslog") or options.get("logger") or "logfile" not in options:
        return None
    return LogWriter(options, settings, node)


@implementer(ILogObserver)
class LogWriter:
    """Writes a line for each event of `log.level` or above.

    `node`: the name of this host, which each line has as JSON; empty: none has.
    """

    log = Logger()

    def __init__(self, options: Mapping[str, Any], settings: Log, node: str = "") -> None:
        self._options = options
        self._shared = {"node": node} if node else {}
        self._path = ""
        self._stream: Any = sys.stdout
        self.configure(settings)

    def configure(self, settings: Log) -> None:
        """Use other settings.  Raises OSError; then nothing has changed."""
        path = _path(self._options, settings.file)
        if path != self._path:
            self._switch(path)
        self._line = self._json if settings.format == "json" else _text
        lowest: Any = _LEVELS[settings.level]
        self._wanted = {level for level in LogLevel.iterconstants() if level >= lowest}
        # Twisted tells of each port and each factory: no events of a mail server.
        self._of_twisted = {level for level in self._wanted if level >= LogLevel.warn}

    def reopen(self) -> None:
        """Open the file again: log rotation has moved it away."""
        try:
            self._switch(self._path)
        except OSError as error:
            self.log.error(
                "cannot open the log again: {reason}; writing on to the old file",
                reason=reason(error),
            )

    def _switch(self, path: str) -> None:
        """Open a file, or the same again, then close the one before."""
        new = open_log(path, self._options) if path else sys.stdout
        old, self._stream, self._path = self._stream, new, path
        if old is not sys.stdout:
            old.close()

    def __call__(self, event: LogEvent) -> None:
        is_twisted = event.get("log_namespace", "").startswith(_TWISTED)
        wanted = self._of_twisted if is_twisted else self._wanted
        if event.get("log_level", LogLevel.info) in wanted:
            # The reader of standard output is gone, or the disk is full: mail goes on without it.
            with suppress(OSError):
                self._stream.write(visible(self._line(event)) + "\n")
                self._stream.flush()

    def _json(self, event: LogEvent) -> str:
        namespace, fields = event.get("log_namespace", ""), {**self._shared, **event}
        return json_line(
            event["log_time"], _level(event), namespace, _message(event), fields.items()
        )


_LEVELS = {
    "debug": LogLevel.debug,
    "info": LogLevel.info,
    "warn": LogLevel.warn,
    "error": LogLevel.error,
}


def _path(options: Mapping[str, Any], file_name: str) -> str:
    """The file to write to; empty for standard output."""
    name = options["logfile"] or file_name
    if name == "-" or (options.get("nodaemon") and not name):
        return ""
    return str(Path(name or "twistd.log").absolute())  # the working folder of a daemon is another


def _text(event: LogEvent) -> str:
    return text_line(event["log_time"], _level(event), _message(event))


def _level(event: LogEvent) -> str:
    return str(event.get("log_level", LogLevel.info).name)


class _Tracebacks:
    """Tracebacks, in full once a minute for each place that raises."""

    _INTERVAL = 60.0  # seconds: a fault of every session would fill the disk
    _MAX_KNOWN = 100  # places; beyond that, all are forgotten

    def __init__(self) -> None:
        self._until: dict[object, float] = {}

    def of(self, failure: Failure, now: float) -> str:
        """The traceback of a failure; one line if that was just logged."""
        place = failure.type, failure.frames[-1][:3] if failure.frames else ()
        if now < self._until.get(place, now):
            return f"{type(failure.value).__name__}: {failure.getErrorMessage()} (as a moment ago)"
        if len(self._until) >= self._MAX_KNOWN:
            self._until.clear()
        self._until[place] = now + self._INTERVAL
        return str(failure.getTraceback())


_tracebacks = _Tracebacks()


def _message(event: LogEvent) -> str:
    """The event's text, and its traceback."""
    try:
        text: str = event["log_format"].format_map(event)  # several times as fast as formatEvent
    except (AttributeError, LookupError, TypeError, ValueError):
        text = formatEvent(event)  # which knows more forms of fields
    failure = event.get("log_failure")
    if failure is not None:
        text = f"{text}\n{_tracebacks.of(failure, event['log_time'])}"
    return text
