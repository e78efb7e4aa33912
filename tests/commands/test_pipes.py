"""Files that the configuration names and that would never end: pipes."""

from __future__ import annotations

import os
import subprocess

from tests.commands.test_commands import CommandCase
from tests.processes import DEADLINE, MTA, source_environment


class PipeTests(CommandCase):
    """A pipe in place of a file is refused in one line; nothing waits for who writes to it."""

    def setUp(self) -> None:
        super().setUp()
        self.pipe = self.folder.resolve() / "pipe"
        os.mkfifo(self.pipe)

    def refused(self, *words: str) -> str:
        """The line about the pipe with which a command in a process of its own fails."""
        ended = subprocess.run(
            [*MTA, *words],
            env=source_environment() | {"MTA_CONFIG": str(self.config)},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        self.assertEqual((ended.returncode, ended.stdout), (1, ""))
        (line,) = (each for each in ended.stderr.splitlines() if "/pipe: " in each)
        return line

    def test_certificates_and_secrets(self) -> None:
        """Whatever file the configuration names."""
        pipe, other = str(self.pipe), str(self.config.resolve())
        route = {"to": "smtp://a.example", "user": "office", "secret": {"file": pipe}}
        for keys in (
            {"tls": {"certificate": pipe, "key": other}},
            {"tls": {"certificate": other, "key": pipe}},
            {"tls": {"certificates": [{"certificate": pipe, "key": other}]}},
            {"tls": {"ca": pipe}},
            {"tls": {"client_ca": pipe}},
            {"routes": {"default": route}},
        ):
            self.configure(**keys)
            line = self.refused("check")
            self.assertRegex(line, r"mta\.yaml:\d+:\d+: ")
            self.assertIn("pipe: Not a regular file, expected a file that can be read", line)

    def test_users(self) -> None:
        """The users file, for the server and for ``mta user``."""
        self.configure(users=str(self.pipe))
        for command in (["check"], ["user", "list"], ["user", "del", "alice"]):
            self.assertIn("pipe: Not a regular file", self.refused(*command))

    def test_included_tables(self) -> None:
        """A file that a table of aliases includes."""
        table = self.folder / "aliases"
        table.write_text(f"a: :include:{self.pipe}\n")
        line = self.refused("import", "aliases", str(table))
        self.assertIn("aliases:1:1: ", line)
        self.assertIn("pipe: Not a regular file", line)
