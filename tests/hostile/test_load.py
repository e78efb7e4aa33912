"""Ordinary mail beside each attack of the benchmark, for a moment each, with real processes.

``python -m bench --only "hostile*"`` measures how fast it is.
"""

from __future__ import annotations

import json
import smtplib
import ssl
import sys
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from bench.rows.attacks import CONTENT, DEAF_WORDS, KINDS, PASSWORD, USER, Kind, keys
from bench.servers import DOMAIN
from tests.processes import (
    DEADLINE,
    ROOT,
    Process,
    Server,
    configuration,
    source_environment,
    temporary_folder,
)

SESSIONS = 60  # of each attack: more than one host may have; content costs more
MESSAGES = 3  # ordinary ones beside each
MAX_GROWTH = 160 * 2**20  # octets of memory that all attacks together may cost
BOB = f"bob@{DOMAIN}"
ORDINARY = b"Subject: x\r\n\r\nordinary\r\n"


class LoadTests(SynchronousTestCase):
    """See the module."""

    def setUp(self) -> None:
        attacked = keys(temporary_folder(self), self._deaf(""), self._deaf(DEAF_WORDS))
        self.server = Server(self, configuration(**{**attacked, "limits": {"connections": 100}}))
        self.server.start()
        self.server.send(ORDINARY, BOB)

    def test_ordinary_mail(self) -> None:
        """It is taken beside each attack, and users log in beside those that guess passwords.

        Each comes from hosts that did nothing before.
        """
        before = self.server.memory
        for number, kind in enumerate(KINDS, 1):
            self._beside(kind, 250 * number)
        self.assertLess(self.server.most_memory - before, MAX_GROWTH)
        # Mail for a thousand each comes last: what came beside it is delivered between that.
        self.server.wait_for_mail("bob", 1 + MESSAGES * (len(KINDS) - 1))
        self.assertNotIn("Traceback", self.server.log)

    def _deaf(self, words: str) -> int:
        """The port of a server that hears nothing."""
        command = [sys.executable, "-m", "bench.programs.deaf", words]
        process = Process(command, ROOT, source_environment())
        self.addCleanup(process.kill)
        return int(process.wait_for(r"\d+")[0])

    def _beside(self, kind: Kind, first: int) -> None:
        most = 1 if kind in CONTENT else SESSIONS
        few = replace(kind, sessions=min(most, kind.sessions), sources=min(4, kind.sources))
        attack = replace(few.attack(self.server.ports), first=first)
        process = Process([sys.executable, *attack.arguments], ROOT, source_environment())
        try:
            process.wait_for("ready")
            for _ in range(MESSAGES):
                self.server.send(ORDINARY, BOB)
            if kind.name.startswith("AUTH"):
                self._log_in()
        except (smtplib.SMTPException, OSError) as error:
            self.fail(f"{kind.name}: {error} beside {json.dumps(attack.__dict__)[:500]}")
        finally:
            process.kill()

    def _log_in(self) -> None:
        """Log in as a user."""
        context = ssl._create_unverified_context()
        port = self.server.ports["submission"]
        with smtplib.SMTP_SSL("127.0.0.1", port, timeout=DEADLINE, context=context) as client:
            client.login(USER, PASSWORD)
