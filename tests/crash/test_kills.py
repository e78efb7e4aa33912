"""What got its 250 is there afterwards, however processes end (RFC 5321 section 6.1)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.crash.site import Site

KILLS = 10


class KillTests(SynchronousTestCase):
    """kill -9, again and again, while mail is accepted, delivered, relayed, held and fetched."""

    def test_every_acknowledged_message_arrives(self) -> None:
        """Each arrives whole; twice only where a kill came between a host's 250 and its record."""
        site = Site(self, 821)
        site.run(KILLS)
        acknowledged, _ = site.check()
        self.assertGreater(acknowledged, KILLS * 5, "the load was no load")
