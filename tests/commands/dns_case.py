"""Commands that ask the DNS."""

from __future__ import annotations

import subprocess
from typing import Any

from tests.commands.test_commands import CommandCase
from tests.interop.name_server import answering
from tests.processes import MTA, source_environment


class DNSCase(CommandCase):
    """A name server on this host with a table, and commands in processes of their own."""

    def setUp(self) -> None:
        super().setUp()
        self.table: dict[str, Any] = {}
        self.name_server = answering(self, self.table)

    def call(self, *words: str) -> tuple[int, str]:
        """Run a command in a process; returns its status, and what it said."""
        ended = subprocess.run(
            [*MTA, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            text=True,
            env=source_environment() | {"MTA_CONFIG": str(self.config.absolute())},
        )
        return ended.returncode, ended.stdout
