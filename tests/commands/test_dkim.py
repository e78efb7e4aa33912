"""``mta dkim``: keys, their records, and the way from old to new ones."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from mta import config
from mta.commands import published_keys
from mta.config import load
from mta.settings import DKIMKey, KeyState, Settings
from mta.signing.key_files import KeyFile
from mta.signing.keys import read
from mta.signing.presence import Presence
from mta.signing.records import record, text_of
from tests.commands.dns_case import DNSCase
from tests.commands.test_commands import CommandCase
from tests.processes import need_program, source_environment

DOMAIN = "office.example"
ZONE_LINE = re.compile(r"^(\S+)\.  IN  TXT  ((?:\"[^\"]{1,255}\" ?)+)$", re.MULTILINE)
IN_NAMESPACE = """
import json, subprocess, sys, threading
from tests.interop.name_server import NameServer
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
for host, table in json.loads(sys.argv[1]).items():
    threading.Thread(target=NameServer(table, 53, host).serve, daemon=True).start()
from mta.commands import main
sys.exit(main(["dkim", "list"]))
"""
NOT_RUNNING = "the server does not run: it reads the keys when it starts\n"


class DKIMCase(CommandCase):
    """A configuration with comments, which are to stay."""

    def setUp(self) -> None:
        super().setUp()
        self.year = datetime.now(UTC).year
        text = self.config.read_text()
        assert f"  {DOMAIN}:\n" in text
        self.config.write_text(text.replace(f"  {DOMAIN}:\n", f"  {DOMAIN}:  # ours\n"))

    @property
    def keys(self) -> tuple[DKIMKey, ...]:
        """The keys that are configured now."""
        self.assertIn("# ours", self.config.read_text())
        return load(self.config).domains[DOMAIN].dkim

    @property
    def states(self) -> list[tuple[str, str]]:
        """The letter and state of each key that is configured now."""
        for key in self.keys:
            self.assertTrue(key.selector.startswith(str(self.year)))
        return [(key.selector[4:], key.state.value) for key in self.keys]

    def done(self, *words: str) -> str:
        """Run a command that does what it should; returns its output."""
        status, output, errors = self.run_command("dkim", *words)
        self.assertEqual((0, NOT_RUNNING), (status, errors))
        return output


class KeyTests(DKIMCase):
    """What needs no DNS."""

    def test_add(self) -> None:
        """A key of each kind signs from now on, and its record is printed in both forms."""
        output = self.done("add", DOMAIN)
        self.assertEqual([("a", "active"), ("b", "active")], self.states)
        self.assertEqual(["rsa", "ed25519"], [read(key.file).kind for key in self.keys])
        expected = dict(record(DOMAIN, key) for key in self.keys)
        in_zone = {
            name: strings.replace('" "', "").strip('"')
            for name, strings in ZONE_LINE.findall(output)
        }
        self.assertEqual(expected, in_zone)
        on_the_web = dict(re.findall(r"^name   (\S+)\nvalue  (.+)$", output, re.MULTILINE))
        self.assertEqual(expected, on_the_web)
        lines = self.succeed("dkim", "records", DOMAIN, "--json").splitlines()
        self.assertEqual(expected, {each["name"]: each["value"] for each in map(json.loads, lines)})

    def test_one_algorithm(self) -> None:
        """For a provider whose forms take no more."""
        self.done("add", DOMAIN, "--algorithm", "rsa")
        self.assertEqual(["rsa"], [read(key.file).kind for key in self.keys])

    def test_name_of_the_host(self) -> None:
        """Its notices can have keys where it is in no domain of ours."""
        self.configure(hostname="vps.example.net")
        self.done("add", "vps.example.net")
        settings = load(self.config)
        self.assertEqual("vps.example.net", settings.signing_domain(settings.hostname))
        self.assertEqual(frozenset(), settings.domains["vps.example.net"].mailboxes)
        self.assertIn("refused", self.run_command("explain", "x@vps.example.net")[1])

    def test_refusals(self) -> None:
        """Nothing is made where there is nothing to do."""
        self.assertEqual(
            f"mta: other.example is none of the `domains` in the configuration: {DOMAIN}\n",
            self.fail_with("dkim", "add", "other.example"),
        )
        for words in (("records", DOMAIN), ("rotate", DOMAIN)):
            self.assertEqual(
                f"mta: {DOMAIN} has no keys: mta dkim add {DOMAIN}\n",
                self.fail_with("dkim", *words),
            )
        self.done("add", DOMAIN)
        self.assertEqual(
            f"mta: {DOMAIN} has keys: `mta dkim rotate {DOMAIN}` makes the next ones\n",
            self.fail_with("dkim", "add", DOMAIN),
        )

    def test_a_configuration_that_cannot_be_edited(self) -> None:
        """No key is made that it could not name."""
        self.config.write_text(
            "hostname: h.example\n"
            "domains:\n  a.example: &a {mailboxes: [x]}\n  office.example: *a\n"
        )
        self.assertIn("expected one of its own here", self.fail_with("dkim", "add", DOMAIN))
        self.assertFalse((self.folder / "dkim").exists())

    def test_list(self) -> None:
        """Each key with its age; one that can't be read says so."""
        self.done("add", DOMAIN)
        KeyFile(self.keys[0].file).retire(datetime.now(UTC))
        self.keys[1].file.unlink()
        first, second = self.succeed("dkim", "list", "--offline").splitlines()
        self.assertRegex(first, rf"^{DOMAIN}  {self.year}a  rsa-sha256  active  \d+s$")
        self.assertRegex(
            second, rf"^{DOMAIN}  {self.year}b  -           active  -   .*No such file"
        )
        document = json.loads(
            self.succeed("dkim", "list", DOMAIN, "--offline", "--json").split("\n")[0]
        )
        self.assertEqual(
            (f"{self.year}a", "rsa-sha256", "active", None),
            tuple(document[key] for key in ("selector", "algorithm", "state", "dns")),
        )
        self.assertEqual("", self.succeed("dkim", "list", "--offline", "-c", str(self.other())))

    def other(self) -> Any:
        """A configuration without keys."""
        path = self.folder / "other.yaml"
        path.write_text("hostname: h.example\nroutes: {}\n")
        return path


