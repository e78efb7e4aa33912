"""DMARC reports of a real server, of yesterday's mail, received by another one."""

from __future__ import annotations

import contextlib
import smtplib
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mta.queued import Filter
from mta.reporting.store import ReportStore
from mta.settings import KeyState
from mta.shared_tables.files import TableFolder
from mta.signing.making import KeyMaker, entry
from mta.signing.records import record
from mta.spool.tools import SpoolTools
from tests.interop.name_server import answering
from tests.processes import DEADLINE, Server, configuration, header_of, local_domain, wait_until

try:
    import dkim
    import parsedmarc
except ImportError:
    parsedmarc = None

CLIENT = "127.0.0.1"  # which sends for bank.example
STRANGER = "127.0.0.2"  # which sends for nobody
ALICE = "alice@office.example"
RUA = "mailto:dmarc@bank.example,mailto:x@victim.example"


class ReportTests(SynchronousTestCase):
    """Two servers: one that judges and reports, one that wants to know."""

    if parsedmarc is None:
        skip = "dkimpy or parsedmarc is not installed"

    def setUp(self) -> None:
        self.table: dict[str, Any] = {
            "bank.example": {"TXT": [f"v=spf1 ip4:{CLIENT} -all"]},
            "_dmarc.bank.example": {"TXT": [f"v=DMARC1; p=reject; rua={RUA}"]},
        }
        names = answering(self, self.table)
        domains = {"bank.example": local_domain()}
        self.bank = Server(self, configuration(hostname="mx.bank.example", domains=domains))
        self.bank.start()
        self.server = Server(self, {})
        maker = KeyMaker("office.example", self.server.folder)
        keys = maker.make(("rsa", "ed25519"), (), KeyState.ACTIVE, datetime.now(UTC))
        for key in keys:
            name, value = record("office.example", key)
            self.table[name] = {"TXT": [value]}
        entries = [entry(key, self.server.folder) for key in keys]
        self.config = configuration(
            resolver=[names],
            relay={"networks": []},
            authentication={"reports": "daily"},
            queue={"workers": 2, "retry": ["1s"]},
            domains={"office.example": local_domain(dkim=entries)},
            routes={"bank.example": f"smtp://127.0.0.1:{self.bank.ports['smtp']}"},
        )
        self.server.configure(self.config)
        self.server.start()

    def send(self, source: str, subject: str = "money") -> None:
        """Send a message in the name of the bank."""
        content = f"From: ceo@bank.example\r\nTo: {ALICE}\r\nSubject: {subject}\r\n\r\nx\r\n"
        port = self.server.ports["smtp"]
        with smtplib.SMTP(
            "127.0.0.1", port, "client.example", DEADLINE, source_address=(source, 0)
        ) as client:
            client.sendmail("x@bank.example", [ALICE], content.encode())

    def age(self) -> None:
        """Make what was counted today that of the day before yesterday."""
        path = self.server.folder / "spool" / "reports.sqlite"
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            for table in ("rows", "policies"):
                connection.execute(f"UPDATE {table} SET day = day - 2")

    def test_the_whole_way(self) -> None:
        """What came is counted over a restart, and told once, signed, to who may know."""
        for source in (STRANGER, CLIENT, STRANGER):
            self.send(source)
        # A report of the bank's own: told of, it would be answered by another, and so for ever.
        self.send(CLIENT, "Report Domain: office.example Submitter: mx.bank.example")
        self.server.stop()
        self.assertEqual({"bank.example"}, {domain for _, domain in self.waiting})
        self.server.start()
        self.send(STRANGER)
        self.server.stop()
        reports = len(self.waiting)  # one, but for a test at midnight
        self.age()
        self.server.start()
        contents = self.bank.wait_for_mail("bank.example/dmarc", reports)
        wait_until(lambda: not self.waiting, "the store is empty")
        told: Counter[tuple[str, str]] = Counter()
        for content in contents:
            told.update(self.told(content))
        self.assertEqual({(STRANGER, "quarantine"): 3, (CLIENT, "pass"): 1}, told)
        log = self.server.log
        self.assertEqual(reports, log.count(" written: DMARC report on bank.example"))

    def test_an_address_that_takes_none(self) -> None:
        """The report is dropped, and nobody is told."""
        self.send(STRANGER)
        self.server.stop()
        self.age()
        self.config["routes"]["bank.example"] = "reject:no such user"
        self.server.configure(self.config)
        self.server.start()
        wait_until(lambda: " failed dmarc@bank.example" in self.server.log, "it fails")
        self.server.stop()
        self.assertNotIn("is a notice about", self.server.log)
        with contextlib.closing(SpoolTools(self.server.folder / "spool")) as spool:
            self.assertEqual(0, spool.count(Filter()))

    @property
    def waiting(self) -> Sequence[tuple[int, str]]:
        """The days and domains that reports are still to be sent for."""
        return ReportStore(TableFolder(self.server.folder / "spool")).waiting(10**6)

    def told(self, content: bytes) -> Mapping[tuple[str, str], int]:
        """The numbers of messages in a report, by client and disposition."""
        self.assertEqual(["<dmarc@bank.example>"], header_of(content, "To"))
        self.assertEqual(["<>"], header_of(content, "Return-Path"))
        signed = dkim.DKIM(content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
        for number in range(2):  # of RSA and of Ed25519
            self.assertTrue(signed.verify(number, dnsfunc=self.text))
        found = parsedmarc.parse_report_email(content, offline=True)["report"]
        self.assertEqual("bank.example", found["policy_published"]["domain"])
        return {
            (each["source"]["ip_address"], each["policy_evaluated"]["disposition"]): each["count"]
            for each in found["records"]
        }

    def text(self, name: bytes, timeout: int = 5) -> bytes:
        """The record of a key."""
        value: str = self.table[name.decode().rstrip(".")]["TXT"][0]
        return value.encode()
