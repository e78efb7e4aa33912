"""The entries that a pairing makes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mta.mail import Agent, Hop
from mta.pairing.entries import office_edits
from mta.settings import Peer, Settings


class OfficeTests(SynchronousTestCase):
    """The configuration of the office."""

    def test_aliases_of_new_domains(self) -> None:
        """Each has those that are expected of it, and root is at home in one of them."""
        relay = Peer(
            "relay", domains=("example.org", "example.com"), connect=Hop(Agent.SMTP, "r.example")
        )
        edits = office_edits(Settings("office.example.com"), relay, "s", ["alice", "abuse"])
        aliases = {
            name: [key[-1] for key in edits if key[:3] == ("domains", name, "aliases")]
            for name in relay.domains
        }
        expected = {"example.org": ["postmaster"], "example.com": ["postmaster", "root"]}
        self.assertEqual(aliases, expected)
