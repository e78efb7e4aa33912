"""The servers that are measured: this program, and a Postfix tuned as its documentation says.

Each lives in a folder of its own, takes mail on a private port of this machine, brings the mail
of ``bench.example`` into one Maildir, and all other mail to one next hop.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import yaml

from bench import tree

DOMAIN = "bench.example"
PATIENCE = 60.0  # seconds that a server may take to start, to end, or to do what it was given

SOURCE = Path(__file__).resolve().parent.parent
_TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")

T = TypeVar("T")


class Server:
    """A server that runs: the root of a tree of processes.

    `new` is the folder in which its mail arrives, `port` where it takes it.
    """

    name: str
    new: Path
    port: int

    def __init__(self, command: Sequence[str], folder: Path, output: int | None = None) -> None:
        """Start it.  A session of its own: what is ended later is this tree and no other."""
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(SOURCE)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            start_new_session=True,
        )

    def cpu_seconds(self) -> float:
        """CPU time of all its processes so far."""
        return tree.cpu_seconds(self._process.pid)

    def memory(self) -> int:
        """Octets that all its processes have in memory now."""
        return tree.memory(self._process.pid)

    def growth(self) -> tree.Growth:
        """Watches from now on by how much its processes grow."""
        return tree.Growth(self._process.pid)

    def stop(self) -> None:
        """End it, with all its processes."""
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _wait_for(self, pattern: str, log: Path) -> re.Match[str]:
        """What the log says when it is ready.  Raises RuntimeError where it ends first."""

        def said() -> re.Match[str] | None:
            text = log.read_text("utf-8", "replace") if log.exists() else ""
            if self._process.poll() is not None:
                raise RuntimeError(f"{self.name} does not start:\n{text}")
            return re.search(pattern, text, re.DOTALL)

        return wait_until(said, f"{self.name} is ready")


LISTENER: Mapping[str, str] = {
    "endpoint": "tcp:0:interface=127.0.0.1",
    "service": "smtp",
    "tls": "opportunistic",
}


def configure(
    folder: Path,
    next_hop: str = "discard",
    workers: int = 2,
    per_destination: int = 20,
    keys: Mapping[str, Any] | None = None,
) -> Path:
    """Write a configuration of ours.

    `next_hop`: where mail for other domains goes, `per_destination`: over how many connections
    (as many as Postfix by default); `keys` replace what it says.
    """
    folder.mkdir(exist_ok=True)
    configuration = {
        "hostname": "mta.example",
        "spool": "spool",
        "listen": [LISTENER],
        "domains": {DOMAIN: {"deliver": "maildir:mail/{local}", "mailboxes": "any"}},
        "routes": {"default": next_hop},
        "queue": {"workers": workers, "per_destination": per_destination},
        "limits": {"connections": 12000, "connections_per_host": 12000},
    }
    path = folder / "mta.yaml"
    path.write_text(yaml.safe_dump(configuration | dict(keys or {})))
    return path


class Ours(Server):
    """``twistd mta``, by a `configuration`; `ports` are those of its listeners, by service."""

    name = "mta"

    def __init__(self, configuration: Path) -> None:
        folder = configuration.parent
        self.configuration = configuration
        self.new = folder / "mail" / "inbox" / "new"
        log = folder / "mta.log"
        log.unlink(missing_ok=True)
        options = ("--nodaemon", "--pidfile=", f"--logfile={log}")
        super().__init__([*_TWISTD, *options, "mta", f"--config={configuration}"], folder)
        workers = yaml.safe_load(configuration.read_text())["queue"]["workers"]
        said = self._wait_for(r" ready\n.*" * workers, log).string
        listening = re.findall(r"listening on tcp:(\d+)\S* \((\w+)\)", said)
        self.ports = {service: int(port) for port, service in listening}
        self.port = self.ports["smtp"]


class Script(Server):
    """One of `bench.programs`, which prints the port that it listens on.

    `new`: the folder in which mail arrives, if any does.
    """

    def __init__(self, name: str, *arguments: object, new: Path = Path(os.devnull)) -> None:
        self.name = str(arguments[0])
        self.new = new
        command = [sys.executable, "-m", f"bench.programs.{name}", *map(str, arguments)]
        super().__init__(command, SOURCE, subprocess.PIPE)
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if not said:
            raise RuntimeError(f"{self.name} does not start")
        self.port = int(said)


_MAIN = """\
compatibility_level = 3.6
config_directory = {folder}/etc
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/mail.log
maillog_file_prefixes = {folder}
myhostname = postfix.example
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =

