"""Four network namespaces: an office, its router with NAT, a VPS, and a host in the world.

Only root may make such a thing, on Linux, with iproute2 and iptables; elsewhere the tests that
need it are skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.processes import DEADLINE, need_program, source_environment

OFFICE, ROUTER_INSIDE = "10.77.1.2", "10.77.1.1"
ROUTER, VPS = "10.77.2.2", "10.77.2.1"
VPS_OUTSIDE, WORLD = "10.77.3.1", "10.77.3.2"

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

_SEND = """
import sys
from tests.processes import send
reverse_path, forward_path = sys.argv[1:]
send(25, sys.stdin.buffer.read(), forward_path, reverse_path=reverse_path)
"""
_CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], 25), 3)"


class Namespaces:
    """Network namespaces, by their names; gone after the test.  Skips where it can't be.

    What connects them are `lines`, of which each is a command of ``ip``.
    """

    def __init__(self, case: SynchronousTestCase, names: Sequence[str], lines: str) -> None:
        if os.geteuid() != 0:
            raise SkipTest("network namespaces need root")
        self._ip = need_program(case, "ip")
        # The names are this process's own: several test processes may run at once.
        self._names = {name: f"mta-{os.getpid()}-{name}" for name in names}
        case.addCleanup(self._remove)
        try:
            for name in self._names.values():
                self._run(self._ip, "netns", "add", name)
                self._run(self._ip, "-n", name, "link", "set", "lo", "up")
            for line in lines.strip().splitlines():
                self._run(self._ip, *(self._names.get(word, word) for word in line.split()))
        except subprocess.CalledProcessError as error:
            raise SkipTest(f"no network namespaces here: {error.stderr}") from None

    def inside(self, name: str) -> list[str]:
        """What to put before a command that is to run in a namespace."""
        return [self._ip, "netns", "exec", self._names[name]]

    def run(self, name: str, *command: str, stdin: bytes = b"") -> None:
        """Run a command in a namespace.  Raises CalledProcessError."""
        self._run(*self.inside(name), *command, stdin=stdin)

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


class Network(Namespaces):
    """The four machines of the module, with NAT between them."""

    def __init__(self, case: SynchronousTestCase) -> None:
        need_program(case, "iptables")
        super().__init__(case, ("office", "router", "vps", "world"), _NETWORK)
        try:
            self.run("router", "sh", "-ec", _NAT)
        except subprocess.CalledProcessError as error:
            raise SkipTest(f"no NAT here: {error.stderr}") from None

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
