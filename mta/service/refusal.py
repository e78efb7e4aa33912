"""The end of a process that can't start, with one line."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from twisted.logger import Logger

from mta.metrics import MetricsFault
from mta.privileges import PrivilegeFault
from mta.sealing.keys import SealKeyFault
from mta.service.endpoints import CannotStart
from mta.spool.database import SpoolUnusable
from mta.tls import TLSFault
from mta.users.file import UserFault

# Exceptions whose text is one line for the operator.
_FAULTS = (
    CannotStart,
    MetricsFault,
    PrivilegeFault,
    SealKeyFault,
    SpoolUnusable,
    TLSFault,
    UserFault,
)

_NOT_OURS = (errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EROFS)


@contextmanager
def refusals(options: Mapping[str, Any], spool: str) -> Iterator[None]:
    """End the process where the start fails in this context.

    `options` are those of twistd, `spool` is the folder in which an OSError is to be expected.
    """
    try:
        yield
    except _FAULTS as error:
        _refuse(options, str(error))
    except OSError as error:
        place = "" if error.filename in (None, spool) else f"{error.filename}: "
        reason = f"cannot use the spool {spool}: {place}{error.strerror or error}"
        if error.errno in _NOT_OURS:
            reason += "; the spool must be a folder that this user may write to"
        _refuse(options, reason)
    except KeyboardInterrupt:
        _refuse(options, "interrupted while starting")


def _refuse(options: Mapping[str, Any], reason: str) -> NoReturn:
    """End the process with this one line."""
    if options.get("pidfile"):
        with suppress(OSError):  # our user now may not, and twistd takes up a stale one
            Path(options["pidfile"]).unlink()
    status_pipe = options.get("statusPipe")
    if status_pipe is None:
        raise SystemExit(reason) from None
    Logger().error("{reason}", reason=reason)
    # The daemon's parent waits for a word, and hears of no SystemExit.
    os.write(status_pipe, f"1 {reason}".encode())
    os.close(status_pipe)
    raise SystemExit(1) from None
