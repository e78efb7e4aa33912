"""What commands may import: they are to begin at once."""

from __future__ import annotations

import subprocess
import sys

from mta.spool.tools import SpoolTools
from tests.commands.test_commands import CommandCase
from tests.processes import source_environment

SERVER = {
    *("mta.service", "mta.queue.runner", "mta.resolver", "mta.smtp.receiver"),
    *("twisted.internet.reactor", "twisted.web", "twisted.application", "twisted.protocols"),
}
TLS = {"OpenSSL", "cryptography", "service_identity", "ssl", "mta.tls"}
LIBRARIES = {"dns", "email", "smtplib", "ruamel.yaml", "shtab", "prometheus_client"}
LIGHT = SERVER | TLS | LIBRARIES
TWISTED = {"twisted", "asyncio"}
CHANGES = TWISTED | {"mta.spool.tools"}  # which commands that only look have no use for


class ImportTests(CommandCase):
    """Each command in a process of its own."""

    def imported(self, *words: str) -> set[str]:
        """The modules that a command has imported when it ends."""
        program = (
            "import sys; from mta.commands import main\n"
            "try: main(sys.argv[1:])\n"
            "except SystemExit: pass\n"
            "print('', *sys.modules, sep='\\n')"
        )
        ended = subprocess.run(
            [sys.executable, "-c", program, *words],
            capture_output=True,
            check=True,
            env=source_environment() | {"MTA_CONFIG": str(self.config.absolute())},
            input="Subject: x\n\nx\n",
            text=True,
        )
        return set(ended.stdout.split())

    def test_overview(self) -> None:
        """It reads no configuration, and knows the other commands by name alone."""
        for words in ((), ("--help",), ("--version",)):
            found = {name for name in self.imported(*words) if name.startswith("mta.")}
            self.assertEqual(found, {"mta.commands"})

    def test_commands(self) -> None:
        """None loads the server, TLS or other libraries that it has no use for."""
        SpoolTools(self.folder / "spool").close()
        for words, forbidden in (
            (("queue", "list"), LIGHT | CHANGES),
            (("queue", "hold", "--all"), LIGHT | TWISTED),
            (("user", "list"), LIGHT | CHANGES),
            (("explain", "bob@office.example"), LIGHT | CHANGES),
            (("trace", "1K10RN776CB0S"), LIGHT | CHANGES),
            (("log", "--since", "1s"), LIGHT | CHANGES),
            (("peers",), LIGHT | TWISTED),
            (("turn", "--help"), LIGHT | CHANGES),
            (("sendmail", "bob@office.example"), TWISTED | LIGHT - {"email"}),
            (("check",), (SERVER | LIBRARIES) - {"mta.service", "email"}),
        ):
            found = self.imported(*words) & forbidden
            self.assertEqual(found, set(), words)
