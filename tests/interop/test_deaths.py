"""A message on which the server dies, with a real server."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.processes import (
    MTA,
    ROOT,
    Server,
    configuration,
    local_domain,
    source_environment,
    wait_until,
)

CONTENT = b"Subject: hello\r\n\r\nbody\r\n"
# The command is a child of the server, which does not survive it.
KILLER = "/bin/sh -c 'kill -9 $PPID; sleep 9'"


class DeathTests(SynchronousTestCase):
    """A delivery kills the server."""

    def setUp(self) -> None:
        domains: dict[str, Any] = {
            "office.example": local_domain(),
            "deadly.example": {"deliver": f"pipe:{KILLER}", "mailboxes": "any"},
        }
        domains["office.example"]["aliases"] = {"postmaster": "bob"}
        domains["deadly.example"]["aliases"] = {"postmaster": "bob@office.example"}
        self.server = Server(self, configuration(domains=domains))

    def test_twice(self) -> None:
        """It is put on hold when it happened twice; all other mail is delivered."""
        self.server.start()
        self.server.send(CONTENT, "eve@deadly.example")
        for count in (1, 2):
            self.wait_for_end()
            self.server.start()
            self.server.send(CONTENT, "bob@office.example")
            self.server.wait_for_mail("office.example/bob", count)
        wait_until(lambda: self.listed("held"), "the message to be put on hold")
        (held,) = self.listed("held")
        self.assertIn("ended twice", held["reason"])
        self.server.send(CONTENT, "bob@office.example")
        self.server.wait_for_mail("office.example/bob", 3)
        assert self.server.process is not None
        self.assertTrue(self.server.process.is_running)

    def wait_for_end(self) -> None:
        """The server was killed."""
        process = self.server.process
        assert process is not None
        wait_until(lambda: not process.is_running, "the server to be killed")
        self.server.kill()

    def listed(self, state: str) -> list[dict[str, Any]]:
        """What ``mta queue list`` has in a state."""
        done = subprocess.run(
            [*MTA, "queue", "list", "--json", "--state", state],
            env=source_environment() | {"MTA_CONFIG": str(self.server.config)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        return [json.loads(line) for line in done.stdout.splitlines()]
