"""The live features behind NAT: links, questions and answers across a router, all dialled out."""

from __future__ import annotations

import re
import subprocess

from mta.peers.status_files import PeerStatusFiles
from tests.interop.network import OFFICE, ROUTER
from tests.interop.reversal import letter, numbers, waiting
from tests.interop.test_nat import ALICE, CAROL, OFFICE_YAML, VPS_YAML, NatCase
from tests.processes import wait_for_mail, wait_until

LIVE = "linger: 1h\n    verify: live\n    pass_through: true"


class LiveTests(NatCase):
    """The VPS knows no mailbox, and the office has two links."""

    def setUp(self) -> None:
        super().setUp()
        vps = VPS_YAML.replace("linger: 1h", LIVE)
        vps = re.sub(r"(?ms)^    # All others are refused at once.*?(?=^peers:)", "\n", vps)
        self.assertNotIn("alice", vps)
        self.start(re.sub(r"( +)method: atrn", r"\g<0>\n\1links: 2", OFFICE_YAML), vps)
        second = "office turned its second connection"
        wait_until(lambda: second in self.vps.log, second)

    def test_the_sender_hears_the_office(self) -> None:
        """What exists is taken by the office itself, what does not is refused; mail goes out."""
        for address in (OFFICE, ROUTER):
            self.assertFalse(self.network.can_connect("vps", address), address)
        self.network.send("vps", letter(1), CAROL, ALICE)
        inbox = self.office.folder / "mail/example.com/alice"
        self.assertEqual(numbers(wait_for_mail(inbox)), [1])
        with self.assertRaises(subprocess.CalledProcessError) as caught:
            self.network.send("vps", letter(2), CAROL, "eve@example.com")
        self.assertIn(b"5.1.1", caught.exception.stderr)
        self.network.send("office", letter(3, ALICE), ALICE, CAROL)
        self.assertEqual(numbers(self.world.wait_for_mail("all")), [3])
        self.assertEqual(waiting(self.vps.folder), 0)
        wait_until(self.counted, "all of it is counted")

    def counted(self) -> bool:
        """Tell whether the VPS has counted a question for each, and the message passed through."""
        status = PeerStatusFiles(self.vps.folder / "spool").read("office")
        counts = {"answered_by_link": 2, "passed_through": 1}
        return status.counts == counts and status.round_trip is not None
