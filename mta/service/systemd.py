"""What systemd is told of the service: that it is ready, that it lives, that it stops (sd_notify).

Where the service is not one of systemd's, nobody is told.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


def notify(state: str, environ: Mapping[str, str] = os.environ) -> None:
    """Tell ``READY=1``, ``WATCHDOG=1``, ``STOPPING=1``.  What can't be told hinders nobody."""
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
            return  # systemd then sees nothing, and does what it is told to do in that case


def watchdog_interval(environ: Mapping[str, str] = os.environ) -> float:
    """How often to say that we live, in seconds; 0: nobody wants to know."""
    meant = environ.get("WATCHDOG_PID") in (None, str(os.getpid()))
    microseconds = environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 2_000_000 if meant and microseconds.isdecimal() else 0.0
