"""OpenDKIM, a filter (milter) that signs what Postfix takes in."""

from __future__ import annotations

import shutil
from pathlib import Path

from bench.servers import SBIN, Server, answers, free_port, wait_until

DOMAIN = "client.example"  # of the sender that all loads have
SELECTOR = "bench"

_CONFIGURATION = """\
Mode s
Domain {domain}
Selector {selector}
KeyFile {key}
Canonicalization relaxed/relaxed
SignatureAlgorithm rsa-sha256
OversignHeaders From
Socket inet:{port}@127.0.0.1
PidFile {folder}/opendkim.pid
RequireSafeKeys no
Syslog no
UMask 002
"""


class OpenDKIM(Server):
    """The filter, with one key."""

    name = "OpenDKIM"

    def __init__(self, folder: Path, key: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.port = free_port()
        self.new = folder
        file = folder / "opendkim.conf"
        values = {"domain": DOMAIN, "selector": SELECTOR, "key": key, "port": self.port}
        file.write_text(_CONFIGURATION.format(folder=folder, **values))
        program = shutil.which("opendkim", path=SBIN)
        assert program
        super().__init__([program, "-f", "-x", str(file)], folder)
        wait_until(lambda: answers(self.port), "OpenDKIM is ready")

    @property
    def settings(self) -> dict[str, str]:
        """What main.cf of a Postfix says that uses it."""
        return {
            "smtpd_milters": f"inet:127.0.0.1:{self.port}",
            "milter_default_action": "tempfail",
        }


def is_missing() -> bool:
    """Whether it is not installed."""
    return shutil.which("opendkim", path=SBIN) is None
