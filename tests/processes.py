"""The program as a process of its own, for tests that need a real one.

All of it blocks, so the tests that use it are synchronous: the reactor is in the other
process.  Nothing here sleeps for luck; what is waited for is looked for until a deadline.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import smtplib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import yaml
from twisted.trial.unittest import SynchronousTestCase

from bench.tree import status_size

ROOT = Path(__file__).resolve().parent.parent
DEADLINE = 30.0  # seconds that a loaded machine may take for any one step

_POLL = 0.02  # seconds
_TURNED, _TURNED_SECOND = "turned the connection", "turned its second connection"
_LISTENING = re.compile(r"listening on (?:haproxy:)?(\S+) \((\w+)\)")

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str, timeout: float = DEADLINE) -> T:
    """Return the first true value of `condition`; AssertionError after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        time.sleep(_POLL)
    return value


def temporary_folder(case: SynchronousTestCase) -> Path:
    """A folder that other users may pass through, gone after the test."""
    folder = Path(tempfile.mkdtemp(prefix="mta-test-"))
    folder.chmod(0o711)
    case.addCleanup(shutil.rmtree, folder, ignore_errors=True)
    return folder


def need_program(case: SynchronousTestCase, name: str) -> str:
    """The path of a program; skips the test where it is not installed."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    return path or case.skipTest(f"{name} is not installed")


class Process:
    """A child process whose output is collected as it comes."""

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._lines: list[str] = []
        self._grown = threading.Condition()
        self._ended = False
        # A session of its own: what is ended later is this process and its children, no other.
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._collect, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def output(self) -> str:
        """Everything it has said so far."""
        with self._grown:
            return "".join(self._lines)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def wait_for(self, pattern: str, timeout: float = DEADLINE, after: int = 0) -> re.Match[str]:
        """The first match of `pattern` in the output from character `after` on.

        AssertionError, with the output, where the process ends or time runs out without it.
        """
        end = time.monotonic() + timeout
        with self._grown:
            while True:
                if match := re.compile(pattern).search("".join(self._lines), after):
                    return match
                if self._ended or not self._grown.wait(end - time.monotonic()):
                    raise AssertionError(f"{pattern!r} was not said:\n{''.join(self._lines)}")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def end(self, timeout: float = DEADLINE) -> int:
        """Ask it to end (SIGTERM) and wait; returns its exit status."""
        if self.is_running:
            self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> None:
        """kill -9, it and its children, and wait until they are gone."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self.wait()

    def wait(self, timeout: float = DEADLINE) -> int:
        """Wait for its end; returns its exit status."""
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"does not end:\n{self.output}") from None
        self._reader.join(timeout)
        return status

    def _collect(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                with self._grown:
                    self._lines.append(line)
                    self._grown.notify_all()
        with self._grown:
            self._ended = True
            self._grown.notify_all()


def source_environment() -> dict[str, str]:
    """The environment in which a Python process finds the program in the source tree.

    Coverage is not wanted there: the processes are killed, and timed.
    """
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")
    }
    return environment | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


