"""Ordinary mail beside each attack of the benchmark, for a moment each, with real processes.

``python -m bench --only "hostile*"`` measures how fast it is.
"""

from __future__ import annotations

import json
import smtplib
import sys
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from bench.rows.hostile import KINDS, Kind
from bench.servers import DOMAIN
from tests.processes import (
    ROOT,
    Process,
    Server,
    configuration,
    listener,
    local_domain,
    source_environment,
)

SESSIONS = 60  # of each attack: more than one host may have
MESSAGES = 3  # ordinary ones beside each
MAX_GROWTH = 128 * 2**20  # octets of memory that all attacks together may cost
BOB = f"inbox@{DOMAIN}"
CONTENT = b"Subject: x\r\n\r\nordinary\r\n"


class LoadTests(SynchronousTestCase):
    """See the module."""

    def setUp(self) -> None:
        self.server = Server(
            self,
            configuration(
                listen=[listener("smtp", "opportunistic"), listener("submission", "implicit")],
                domains={DOMAIN: local_domain()},
                relay={"networks": []},
                limits={"connections": 100},
            ),
        )
        self.server.start()
        self.server.send(CONTENT, BOB)

    def test_ordinary_mail(self) -> None:
        """It is taken beside each attack, and each comes from hosts that did nothing before."""
        before = self.server.memory
        for number, kind in enumerate(KINDS, 1):
            self._beside(kind, 250 * number)
        self.server.wait_for_mail(f"{DOMAIN}/inbox", 1 + MESSAGES * len(KINDS))
        self.assertLess(self.server.most_memory - before, MAX_GROWTH)
        self.assertNotIn("Traceback", self.server.log)

    def _beside(self, kind: Kind, first: int) -> None:
        few = replace(kind, sessions=min(SESSIONS, kind.sessions), sources=min(4, kind.sources))
        attack = replace(few.attack(self.server.ports), first=first)
        process = Process([sys.executable, *attack.arguments], ROOT, source_environment())
        try:
            process.wait_for("ready")
            for _ in range(MESSAGES):
                self.server.send(CONTENT, BOB)
        except (smtplib.SMTPException, OSError) as error:
            self.fail(f"{kind.name}: {error} beside {json.dumps(attack.__dict__)[:500]}")
        finally:
            process.kill()
