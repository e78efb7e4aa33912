"""Messages to systemd (sd_notify): that we are ready, live, and stop.

Where systemd did not start us, there are none.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


def notify(state: str, environ: Mapping[str, str] = os.environ) -> None:
    """Send ``READY=1``, ``WATCHDOG=1`` or ``STOPPING=1``.

    It raises nothing where that fails.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # an abstract one
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.setblocking(False)
        try:
            channel.sendto(state.encode(), address)
        except OSError:
            return  # systemd then does what the unit says for a service that is silent


def watchdog_interval(environ: Mapping[str, str] = os.environ) -> float:
    """The seconds between two messages that we live; 0: none are wanted."""
    meant = environ.get("WATCHDOG_PID") in (None, str(os.getpid()))
    microseconds = environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 2_000_000 if meant and microseconds.isdecimal() else 0.0
