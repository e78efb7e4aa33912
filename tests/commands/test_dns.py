"""``mta dns``: the records of a domain, with a name server on this host."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from typing import Any

from mta.config import load
from mta.signing.records import record
from tests.commands.test_commands import CommandCase
from tests.commands.test_dkim import PROGRAM
from tests.interop.name_server import NameServer
from tests.processes import source_environment

DOMAIN, HOST = "office.example", "mail.office.example"


class DNSTests(CommandCase):
    """A domain with keys, and what the DNS has of it."""

    def setUp(self) -> None:
        super().setUp()
        self.table: dict[str, Any] = {}
        server = NameServer(self.table)
        self.addCleanup(server.close)

        def serve() -> None:
            with contextlib.suppress(OSError, ValueError):
                server.serve()

        threading.Thread(target=serve, daemon=True).start()
        self.configure(resolver=[server.address], hostname=HOST)
        self.assertEqual(self.call("dkim", "add", DOMAIN)[0], 0)
        self.key, self.other = load(self.config).domains[DOMAIN].dkim

    def call(self, *words: str) -> tuple[int, str]:
        """Run a command in a process; returns its status, and what it said."""
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            text=True,
            env=source_environment() | {"MTA_CONFIG": str(self.config.absolute())},
        )
        return ended.returncode, ended.stdout

    def test_records(self) -> None:
        """Each with its state: keys as short strings, or as one for a form."""
        name, value = record(DOMAIN, self.key)
        self.table[HOST] = "192.0.2.1"
        self.table[DOMAIN] = [[10, HOST]]
        self.table[name] = {"TXT": [value]}
        status, said = self.call("dns", DOMAIN)
        self.assertEqual(status, 0, said)
        states = dict(line.split(maxsplit=1)[::-1] for line in said.splitlines())
        self.assertEqual(states[f"{DOMAIN}.  IN  MX  10 {HOST}."], "ok")
        self.assertEqual(states[f'{DOMAIN}.  IN  TXT  "v=spf1 mx -all"'], "missing")
        [line] = [line for line in states if line.startswith(f"{name}.  IN  TXT  ")]
        self.assertEqual(states[line], "ok")
        strings = line.split("TXT  ")[1].strip('"').split('" "')
        self.assertEqual("".join(strings), value)
        self.assertGreater(len(strings), 1)
        _, said = self.call("dns", DOMAIN, "--web")
        self.assertIn(f"TXT  name {name}  value {value}\n", said)
        missing, _ = record(DOMAIN, self.other)
        documents = [
            json.loads(line) for line in self.call("dns", DOMAIN, "--json")[1].splitlines()
        ]
        self.assertEqual({each["name"]: each["state"] for each in documents}[missing], "missing")
