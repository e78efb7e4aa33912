"""The time that inspectors have, while a sender waits."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mta.inspectors.judging import MAX_SECONDS
from mta.peer_settings import Peer
from mta.service.inspectors import chain_seconds
from mta.settings import MINUTE, Settings
from mta.smtp.waiting_senders import MAX_WAIT


class ChainTests(SynchronousTestCase):
    """The time of all filters together."""

    def test_passed_through(self) -> None:
        """With the peer's minute and the look-ups, a sender waits for five minutes at most."""
        passing = Settings("relay.example", peers={"office": Peer("office", pass_through=True)})
        self.assertLessEqual(chain_seconds(passing) + MAX_SECONDS + MAX_WAIT, 5 * MINUTE)

    def test_others(self) -> None:
        """Else it may wait for nine: clients do for ten (RFC 5321 section 4.5.3.2.6)."""
        other = Settings("relay.example", peers={"office": Peer("office")})
        self.assertEqual(chain_seconds(other), 9 * MINUTE)
