"""``mta doctor`` on servers that run."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import yaml
from twisted.trial.unittest import SynchronousTestCase

from mta import __version__
from mta.settings import KeyState
from mta.signing.making import KeyMaker, entry
from tests.interop.reversal import HOST, Provider, office
from tests.processes import MTA, Server, source_environment


def doctor(server: Server, *words: str) -> tuple[int, dict[str, list[tuple[str, str]]]]:
    """Exit status and results by check, as (state, text)."""
    ended = subprocess.run(
        [*MTA, "doctor", "--json", *words, "-c", str(server.config)],
        env=source_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    found: dict[str, list[tuple[str, str]]] = {}
    for line in ended.stdout.splitlines():
        document = json.loads(line)
        anchor = document["check"].replace(".", "-")
        assert document["docs"] == f"doctor.html#{anchor}", document
        found.setdefault(document["check"], []).append((document["state"], document["text"]))
    assert found, ended.stderr
    return ended.returncode, found


class DoctorTests(SynchronousTestCase):
    """A provider and its office."""

    def test_a_server_that_runs_and_one_that_does_not(self) -> None:
        """Its listeners answer, and its files are sound; then it is down."""
        provider = Provider(self)
        provider.start()
        _, found = doctor(provider, "--offline")
        self.assertEqual({state for state, _ in found["ports.listeners"]}, {"ok"}, found)
        self.assertEqual(len(found["ports.listeners"]), 3)
        self.assertEqual(found["machine.spool"][0][0], "ok")
        self.assertEqual(
            found["machine.service"],
            [
                ("ok", "the server is running"),
                ("ok", f"it has version {__version__}, as is installed"),
            ],
        )
        self.assertEqual({state for state, _ in found["tls.shown"]}, {"ok"}, found)
        self.assertEqual(len(found["tls.shown"]), 3)
        self.assertNotIn("names.exchangers", found)
        provider.stop()
        status, found = doctor(provider, "--offline")
        self.assertEqual(status, 1)
        self.assertEqual({state for state, _ in found["ports.listeners"]}, {"bad"})
        self.assertNotIn("Traceback", provider.log)

    def test_the_peer_that_we_dial(self) -> None:
        """The log-in is tried, and no mail moves."""
        provider = Provider(self)
        provider.start()
        customer = office(self, provider)
        _, found = doctor(customer)
        [(state, text)] = found["peers.dialled"]
        self.assertEqual(state, "ok", text)
        self.assertIn("takes our log-in and offers ATRN", text)
        wrong = "smtps://office:wrong@localhost:{submission}"
        _, found = doctor(office(self, provider, wrong))
        [(state, text)] = found["peers.dialled"]
        self.assertEqual(state, "bad")
        self.assertIn("Authentication", text)
        _, found = doctor(office(self, provider, pin="sha256:" + "0" * 64))
        self.assertEqual(found["peers.dialled"][0][0], "bad")

    def test_both_ends(self) -> None:
        """The office asks its relay, looks at it from outside, and the relay shows what it saw."""
        provider = Provider(self)
        provider.start()
        _, found = doctor(provider, "--offline")
        self.assertEqual(found["far.told"], [("unknown", "office has not looked at us yet")])
        _, found = doctor(office(self, provider))
        said = dict.fromkeys(text for _, text in found["far.answers"])
        self.assertIn(
            ("ok", f"provider says: both ends have version {__version__}"), found["far.answers"]
        )
        for words in (
            "the clocks of both ends agree",
            "there was no exchange yet",
            "the domains agree: office.example",
        ):
            self.assertIn(f"provider says: {words}", said)
        self.assertEqual(
            found["far.senders"],
            [
                ("ok", "localhost takes notices, from <>"),
                ("ok", "localhost takes mail and forwards from office.example"),
            ],
        )
        _, found = doctor(provider, "--offline")
        told = [text for _, text in found["far.told"]]
        self.assertIn("office saw: localhost takes notices, from <>", told)
        self.assertNotIn("office has not looked at us yet", told)
        self.assertNotIn("Traceback", provider.log)

    def test_domains_that_differ(self) -> None:
        """The office hears which of its domains its relay does not have for it."""
        provider = Provider(self)
        provider.start()
        customer = office(self, provider, domains=["office.example", "new.example"])
        _, found = doctor(customer)
        self.assertIn(
            ("bad", "provider says: new.example is not among your domains here"),
            found["far.answers"],
        )

    def test_another_version_runs(self) -> None:
        """A server that was started before an update says which version it has."""
        provider = Provider(self)
        provider.start()
        public = provider.folder / "spool" / "public.json"
        public.write_text(json.dumps(json.loads(public.read_text()) | {"version": "0.0.9"}))
        _, found = doctor(provider, "--offline")
        self.assertIn(
            ("warn", f"it has version 0.0.9, and {__version__} is installed"),
            found["machine.service"],
        )

    def test_a_certificate_that_was_not_read(self) -> None:
        """The file has another one than the server shows."""
        provider = Provider(self)
        provider.start()
        provider.authority.issue(HOST)
        _, found = doctor(provider, "--offline")
        self.assertEqual({state for state, _ in found["tls.shown"]}, {"bad"}, found)
        self.assertIn("another certificate", found["tls.shown"][0][1])

    def test_repairs(self) -> None:
        """Password hashes that all may read are closed."""
        provider = Provider(self)
        users = provider.folder / "users.yaml"
        users.chmod(0o644)
        _, found = doctor(provider, "--offline")
        self.assertTrue(any("users.yaml" in text for _, text in found["configuration"]), found)
        _, found = doctor(provider, "--offline", "--fix")
        self.assertIn(("ok", f"{users}: closed to other users (chmod o=)"), found["configuration"])
        self.assertEqual(Path(users).stat().st_mode & 0o777, 0o640)

    def test_repairs_of_keys(self) -> None:
        """A key that all may read is closed."""
        provider = Provider(self)
        [key] = KeyMaker("a.example", provider.folder).make(
            ["ed25519"], (), KeyState.ACTIVE, datetime.now(UTC)
        )
        config = yaml.safe_load(provider.config.read_text())
        name, domain = next(iter(config["domains"].items()))
        config["domains"][name] = {**domain, "dkim": [entry(key, provider.folder)]}
        provider.configure(config)
        key.file.chmod(0o644)
        _, found = doctor(provider, "--offline", "--fix")
        closed = ("ok", f"{key.file}: closed to other users (chmod o=)")
        self.assertIn(closed, found["configuration"])