# STRESS_README, TUNING_README: processes for all sessions, no pauses, no look-ups.
default_process_limit = 1200
in_flow_delay = 0
smtpd_peername_lookup = no
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions =
smtp_dns_support_level = disabled
smtp_tls_security_level = none

smtpd_tls_security_level = may
smtpd_tls_chain_files = {folder}/etc/pair.pem
smtpd_tls_loglevel = 0

virtual_mailbox_domains = {domain}
virtual_mailbox_maps = static:inbox/
virtual_mailbox_base = {folder}/mail
virtual_mailbox_limit = 0
message_size_limit = 52428800
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
relayhost = {next_hop}
{extra}
"""

# The system's services less what is not needed here; none in a chroot.
_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix(Server):
    """An instance of its own; the system's is not touched.

    `next_hop`: ``[host]:port`` for mail to other domains; `extra`: more lines for main.cf.
    """

    name = "Postfix"

    def __init__(self, folder: Path, next_hop: str = "", extra: Sequence[str] = ()) -> None:
        folder.mkdir(exist_ok=True)
        self.new = folder / "mail" / "inbox" / "new"
        self.port = free_port()
        reader = pwd.getpwnam("nobody")
        for name in ("etc", "queue", "data", "mail"):
            (folder / name).mkdir()
        os.chown(folder / "mail", reader.pw_uid, reader.pw_gid)
        os.chown(folder / "data", pwd.getpwnam("postfix").pw_uid, -1)
        main = _MAIN.format(
            folder=folder,
            domain=DOMAIN,
            uid=reader.pw_uid,
            gid=reader.pw_gid,
            next_hop=next_hop,
            extra="\n".join(extra),
        )
        (folder / "etc" / "main.cf").write_text(main)
        _make_certificate(folder / "etc")
        (folder / "etc" / "master.cf").write_text(_MASTER.format(port=self.port))
        program = shutil.which("postfix", path=SBIN)
        assert program
        self._command = [program, "-c", str(folder / "etc")]
        super().__init__([*self._command, "start-fg"], folder)
        self._wait_for("daemon started", folder / "mail.log")

    def stop(self) -> None:
        """End it: what we started is only a script around it."""
        subprocess.run([*self._command, "stop"], stderr=subprocess.DEVNULL, check=False)
        super().stop()


def _make_certificate(folder: Path) -> None:
    """A pair as this program makes itself one: P-256."""
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-x509")
    names = ("-subj", "/CN=postfix.example", "-keyout", "key.pem", "-out", "certificate.pem")
    openssl = shutil.which("openssl")
    assert openssl
    subprocess.run(
        [openssl, "req", *kind, *names], cwd=folder, stderr=subprocess.DEVNULL, check=True
    )
    pair = (folder / "key.pem").read_text() + (folder / "certificate.pem").read_text()
    (folder / "pair.pem").write_text(pair)


SBIN = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def missing_for_postfix() -> str:
    """Why Postfix can't be measured here; empty where it can."""
    if not shutil.which("postfix", path=SBIN):
        return "Postfix is not installed"
    return "" if os.geteuid() == 0 else "Postfix can only be started by root"


def free_port() -> int:
    """A port that nobody had a moment ago, for programs that can't choose one themselves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], T | None], what: str, timeout: float = PATIENCE) -> T:
    """The first true value of `condition`.  Raises RuntimeError after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > end:
            raise RuntimeError(f"not within {timeout:g} s: {what}")
        time.sleep(0.005)
    return value
