#!/usr/bin/python3
"""systemctl of a machine without systemd: starts the server of a unit as its user, and waits."""

import configparser
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

PID = Path("/run/unit.pid")
LOG = Path("/var/log/unit.log")
UNIT = Path("/etc/systemd/system/mta.service")
MAX_START = 60  # seconds


def start() -> None:
    """Start the server as systemd would: as the unit's user, with what it may do beyond."""
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str
    unit.read(UNIT)
    service = unit["Service"]
    user, state = service["User"], Path("/var/lib", service["StateDirectory"])
    state.mkdir(exist_ok=True)
    shutil.chown(state, user, user)
    notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notified.bind("\0unit-notify")
    notified.settimeout(MAX_START)
    may = "+" + service["AmbientCapabilities"].lower().removeprefix("cap_")
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
    become += [f"--inh-caps={may}", f"--ambient-caps={may}", "--no-new-privs"]
    with LOG.open("ab") as log:
        server = subprocess.Popen(
            [*become, *shlex.split(service["ExecStart"])],
            cwd=service["WorkingDirectory"],
            env={"PATH": os.environ["PATH"], "NOTIFY_SOCKET": "@unit-notify"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    PID.write_text(str(server.pid))
    while b"READY=1" not in notified.recv(4096):
        pass


def is_active() -> bool:
    """Return whether the server runs."""
    try:
        state = Path(f"/proc/{int(PID.read_text())}/stat").read_text()
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


def main(arguments: list[str]) -> int:
    """Do what the first word says.  Returns the exit status."""
    word = next(each for each in arguments if not each.startswith("-"))
    if word in ("is-active", "is-enabled"):
        print("active" if is_active() else "inactive")
        return 0 if is_active() else 3
    if word in ("enable", "start") and not is_active():
        start()
    elif word == "reload":
        os.kill(int(PID.read_text()), signal.SIGHUP)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
