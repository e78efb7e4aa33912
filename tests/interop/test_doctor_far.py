"""``mta doctor`` at both ends of a link, with a router and the DNS between them."""

from __future__ import annotations

import json
import subprocess

from tests.interop.network import VPS
from tests.interop.test_nat import _MACHINE, OFFICE_YAML, VPS_YAML, Machine, NatCase
from tests.processes import DEADLINE, MTA, need_program, source_environment

Found = dict[str, list[tuple[str, str]]]
RESOLVER = f"\nresolver: [{VPS}]\n"
OPEN = "\nrelay:\n  networks: [127.0.0.0/8, 10.77.0.0/16]\n"


class FarTests(NatCase):
    """An office that sees its relay from outside, and a relay that is told so."""

    def setUp(self) -> None:
        super().setUp()
        dnsmasq = need_program(self, "dnsmasq")
        command = [dnsmasq, "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv"]
        command += ["--no-hosts", "--pid-file=", "--user=root", "--bind-interfaces"]
        command += [f"--listen-address={VPS}", f"--host-record=mail.example.com,{VPS}"]
        command += ["--mx-host=example.com,mail.example.com,10"]
        command += ["--txt-record=example.com,v=spf1 mx -all", "--local=/example.com/"]
        server = subprocess.Popen([*self.network.inside("vps"), *command])
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)

    def doctor(self, name: str, machine: Machine) -> Found:
        """Call it on a machine; returns the results by check, as (state, text)."""
        ended = subprocess.run(
            [
                *self.network.inside(name),
                *("sh", "-c", _MACHINE, str(machine.folder), *MTA),
                *("doctor", "--json", "-c", str(machine.config)),
            ],
            env=source_environment() | {"SSL_CERT_FILE": str(machine.folder / "ca.pem")},
            capture_output=True,
            text=True,
            check=False,
            timeout=4 * DEADLINE,
        )
        found: Found = {}
        for line in ended.stdout.splitlines():
            document = json.loads(line)
            found.setdefault(document["check"], []).append((document["state"], document["text"]))
        assert found, ended.stderr
        return found

    def test_both_ends(self) -> None:
        """What is right is seen from both, and so is a relay that others can't reach any more."""
        self.start(OFFICE_YAML + RESOLVER, VPS_YAML + RESOLVER)
        self.assertEqual(self.doctor("vps", self.vps)["far.told"][0][0], "unknown")
        found = self.doctor("office", self.office)
        for check, words in (
            ("far.answers", "vps says: mail for example.com is sent to mail.example.com"),
            ("far.answers", f"vps says: mail of example.com from {VPS}: SPF says pass"),
            ("far.answers", "vps says: the domains agree: example.com"),
            ("far.answers", "vps says: the link stands"),
            ("far.answers", "vps says: the clocks of both ends agree"),
            ("far.ports", "mail.example.com port 25 can be reached from here"),
            ("far.relaying", "mail.example.com refuses to relay for strangers"),
            ("far.senders", "mail.example.com takes notices, from <>"),
            ("far.senders", "mail.example.com takes mail and forwards from example.com"),
        ):
            said = [text for state, text in found[check] if state == "ok" and words in text]
            self.assertTrue(said, (check, words, found[check]))
        told = self.doctor("vps", self.vps)["far.told"]
        self.assertEqual({state for state, _ in told}, {"ok"}, told)
        self.assertIn("office saw: mail.example.com port 25 can be reached from here", told[0][1])

        block = "-I FORWARD -i inside -p tcp --dport 25 -j DROP"
        self.network.run("router", "iptables", *block.split())
        found = self.doctor("office", self.office)
        self.assertIn(
            ("unknown", "mail.example.com port 25, from here: no answer"),
            [(state, text[:46]) for state, text in found["far.ports"]],
        )
        self.assertEqual(found["far.relaying"][0][0], "unknown")
        self.assertEqual(found["peers.dialled"][0][0], "ok")

    def test_an_open_relay(self) -> None:
        """The office finds it, from outside, and both say so."""
        self.start(OFFICE_YAML + RESOLVER, VPS_YAML + RESOLVER + OPEN)
        [(state, text)] = self.doctor("office", self.office)["far.relaying"]
        self.assertEqual(state, "bad", text)
        self.assertIn("an open relay", text)
        told = self.doctor("vps", self.vps)["far.told"]
        self.assertIn(("bad", f"office saw: {text}"), told)

    def test_a_relay_that_is_down(self) -> None:
        """Nothing that can't be seen is called bad, but that it is down."""
        self.start(OFFICE_YAML + RESOLVER, VPS_YAML + RESOLVER)
        self.vps.stop()
        found = self.doctor("office", self.office)
        self.assertEqual([state for state, _ in found["far.answers"]], ["unknown"])
        self.assertEqual([state for state, _ in found["far.senders"]], ["unknown"])
        self.assertEqual([state for state, _ in found["far.ports"]], ["bad"])
        self.assertEqual([state for state, _ in found["peers.dialled"]], ["bad"])
