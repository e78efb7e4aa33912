"""Two nodes, their database, HAProxy in front, and an office: the recipe of docs/nodes.rst.

The files etc/nodes/mta.yaml, etc/nodes/haproxy.cfg and etc/office.yaml are run as they stand: each
machine has a network namespace, a name, a /etc/hosts and a /var of its own.
"""

from __future__ import annotations

import shutil
import signal
import sys
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import Authority
from tests.interop.network import Namespaces
from tests.interop.reversal import letter, numbers, run_mta
from tests.interop.test_nat import OFFICE_YAML, Machine
from tests.processes import (
    ROOT,
    Process,
    header_of,
    need_program,
    source_environment,
    temporary_folder,
    wait_until,
)
from tests.spool.postgres import Cluster, execute

FRONT, ONE, TWO, OFFICE = (f"10.78.0.{number}" for number in range(1, 5))
NODES = ROOT / "etc" / "nodes"
NODE_YAML = (NODES / "mta.yaml").read_text().replace("run_as: mta\n", "run_as: root\n")
HOSTS = f"127.0.0.1 localhost\n{FRONT} mail.example.com database\n{ONE} one\n{TWO} two\n"
ALICE, CAROL = "alice@example.com", f"carol@[{OFFICE}]"

_NETWORK = f"""
-n front link add net type bridge
-n front addr add {FRONT}/24 dev net
-n front link set net up
"""
_MACHINE = """
link add to-NAME netns front type veth peer name net netns NAME
-n front link set to-NAME master net
-n front link set to-NAME up
-n NAME addr add ADDRESS/24 dev net
-n NAME link set net up
"""
_SEND = """
import smtplib, sys
host, reverse_path, forward_path = sys.argv[1:]
with smtplib.SMTP(host, 25, "client.example", timeout=30) as client:
    client.sendmail(reverse_path, [forward_path], sys.stdin.buffer.read())
"""


class Network(Namespaces):
    """The machines, on one wire."""

    def __init__(self, case: SynchronousTestCase) -> None:
        machines = {"one": ONE, "two": TWO, "office": OFFICE}
        lines = [
            _MACHINE.replace("NAME", name).replace("ADDRESS", address)
            for name, address in machines.items()
        ]
        text = "".join(line.lstrip() for line in (_NETWORK, *lines))
        super().__init__(case, ("front", *machines), text)


class HaproxyTests(SynchronousTestCase):
    """The recipe, and the death of a node."""

    def setUp(self) -> None:
        need_program(self, "haproxy")
        self.network = Network(self)
        self.start_database()
        authority = Authority(temporary_folder(self), "ca")
        pair = authority.issue("mail.example.com")
        self.nodes = {name: self.machine(name, NODE_YAML) for name in ("one", "two")}
        for node in self.nodes.values():
            shutil.copy(pair.certificate, node.folder / "cert.pem")
            shutil.copy(pair.key, node.folder / "key.pem")
            run_mta(node, "user", "add", "office", "--password-stdin", stdin="secret\n")
            node.start()
        self.office = self.machine("office", OFFICE_YAML)
        (self.office.folder / "vps.secret").write_text("secret\n")
        shutil.copy(authority.path, self.office.folder / "ca.pem")
        self.start_haproxy()
        self.office.start()

    def machine(self, name: str, config: str) -> Machine:
        """A machine, not started yet."""
        folder = temporary_folder(self)
        return Machine(self, self.network, name, config, folder, HOSTS)

    def start_database(self) -> None:
        """PostgreSQL on the front machine, for the nodes alone."""
        self.cluster = Cluster(f"listen_addresses={FRONT}", inside=self.network.inside("front"))
        self.addCleanup(self.cluster.remove)
        self.cluster.make()
        with (self.cluster.data / "pg_hba.conf").open("a") as file:
            file.write(f"host mta mta {FRONT}/24 trust\n")
        self.cluster.start()
        execute(self.cluster.url("postgres"), "CREATE DATABASE mta")

    def start_haproxy(self) -> None:
        """HAProxy on the front machine."""
        folder = temporary_folder(self)
        (folder / "hosts").write_text(HOSTS)
        bound = 'mount --bind "$0" /etc/hosts && exec haproxy -db -f "$1"'
        command = ["sh", "-c", bound, str(folder / "hosts"), str(NODES / "haproxy.cfg")]
        front = Process([*self.network.inside("front"), *command], folder, source_environment())
        self.addCleanup(front.kill)

    def linked(self, *, but: str = "") -> str:
        """The node to which the office has turned a connection."""
        names = [name for name in self.nodes if name != but]
        return wait_until(
            lambda: next((name for name in names if self.nodes[name].links), ""), "a link stands"
        )

    def send(self, number: int) -> None:
        """Hand a message to the front, as a stranger."""
        command = [sys.executable, "-c", _SEND, FRONT, CAROL, ALICE]
        self.network.run("office", *command, stdin=letter(number))

    def arrived(self, count: int) -> list[bytes]:
        """What Alice has, once there are so many."""
        return self.office.wait_for_mail("example.com/alice", count)

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Execute a statement beside the nodes; returns the rows."""
        return execute(self.cluster.url("mta"), statement)

    def test_recipe(self) -> None:
        """Mail that any node takes goes at once to the one with the link; then that one dies."""
        linked = self.linked()
        for number in range(1, 5):
            self.send(number)
            self.arrived(number)
        for name in self.nodes:
            wait_until(lambda name=name: "accepted" in self.nodes[name].log, f"{name} takes mail")
        fields = [header_of(each, "Received")[1] for each in self.arrived(4)]
        for name in self.nodes:
            self.assertIn(f"by mail.example.com (node {name})", str(fields))
        self.assertTrue(all(f"[{OFFICE}]" in field for field in fields), fields)

        assert self.office.process is not None
        self.office.process.signal(signal.SIGSTOP)
        for number in range(5, 9):
            self.send(number)
        self.nodes[linked].kill()
        self.office.process.signal(signal.SIGCONT)
        self.linked(but=linked)
        self.sql(f"UPDATE owner SET alive_until = '-infinity' WHERE node = '{linked}'")
        self.arrived(8)
        self.send(9)
        wait_until(lambda: not self.sql("SELECT id FROM schedule"), "nothing waits")
        self.assertEqual(numbers(self.arrived(9)), [*range(1, 10)])


class ComposeTests(SynchronousTestCase):
    """etc/nodes/compose.yaml, which is run nowhere here."""

    def test_compose(self) -> None:
        """What `docker compose` is told fits the other files, as far as that can be seen here."""
        services = yaml.safe_load((NODES / "compose.yaml").read_text())["services"]
        self.assertEqual(services["one"]["hostname"], "one")
        self.assertEqual(services["two"]["hostname"], "two")
        for service in services.values():
            for volume in service["volumes"]:
                if volume.startswith("./"):
                    self.assertTrue((NODES / volume.partition(":")[0]).exists(), volume)
        self.assertIn("database", services)
