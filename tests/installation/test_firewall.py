"""What firewalls of this host say of our ports."""

from __future__ import annotations

import os
import subprocess

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from mta.installation.firewall import Ruleset, ufw_drops
from tests.processes import need_program

_HEAD = """table inet filter {{
{2}
chain input {{ type filter hook input priority 0; policy {0}; {1}
}}
}}
"""
_ESTABLISHED = "ct state established,related accept; iif lo accept; meta l4proto icmp accept;"

# The rules, and whether they drop what comes to port 25.
RULES = (
    (("accept", "", ""), False),
    (("drop", "", ""), True),
    (("drop", _ESTABLISHED, ""), True),
    (("drop", f"{_ESTABLISHED} tcp dport 22 accept;", ""), True),
    (("drop", f"{_ESTABLISHED} tcp dport {{ 22, 25 }} accept;", ""), False),
    (("drop", f"{_ESTABLISHED} tcp dport 20-30 accept;", ""), False),
    (("drop", "udp dport 25 accept;", ""), True),
    (("drop", "ct state new,established accept;", ""), False),
    (("drop", "meta l4proto { tcp, udp } accept;", ""), False),
    (("drop", "ip saddr 192.0.2.1 accept;", ""), False),
    (("drop", "jump mail;", "chain mail { tcp dport 25 counter accept\n}"), False),
    (("accept", "jump mail;", "chain mail { tcp dport 25 counter drop\n}"), True),
    (("accept", "tcp dport 25 reject;", ""), True),
    (("accept", "ip saddr 192.0.2.1 tcp dport 25 drop;", ""), False),
    (("accept", "tcp dport != 25 drop;", ""), False),
    (("drop", "tcp dport vmap { 25 : accept };", ""), False),
)

_UFW = """Status: active
Logging: on (low)
Default: deny (incoming), allow (outgoing), disabled (routed)
New profiles: skip

To                         Action      From
--                         ------      ----
22/tcp                     ALLOW IN    Anywhere
{}
"""


class NftablesTests(SynchronousTestCase):
    """The rules of nftables, read by nft itself in a network of its own."""

    def ruleset(self, rules: str) -> str:
        """The rules as nft prints them."""
        command = ["unshare", "--net", "sh", "-c", "nft -f - && nft --json list ruleset"]
        ended = subprocess.run(command, input=rules, capture_output=True, text=True, check=False)
        if ended.returncode and "Operation not" in ended.stderr:
            raise SkipTest(f"no nftables here: {ended.stderr}")
        self.assertEqual(ended.returncode, 0, ended.stderr)
        return ended.stdout

    def test_what_is_dropped(self) -> None:
        """Only what is certain counts as dropped."""
        if os.geteuid() != 0:
            self.skipTest("only root sees rules")
        need_program(self, "nft")
        for (policy, rules, more), expected in RULES:
            dropped = Ruleset(self.ruleset(_HEAD.format(policy, rules, more))).drops(25)
            self.assertEqual(dropped, expected, (policy, rules, more))

    def test_without_rules(self) -> None:
        """Nothing is dropped."""
        self.assertFalse(Ruleset('{"nftables": []}').drops(25))


class UfwTests(SynchronousTestCase):
    """What ufw says of itself."""

    def test_what_is_dropped(self) -> None:
        """A port that no rule allows; a rule that is not understood may."""
        for line, expected in (
            ("", True),
            ("25/tcp                     ALLOW IN    Anywhere", False),
            ("25                         LIMIT IN    Anywhere", False),
            ("25/udp                     ALLOW IN    Anywhere", True),
            ("25/tcp (Postfix)           ALLOW IN    Anywhere", False),
            ("25/tcp                     DENY IN     Anywhere", True),
            ("20:30,465/tcp              ALLOW IN    Anywhere", False),
            ("Anywhere                   ALLOW IN    192.0.2.1", False),
        ):
            self.assertEqual(ufw_drops(_UFW.format(line), 25), expected, line)
        self.assertFalse(ufw_drops(_UFW.format("").replace("deny (inc", "allow (inc"), 25))
