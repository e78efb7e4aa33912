"""The server that works beside a command."""

from __future__ import annotations

from pathlib import Path

from mta.settings import Settings
from mta.spool import inspection
from mta.spool.folder import Folder
from mta.spool.wakeup import Signal, wake_processes


def tell_server(settings: Settings) -> bool:
    """Have the server read its configuration again; returns whether one runs."""
    if not server_runs(settings):
        return False
    wake_processes(Folder(Path(settings.spool)), Signal.RELOAD)
    return True


def server_runs(settings: Settings) -> bool:
    """Return whether a server works with the spool."""
    return inspection.is_in_use(Path(settings.spool))
