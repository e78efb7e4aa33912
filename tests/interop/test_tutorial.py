"""``docs/tutorial.rst`` to the letter: its commands, on two machines with NAT between them."""

from __future__ import annotations

import re
import subprocess
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.debian import Debian, wheels
from tests.interop.network import ROUTER_INSIDE, VPS, VPS_OUTSIDE, WORLD, Network
from tests.interop.test_nat import Machine
from tests.processes import (
    ROOT,
    configuration,
    mail_in,
    need_program,
    temporary_folder,
    wait_until,
)
from tests.whole.test_packaging import wheel

MAX_COMMANDS = 7
MAX_MINUTES = 10
TOKEN = re.compile(r"^mta pair (mta1:\S+)$", re.MULTILINE)
CAROL, ALICE = "carol@partner.example", "alice@example.com"


def commands() -> list[tuple[str, str]]:
    """The commands of the page in their order, each with the machine that it is for."""
    text = (ROOT / "docs/tutorial.rst").read_text("utf-8")
    return re.findall(r"^   (relay|office)# (.+)$", text, re.MULTILINE)


class TutorialTests(SynchronousTestCase):
    """A person who knows nothing but the page."""

    timeout = 60 * MAX_MINUTES

    def test_the_commands(self) -> None:
        """At most seven, the first five without the other machine's answer."""
        found = commands()
        self.assertLessEqual(len(found), MAX_COMMANDS)
        self.assertEqual({machine for machine, _ in found}, {"relay", "office"})

    def test_mail_in_both_directions(self) -> None:
        """Follow the page; then mail has left, and mail comes."""
        network = Network(self)
        self.serve_names(network, "router", ROUTER_INSIDE, relay=VPS)
        self.serve_names(network, "world", WORLD, relay=VPS_OUTSIDE)
        world = self.partner(network)
        machines = {
            "relay": Debian(self, network, "vps", WORLD),
            "office": Debian(self, network, "office", ROUTER_INSIDE),
        }
        house = wheels(self, wheel())
        for machine in machines.values():
            subprocess.run(["cp", "-r", house, machine.root / "srv/wheels"], check=True)
        taken = self.follow(machines)
        print(f"\nthe tutorial: {len(commands())} commands, {taken:.0f} s")
        self.assertLess(taken, 60 * MAX_MINUTES)
        self.assertIn(b"Hello from the office.", world.wait_for_mail("all")[0])
        inbox = machines["office"].root / f"var/mail/example.com/{ALICE.partition('@')[0]}"
        self.answer(network)
        wait_until(
            lambda: any(b"Hello yourself." in each for each in mail_in(inbox)), "the answer comes"
        )

    def follow(self, machines: dict[str, Debian]) -> float:
        """Say each command where it belongs; returns how many seconds that took."""
        token = ""
        pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/srv/wheels", "PIP_CONFIG_FILE": "/dev/null"}
        start = time.monotonic()
        for machine, command in commands():
            said = command.replace("mta1:...", token)
            printed = machines[machine].run(said, pip)
            if found := TOKEN.search(printed):
                token = found[1]
        self.assertTrue(token, "no line for the office")
        return time.monotonic() - start

    def partner(self, network: Network) -> Machine:
        """The mail server of partner.example, which keeps all that it gets."""
        keeps_all = configuration(
            listen=[{"endpoint": "tcp:25", "tls": "off"}],
            domains={},
            relay={"networks": ["10.77.0.0/16"]},
            routes={"default": "maildir:mail/all"},
        )
        world = Machine(self, network, "world", keeps_all, temporary_folder(self))
        world.start()
        return world

    def answer(self, network: Network) -> None:
        """Somebody in the world writes to the office, as the DNS says."""
        program = (
            "import smtplib, sys;"
            f" client = smtplib.SMTP({VPS_OUTSIDE!r}, 25, timeout=30);"
            f" client.sendmail({CAROL!r}, {ALICE!r}, sys.stdin.read()); client.quit()"
        )
        letter = b"From: carol@partner.example\r\nSubject: Re\r\n\r\nHello yourself.\r\n"
        network.run("world", "python3", "-c", program, stdin=letter)

    def serve_names(self, network: Network, name: str, address: str, *, relay: str) -> None:
        """A name server on a machine, with the records that the page wants."""
        dnsmasq = need_program(self, "dnsmasq")
        command = [dnsmasq, "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv"]
        command += ["--no-hosts", "--pid-file=", "--user=root", "--bind-interfaces"]
        command += [f"--listen-address={address}", f"--host-record=mail.example.com,{relay}"]
        command += ["--mx-host=example.com,mail.example.com,10"]
        command += [f"--host-record=mx.partner.example,{WORLD}"]
        command += ["--mx-host=partner.example,mx.partner.example,10"]
        server = subprocess.Popen([*network.inside(name), *command])
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
