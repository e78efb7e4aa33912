"""The entries that a pairing makes."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from mta.mail import Agent, Hop
from mta.pairing.entries import office_edits, relay_edits
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

    def test_links(self) -> None:
        """A new relay has two links of the office, unless it wants one; one that is known stays."""
        relay = Peer("relay", domains=("example.org",), connect=Hop(Agent.SMTP, "r.example"))
        key = ("peers", "relay", "links")
        bare = Settings("office.example.com")
        self.assertEqual(office_edits(bare, relay, "s", ["alice"])[key], 2)
        self.assertNotIn(key, office_edits(bare, relay, "s", ["alice"], links=1))
        known = replace(bare, peers={"relay": relay})
        self.assertNotIn(key, office_edits(known, relay, "s", ["alice"]))


class RelayTests(SynchronousTestCase):
    """The configuration of the relay."""

    def live(self, settings: Settings, *, is_live: bool = True) -> set[str]:
        """The keys for what only a standing link can do."""
        edits = relay_edits(settings, "office", ["example.com"], is_live=is_live)
        return {key[-1] for key in edits} & {"verify", "pass_through"}

    def test_live(self) -> None:
        """A new office is asked, and answers, unless it is not to; one that is known stays."""
        bare = Settings("mail.example.com")
        self.assertEqual(self.live(bare), {"verify", "pass_through"})
        self.assertEqual(self.live(bare, is_live=False), set())
        known = replace(bare, peers={"office": Peer("office", user="office")})
        self.assertEqual(self.live(known), set())
