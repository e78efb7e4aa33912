"""The running program and the mail exchangers of domains, in two network namespaces.

Only root may make such a thing, on Linux, with iproute2; elsewhere these tests are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.processes import (
    DEADLINE,
    TWISTD,
    Process,
    Server,
    configuration,
    need_program,
    source_environment,
    temporary_folder,
    wait_until,
)

US = "198.51.100.1"
MANNERS = ("good", "later", "closing", "busy", "lost", "no service", "never", "silent")
ADDRESSES = {manner: f"198.51.100.{number}" for number, manner in enumerate(MANNERS, 11)}
ADDRESSES["down"] = "198.51.100.99"  # nobody has it
HOSTS = {manner.replace(" ", "-"): address for manner, address in ADDRESSES.items()}
SENDER = "alice@office.example"
_SEND = """
import sys
from tests.processes import send
port, reverse_path, forward_path = sys.argv[1:]
send(int(port), sys.stdin.buffer.read(), forward_path, reverse_path=reverse_path)
"""


def domain(*hosts: str) -> list[tuple[int, str]]:
    """MX records, the best first."""
    return [(10 * number, host) for number, host in enumerate(hosts, 1)]


# Domains whose mail one host takes, whatever the hosts before it do.
REACHED = {
    f"{host}.example": domain(host, "good")
    for host in ("down", "later", "closing", "busy", "lost", "no-service", "never")
} | {"many.example": domain("gone", "never", "busy", "later", "good")}
DEFERRED = {"b.example": domain("busy", "gone"), "l.example": domain("later", "never")}
RETURNED = {
    "gone.example": (domain("gone", "lost-too"), "5.4.4"),
    "no.example": (domain("no-service", "never"), "521 never"),
    "loop.example": (domain("us"), "5.4.6"),
}


class HostsTests(SynchronousTestCase):
    """What becomes of mail for domains with several hosts."""

    def setUp(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("network namespaces need root")
        self.ip = need_program(self, "ip")
        self.ours, self.theirs = (f"mta-{os.getpid()}-{name}" for name in ("ours", "theirs"))
        self.addCleanup(self.remove)
        try:
            self.connect()
        except subprocess.CalledProcessError as error:
            raise SkipTest(f"no network namespaces here: {error.stderr}") from None
        table = HOSTS | {"us": US} | REACHED | DEFERRED
        table |= {name: records for name, (records, _) in RETURNED.items()}
        silent = {f"silent{number}.example": domain("silent") for number in range(12)}
        self.process(self.ours, "tests.interop.name_server", table | silent)
        manners = {address: manner for manner, address in ADDRESSES.items() if manner != "down"}
        self.exchangers = self.process(self.theirs, "tests.interop.exchangers", manners)
        queue = {"retry": ["1h"], "concurrency": 8}
        self.server = Server(
            self,
            configuration(resolver=["127.0.0.1"], queue=queue),
            command=[*self.inside(self.ours), *TWISTD],
        )
        self.server.start()

    def connect(self) -> None:
        """Make the namespaces, and a wire between them."""
        for name in (self.ours, self.theirs):
            self.run_ip("netns", "add", name)
            self.run_ip("-n", name, "link", "set", "lo", "up")
        wire = f"link add wire netns {self.ours} type veth peer name wire netns {self.theirs}"
        self.run_ip(*wire.split())
        addresses = [(self.ours, US), *((self.theirs, one) for one in ADDRESSES.values())]
        for name, address in addresses:
            if address != ADDRESSES["down"]:
                self.run_ip("-n", name, "addr", "add", f"{address}/24", "dev", "wire")
        for name in (self.ours, self.theirs):
            self.run_ip("-n", name, "link", "set", "wire", "up")
        unreachable = f"-n {self.ours} route add unreachable {ADDRESSES['down']}/32"
        self.run_ip(*unreachable.split())

    def run_ip(self, *arguments: str) -> None:
        """Run ``ip``.  Raises CalledProcessError."""
        subprocess.run([self.ip, *arguments], capture_output=True, check=True, timeout=DEADLINE)

    def remove(self) -> None:
        """Remove the namespaces."""
        for name in (self.ours, self.theirs):
            subprocess.run([self.ip, "netns", "del", name], capture_output=True, check=False)

    def inside(self, name: str) -> list[str]:
        """What to put before a command that is to run in a namespace."""
        return [self.ip, "netns", "exec", name]

    def process(self, name: str, module: str, argument: object) -> Process:
        """Start one of our modules in a namespace."""
        command = [*self.inside(name), sys.executable, "-m", module, json.dumps(argument)]
        process = Process(command, temporary_folder(self), source_environment())
        self.addCleanup(process.kill)
        process.wait_for("ready")
        return process

    def send(self, subject: str, forward_path: str, reverse_path: str = SENDER) -> None:
        """Hand the server a message, in its namespace."""
        port = str(self.server.ports["smtp"])
        subprocess.run(
            [
                *self.inside(self.ours),
                sys.executable,
                "-c",
                _SEND,
                port,
                reverse_path,
                forward_path,
            ],
            input=f"Subject: {subject}\r\n\r\nx\r\n".encode(),
            check=True,
            timeout=DEADLINE,
            env=source_environment(),
        )

    def test_hosts(self) -> None:
        """One after the other has its chance; mail is returned only where none ever will."""
        for name in [*REACHED, *DEFERRED, *RETURNED]:
            self.send(name, f"bob@{name}")
        good = ADDRESSES["good"]
        for name in REACHED:
            self.exchangers.wait_for(f"{good} took {name}")
        notices = self.server.wait_for_mail("office.example/alice", len(RETURNED))
        for name, (_, reason) in RETURNED.items():
            [notice] = [each for each in notices if f"bob@{name}".encode() in each]
            self.assertIn(reason.encode(), notice)
        for name in DEFERRED:
            wait_until(lambda name=name: f"deferred bob@{name}" in self.server.log, name)
        for manner in ("later", "no service", "never"):
            self.exchangers.wait_for(f"{ADDRESSES[manner]} heard QUIT")
        self.assertEqual(self.exchangers.output.count(" took "), len(REACHED))
        self.assertEqual(len(self.server.wait_for_mail("office.example/alice")), len(RETURNED))

    def test_hosts_that_say_nothing(self) -> None:
        """They hold some connections, and other mail goes out beside them."""
        for number in range(12):
            self.send(f"silent {number}", f"bob@silent{number}.example", reverse_path="")
        self.send("honest", "bob@many.example")
        self.exchangers.wait_for(f"{ADDRESSES['good']} took honest", timeout=20.0)
