"""What domains publish about TLS."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mta.dns_answer import Answer, RecordType
from mta.doctor import transport
from mta.doctor.examined import DocumentFault
from mta.doctor.sts_policy import Policy, PolicyFault, parse
from mta.interfaces import DomainNotFound
from tests.doctor.test_checks import HOST, CheckCase, UnansweringResolver

POLICY = "version: STSv1\r\nmode: {mode}\r\nmx: {host}\r\nmax_age: 604800\r\n"
STS, TLSRPT = "_mta-sts.example.com", "_smtp._tls.example.com"


class TransportTests(CheckCase):
    """The check."""

    def publish(self, name: str, *texts: bytes) -> None:
        """Let the DNS have these."""
        self.resolver.answers[name, RecordType.TXT] = Answer(list(texts))

    def document(self, found: str | Exception) -> None:
        """Let the host of the policy have this."""
        self.probe.documents["mta-sts.example.com/.well-known/mta-sts.txt"] = found

    def test_records(self) -> None:
        """MTA-STS and TLSRPT, where there are records at all."""
        self.assertEqual(self.states(transport.transport), [])
        self.publish(STS, b"v=STSv1; id=2026-01")
        self.assert_states(transport.transport, ("bad", "2026-01"))
        self.publish(STS, b"v=STSv1; id=1;", b"v=STSv1; id=2;")
        self.assert_states(transport.transport, ("bad", "not one record"))
        self.publish(STS)
        self.publish(TLSRPT, b"v=TLSRPTv1; rua=mailto:tls@example.com")
        self.assert_states(transport.transport, ("ok", "TLSRPT"))
        self.publish(TLSRPT, b"v=TLSRPTv1; rua=tls@example.com")
        self.assert_states(transport.transport, ("bad", "rua=tls@example.com"))

    def test_no_answer(self) -> None:
        """Servers that are down do not mean that records are missing."""
        self.resolver = UnansweringResolver({}, {})
        self.assert_states(transport.transport, ("unknown", "give no answer"))

    def test_documents(self) -> None:
        """The policy is read as those read it that send to us."""
        self.publish(STS, b"v=STSv1; id=20260101T0;")
        for found, expected in (
            (DomainNotFound("mta-sts.example.com"), ("bad", "no address")),
            (DocumentFault("timed out", is_there=False), ("unknown", "timed out")),
            (DocumentFault("its server replies 404", is_there=True), ("bad", "404")),
            ("<html>", ("bad", "no policy: there is a line without a colon: '<html>'")),
        ):
            self.document(found)
            self.assert_states(transport.transport, expected)

    def test_hosts(self) -> None:
        """Each MX host is in the policy."""
        self.publish(STS, b"v=STSv1; id=20260101T0;")
        self.document(POLICY.format(mode="enforce", host=HOST))
        self.assert_states(transport.transport, ("unknown", "no MX host"))
        self.resolver.records = {"example.com": [(10, HOST), (20, "Mx2.Example.net.")]}
        self.assert_states(transport.transport, ("bad", "not name its MX host Mx2.Example.net."))
        self.document(POLICY.format(mode="testing", host=HOST))
        self.assert_states(transport.transport, ("warn", "mode testing"))
        self.document(POLICY.format(mode="none", host=HOST))
        self.assert_states(transport.transport, ("ok", "demands nothing"))
        self.document(POLICY.format(mode="enforce", host=f"{HOST}\nmx: *.example.net"))
        self.assert_states(transport.transport, ("ok", "mode enforce"))


class PolicyTests(SynchronousTestCase):
    """The form of a policy."""

    def test_hosts(self) -> None:
        """A star stands for one label."""
        policy = Policy("enforce", ("mail.example.com", "*.example.net"))
        for host, is_covered in (
            ("MAIL.example.com.", True),
            ("a.mail.example.com", False),
            ("mx.example.net", True),
            ("example.net", False),
            ("a.mx.example.net", False),
        ):
            self.assertEqual(policy.covers(host), is_covered, host)

    def test_faults(self) -> None:
        """Each is named."""
        good = POLICY.format(mode="enforce", host="mx.example.com")
        self.assertEqual(parse(good), Policy("enforce", ("mx.example.com",)))
        self.assertEqual(parse("unknown: x\n" + good), parse(good))
        for old, new, fault in (
            ("STSv1", "STSv2", "version: STSv1"),
            ("enforce", "Enforce", "mode is 'Enforce'"),
            ("604800", "31557601", "31557601"),
            ("604800", "", "max_age is ''"),
            ("mx.example.com", "https://x", "no name of an MX host"),
            ("mx:", "mix:", "names no MX host"),
        ):
            with self.assertRaisesRegex(PolicyFault, fault):
                parse(good.replace(old, new))
