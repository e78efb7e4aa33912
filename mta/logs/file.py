"""The file of the log, to which several processes append.

`note` writes there for the command line, which starts without Twisted.
"""

from __future__ import annotations

import os
import syslog
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from mta.logs.lines import indented, json_line, text_line, visible
from mta.settings import Log

MODE = 0o640  # of a log file: it has the addresses of all mail
_NAMESPACE = "mta.commands"


def note(settings: Log, template: str, **fields: Any) -> None:
    """Log an event of the command line: in ``log.file``, else by syslog.

    A command that can't write there does its work all the same.
    """
    message, now = template.format_map(fields), time.time()
    if not settings.file:
        syslog.openlog("mta", facility=syslog.LOG_MAIL)
        syslog.syslog(visible(indented(message)))
        return
    if settings.format == "json":
        line = json_line(now, "info", _NAMESPACE, message, fields.items())
    else:
        line = text_line(now, "info", message)
    with suppress(OSError), closing(open_log(settings.file, {})) as file:
        file.write(visible(line) + "\n")


def reason(error: OSError) -> str:
    """The reason why a log can't be opened, for the operator."""
    return f"{error.filename}: {error.strerror}; let the user that the server runs as write there"


class Appended:
    """A file to which several processes append, each line by one write."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, text: str) -> None:
        """Append a line.  Raises OSError."""
        rest = text.encode("utf-8", "backslashreplace")
        while rest:  # a disk that is almost full takes less
            rest = rest[os.write(self._descriptor, rest) :]

    def flush(self) -> None:
        """Do nothing: there is no buffer."""

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)


def open_log(path: str, options: Mapping[str, Any]) -> Appended:
    """Open a log.  Raises OSError.

    Only its owner and group may read it.  Root makes it for the user that the server will be,
    which the options of `twistd` may name.
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
    return Appended(descriptor)
