"""Our resolver and the name servers that people have."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from mta.dns_answer import TLSA, Answer, RecordType
from mta.interfaces import DomainNotFound, ResolutionFailed
from mta.resolver import Resolver
from tests.interop.dns_servers import DIGEST, MANY, Bind, Dnsmasq, Unbound

MX = ((10, "mx.signed"), (20, "mx2.signed"))


class ValidatingTests(TestCase):
    """Unbound on this host, whose verdict on DNSSEC is believed."""

    timeout = 60.0

    def setUp(self) -> None:
        """Start it, and the server that it asks."""
        server = Unbound(self, Bind(self))
        self.resolver = Resolver(reactor, [("127.0.0.1", server.port)])

    async def test_secure(self) -> None:
        """What is signed is authenticated, along an alias as well, and by TCP."""
        tlsa = TLSA(3, 1, 1, bytes.fromhex(DIGEST))
        for name, kind, records, canonical in [
            ("mail.signed", RecordType.MX, MX, "mail.signed"),
            ("MAIL.signed", RecordType.MX, MX, "mail.signed"),
            ("alias.signed", RecordType.MX, MX, "mail.signed"),
            ("alias.signed", RecordType.CNAME, ("mail.signed",), "alias.signed"),
            ("null.signed", RecordType.MX, ((0, ""),), "null.signed"),
            ("mx.signed", RecordType.A, ("192.0.2.1",), "mx.signed"),
            ("mx.signed", RecordType.AAAA, ("2001:db8::1",), "mx.signed"),
            ("_25._tcp.mx.signed", RecordType.TLSA, (tlsa,), "_25._tcp.mx.signed"),
            ("text.signed", RecordType.TXT, (b"v=spf1 -all",), "text.signed"),
            ("signed", RecordType.NS, ("ns.signed",), "signed"),
        ]:
            answer = await self.resolver.query(name, kind)
            self.assertEqual(
                (tuple(sorted(answer.records)), answer.canonical_name), (records, canonical), name
            )
            self.assertTrue(answer.is_authenticated, name)
        long = await self.resolver.query("long.signed", RecordType.TXT)
        self.assertEqual((len(long.records), long.is_authenticated), (MANY, True))

    async def test_secure_denial(self) -> None:
        """That there is nothing is authenticated as well."""
        no_record = await self.resolver.query("mx.signed", RecordType.TXT)
        self.assertEqual(no_record, Answer((), True, "mx.signed", True))
        no_name = await self.resolver.query("nowhere.signed", RecordType.TLSA)
        self.assertEqual(no_name, Answer((), False, "nowhere.signed", True))

    async def test_insecure(self) -> None:
        """What is not signed is an answer like any other."""
        answer = await self.resolver.query("mail.unsigned", RecordType.MX)
        self.assertEqual(answer, Answer(((10, "mx.unsigned"),), True, "mail.unsigned", False))
        nothing = await self.resolver.query("nowhere.unsigned", RecordType.TLSA)
        self.assertEqual(nothing, Answer((), False, "nowhere.unsigned", False))

    async def test_forged(self) -> None:
        """An address that was changed on the way is none, and neither is it absent."""
        with self.assertRaises(ResolutionFailed) as caught:
            await self.resolver.query("forged.signed", RecordType.A)
        self.assertEqual(str(caught.exception), "forged.signed: server failure")


class AuthoritativeTests(TestCase):
    """BIND, which knows its own zones alone."""

    timeout = 60.0

    def setUp(self) -> None:
        """Start it."""
        server = Bind(self)
        self.resolver = Resolver(reactor, [("127.0.0.1", server.port)])

    async def test_answers(self) -> None:
        """Its answers are whole, and not authenticated: it does not say so of its own zones."""
        self.assertEqual(tuple(sorted(await self.resolver.mx("alias.signed"))), MX)
        self.assertEqual(
            list(await self.resolver.addresses("mx.signed")), ["2001:db8::1", "192.0.2.1"]
        )
        answer = await self.resolver.query("long.signed", RecordType.TXT)
        self.assertEqual((len(answer.records), answer.is_authenticated), (MANY, False))
        with self.assertRaises(DomainNotFound):
            await self.resolver.mx("nowhere.signed")

    async def test_no_answers(self) -> None:
        """A zone of others, or the way to it, is none."""
        for name, reason in (("example.com", "refused"), ("a.below.signed", "no sense")):
            with self.assertRaises(ResolutionFailed) as caught:
                await self.resolver.mx(name)
            self.assertIn(reason, str(caught.exception))


class ForwarderTests(TestCase):
    """dnsmasq, which passes on what others say."""

    timeout = 60.0

    def setUp(self) -> None:
        """Start it, and the server that it asks."""
        self.server = Dnsmasq(self, Bind(self))

    async def test_answers(self) -> None:
        """They come through as they are, from its memory as well."""
        for _ in range(2):
            resolver = Resolver(reactor, [("127.0.0.1", self.server.port)])
            self.assertEqual(tuple(sorted(await resolver.mx("alias.signed"))), MX)
            found = await resolver.addresses("mx.signed")
            self.assertEqual(list(found), ["2001:db8::1", "192.0.2.1"])
            long = await resolver.query("long.signed", RecordType.TXT)
            self.assertEqual(len(long.records), MANY)
            with self.assertRaises(DomainNotFound):
                await resolver.mx("nowhere.signed")
