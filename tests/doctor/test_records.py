"""The DNS records that a domain needs."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mta.dns_answer import Answer, RecordType
from mta.doctor.records import Presence, Published, Record, looked_up, wanted
from mta.signing.records import KeyText
from mta.testing import FakeResolver

HOST = "mail.example.com"


class RecordTests(SynchronousTestCase):
    """Their forms."""

    def test_zone(self) -> None:
        """As a zone file has them, names with their last dot."""
        lines = [record.zone_line for record in wanted("example.com", HOST, ["192.0.2.1"])]
        self.assertEqual(
            lines,
            [
                "mail.example.com.  IN  A  192.0.2.1",
                "1.2.0.192.in-addr.arpa.  IN  PTR  mail.example.com.",
                "example.com.  IN  MX  10 mail.example.com.",
                'example.com.  IN  TXT  "v=spf1 mx -all"',
                '_dmarc.example.com.  IN  TXT  "v=DMARC1; p=none"',
                'mail.example.com.  IN  TXT  "v=spf1 a -all"',
            ],
        )

    def test_families(self) -> None:
        """Each address has a record of its family."""
        records = wanted("example.com", HOST, ["192.0.2.1", "2001:db8::1"])
        self.assertEqual([record.kind for record in records[:2]], [RecordType.A, RecordType.AAAA])
        self.assertTrue(records[3].name.endswith(".ip6.arpa"))

    def test_long_texts(self) -> None:
        """A string has 255 octets at most, and quotes are escaped."""
        line = Record("x.example", RecordType.TXT, 'p="' + "a" * 300).zone_line
        first, second = line.split("TXT  ")[1].split('" "')
        self.assertEqual(first, '"p=\\"' + "a" * 252)
        self.assertEqual(second, "a" * 48 + '"')


class KeyTests(SynchronousTestCase):
    """The records of DKIM keys."""

    key = KeyText("s1._domainkey.example.com", "v=DKIM1; k=rsa; p=" + "QUJD" * 100)

    def found(self, *texts: bytes) -> Presence:
        """The presence of the key's record, where the DNS has these."""
        resolver = FakeResolver({}, {})
        resolver.answers[self.key.name, RecordType.TXT] = Answer(list(texts))
        looking = Deferred.fromCoroutine(looked_up("example.com", HOST, [], resolver, [self.key]))
        [found] = [
            each for each in self.successResultOf(looking) if each.record.name == self.key.name
        ]
        return found.presence

    def test_presence(self) -> None:
        """The key counts, and not how its record is written."""
        self.assertIs(self.found(), Presence.MISSING)
        self.assertIs(self.found(self.key.value.encode()), Presence.PRESENT)
        self.assertIs(self.found(b"p=" + b"QUJD" * 100 + b"; h=sha256"), Presence.PRESENT)
        self.assertIs(self.found(b"v=DKIM1; k=rsa; p="), Presence.DIFFERENT)
        self.assertIs(self.found(b"v=DKIM1; k=ed25519; p=" + b"QUJD" * 100), Presence.DIFFERENT)
        self.assertIs(self.found(b"something else"), Presence.DIFFERENT)

    def test_zone(self) -> None:
        """Strings of a zone file are short; the form of a provider has one."""
        [record] = [
            each
            for each in wanted("example.com", HOST, [], [self.key])
            if each.name == self.key.name
        ]
        strings = record.zone_line.split("TXT  ")[1].strip('"').split('" "')
        self.assertEqual("".join(strings), self.key.value)
        self.assertLessEqual(max(map(len, strings)), 255)
        self.assertEqual(record.value, self.key.value)


class LookUpTests(SynchronousTestCase):
    """What the DNS has in their place."""

    def look_up(self, resolver: FakeResolver, *addresses: str) -> dict[str, Published]:
        """The records of example.com by name and type."""
        looking = Deferred.fromCoroutine(looked_up("example.com", HOST, addresses, resolver))
        found = self.successResultOf(looking)
        return {f"{each.record.name} {each.record.kind.name}": each for each in found}

    def test_presence(self) -> None:
        """There, missing, or different; other texts do not count."""
        resolver = FakeResolver({}, {})
        resolver.answers = {
            (HOST, RecordType.A): Answer(["192.0.2.1"]),
            ("example.com", RecordType.MX): Answer([(10, "mx.elsewhere.example")]),
            ("example.com", RecordType.TXT): Answer([b"verification=1", b"v=spf1 a:x -all"]),
            ("_dmarc.example.com", RecordType.TXT): Answer([b"v=spf1 -all"]),
        }
        found = self.look_up(resolver)
        states = {key: each.presence for key, each in found.items()}
        self.assertEqual(states[f"{HOST} A"], Presence.PRESENT)
        self.assertEqual(states["example.com MX"], Presence.DIFFERENT)
        self.assertEqual(found["example.com MX"].found, ("10 mx.elsewhere.example",))
        self.assertEqual(states["example.com TXT"], Presence.PRESENT)
        self.assertEqual(states["_dmarc.example.com TXT"], Presence.MISSING)
        self.assertEqual(states["1.2.0.192.in-addr.arpa PTR"], Presence.MISSING)

    def test_given_addresses(self) -> None:
        """They stand for those of the DNS."""
        found = self.look_up(FakeResolver({}, {}), "2001:db8::1")
        self.assertEqual(found[f"{HOST} AAAA"].presence, Presence.MISSING)
