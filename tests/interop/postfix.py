"""A Postfix instance of our own, with folders, ports and users that are not the system's.

It takes mail on a private port.  Mail for its domain ends in one Maildir; all other mail goes to
a relay host.  Needs root, as Postfix does; the system's own Postfix is not touched.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from twisted.trial.unittest import SynchronousTestCase

from bench.postfix import MASTER
from bench.servers import free_port
from tests.processes import (
    Process,
    mail_in,
    need_program,
    temporary_folder,
    wait_for_mail,
    wait_until,
)

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
smtpd_peername_lookup = no
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions =
  check_recipient_access inline:{{ {{ {refused} = 550 5.1.1 nobody }} }}
smtp_dns_support_level = disabled
smtp_line_length_limit = 0
minimal_backoff_time = 1s
maximal_backoff_time = 2s
queue_run_delay = 1s
alias_maps =
alias_database =
virtual_mailbox_domains = {domain}
virtual_mailbox_maps = static:inbox/
virtual_mailbox_base = {folder}/mail
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
relayhost = {relayhost}
"""

DOMAIN = "postfix.example"
REFUSED = f"refused@{DOMAIN}"
NOTHING: Mapping[str, str] = MappingProxyType({})


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
        self._write_configuration(relay_port, settings)
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

    def _write_configuration(self, relay_port: int, settings: Mapping[str, str]) -> None:
        reader = pwd.getpwnam("nobody")
        for name in ("etc", "queue", "data", "mail"):
            (self._folder / name).mkdir(mode=0o755)
        os.chown(self._folder / "mail", reader.pw_uid, reader.pw_gid)
        os.chown(self._folder / "data", pwd.getpwnam("postfix").pw_uid, -1)
        main = _MAIN.format(
            folder=self._folder,
            domain=DOMAIN,
            refused=REFUSED,
            uid=reader.pw_uid,
            gid=reader.pw_gid,
            relayhost=f"[127.0.0.1]:{relay_port}" if relay_port else "",
        )
        main += "".join(f"{name} = {value}\n" for name, value in settings.items())
        (self._folder / "etc" / "main.cf").write_text(main)
        (self._folder / "etc" / "master.cf").write_text(MASTER.format(port=self.port))
