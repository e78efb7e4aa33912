"""Behind NAT for real: an office that can dial out, and that nobody can dial.

Four network namespaces: the office, its router, the VPS, and a host somewhere in the world.  The
files etc/office.yaml and etc/vps.yaml are started as they stand: each machine has ports, a
/etc/hosts and a /var of its own.  Only root may make such a thing, on Linux, with iproute2 and
iptables; elsewhere these tests are skipped.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.certificates import Authority
from tests.interop.reversal import letter, numbers, run_mta, waiting
from tests.processes import (
    DEADLINE,
    ROOT,
    Server,
    configuration,
    need_program,
    source_environment,
    temporary_folder,
    wait_for_mail,
    wait_until,
)

OFFICE, ROUTER_INSIDE = "10.77.1.2", "10.77.1.1"
ROUTER, VPS = "10.77.2.2", "10.77.2.1"
VPS_OUTSIDE, WORLD = "10.77.3.1", "10.77.3.2"
OFFICE_YAML, VPS_YAML = (
    (ROOT / "etc" / name).read_text().replace("run_as: mta ", "run_as: root ")
    for name in ("office.yaml", "vps.yaml")
)
ALICE, CAROL = "alice@example.com", f"carol@[{WORLD}]"

_NETWORK = f"""
link add inside netns office type veth peer name inside netns router
link add outside netns router type veth peer name outside netns vps
link add world netns vps type veth peer name world netns world
-n office addr add {OFFICE}/24 dev inside
-n router addr add {ROUTER_INSIDE}/24 dev inside
-n router addr add {ROUTER}/24 dev outside
-n vps addr add {VPS}/24 dev outside
-n vps addr add {VPS_OUTSIDE}/24 dev world
-n world addr add {WORLD}/24 dev world
-n office link set inside up
-n router link set inside up
-n router link set outside up
-n vps link set outside up
-n vps link set world up
-n world link set world up
-n office route add default via {ROUTER_INSIDE}
"""

# What comes from outside and belongs to no connection that the office began goes nowhere, and no
# connection is taken up in its middle: once it has forgotten one, the router drops it silently.
_NAT = """
echo 1 > /proc/sys/net/ipv4/ip_forward
iptables -t nat -A POSTROUTING -o outside -j MASQUERADE
iptables -A FORWARD -i outside -m conntrack --ctstate ESTABLISHED -j ACCEPT
iptables -A FORWARD -i outside -j DROP
iptables -A INPUT -i outside -j DROP
iptables -A FORWARD -m conntrack --ctstate INVALID -j DROP
echo 0 > /proc/sys/net/netfilter/nf_conntrack_tcp_loose
"""

# A process of a machine: what it finds under /var and in /etc/hosts is in its own folder.
_MACHINE = """
mount -t tmpfs tmpfs /var && mkdir /var/spool &&
ln -s "$0/spool" /var/spool/mta && ln -s "$0/mail" /var/mail &&
mount --bind "$0/hosts" /etc/hosts && exec "$@"
"""
_TWISTD = "from twisted.scripts.twistd import run; run()"
_SEND = """
import sys
from tests.processes import send
reverse_path, forward_path = sys.argv[1:]
send(25, sys.stdin.buffer.read(), forward_path, reverse_path=reverse_path)
"""
_CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], 25), 3)"


class Network:
    """The namespaces, and what connects them; gone after the test.  Skips where it can't be."""

    def __init__(self, case: SynchronousTestCase) -> None:
        if os.geteuid() != 0:
            raise SkipTest("network namespaces need root")
        self._ip = need_program(case, "ip")
        need_program(case, "iptables")
        # The names are this process's own: several test processes may run at once.
        self._names = {
            name: f"mta-{os.getpid()}-{name}" for name in ("office", "router", "vps", "world")
        }
        case.addCleanup(self._remove)
        try:
            for name in self._names.values():
                self._run(self._ip, "netns", "add", name)
                self._run(self._ip, "-n", name, "link", "set", "lo", "up")
            for line in _NETWORK.strip().splitlines():
                self._run(self._ip, *(self._names.get(word, word) for word in line.split()))
            self.run("router", "sh", "-ec", _NAT)
        except subprocess.CalledProcessError as error:
            raise SkipTest(f"no network namespaces with NAT here: {error.stderr}") from None

    def inside(self, name: str) -> list[str]:
        """What to put before a command that is to run in a namespace."""
        return [self._ip, "netns", "exec", self._names[name]]

    def run(self, name: str, *command: str, stdin: bytes = b"") -> None:
        """Run a command in a namespace.  Raises CalledProcessError."""
        self._run(*self.inside(name), *command, stdin=stdin)

    def forget_connections(self) -> None:
        """The router forgets what it knows, as when its line was down for a moment."""
        self.run("router", "ip", "link", "set", "outside", "down")
        self.run("router", "ip", "link", "set", "outside", "up")

    def can_connect(self, name: str, address: str) -> bool:
        """Whether port 25 of an address can be reached from a namespace."""
        command = [*self.inside(name), sys.executable, "-c", _CONNECT, address]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def send(self, name: str, content: bytes, reverse_path: str, forward_path: str) -> None:
        """Hand a message to port 25 of a machine, on that machine itself."""
        self.run(name, sys.executable, "-c", _SEND, reverse_path, forward_path, stdin=content)

    def _run(self, *command: str, stdin: bytes = b"") -> None:
        subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            check=True,
            timeout=DEADLINE,
            env=source_environment(),
        )

    def _remove(self) -> None:
        for name in self._names.values():
            subprocess.run([self._ip, "netns", "del", name], capture_output=True, check=False)


