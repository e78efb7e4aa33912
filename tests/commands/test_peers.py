"""``mta turn`` and ``mta peers``, as far as no connection is needed for it."""

from __future__ import annotations

import json
import os
import sys

from mta.commands.turn import _advised, _Progress
from mta.mail import Agent, Hop, Reply
from mta.peers.status_files import PeerStatusFiles
from mta.peers.tally import Tally
from mta.settings import MIB, Peer
from tests.commands.test_commands import CommandCase
from tests.commands.test_queue import Terminal

PEERS = {
    "office": {"user": "office", "domains": ["office.example"]},
    "provider": {"connect": "smtps://us:secret@relay.example", "domains": ["office.example"]},
}
DIALLED = Peer("vps", ("x.example",), connect=Hop(Agent.SMTP, "h", 25, user="office"))


class TurnTests(CommandCase):
    """What is wrong is said before anything is dialled."""

    def test_an_unknown_peer(self) -> None:
        """The known ones are named."""
        self.configure(peers=PEERS)
        self.assertEqual(
            self.fail_with("turn", "provder"),
            "mta: no peer is called 'provder'; those that we dial: provider\n",
        )

    def test_a_peer_that_dials_us(self) -> None:
        """It can't be dialled."""
        self.configure(peers=PEERS)
        self.assertEqual(
            self.fail_with("turn", "office"),
            "mta: the peer 'office' dials us: it has no `connect`\n",
        )

    def test_usage(self) -> None:
        """A time has a unit."""
        self.assertIn("no duration", self.fail_with("turn", "x", "--timeout", "soon", status=2))

    def test_advice(self) -> None:
        """What a person can do stands behind the reply, where there is something."""
        self.assertEqual(
            advised(Reply(535, "5.7.8", ("No",))),
            "535 5.7.8 No (the log-in was refused: check the user and secret in `connect`)",
        )
        self.assertEqual(advised(Reply(451, "", ("Later\x1b[2J",))), "451 Later\ufffd[2J")
        self.assertIn(
            "(port 25 there does not know ATRN: another port may, 366 or 465, or another `method`)",
            advised(Reply(502, "5.5.1", ("Not implemented",))),
        )
        self.assertIn(
            "(the user 'office' is no peer there, or not for `method: atrn`: look at its `peers`)",
            advised(Reply(502, "5.7.0", ("You may not turn this connection",))),
        )

    def test_advice_on_silence(self) -> None:
        """A port that waits for TLS says nothing, as a client does that waits for a greeting."""
        late = Reply(451, "4.4.2", ("Connection lost while waiting for the greeting: timed out",))
        self.assertIn("(a port that begins with TLS, as 465 does, is for smtps://)", advised(late))

    def test_progress_on_a_terminal(self) -> None:
        """A line that grows and shrinks, of which nothing is left for what is printed next."""
        screen = Terminal()
        self.patch(sys, "stderr", screen)
        progress = _Progress(DIALLED)
        progress.changed(Tally(sent=600, octets=25 * MIB))
        progress.changed(Tally(sent=0))
        progress._clear()
        lines = ["", "vps: sent 600, received 0, 25.0 MiB", "vps: sent 0, received 0, 0 B", ""]
        self.assertEqual(screen.text.split("\r\x1b[K"), lines)
        quiet = Terminal()
        self.patch(sys, "stderr", quiet)
        _Progress(DIALLED)._clear()
        self.assertEqual(quiet.text, "")


def advised(reply: Reply) -> str:
    """What is said of a reply of the peer that we dial."""
    return _advised(DIALLED, reply)


class PeersTests(CommandCase):
    """``mta peers``."""

    def setUp(self) -> None:
        super().setUp()
        self.configure(peers=PEERS)
        self.records = PeerStatusFiles(self.folder / "spool")
        (self.folder / "spool").mkdir()

    def test_nothing_yet(self) -> None:
        """A line a peer, with nothing to tell."""
        heading, *lines = self.succeed("peers").splitlines()
        self.assertEqual(
            [line.split() for line in lines],
            [["office", "provider", "-", "0", "-"], ["provider", "customer", "-", "0", "-"]],
        )
        self.assertIn("LAST ERROR", heading)

    def test_no_peers(self) -> None:
        """It says so."""
        self.configure()
        self.assertEqual(self.succeed("peers"), "no peers\n")

    def test_a_link_and_an_error(self) -> None:
        """Since when a link stands, and what went wrong last."""
        self.records.update("office", last_exchange=1.0, last_error="451 \x1b[2J")
        error = r"  451 \ufffd\[2J"
        self.assertRegex(self.office(), rf"^office +provider +- +0 +\d+d ago{error}$")
        self.addCleanup(os.close, self.records.mark_link("office"))
        self.assertRegex(self.office(), r"^office +provider +\ds +0 +\d+d ago$")
        self.records.update("office", last_error="451 \x1b[2J")
        self.assertRegex(self.office(), rf"^office +provider +\ds +0 +\d+d ago{error}$")

    def office(self) -> str:
        """The line of the peer that dials in."""
        return self.succeed("peers").splitlines()[1]

    def test_json(self) -> None:
        """An object a line, with stable keys."""
        self.records.update("provider", last_exchange=1.0, sent=2, received=3)
        _, line = self.succeed("peers", "--json").splitlines()
        document = json.loads(line)
        self.assertGreater(document.pop("last_exchange_seconds"), 0)
        self.assertEqual(
            document,
            {
                "name": "provider",
                "role": "customer",
                "link_since": None,
                "link_seconds": None,
                "waiting": 0,
                "last_exchange": "1970-01-01T00:00:01Z",
                "last_error": "",
                "sent": 2,
                "received": 3,
                "mailboxes": None,
            },
        )
