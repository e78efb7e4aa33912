"""The checks of SPF, DKIM and DMARC."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mta.dns_answer import Answer, RecordType
from mta.doctor import authentication
from mta.interfaces import ResolutionFailed
from mta.mail import Agent, Hop
from mta.settings import DKIMKey, KeyState
from mta.signing.records import record
from mta.testing import FakeResolver
from tests.doctor.test_checks import ADDRESS, HOST, RELAY, SETTINGS, CheckCase
from tests.processes import temporary_folder

DMARC = "_dmarc.example.com"


class PolicyTests(CheckCase):
    """SPF and DMARC, as others will find them."""

    def setUp(self) -> None:
        super().setUp()
        self.publish(DMARC, b"v=DMARC1; p=none")

    def publish(self, name: str, *texts: bytes) -> None:
        """Let the DNS have these texts."""
        self.resolver.answers[name, RecordType.TXT] = Answer(list(texts))

    def assert_spf(self, record: bytes, state: str, words: str) -> None:
        """With this record, the first result is so."""
        self.publish("example.com", record)
        [spf, *_] = self.states(authentication.policies)
        self.assertEqual(spf[0], state, spf)
        self.assertIn(words, spf[1])

    def test_spf(self) -> None:
        """It is evaluated for the address that mail leaves from."""
        self.resolver.answers[HOST, RecordType.A] = Answer([ADDRESS])
        self.assert_spf(b"v=spf1 ip4:203.0.113.7 -all", "ok", "SPF says pass")
        self.assert_spf(b"v=spf1 ip4:203.0.113.8 -all", "bad", f"from {ADDRESS}: SPF says fail")
        self.assert_spf(b"v=spf1 ~all", "warn", "softfail")
        self.assert_spf(b"v=spf1 ip4:x -all", "bad", "permerror")

    def test_no_address(self) -> None:
        """Where it is not known, what is published is all that there is to say."""
        self.assert_spf(b"v=spf1 mx -all", "ok", "has SPF")
        self.publish("example.com", b"v=spf1 mx -all", b"V=SPF1 -all")
        self.assert_states(authentication.policies, ("bad", "2 SPF"), ("ok", "DMARC"))
        self.publish("example.com")
        self.publish(DMARC)
        self.assert_states(authentication.policies, ("warn", "no SPF"), ("warn", "no DMARC"))

    def test_an_office(self) -> None:
        """Its mail leaves from the host that it dials."""
        hop = Hop(Agent.HOLD, "vps")
        self.settings = replace(SETTINGS, peers={"vps": RELAY}, default_route=hop)
        self.assert_spf(b"v=spf1 ip4:192.0.2.5 -all", "ok", "has SPF")
        self.resolver.known = {"relay.example": ["192.0.2.5", "192.0.2.6"]}
        self.publish("example.com", b"v=spf1 ip4:192.0.2.5 -all")
        self.assert_states(
            authentication.policies, ("ok", "192.0.2.5"), ("bad", "192.0.2.6"), ("ok", "DMARC")
        )

    def test_a_smart_host(self) -> None:
        """Which addresses it sends from, it alone knows."""
        self.settings = replace(SETTINGS, default_route=Hop(Agent.SMTP, "smart.example", 465))
        self.assert_spf(b"v=spf1 include:smart.example -all", "ok", "has SPF")

    def test_notices(self) -> None:
        """They are judged by the name of the host, where that says anything."""
        self.resolver.answers[HOST, RecordType.A] = Answer([ADDRESS])
        self.publish("example.com", b"v=spf1 ip4:203.0.113.7 -all")
        self.assertEqual(len(self.states(authentication.policies)), 2)
        self.publish(HOST, b"v=spf1 -all")
        self.assertEqual(self.states(authentication.policies)[2][0], "bad")
        self.publish(HOST, b"v=spf1 a -all")
        self.assertIn("notices of", self.states(authentication.policies)[2][1])

    def test_dmarc(self) -> None:
        """One record, with a policy."""
        for texts, state, words in (
            ([b"v=DMARC1; p=reject", b"other"], "ok", "p=reject"),
            ([b"v=DMARC1; p=none", b"v=DMARC1; p=none"], "bad", "2 DMARC"),
            ([b"v=DMARC1; policy=none"], "bad", "without a policy"),
            ([b"other"], "warn", "no DMARC"),
        ):
            self.publish(DMARC, *texts)
            found = self.states(authentication.policies)[-1]
            self.assertEqual(found[0], state)
            self.assertIn(words, found[1])


class KeyTests(CheckCase):
    """The keys that sign, and their records."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = temporary_folder(self)
        self.use(self.key())

    def key(self, state: KeyState = KeyState.ACTIVE) -> DKIMKey:
        """A new key, of the selector s1."""
        path: Path = self.folder / f"{state.value}.pem"
        path.write_bytes(
            Ed25519PrivateKey.generate().private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return DKIMKey("s1", path, state)

    def use(self, *keys: DKIMKey) -> None:
        """Let the domain have these."""
        domain = replace(SETTINGS.domains["example.com"], dkim=keys)
        self.settings = replace(SETTINGS, domains={"example.com": domain})

    def test_records(self) -> None:
        """There, another one, none, and none that can be known."""
        [key] = self.settings.domains["example.com"].dkim
        self.assert_states(authentication.keys, ("warn", "is not in the DNS"))
        name, text = record("example.com", key)
        self.resolver.answers[name, RecordType.TXT] = Answer([text.encode()])
        self.assert_states(authentication.keys, ("ok", "is the public key of"))
        self.use(self.key(KeyState.NEXT))
        self.assert_states(authentication.keys, ("bad", "is not the public key"))

    def test_other_states(self) -> None:
        """The next key is not there yet, and an old one may go."""
        self.use(self.key(KeyState.NEXT))
        self.assert_states(authentication.keys, ("warn", "not in the DNS yet"))
        self.use(self.key(KeyState.RETIRING))
        self.assertEqual(self.states(authentication.keys), [])

    def test_no_key(self) -> None:
        """A domain whose mail others sign needs none; a file must be there."""
        self.use()
        self.assert_states(authentication.keys, ("warn", "is not signed"))
        domain = replace(SETTINGS.domains["example.com"], deliver=Hop(Agent.HOLD, "office"))
        self.settings = replace(SETTINGS, domains={"example.com": domain})
        self.assertEqual(self.states(authentication.keys), [])
        self.use(DKIMKey("s1", self.folder / "none"))
        self.assert_states(authentication.keys, ("bad", "No such file"))

    def test_no_answer(self) -> None:
        """Servers that are down do not mean that a record is missing."""

        class Unanswering(FakeResolver):
            async def query(self, name: str, kind: RecordType) -> Answer:
                raise ResolutionFailed(f"{name}: timed out")

        self.resolver = Unanswering({}, {})
        self.assert_states(authentication.keys, ("unknown", "do not tell"))