class Server:
    """``twistd mta`` in a folder of its own, killed after the test if it still runs.

    `config` is a configuration, or the text of its file.  `ports` maps a service (``smtp``,
    ``submission``...) to its port, anew after each start.
    """

    def __init__(
        self,
        case: SynchronousTestCase,
        config: Mapping[str, Any] | str,
        *,
        folder: Path | None = None,
        command: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder or temporary_folder(case)
        self.config = self.folder / "mta.yaml"
        self.ports: dict[str, int] = {}
        self.process: Process | None = None
        self.command = [*(command or TWISTD), "mta", "--config", str(self.config)]
        self._environment = environment or source_environment()
        self._logs: list[str] = []
        self.configure(config)
        case.addCleanup(self.kill)

    @property
    def log(self) -> str:
        """What it said, over all starts."""
        return "".join((*self._logs, self.process.output if self.process else ""))

    @property
    def memory(self) -> int:
        """Octets of memory that its first process has now."""
        assert self.process is not None
        return status_size(self.process.pid, "VmRSS")

    @property
    def most_memory(self) -> int:
        """The most octets that its first process ever had in memory."""
        assert self.process is not None
        return status_size(self.process.pid, "VmHWM")

    def configure(self, config: Mapping[str, Any] | str) -> None:
        """Write the configuration file that the next start or SIGHUP reads."""
        text = config if isinstance(config, str) else yaml.safe_dump(dict(config), sort_keys=False)
        if "run_as:" not in text:
            text += "\nrun_as: root  # where it is root who runs the tests\n"
        self.config.write_text(text, "utf-8")

    def start(self) -> None:
        """Start it, and return when it is ready."""
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Start it, and return at once."""
        assert self.process is None or not self.process.is_running
        self._remember()
        self.process = Process(self.command, self.folder, self._environment)

    def wait_until_ready(self, timeout: float = DEADLINE) -> None:
        """Wait until it is ready; AssertionError where it ends before, or time runs out."""
        assert self.process is not None
        self.process.wait_for(r'(?m)\bready"?}?$', timeout)
        for endpoint, service in _LISTENING.findall(self.process.output):
            if endpoint.startswith("tcp:"):
                self.ports[service] = int(endpoint.split(":")[1])

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        assert self.process is not None
        return self.process.end()

    def kill(self) -> None:
        """kill -9, if it runs."""
        if self.process is not None:
            self.process.kill()

    def send(
        self,
        content: bytes,
        *forward_paths: str,
        reverse_path: str = "sender@client.example",
        service: str = "smtp",
    ) -> None:
        """Hand it a message by smtplib; raises smtplib's exceptions."""
        send(self.ports[service], content, *forward_paths, reverse_path=reverse_path)

    @property
    def links(self) -> int:
        """How many connections peers have turned, over all starts, without their second ones."""
        return self.log.count(_TURNED)

    def wait_for_links(self, count: int = 1, *, second: int = 0) -> None:
        """Wait for so many turned connections, over all starts, and so many second ones.

        A second connection may be turned before the first one is.
        """
        wait_until(lambda: self.links >= count, f"{count} connections are turned")
        wait_until(lambda: self.log.count(_TURNED_SECOND) >= second, "the second ones as well")

    def wait_for_mail(self, mailbox: str, count: int = 1, timeout: float = DEADLINE) -> list[bytes]:
        """The messages of a Maildir below ``mail/`` (``DOMAIN/LOCAL``), once there are `count`."""
        return wait_for_mail(self.folder / "mail" / mailbox, count, timeout)

    def _remember(self) -> None:
        if self.process is not None:
            self._logs.append(self.process.output)
            self.process = None


TWISTD = (
    sys.executable,
    "-c",
    "from twisted.scripts.twistd import run; run()",
    "--nodaemon",
    "--pidfile=",
)
MTA = (sys.executable, "-c", "import sys; from mta.commands import main; sys.exit(main())")


def configuration(**keys: Any) -> dict[str, Any]:
    """A configuration for tests: one smtp listener, and mail for ``office.example`` accepted.

    `keys` replace or add top-level keys.
    """
    return {
        "hostname": "mail.office.example",
        "spool": "spool",
        "run_as": "root",  # where it is root who runs the tests
        "listen": [listener("smtp")],
        "domains": {"office.example": local_domain()},
        "queue": {"retry": ["1s"]},
    } | keys


def listener(service: str, tls: str = "off", host: str = "127.0.0.1") -> dict[str, str]:
    """A listener on a port that the system chooses."""
    return {"endpoint": f"tcp:0:interface={host}", "service": service, "tls": tls}


def local_domain(**keys: Any) -> dict[str, Any]:
    """A domain whose every local part has a Maildir below ``mail/``."""
    return {"deliver": "maildir:mail/{domain}/{local}", "mailboxes": "any"} | keys


def send(
    port: int,
    content: bytes,
    *forward_paths: str,
    reverse_path: str = "sender@client.example",
) -> None:
    """Send one message by smtplib to a port of this machine."""
    with smtplib.SMTP("127.0.0.1", port, "client.example", timeout=DEADLINE) as client:
        client.ehlo()
        options = ["BODY=8BITMIME"] if client.has_extn("8bitmime") else []
        client.sendmail(reverse_path, forward_paths, content, options)


def mail_in(maildir: Path) -> list[bytes]:
    """The messages in ``new`` and ``cur``, in the order of their names."""
    paths = (path for part in ("new", "cur") for path in (maildir / part).glob("*"))
    return [path.read_bytes() for path in sorted(paths)]


def wait_for_mail(maildir: Path, count: int = 1, timeout: float = DEADLINE) -> list[bytes]:
    """The messages of a Maildir, once there are at least `count`."""
    wait_until(lambda: len(mail_in(maildir)) >= count, f"{count} in {maildir}", timeout)
    return mail_in(maildir)


def body_of(content: bytes) -> bytes:
    """What follows the header section, with the line ends of a file (LF)."""
    return content.replace(b"\r\n", b"\n").partition(b"\n\n")[2]


def header_of(content: bytes, name: str) -> list[str]:
    """The values of a header field, unfolded, in order."""
    section = content.replace(b"\r\n", b"\n").partition(b"\n\n")[0].decode("utf-8", "replace")
    fields = re.sub(r"\n[ \t]+", " ", section).split("\n")
    pairs = (field.partition(":") for field in fields)
    return [value.strip() for found, _, value in pairs if found.lower() == name.lower()]