class RotationTests(DNSCase, DKIMCase):
    """The whole way, in processes of their own, with a name server on this host."""

    def setUp(self) -> None:
        super().setUp()
        self.configure(resolver=[self.name_server])
        text = self.config.read_text()
        self.config.write_text(text.replace(f"  {DOMAIN}:\n", f"  {DOMAIN}:  # ours\n"))

    def publish(self, *states: KeyState) -> None:
        """Put the records of keys in these states, and no others, into the DNS."""
        self.table.clear()
        for key in self.keys:
            if key.state in states:
                name, value = record(DOMAIN, key)
                self.table[name] = {"TXT": [value]}

    def test_all_steps(self) -> None:
        """Nothing is signed with a key that the DNS lacks; the old one has a week."""
        self.assertEqual(0, self.call("dkim", "add", DOMAIN)[0])
        status, said = self.call("dkim", "rotate", DOMAIN)
        self.assertEqual(0, status, said)
        begun = [("a", "active"), ("b", "active"), ("c", "next"), ("d", "next")]
        self.assertEqual(begun, self.states)

        status, said = self.call("dkim", "rotate", DOMAIN)
        self.assertEqual(1, status)
        self.assertIn(f"{self.year}c._domainkey.{DOMAIN}: no", said)
        self.assertEqual(begun, self.states)

        self.publish(KeyState.NEXT)
        status, said = self.call("dkim", "rotate", DOMAIN)
        self.assertEqual(0, status, said)
        changed = [("a", "retiring"), ("b", "retiring"), ("c", "active"), ("d", "active")]
        self.assertEqual(changed, self.states)
        self.assertIn(f"keep the record of {self.year}a, {self.year}b until ", said)

        status, said = self.call("dkim", "rotate", DOMAIN)
        self.assertEqual((0, changed), (status, self.states), said)
        old = [key.file for key in self.keys[:2]]
        for file in old:
            KeyFile(file).retire(datetime.now(UTC) - timedelta(days=7, seconds=1))
        status, said = self.call("dkim", "rotate", DOMAIN)
        self.assertEqual(0, status, said)
        self.assertEqual([("c", "active"), ("d", "active")], self.states)
        self.assertIn(f"{self.year}a._domainkey.{DOMAIN}\n{self.year}b._domainkey.{DOMAIN}\n", said)
        self.assertFalse(any(file.exists() for file in old))

    def test_waiting(self) -> None:
        """One call does both where the DNS has the records in time."""
        self.assertEqual(0, self.call("dkim", "add", DOMAIN, "--algorithm", "ed25519")[0])
        self.assertEqual(0, self.call("dkim", "rotate", DOMAIN)[0])
        self.publish(KeyState.NEXT)
        status, said = self.call("dkim", "rotate", DOMAIN, "--wait", "1m")
        self.assertEqual((0, [("a", "retiring"), ("b", "active")]), (status, self.states), said)

    def test_check_and_list(self) -> None:
        """Both tell where DNS and key differ; offline, none is asked."""
        self.assertEqual(0, self.call("dkim", "add", DOMAIN)[0])
        first, second = (record(DOMAIN, key) for key in self.keys)
        wrong = text_of(read(self.keys[0].file))
        self.table.update({second.name: {"TXT": [wrong]}})
        _, said = self.call("check")
        self.assertIn(f"warning: the record {first.name} of this key is not in the DNS", said)
        self.assertIn(f"warning: the record {second.name} of this key is another in the DNS", said)
        self.assertNotIn("the record", self.call("check", "--offline")[1])
        _, said = self.call("dkim", "list")
        self.assertEqual(
            ["no", "differs"], [line.rpartition(": ")[2] for line in said.splitlines()]
        )
        self.publish(KeyState.ACTIVE)
        self.assertNotIn("the record", self.call("check")[1])
        _, said = self.call("dkim", "list", "--json")
        self.assertEqual(["yes"] * 2, [json.loads(line)["dns"] for line in said.splitlines()])


