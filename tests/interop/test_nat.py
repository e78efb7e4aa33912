"""Behind NAT for real: an office that can dial out, and that nobody can dial.

The files etc/office.yaml and etc/vps.yaml are started as they stand: each machine has ports, a
/etc/hosts and a /var of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import Authority
from tests.interop.network import OFFICE, ROUTER, VPS, WORLD, Namespaces, Network
from tests.interop.reversal import letter, numbers, run_mta, waiting
from tests.processes import (
    ROOT,
    TWISTD,
    Server,
    configuration,
    source_environment,
    temporary_folder,
    wait_for_mail,
    wait_until,
)

OFFICE_YAML, VPS_YAML = (
    (ROOT / "etc" / name).read_text().replace("run_as: mta\n", "run_as: root\n")
    for name in ("office.yaml", "vps.yaml")
)
ALICE, CAROL = "alice@example.com", f"carol@[{WORLD}]"

# A process of a machine has its name; what it finds under /var and in /etc/hosts is in its own
# folder.
_MACHINE = """
mount -t tmpfs tmpfs /var && mkdir /var/spool &&
ln -s "$0/spool" /var/spool/mta && ln -s "$0/mail" /var/mail &&
mount --bind "$0/hosts" /etc/hosts && exec "$@"
"""


class Machine(Server):
    """A server in a namespace."""

    def __init__(
        self,
        case: SynchronousTestCase,
        network: Namespaces,
        name: str,
        config: Mapping[str, Any] | str,
        folder: Path,
        hosts: str = f"127.0.0.1 localhost\n{VPS} mail.example.com\n",
    ) -> None:
        (folder / "spool").mkdir()
        (folder / "mail").mkdir()
        (folder / "hosts").write_text(hosts)
        super().__init__(
            case,
            config,
            folder=folder,
            command=[
                *network.inside(name),
                *("unshare", "--uts", "sh", "-c", f"hostname {name} && {_MACHINE.strip()}"),
                *(str(folder), *TWISTD),
            ],
            # The certificates that this machine's system trusts.
            environment=source_environment() | {"SSL_CERT_FILE": str(folder / "ca.pem")},
        )


class NatCase(SynchronousTestCase):
    """The two machines of docs/turn/recipe.rst, with a router between them."""

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
        self.vps.wait_for_links()


class NatTests(NatCase):
    """Mail in both directions."""

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
        self.vps.wait_for_links(2)
        self.network.send("vps", letter(4), CAROL, ALICE)
        self.mail_of_alice(3)
        wait_until(lambda: not waiting(self.vps.folder), "the VPS has nothing left")
        self.assertEqual(self.mail_of_alice(3), [1, 2, 4])
        self.assertEqual(numbers(self.world.wait_for_mail("all")), [3])
