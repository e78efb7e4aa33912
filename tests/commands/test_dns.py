"""``mta dns``: the records of a domain, with a name server on this host."""

from __future__ import annotations

import json

from mta.config import load
from mta.signing.records import record
from tests.commands.dns_case import DNSCase

DOMAIN, HOST = "office.example", "mail.office.example"


class DNSTests(DNSCase):
    """A domain with keys, and what the DNS has of it."""

    def setUp(self) -> None:
        super().setUp()
        self.configure(resolver=[self.name_server], hostname=HOST)
        self.assertEqual(self.call("dkim", "add", DOMAIN)[0], 0)
        self.key, self.other = load(self.config).domains[DOMAIN].dkim

    def test_records(self) -> None:
        """Each with its state: keys as short strings, or as one for a form."""
        name, value = record(DOMAIN, self.key)
        self.table[HOST] = "192.0.2.1"
        self.table[DOMAIN] = [[10, HOST]]
        self.table[name] = {"TXT": [value]}
        status, said = self.call("dns", DOMAIN)
        self.assertEqual(status, 0, said)
        states = dict(line.split(maxsplit=1)[::-1] for line in said.splitlines())
        self.assertEqual(states[f"{DOMAIN}.  IN  MX  10 {HOST}."], "ok")
        self.assertEqual(states[f'{DOMAIN}.  IN  TXT  "v=spf1 mx -all"'], "missing")
        [line] = [line for line in states if line.startswith(f"{name}.  IN  TXT  ")]
        self.assertEqual(states[line], "ok")
        strings = line.split("TXT  ")[1].strip('"').split('" "')
        self.assertEqual("".join(strings), value)
        self.assertGreater(len(strings), 1)
        _, said = self.call("dns", DOMAIN, "--web")
        self.assertIn(f"TXT  name {name}  value {value}\n", said)
        missing, _ = record(DOMAIN, self.other)
        documents = [
            json.loads(line) for line in self.call("dns", DOMAIN, "--json")[1].splitlines()
        ]
        self.assertEqual({each["name"]: each["state"] for each in documents}[missing], "missing")