class StoppedTests(DKIMCase):
    """Rotations that are cut off, and go on."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(published_keys, "presences", self.all_there)
        self.done("add", DOMAIN, "--algorithm", "ed25519")

    def all_there(
        self, settings: Settings, keys: Mapping[str, Mapping[str, object]], wait: float
    ) -> Mapping[str, Presence]:
        """A DNS that has all records."""
        return {name: Presence.PRESENT for each in keys.values() for name in each}

    def rotate_with_faults(self) -> None:
        """Take a step, after one that ends before the configuration is written."""
        before = self.config.read_text()
        with contextlib.ExitStack() as stack:
            patched = self.patch(config, "save", self.no_space)
            stack.callback(patched.restore)
            self.assertIn("No space left", self.fail_with("dkim", "rotate", DOMAIN))
        self.assertEqual(before, self.config.read_text())
        self.done("rotate", DOMAIN)

    def no_space(self, path: Path, text: str) -> None:
        """Fail as a full disk does."""
        raise OSError(28, "No space left on device", str(path))

    def test_at_each_step(self) -> None:
        """Nothing is lost, and the next call does the same step."""
        self.rotate_with_faults()
        self.assertEqual([("a", "active"), ("c", "next")], self.states)  # b was made in vain
        self.rotate_with_faults()
        self.assertEqual([("a", "retiring"), ("c", "active")], self.states)
        old = self.keys[0].file
        self.assertIn("until ", self.succeed("dkim", "list", "--offline").splitlines()[0])
        KeyFile(old).retire(datetime.now(UTC) - timedelta(days=8))
        self.rotate_with_faults()
        self.assertEqual([("c", "active")], self.states)
        self.assertFalse(old.exists())

    def test_a_key_of_two_domains(self) -> None:
        """The file that another domain still has stays."""
        text = self.config.read_text()
        [key] = self.keys
        entry = {"selector": key.selector, "key": str(key.file), "state": "retiring"}
        KeyFile(key.file).retire(datetime.now(UTC) - timedelta(days=8))
        content = yaml.safe_load(text)
        content["domains"][DOMAIN]["dkim"] = [entry]
        content["domains"]["b.example"] = {"deliver": "discard", "dkim": [entry]}
        self.config.write_text(yaml.safe_dump(content))
        self.done("rotate", DOMAIN)
        self.assertEqual((), load(self.config).domains[DOMAIN].dkim)
        self.assertTrue(key.file.exists())


class NameServerTests(DKIMCase):
    """The name servers of the domain, in a network namespace, where they have their port."""

    def test_they_are_asked_themselves(self) -> None:
        """What our resolver remembers, that there is no record, does not count."""
        if os.geteuid() != 0:
            self.skipTest("network namespaces need root")
        unshare = need_program(self, "unshare")
        self.done("add", DOMAIN, "--algorithm", "ed25519")
        name, value = record(DOMAIN, self.keys[0])
        self.configure(
            resolver=["127.0.0.1"],
            domains=yaml.safe_load(self.config.read_text())["domains"],
        )
        hosts = {"a.example": "127.0.0.8", "b.example": "127.0.0.9"}
        tables: dict[str, Any] = {
            "127.0.0.1": {DOMAIN: {"NS": list(hosts)}, **hosts},
            "127.0.0.8": {name: {"TXT": [value]}},
            "127.0.0.9": {name: {"TXT": [value]}},
        }
        for without, expected in ((None, "yes"), ("127.0.0.9", "no")):
            shown = {host: {} if host == without else table for host, table in tables.items()}
            ended = subprocess.run(
                [unshare, "--net", sys.executable, "-c", IN_NAMESPACE, json.dumps(shown)],
                capture_output=True,
                check=True,
                text=True,
                env=source_environment() | {"MTA_CONFIG": str(self.config.absolute())},
            )
            self.assertIn(f"in the DNS: {expected}\n", ended.stdout)
