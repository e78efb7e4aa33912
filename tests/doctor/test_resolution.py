"""The check of the name servers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from mta.dns_answer import Answer, RecordType
from mta.doctor import name_servers, resolution
from mta.doctor.examined import NameServerSeen
from mta.doctor.name_servers import NameServers
from mta.mail import Agent, Hop
from mta.testing import FakeResolver
from tests.doctor.test_checks import SETTINGS, CheckCase, UnansweringResolver
from tests.resolver.network import reply, rrset
from tests.resolver.test_transport import LoopbackServer

VALIDATED = Answer(["a.gtld-servers.net"], is_authenticated=True)
TRUE = ("ok", "say so where a name does not exist")
NO_DANE = ("warn", "DANE protects no mail")


class Inventive(FakeResolver):
    """Has an answer for each name below a domain that does not exist."""

    def __init__(self, parent: str, answer: Answer) -> None:
        super().__init__({"gmail.com": [(5, "mx")]}, {})
        self.parent = parent
        self.answer = answer

    async def query(self, name: str, kind: RecordType) -> Answer:
        """Invent."""
        return self.answer if name.endswith(self.parent) else Answer(exists=False)


class ResolverTests(CheckCase):
    """The name servers as a whole."""

    def test_truth(self) -> None:
        """They know what is there, invent nothing, and may validate."""
        self.assert_states(resolution.resolver, TRUE, NO_DANE)
        self.resolver.answers["com", RecordType.NS] = VALIDATED
        self.assert_states(resolution.resolver, TRUE, ("ok", "validates DNSSEC"))
        self.settings = replace(SETTINGS, default_route=Hop(Agent.HOLD, "vps"))
        self.assert_states(resolution.resolver, TRUE)
        self.resolver.records = {}
        self.assert_states(resolution.resolver, ("bad", "know no MX"))

    def test_lies(self) -> None:
        """Addresses for names that can't exist, or no word that they don't."""
        for resolver, expected in (
            (Inventive(".invalid", Answer(["192.0.2.66"])), ("bad", "below invalid: 192.0.2.66")),
            (Inventive(".example.com", Answer(["192.0.2.66"])), ("bad", "below example.com")),
            (Inventive(".invalid", Answer()), ("warn", "names exist which do not")),
            (Inventive(".example.com", Answer()), TRUE),  # as its own servers have it
        ):
            self.resolver = resolver
            self.assert_states(resolution.resolver, expected, NO_DANE)

    def test_no_answer(self) -> None:
        """Nothing else is said then."""
        self.resolver = UnansweringResolver({"gmail.com": [(5, "mx")]}, {})
        self.assert_states(resolution.resolver, ("bad", "do not answer"))

    def test_each_server(self) -> None:
        """One that is down, and one without TCP."""
        self.probe.servers = [
            NameServerSeen("192.0.2.1", by_udp=False, by_tcp=False),
            NameServerSeen("192.0.2.2", by_tcp=False),
        ]
        self.assert_states(
            resolution.resolver,
            TRUE,
            ("warn", "192.0.2.1 does not answer:"),
            ("warn", "192.0.2.2 does not answer by TCP"),
            NO_DANE,
        )


class NameServerTests(TestCase):
    """Servers on loopback."""

    timeout = 30.0

    async def seen(self, silent: str) -> tuple[bool, bool]:
        """The ways of a server that says nothing in some."""

        def answer(octets: bytes, via: str) -> Iterable[bytes]:
            if via not in silent:
                yield reply(octets, [rrset("com", "NS", "a.gtld-servers.net.")]).to_wire()
            elif via == "tcp":
                yield reply(octets, code=5).to_wire()

        server = LoopbackServer(self, answer)
        [seen] = await NameServers(reactor, [("127.0.0.1", server.port)]).seen()
        self.assertEqual(seen.address, "127.0.0.1")
        return seen.by_udp, seen.by_tcp

    async def test_ways(self) -> None:
        """Both, or one alone."""
        self.assertEqual(await self.seen(""), (True, True))
        self.assertEqual(await self.seen("tcp"), (True, False))

    async def test_down(self) -> None:
        """It says nothing."""
        server = LoopbackServer(self, lambda octets, via: ())
        self.patch(name_servers, "SERVER_TIMEOUT", 0.1)
        [seen] = await NameServers(reactor, [("127.0.0.1", server.port)]).seen()
        self.assertEqual((seen.by_udp, seen.by_tcp), (False, False))
