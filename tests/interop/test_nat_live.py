"""The live features behind NAT: links, questions and answers across a router, all dialled out."""

from __future__ import annotations

import re
import subprocess

import yaml

from mta.peers.status_files import PeerStatusFiles
from tests.interop.network import OFFICE, ROUTER, VPS_OUTSIDE, WORLD
from tests.interop.reversal import letter, numbers, waiting
from tests.interop.test_filters import CONTENT, GTUBE, FilterCase, milters
from tests.interop.test_nat import ALICE, CAROL, OFFICE_YAML, VPS_YAML, NatCase
from tests.processes import DEADLINE, need_program, wait_for_mail, wait_until

LIVE = "linger: 1h\n    verify: live\n    pass_through: true"


class LiveCase(NatCase):
    """The VPS knows no mailbox, and the office has two links."""

    def serve(self, more: str = "") -> None:
        """Start all; `more` is added to the configuration of the office."""
        vps = VPS_YAML.replace("linger: 1h", LIVE)
        vps = re.sub(r"(?ms)^    # All others are refused at once.*?(?=^peers:)", "\n", vps)
        self.assertNotIn("alice", vps)
        office = re.sub(r"( +)method: atrn", r"\g<0>\n\1links: 2", OFFICE_YAML)
        # There is no DNS in these namespaces, and a look-up takes its time.
        self.start(office.replace("\nauthentication: {}\n", "\n") + more, vps)
        self.vps.wait_for_links(second=1)


class LiveTests(LiveCase):
    """Questions and answers."""

    def test_the_sender_hears_the_office(self) -> None:
        """What exists is taken by the office itself, what does not is refused; mail goes out."""
        self.serve()
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


class SpamTests(LiveCase, FilterCase):
    """rspamd in the office."""

    def test_spam(self) -> None:
        """It judges the true client, and its refusal is heard by swaks in the world."""
        self.run_rspamd()
        self.serve(yaml.safe_dump({"milters": milters(f"unix:{self.rspamd}")}))
        for text, status in ((b"a letter", 0), (GTUBE, 26)):  # refused behind the content
            ended = self.swaks(CONTENT % (b"x", text))
            self.assertEqual(ended.returncode, status, ended.stdout)
        self.assertIn("<** 554 5.7.1 office refused it: Gtube pattern", ended.stdout)
        (mail,) = wait_for_mail(self.office.folder / "mail/example.com/alice")
        self.assertIn(f"X-Seen: {WORLD} ".encode(), mail)
        self.assertNotIn("is a notice", self.vps.log + self.office.log)
        self.assertEqual(waiting(self.vps.folder), 0)

    def swaks(self, content: bytes) -> subprocess.CompletedProcess[str]:
        """Send from the world to the VPS."""
        path = self.world.folder / "message.eml"
        path.write_bytes(content)
        return subprocess.run(
            [
                *(*self.network.inside("world"), need_program(self, "swaks")),
                *("--server", VPS_OUTSIDE, "--helo", "client.example", "--data", f"@{path}"),
                *("--from", "carol@client.example", "--to", ALICE),
            ],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