class Machine(Server):
    """A server in a namespace."""

    def __init__(
        self,
        case: SynchronousTestCase,
        network: Network,
        name: str,
        config: Mapping[str, Any] | str,
        folder: Path,
    ) -> None:
        (folder / "spool").mkdir()
        (folder / "mail").mkdir()
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{VPS} mail.example.com\n")
        twistd = (sys.executable, "-c", _TWISTD, "--nodaemon", "--pidfile=")
        super().__init__(
            case,
            config,
            folder=folder,
            command=[*network.inside(name), "sh", "-c", _MACHINE, str(folder), *twistd],
            # The certificates that this machine's system trusts.
            environment=source_environment() | {"SSL_CERT_FILE": str(folder / "ca.pem")},
        )


class NatTests(SynchronousTestCase):
    """The two machines of docs/turn.rst, with a router between them."""

    def setUp(self) -> None:
        self.network = Network(self)

    def start(self, office: str, vps: str) -> None:
        """Start the machines, and wait until the office has turned its connection."""
        folder = temporary_folder(self)
        authority = Authority(folder, "ca")
        pair = authority.issue("mail.example.com")
        pair.certificate.rename(folder / "cert.pem")
        pair.key.rename(folder / "key.pem")
        self.vps = Machine(self, self.network, "vps", vps, folder)
        run_mta(self.vps, "user", "add", "office", "--password-stdin", stdin="secret\n")
        folder = temporary_folder(self)
        (folder / "vps.secret").write_text("secret\n")
        (folder / "ca.pem").write_bytes(authority.path.read_bytes())
        self.office = Machine(self, self.network, "office", office, folder)
        keeps_all = configuration(
            listen=[{"endpoint": "tcp:25", "tls": "off"}],
            domains={},
            relay={"networks": ["10.77.0.0/16"]},
            routes={"default": "maildir:mail/all"},
        )
        self.world = Machine(self, self.network, "world", keeps_all, temporary_folder(self))
        for machine in (self.vps, self.office, self.world):
            machine.start()
        self.wait_for_link()

    def wait_for_link(self, number: int = 1) -> None:
        """The office has turned a connection, so many times in all."""
        turned = "office turned the connection"
        wait_until(lambda: self.vps.log.count(turned) >= number, f"{turned}, {number} times")

    def mail_of_alice(self, count: int) -> list[int]:
        """The letters in Alice's Maildir, in the office, once there are so many."""
        return numbers(wait_for_mail(self.office.folder / "mail/example.com/alice", count))

    def test_the_recipe_as_it_stands(self) -> None:
        """Nobody can dial the office, and its mail comes and goes."""
        self.start(OFFICE_YAML, VPS_YAML)
        for address in (OFFICE, ROUTER):
            self.assertFalse(self.network.can_connect("vps", address), address)
        self.assertTrue(self.network.can_connect("office", VPS))
        self.network.send("vps", letter(1), CAROL, ALICE)
        self.assertEqual(self.mail_of_alice(1), [1])
        self.network.send("office", letter(2, ALICE), ALICE, CAROL)
        self.assertEqual(numbers(self.world.wait_for_mail("all")), [2])
        self.assertIn(f"from {ROUTER}", self.vps.log)

    def test_the_router_forgets(self) -> None:
        """A connection that has become a hole: mail comes and goes all the same, once."""
        vps = VPS_YAML.replace("linger: 1h", "linger: 1h\n    keepalive: 1s")
        # So that both notice within the test.
        office = re.sub(r"(?m)^( +)every: .*", r"\g<0>\n\1keepalive: 2s", OFFICE_YAML)
        self.assertIn("keepalive: 2s", office)
        self.start(office, vps)
        self.network.send("vps", letter(1), CAROL, ALICE)
        self.assertEqual(self.mail_of_alice(1), [1])
        self.network.forget_connections()
        self.network.send("vps", letter(2), CAROL, ALICE)
        self.network.send("office", letter(3, ALICE), ALICE, CAROL)
        self.wait_for_link(2)
        self.network.send("vps", letter(4), CAROL, ALICE)
        self.mail_of_alice(3)
        wait_until(lambda: not waiting(self.vps.folder), "the VPS has nothing left")
        self.assertEqual(self.mail_of_alice(3), [1, 2, 4])
        self.assertEqual(numbers(self.world.wait_for_mail("all")), [3])
