"""``mta turn`` and ``mta peers``, as far as no connection is needed for it."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace

from mta.commands import main
from mta.commands.peer_details import lines
from mta.commands.turn import _advised, _Progress
from mta.mail import Agent, Hop, Reply
from mta.peers.status_files import EndedExchange, PeerStatus, PeerStatusFiles
from mta.peers.tally import Tally
from mta.session import LinkKind
from mta.settings import DAY, MIB, Peer
from mta.spool.place import SpoolPlace
from tests.commands.test_commands import CommandCase
from tests.commands.test_queue import Terminal

PEERS = {
    "office": {"user": "office", "domains": ["office.example"]},
    "provider": {"connect": "smtps://us:secret@relay.example", "domains": ["office.example"]},
}
OBSTACLE = "the office takes no sealed mail (no XSEALED): its mail waits until it does"
LONG_ERROR = "451 4.4.2 The connection was lost before it was turned, by the other side"
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

    def test_nothing_yet_in_a_database(self) -> None:
        """The columns of the nodes are there before the first start, too."""
        self.configure(peers=PEERS, spool="postgresql://mta@db.example/mta", spool_folder="spool")
        self.patch(SpoolPlace, "exists", lambda place: False)
        heading, *lines = self.succeed("peers").splitlines()
        self.assertIn("AT NODE", heading)
        self.assertEqual(
            [line.split() for line in lines],
            [
                ["office", "provider", "-", "-", "0", "-"],
                ["provider", "customer", "-", "-", "0", "-"],
            ],
        )

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
                "second_link_since": None,
                "second_link_seconds": None,
                "waiting": 0,
                "last_exchange": "1970-01-01T00:00:01Z",
                "last_error": "",
                "sent": 2,
                "received": 3,
                "mailboxes": None,
                "oldest": None,
                "oldest_seconds": None,
                "round_trip_ms": None,
                "questions": {"link": 0, "cache": 0, "list": 0, "unknown": 0},
                "passed_through": 0,
                "refused": 0,
                "sealed": False,
                "sealed_messages": 0,
                "obstacle": "",
                "exchanges": [],
            },
        )

    def test_all_of_one_in_json(self) -> None:
        """Counts, round trip and the last exchanges have keys of their own."""
        self.make_known()
        document = json.loads(self.succeed("peers", "office", "--json"))
        self.assertEqual(document["round_trip_ms"], 48.1)
        self.assertEqual(document["questions"], {"link": 7, "cache": 0, "list": 2, "unknown": 0})
        self.assertEqual((document["passed_through"], document["refused"]), (0, 3))
        self.assertEqual(document["obstacle"], OBSTACLE)
        broken = {"ended": "2001-09-09T01:46:40Z", "seconds": 1.5, "sent": 0, "received": 0}
        self.assertEqual(document["exchanges"][1], broken | {"error": LONG_ERROR})

    def test_all_of_one(self) -> None:
        """No line is longer than a terminal, and none is in more than one piece without need."""
        self.make_known()
        lines = self.succeed("peers", "office").splitlines()
        self.assertEqual(
            lines,
            [
                "office",
                "  role             we are its provider: it dials us",
                "  link             none, the last exchange ended 9d ago",
                "  waiting          0",
                "  obstacle         the office takes no sealed mail (no XSEALED): its mail waits",
                "                   until it does",
                "  questions        9, answered by: 7 link, 0 cache, 2 list, 0 unknown",
                "  refused          3",
                "",
                "ENDED                 LASTED    SENT  RECEIVED",
                lines[-3],
                "2001-09-09T01:46:40Z      2s       0         0",
                f"    {LONG_ERROR}",
            ],
        )
        self.assertRegex(lines[-3], r"^20..-..-..T..:..:..Z      3d      12         4$")
        self.assertLessEqual(max(map(len, lines)), 80)
        for kind in LinkKind:
            self.addCleanup(os.close, self.records.mark_link("office", kind))
        self.assertIn(
            "\n  link             for 0s, round trip 48.1 ms\n  second link      for 0s\n",
            self.succeed("peers", "office"),
        )
        self.assertIn(
            "we are its customer, and dial relay.example:465", self.succeed("peers", "provider")
        )

    def test_a_peer_with_a_key(self) -> None:
        """It is told that what waits for it is encrypted; what a customer has a key for is not."""
        document = json.loads(self.succeed("peers", "office", "--json"))
        sealed = "  sealed           its mail waits encrypted"
        peer = Peer("office", seal="office.age.pub")
        self.assertIn(sealed, [*lines(peer, PeerStatus(), document)])
        self.assertNotIn(sealed, [*lines(replace(DIALLED, seal="key"), PeerStatus(), document)])

    def test_a_peer_that_is_not_there(self) -> None:
        """The known ones are named."""
        self.assertEqual(
            self.fail_with("peers", "offce"),
            "mta: no peer is called 'offce'; there are: office, provider\n",
        )

    def test_on_a_terminal(self) -> None:
        """A long error has lines of its own; an obstacle has one in any case."""
        self.make_known()
        self.records.update("office", last_error=LONG_ERROR + " and so on")
        screen = Terminal()
        self.patch(sys, "stdout", screen)
        self.assertEqual(main(["peers"]), 0)
        lines = screen.text.splitlines()
        self.assertLessEqual(max(map(len, lines)), 80)
        self.assertEqual(lines[2].strip(), LONG_ERROR)

    def make_known(self) -> None:
        """Have much to tell of the office."""
        self.records.end_exchange("office", EndedExchange(1e9, 1.5, error=LONG_ERROR))
        ended = EndedExchange(time.time() - 9 * DAY, 3 * DAY, 12, 4)
        self.records.end_exchange("office", ended, last_exchange=ended.ended)
        counts = {"answered_by_link": 7, "answered_by_list": 2, "refused": 3}
        self.records.count({"office": counts})
        self.records.update("office", round_trip=0.04812, obstacle=OBSTACLE)
