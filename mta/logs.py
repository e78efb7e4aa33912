"""The log: one line for each event, as text or as JSON.

`LogWriter` is the server's, `note` writes for the command line.  An option of `twistd` that names
a log goes before ``log.file``; the form of a line is ours in any case.
"""

from __future__ import annotations

import json
import os
import sys
import syslog
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    formatEvent,
    formatTime,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.settings import Log

MODE = 0o640  # of a log file: it has the addresses of all mail

_TWISTED = ("twisted", "log_legacy")  # namespaces of Twisted's own events
_PLAIN = (str, int, float, bool, type(None))


def observer(options: Mapping[str, Any], settings: Log) -> LogWriter | None:
    """Return the observer for `twistd`; None where its options name another one.

    Raises OSError where the log can't be written.
    """
    if options.get("syslog") or options.get("logger") or "logfile" not in options:
        return None
    return LogWriter(options, settings)


@implementer(ILogObserver)
class LogWriter:
    """Writes a line for each event of `log.level` or above."""

    log = Logger()

    def __init__(self, options: Mapping[str, Any], settings: Log) -> None:
        self._options = options
        self._path = ""
        self._stream: Any = sys.stdout
        self.configure(settings)

    def configure(self, settings: Log) -> None:
        """Use other settings.  Raises OSError; then nothing has changed."""
        path = _path(self._options, settings.file)
        if path != self._path:
            self._switch(path)
        self._line = _json if settings.format == "json" else _text
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
        new = _open(path, self._options) if path else sys.stdout
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


def note(settings: Log, template: str, **fields: Any) -> None:
    """Log an event of the command line: in ``log.file``, else by syslog.

    A command that can't write there does its work all the same.
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
        syslog.syslog(visible(_message(event)))
        return
    line = _json if settings.format == "json" else _text
    with suppress(OSError), closing(_open(settings.file, {})) as file:
        file.write(visible(line(event)) + "\n")


_LEVELS = {
    "debug": LogLevel.debug,
    "info": LogLevel.info,
    "warn": LogLevel.warn,
    "error": LogLevel.error,
}


def reason(error: OSError) -> str:
    """The reason why a log can't be opened, for the operator."""
    return f"{error.filename}: {error.strerror}; let the user that the server runs as write there"


def _path(options: Mapping[str, Any], file_name: str) -> str:
    """The file to write to; empty for standard output."""
    name = options["logfile"] or file_name
    if name == "-" or (options.get("nodaemon") and not name):
        return ""
    return str(Path(name or "twistd.log").absolute())  # the working folder of a daemon is another


class _Appended:
    """A file to which several processes append, each line by one write."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, text: str) -> None:
        os.write(self._descriptor, text.encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        """Do nothing: there is no buffer."""

    def close(self) -> None:
        os.close(self._descriptor)


def _open(path: str, options: Mapping[str, Any]) -> _Appended:
    """Open a log.  Raises OSError.

    Only its owner and group may read it.  Root makes it for the user that the server will be.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
    folder = Path(path).parent.stat()
    is_root = os.geteuid() == 0
    if is_root and folder.st_uid:
        flags |= os.O_NOFOLLOW  # the folder's owner could have put a link there
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, MODE)
    except FileExistsError:
        descriptor = os.open(path, flags)
    else:
        if is_root:
            user, group = options.get("uid"), options.get("gid")
            os.fchown(
                descriptor,
                folder.st_uid if user is None else user,
                folder.st_gid if group is None else group,
            )
    return _Appended(descriptor)


def visible(text: str) -> str:
    """Escape, as JSON does, characters that are invisible or change others."""
    if text.isascii():  # as nearly all is; control characters were escaped before
        return text
    return "".join(
        each if each.isascii() or each.isprintable() else json.dumps(each)[1:-1] for each in text
    )


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
    """The event's text; its second and further lines are indented."""
    try:
        text: str = event["log_format"].format_map(event)  # several times as fast as formatEvent
    except (AttributeError, LookupError, TypeError, ValueError):
        text = formatEvent(event)  # which knows more forms of fields
    failure = event.get("log_failure")
    if failure is not None:
        text = f"{text}\n{_tracebacks.of(failure, event['log_time'])}"
    return text.strip().replace("\n", "\n\t")
