"""The checks of certificates."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from mta.dns_answer import TLSA, Answer, RecordType
from mta.doctor import certificates, peers
from mta.doctor.examined import SessionSeen
from mta.session import TLSInfo
from mta.settings import CertificatePair, Listener, ListenerTLS, TLSSettings
from mta.tls.files import certificates_in
from mta.tls.selfsigned import self_signed
from tests.certificates import Authority, fingerprint_of
from tests.doctor.test_checks import HOST, RELAY, SETTINGS, CheckCase
from tests.processes import temporary_folder


class CertificateCase(CheckCase):
    """An installation with a certificate."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = temporary_folder(self)
        self.authority = Authority(self.folder)
        self.use(self.authority.issue(HOST, days=60))

    def use(self, *pairs: CertificatePair) -> None:
        """Let these be configured."""
        tls = TLSSettings(pairs[0] if pairs else None, pairs[1:], ca=self.authority.path)
        self.settings = replace(SETTINGS, tls=tls, spool=str(self.folder))


class FileTests(CertificateCase):
    """Those that the server reads."""

    def test_ends(self) -> None:
        """Two weeks before its end it warns; afterwards it is bad."""
        self.assert_states(certificates.files, ("ok", f"for {HOST}, until"))
        self.use(self.authority.issue(HOST, days=13))
        self.assert_states(certificates.files, ("warn", "expires on"))
        self.use(self.authority.issue(HOST, days=-1))
        self.assert_states(certificates.files, ("bad", "has expired on"))
        self.use(self.authority.issue(HOST, days=60, after=1))
        self.assert_states(certificates.files, ("bad", "not valid before"))

    def test_names_and_keys(self) -> None:
        """Another host's, another key, another order, no file."""
        self.use(self.authority.issue("other.example", days=60))
        self.assert_states(certificates.files, ("warn", "other.example, and not for"))
        first, second = self.authority.issue(HOST, days=60), self.authority.issue("b.example")
        self.use(replace(first, key=second.key), replace(second, key=self.folder / "none"))
        self.assert_states(certificates.files, ("bad", "is not the key of"), ("bad", "No such"))
        chain = self.folder / "chain.crt"
        octets = [pair.certificate.read_bytes() for pair in (first, second)]
        chain.write_bytes(b"".join(octets))
        self.use(CertificatePair(chain, first.key))
        self.assert_states(certificates.files, ("bad", "out of order"))

    def test_issuers(self) -> None:
        """An authority that nobody knows, and the host itself."""
        self.settings = replace(self.settings, tls=replace(self.settings.tls, ca=None))
        [(state, text)] = self.states(certificates.files)
        self.assertEqual(state, "warn")
        self.assertIn("will not trust it: ", text)
        made = self_signed(self.folder, HOST)
        self.use(made)
        self.assert_states(certificates.files, ("ok", "it is self-signed"))

    def test_the_one_that_we_made(self) -> None:
        """Where none is configured; nothing before the first start."""
        self.use()
        self.assertEqual(self.states(certificates.files), [])
        pair = self.authority.issue(HOST, days=60)
        made = self.folder / "self-signed.pem"
        made.write_bytes(pair.certificate.read_bytes() + pair.key.read_bytes())
        self.assert_states(certificates.files, ("ok", "self-signed.pem"))


class ShownTests(CertificateCase):
    """Those on listeners and of peers."""

    def see(self, shown: str, days: int = 60, host: str = "127.0.0.1") -> None:
        """Let a server show a certificate."""
        expires = (datetime.now(UTC) + timedelta(days=days)).timestamp()
        tls = TLSInfo("TLSv1.3", "x", shown=shown, expires=expires)
        self.probe.sessions[host] = SessionSeen(HOST, frozenset({"ATRN"}), tls, 0.1)

    def test_listeners(self) -> None:
        """The file's, until it ends; those without TLS show none."""
        plain = Listener("tcp:24", tls=ListenerTLS.OFF)
        listen = (Listener("tcp:25"), plain, Listener("unix:/x"))
        self.settings = replace(self.settings, listen=listen)
        self.assertEqual(self.states(certificates.shown), [])
        pair = self.settings.tls.pair
        assert pair is not None
        self.see(fingerprint_of(pair))
        self.assert_states(certificates.shown, ("ok", "tcp:25 shows"))
        self.see(fingerprint_of(pair), 3)
        self.assert_states(certificates.shown, ("warn", "expires on"))
        self.see("00" * 32)
        self.assert_states(certificates.shown, ("bad", "another certificate"))
        self.probe.sessions["127.0.0.1"] = SessionSeen(HOST, frozenset(), None, 0.1)
        self.assert_states(certificates.shown, ("bad", "offers no TLS"))

    def test_peers(self) -> None:
        """One that ends soon is said, unless it is pinned."""
        self.settings = replace(self.settings, peers={"vps": RELAY})
        self.see("ab", 3, "relay.example")
        self.assert_states(peers.dialled, ("ok", "takes our log-in"), ("warn", "expires on"))
        self.settings = replace(self.settings, peers={"vps": replace(RELAY, pin="ab" * 32)})
        self.assert_states(peers.dialled, ("ok", "takes our log-in"))


class RecordTests(CertificateCase):
    """TLSA records."""

    def publish(self, *records: TLSA) -> None:
        """Let the DNS have these."""
        self.resolver.answers[f"_25._tcp.{HOST}", RecordType.TLSA] = Answer(list(records))

    def test_records(self) -> None:
        """One of them must be that of the certificate, in any form."""
        self.assertEqual(self.states(certificates.associations), [])
        pair = self.settings.tls.pair
        assert pair is not None
        [certificate] = certificates_in(pair.certificate)
        der = certificate.public_bytes(certificates.serialization.Encoding.DER)
        key = certificate.public_key().public_bytes(
            certificates.serialization.Encoding.DER,
            certificates.serialization.PublicFormat.SubjectPublicKeyInfo,
        )
        for record in (
            TLSA(3, 1, 1, hashlib.sha256(key).digest()),
            TLSA(3, 0, 1, hashlib.sha256(der).digest()),
            TLSA(3, 1, 2, hashlib.sha512(key).digest()),
            TLSA(3, 0, 0, der),
        ):
            self.publish(TLSA(3, 1, 1, b"old"), record)
            self.assert_states(certificates.associations, ("ok", "a TLSA record"))
        self.publish(TLSA(3, 1, 1, b"old"), TLSA(2, 1, 1, b"authority"))
        self.assert_states(certificates.associations, ("bad", "no TLSA record"))
        self.publish(TLSA(2, 1, 1, b"authority"))
        self.assertEqual(self.states(certificates.associations), [])
