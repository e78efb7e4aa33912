"""Keys that are made and changed while the server runs."""

from __future__ import annotations

import re
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mta.config import load
from mta.signing.records import record
from tests.interop.name_server import answering
from tests.interop.reversal import run_mta
from tests.interop.sink import Sink
from tests.processes import Server, configuration, header_of, local_domain

DOMAIN = "example.com"


class RotationTests(SynchronousTestCase):
    """A server that signs, and goes on to sign."""

    def setUp(self) -> None:
        self.table: dict[str, Any] = {}
        self.sink = Sink(self)
        self.server = Server(
            self,
            configuration(
                hostname="mail.example.com",
                resolver=[answering(self, self.table)],
                domains={DOMAIN: local_domain()},
                # Keys apply from the next connection on.
                queue={"retry": ["1s"], "connection_idle": "0s"},
                routes={"partner.example": f"smtp://127.0.0.1:{self.sink.port}"},
            ),
        )
        self.server.start()
        self.count = 0

    def mta(self, *words: str) -> str:
        """Run ``mta dkim``, and wait until the server knows; returns what it said."""
        assert self.server.process is not None
        before = len(self.server.process.output)
        said = run_mta(self.server, "dkim", *words)
        self.server.process.wait_for("read again", after=before)
        return said

    def publish(self) -> None:
        """Put the records of all keys into the DNS."""
        for key in load(self.server.config).domains[DOMAIN].dkim:
            name, value = record(DOMAIN, key)
            self.table[name] = {"TXT": [value]}

    def signers(self) -> list[str]:
        """The letters of the keys that sign now."""
        content = b"From: alice@example.com\r\nSubject: x\r\n\r\nx\r\n"
        self.server.send(content, "bob@partner.example", reverse_path="alice@example.com")
        self.count += 1
        received = self.sink.wait_for_mail(self.count)[-1]
        found = [
            re.search(r"\bs=\d{4}(\w)", field) for field in header_of(received, "DKIM-Signature")
        ]
        return sorted(match[1] for match in found if match)

    def test_each_step(self) -> None:
        """The server signs by each new configuration, without a restart."""
        self.assertEqual([], self.signers())
        self.mta("add", DOMAIN)
        self.assertEqual(["a", "b"], self.signers())
        self.mta("rotate", DOMAIN)
        self.assertEqual(["a", "b"], self.signers())
        self.publish()
        self.mta("rotate", DOMAIN)
        self.assertEqual(["c", "d"], self.signers())
