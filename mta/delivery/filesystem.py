"""Sync of whole file systems: syncfs(2)."""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)


def _tells_of_errors() -> bool:
    """Tell whether syncfs fails after a failed write-back.

    Linux has it so since 5.8.
    """
    system = os.uname()
    version = system.release.split(".")
    try:
        return system.sysname == "Linux" and (int(version[0]), int(version[1])) >= (5, 8)
    except (IndexError, ValueError):
        return False


CAN_SYNC = hasattr(_libc, "syncfs") and _tells_of_errors()


def sync_file_system(descriptor: int) -> None:
    """Sync the file system that an open file is on.  Blocks.  Raises OSError.

    Only where `CAN_SYNC` says so.
    """
    if _libc.syncfs(descriptor):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
