"""What got its 250 is there afterwards, however processes end (RFC 5321 section 6.1)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.crash.outcome import Outcome
from tests.crash.site import HELD, Site
from tests.crash.victims import MAX_START, Victims

KILLS = 10


class KillTests(SynchronousTestCase):
    """kill -9, again and again, while mail is accepted, delivered, relayed, held and fetched."""

    def test_every_acknowledged_message_arrives(self) -> None:
        """Each arrives whole; twice only where a kill came between a host's 250 and its record."""
        site = Site(self, HELD)
        victims = Victims(site, 821)
        site.begin()
        victims.kill(KILLS)
        site.end()
        outcome = Outcome(site, victims.kills)
        outcome.check()
        self.assertGreater(min(outcome.acknowledged.values()), 0, outcome.acknowledged)
        self.assertGreater(outcome.acknowledged.total(), KILLS * 5, "the load was no load")
        self.assertLess(max(victims.processor), MAX_START)
