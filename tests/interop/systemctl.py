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
SOCKET_UNIT = UNIT.with_suffix(".socket")
MAX_START = 60  # seconds


# Gives descriptors the numbers that sd_listen_fds(3) has, and becomes a program.
_PASS = """
import fcntl, os, sys
count = int(sys.argv[1])
copies = [fcntl.fcntl(int(each), fcntl.F_DUPFD, 100) for each in sys.argv[2 : 2 + count]]
for number, copy in enumerate(copies, 3):
    os.dup2(copy, number)
    os.close(copy)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(count)}
os.execvp(sys.argv[2 + count], sys.argv[2 + count :])
"""
_PASSED_ON = {name: text for name, text in os.environ.items() if name in ("PATH", "PYTHONPATH")}


def opened() -> list[socket.socket]:
    """Open the sockets of the unit for them."""
    found = []
    for line in SOCKET_UNIT.read_text().splitlines():
        name, _, place = line.partition("=")
        if name == "ListenStream":
            host, _, port = place.rpartition(":")
            is_ipv6 = ":" in host
            family = socket.AF_INET6 if is_ipv6 else socket.AF_INET
            address = (host.strip("[]"), int(port))
            found.append(socket.create_server(address, family=family, dualstack_ipv6=is_ipv6))
    return found


def with_sockets(command: list[str], sockets: list[socket.socket]) -> list[str]:
    """A command that gets listening sockets, which it is to inherit."""
    numbers = [str(each.fileno()) for each in sockets]
    return [sys.executable, "-c", _PASS, str(len(numbers)), *numbers, *command]


def start(sockets: list[socket.socket]) -> subprocess.Popen:
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
    assert service["CapabilityBoundingSet"] == "", "the server needs no right of root's"
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
    become += ["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
    with LOG.open("ab") as log:
        server = subprocess.Popen(
            with_sockets([*become, *shlex.split(service["ExecStart"])], sockets),
            pass_fds=[each.fileno() for each in sockets],
            cwd=service["WorkingDirectory"],
            env=_PASSED_ON | {"NOTIFY_SOCKET": "@unit-notify"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    PID.write_text(str(server.pid))
    try:
        while b"READY=1" not in notified.recv(4096):
            pass
    except TimeoutError:
        raise SystemExit(LOG.read_text()) from None
    notified.close()
    return server


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
    starts = word in ("start", "restart") or "--now" in arguments
    if starts and not is_active():
        start(opened())
    elif word == "reload":
        os.kill(int(PID.read_text()), signal.SIGHUP)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
