"""The configurations that ``mta init`` writes, and the files of ``etc/``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mta.config import edited, load
from mta.installation.answers import Answers, Role
from mta.installation.configuration import Configuration, Options, demo
from mta.installation.places import Places
from mta.installation.systemd import socket_unit, system_unit
from mta.mail import Agent
from mta.settings import Settings
from tests.processes import ROOT, temporary_folder

SYSTEM = Places.of_system(Path("/opt/mta/bin"))
ANSWERS = Answers("mail.example.com", ["example.com"], ["alice", "bob"])
MAILBOXES = {
    "mailboxes": ["alice", "bob"],
    "aliases": {"postmaster": "alice", "abuse": "alice", "root": "alice"},
}


def configuration(role: Role, **options: object) -> Configuration:
    """A configuration for the whole host."""
    return Configuration(role, ANSWERS, SYSTEM, Options(**options))  # type: ignore[arg-type]


class ExampleTests(SynchronousTestCase):
    """The files of ``etc/`` are what ``mta init`` writes, with the names of the manual."""

    def test_the_same(self) -> None:
        """Server, demonstration and units are the same, letter by letter."""
        made = {
            "mta.yaml": configuration(Role.SERVER).text(),
            "demo.yaml": demo(Path("etc/demo.yaml"), "../var/", "../var"),
            "mta.service": system_unit(SYSTEM),
            "mta.socket": socket_unit(SYSTEM, configuration(Role.SERVER).settings().listen),
        }
        for name, text in made.items():
            self.assertEqual((ROOT / "etc" / name).read_text(), text, name)

    def settings(self, text: str, folder: Path) -> Settings:
        """The settings of a text beside the files of an example."""
        (folder / "mta.yaml").write_text(text)
        return load(folder / "mta.yaml", {}, secrets=False)

    def assert_same(self, name: str, made: Configuration, edits: dict[object, object]) -> None:
        """Once it is paired, a configuration says what the example says."""
        folder = temporary_folder(self)
        self.settings(made.text(), folder)
        paired = edited(folder / "mta.yaml", edits)  # type: ignore[arg-type]
        example = self.settings((ROOT / "etc" / name).read_text(), folder)
        self.assertEqual(self.settings(paired, folder), example)

    def test_the_relay(self) -> None:
        """With an office behind it, a vps is the one of the recipe."""
        domain = {("domains", "example.com", key): value for key, value in MAILBOXES.items()}
        office = {
            "user": "office",
            "domains": ["example.com"],
            "methods": ["atrn"],
            "hold_for": "20d",
            "linger": "1h",
        }
        edits = {("domains", "example.com", "deliver"): "hold:office", **domain}
        edits |= {("peers", "office", key): value for key, value in office.items()}
        made = configuration(Role.VPS, has_certificate=True)
        bare = replace(made, answers=Answers("mail.example.com"))
        self.assert_same("vps.yaml", bare, dict(edits))

    def test_the_office(self) -> None:
        """With its relay, an office is the one of the recipe."""
        connect = {
            "to": "smtps://mail.example.com:465",
            "user": "office",
            "secret": {"file": "vps.secret"},
        }
        edits = {
            ("routes", "default"): "hold:vps",
            ("peers", "vps", "connect"): connect,
            ("peers", "vps", "domains"): ["example.com"],
            ("peers", "vps", "method"): "atrn",
            ("peers", "vps", "every"): "1m",
            ("peers", "vps", "origin"): "trust",
        }
        made = configuration(Role.OFFICE)
        made = replace(made, answers=replace(ANSWERS, hostname="office.example.com"))
        self.assert_same("office.yaml", made, dict(edits))


class TextTests(SynchronousTestCase):
    """What stands in a new configuration."""

    def test_families(self) -> None:
        """A host with IPv6 listens to both families, on one socket where the system lets it."""
        endpoints = {
            (False, False): ["tcp:25", "tcp:465"],
            (True, False): ["tcp6:25", "tcp6:465"],
            (True, True): ["tcp:25", "tcp6:25", "tcp:465", "tcp6:465"],
        }
        for (has_ipv6, separates), expected in endpoints.items():
            made = configuration(
                Role.VPS, has_ipv6=has_ipv6, separates_families=separates
            ).settings()
            self.assertEqual([each.endpoint for each in made.listen], expected)

    def test_a_home(self) -> None:
        """Without the rights of root: ports above 1024, nothing outside of the home folder."""
        places = Places.of_home(Path("/opt/mta/bin"), {"HOME": "/home/alice"})
        for role in (Role.SERVER, Role.VPS, Role.OFFICE):
            made = Configuration(role, ANSWERS, places)
            settings = made.settings()
            self.assertEqual(settings.run_as, "")
            self.assertEqual(settings.spool, "/home/alice/.local/share/mta/spool")
            self.assertTrue(all(port > 1024 for port in made.ports), made.ports)
            self.assertEqual(
                settings.domains["example.com"].deliver.next_hop,
                "/home/alice/.local/share/mta/mail/{domain}/{local}",
            )

    def test_names_that_yaml_would_take_for_something_else(self) -> None:
        """Mailboxes called `no` and `123`, a folder with a colon and a space."""
        places = Places.of_folder(Path("/opt"), Path("/srv/a: b #c"))
        answers = Answers("mail.example.com", ["123.example", "no.example"], ["no", "123", "null"])
        made = Configuration(Role.SERVER, answers, places).settings()
        self.assertEqual(made.spool, "/srv/a: b #c/spool")
        self.assertEqual(list(made.domains), ["123.example", "no.example"])
        self.assertEqual(made.domains["no.example"].mailboxes, {"no", "123", "null"})

    def test_elsewhere(self) -> None:
        """With --deliver, a domain's mail goes to another program; without mailboxes, all of it."""
        answers = Answers("mail.example.com", ["example.com"], (), "lmtp+unix:/run/lmtp")
        made = Configuration(Role.VPS, answers, SYSTEM).settings().domains["example.com"]
        self.assertIs(made.deliver.agent, Agent.LMTP)
        self.assertIsNone(made.mailboxes)

    def test_a_log_file(self) -> None:
        """Each role can log to a file."""
        for role in (Role.SERVER, Role.VPS, Role.OFFICE):
            made = configuration(role, log_file="/var/log/mta/mta.log").settings()
            self.assertEqual(made.log.file, "/var/log/mta/mta.log")
