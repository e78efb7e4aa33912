"""A Postfix instance of our own, with folders, ports and users that are not the system's.

It takes mail on a private port.  Mail for its domain ends in one Maildir; all other mail goes to
a relay host.  Needs root, as Postfix does; the system's own Postfix is not touched.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench.postfix import NOTHING, lay_out
from bench.servers import free_port
from tests.processes import (
    Process,
    mail_in,
    need_program,
    temporary_folder,
    wait_for_mail,
    wait_until,
)

DOMAIN = "postfix.example"
REFUSED = f"refused@{DOMAIN}"
_SETTINGS = {
    "smtpd_recipient_restrictions": (
        f"check_recipient_access inline:{{ {{ {REFUSED} = 550 5.1.1 nobody }} }}"
    ),
    "smtp_line_length_limit": "0",
    "minimal_backoff_time": "1s",
    "maximal_backoff_time": "2s",
    "queue_run_delay": "1s",
}


class Postfix:
    """A running Postfix; skips the test where there can't be one.

    `relay_port`: the port of this machine to which it relays; 0: nowhere.  `settings` are further
    lines of main.cf.
    """

    def __init__(
        self, case: SynchronousTestCase, relay_port: int = 0, settings: Mapping[str, str] = NOTHING
    ) -> None:
        if os.geteuid() != 0:
            case.skipTest("Postfix can only be started by root")
        self._program = need_program(case, "postfix")
        self.port = free_port()
        self._folder = temporary_folder(case)
        relay = f"[127.0.0.1]:{relay_port}" if relay_port else ""
        lay_out(self._folder, self.port, DOMAIN, relay, {**_SETTINGS, **settings})
        self._process = Process(
            [self._program, "-c", str(self._folder / "etc"), "start-fg"], self._folder
        )
        case.addCleanup(self.stop)
        wait_until(self._is_ready, "Postfix is ready")

    @property
    def log(self) -> str:
        """What it logged."""
        path = self._folder / "mail.log"
        written = path.read_text("utf-8", "replace") if path.exists() else ""
        return self._process.output + written

    @property
    def mail(self) -> list[bytes]:
        """The messages that it delivered."""
        return mail_in(self._inbox)

    def wait_for_mail(self, count: int = 1) -> list[bytes]:
        """The messages that it delivered, once there are `count`."""
        try:
            return wait_for_mail(self._inbox, count)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None

    def stop(self) -> None:
        """End it; its master ends the other processes of the instance."""
        if not self._process.is_running:
            return
        subprocess.run(
            [self._program, "-c", str(self._folder / "etc"), "stop"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        self._process.kill()

    @property
    def _inbox(self) -> Path:
        return self._folder / "mail" / "inbox"

    def _is_ready(self) -> bool:
        if not self._process.is_running:
            raise AssertionError(f"Postfix does not start:\n{self.log}")
        return "daemon started" in self.log
