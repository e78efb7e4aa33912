"""The proof that a new server works: one message, into a Maildir."""

from __future__ import annotations

import os
import re
import secrets
import smtplib
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.message import EmailMessage
from email.utils import formatdate
from pathlib import Path
from typing import IO

from mta.config.endpoints import tcp_address
from mta.settings import Service, Settings

START_TIMEOUT = 60.0  # seconds until a new server takes connections
DELIVERY_TIMEOUT = 20.0  # seconds until the message is in the Maildir
PAUSE = 0.05  # seconds
LOCAL = "127.0.0.1"

_READY = re.compile(r"\bready$", re.MULTILINE)


class NotProven(Exception):
    """The message did not arrive: one line that says why."""


def smtp_port(settings: Settings) -> int | None:
    """The port of a listener without log-ins that we can reach."""
    for listener in settings.listen:
        tcp = tcp_address(listener.endpoint)
        if listener.service is Service.SMTP and tcp and tcp.host in ("", LOCAL):
            return tcp.port
    return None


def send(port: int, hostname: str, address: str, maildir: Path) -> float:
    """Send a message to a mailbox; returns the seconds that it took.

    The server may still be about to start.  Raises NotProven.
    """
    token = secrets.token_hex(8)
    message = EmailMessage()
    message["From"] = f"mta init <postmaster@{hostname}>"
    message["To"] = address
    message["Date"] = formatdate(localtime=True)
    message["Subject"] = "Your mail server works"
    message["X-Mta-Init"] = token
    message.set_content("This message came through your new mail server.\n")
    with _connected(port, hostname) as client:
        begin = time.monotonic()
        try:
            client.send_message(message, "", [address])
        except smtplib.SMTPException as error:
            raise NotProven(f"the server did not take a message for {address}: {error}") from None
    while not any(token in text for text in _new_mail(maildir)):
        if time.monotonic() > begin + DELIVERY_TIMEOUT:
            raise NotProven(f"the message for {address} is not in {maildir}: mta queue list")
        time.sleep(PAUSE)
    return time.monotonic() - begin


@contextmanager
def running(command: Sequence[str], folder: Path) -> Iterator[None]:
    """Run a server meanwhile.  Raises NotProven, with its last line, where it does not start."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(  # noqa: S603 (our own server)
            command,
            cwd=folder,
            env=os.environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            end = time.monotonic() + START_TIMEOUT
            while not _READY.search(said := _read(output)):
                if process.poll() is not None or time.monotonic() > end:
                    last = said.strip().splitlines() or ["it says nothing"]
                    raise NotProven(f"the server does not start: {last[-1]}")
                time.sleep(PAUSE)
            yield
        finally:
            process.terminate()
            process.wait()


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")


@contextmanager
def _connected(port: int, hostname: str) -> Iterator[smtplib.SMTP]:
    """A session with the server, as soon as it takes one."""
    end = time.monotonic() + START_TIMEOUT
    while True:
        try:
            client = smtplib.SMTP(LOCAL, port, hostname, timeout=DELIVERY_TIMEOUT)
            break
        except OSError as error:
            if time.monotonic() > end:
                raise NotProven(f"no server answers on port {port}: {error}") from None
        time.sleep(PAUSE)
    with client:
        yield client


def _new_mail(maildir: Path) -> Iterator[str]:
    for path in (maildir / "new").glob("*"):
        yield path.read_text("utf-8", "replace")
