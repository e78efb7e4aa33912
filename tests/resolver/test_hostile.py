"""A resolver among servers that send anything."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import dns.flags
import dns.rrset
from dns.rcode import Rcode
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mta.delivery.dialler import MAX_ADDRESSES, Dialler
from mta.delivery.hosts import Host, HostFinder
from mta.delivery.own_host import OwnHost
from mta.dns_answer import Answer, RecordType
from mta.interfaces import ResolutionFailed
from mta.mail import Agent, Hop
from mta.resolver import Resolver
from mta.resolver.lookups import MAX_SECONDS
from mta.resolver.response import MAX_READ
from mta.resolver.transport import TCP_TIMEOUT
from mta.testing import FakeResolver, FakeTLS
from tests.resolver.network import Network, Script, Zone, reply, rrset, soa

T = TypeVar("T")
NOWHERE = Path("/nonexistent/hosts")
MAX_MESSAGE = 0xFFFF  # octets: of a message by TCP
MX = rrset("example.com", "MX", "10 mx.example.com.")
RECORDS = [
    rrset("example.com", "CNAME", "mail.example.com."),
    rrset("mail.example.com", "MX", "10 mx.example.com.", "20 mx.example.net."),
    rrset("mail.example.com", "TXT", '"some" "text"'),
]
# What becomes of a response: octets that are others, and where it ends.
CHANGES = st.tuples(
    st.lists(st.tuples(st.integers(2, 250), st.integers(0, 255)), max_size=6),
    st.integers(0, 300),
)


class HostileTests(SynchronousTestCase):
    """Whatever comes is an answer or a failure, and nothing stays open."""

    @given(st.lists(CHANGES, min_size=1, max_size=6), st.sampled_from(list(RecordType)))
    def test_changed_responses(
        self, changes: list[tuple[list[tuple[int, int]], int]], kind: RecordType
    ) -> None:
        """Responses of which octets are changed, or missing, by datagram and connection."""
        network = Network()
        left = list(changes)

        def script(octets: bytes, via: str) -> Iterable[bytes]:
            response = bytearray(reply(octets, RECORDS, authority=[soa(60)]).to_wire())
            octets_changed, end = left.pop() if left else ([], len(response))
            for place, octet in octets_changed:
                if place < len(response):
                    response[place] = octet
            yield bytes(response[:end])

        network.servers = {"192.0.2.1": script, "127.0.0.1": script}
        for server in network.servers:
            resolver = Resolver(network, [(server, 53)] * 2, NOWHERE)
            asking = Deferred.fromCoroutine(resolver.query("example.com", kind))
            for _ in range(61):
                network.advance(1)
            result: object = asking.result
            asking.addErrback(lambda _: None)
            if not isinstance(result, Answer):
                assert isinstance(result, Failure) and result.check(ResolutionFailed), result
                self.assertNotIn("fault of our own", result.getErrorMessage())
        self.assertEqual((network.open_ports, network.getDelayedCalls()), (0, []))


class ConnectionTests(SynchronousTestCase):
    """Answers by connection that come slowly, in part, or are very long."""

    def setUp(self) -> None:
        self.network = Network()

    def asking(self, kind: RecordType, *scripts: Script) -> Deferred[Any]:
        """A question about example.com to servers with these scripts, in that order."""
        self.network.servers = {f"192.0.2.{n}": script for n, script in enumerate(scripts)}
        servers = [(address, 53) for address in self.network.servers]
        resolver = Resolver(self.network, servers, NOWHERE, random=Random(1))
        return Deferred.fromCoroutine(resolver.query("example.com", kind))

    def test_closed_at_once(self) -> None:
        """A server that truncates, and hangs up on connections, is passed over."""
        asking = self.asking(RecordType.MX, truncating, good)
        self.network.connections[-1].lose()
        self.assertEqual(self.successResultOf(asking).records, ((10, "mx.example.com"),))
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_closed_always(self) -> None:
        """Where no other server is there, the look-up fails for now, and soon."""
        asking = self.asking(RecordType.MX, truncating)
        while not asking.called:
            for connection in self.network.connections:
                connection.lose()
            self.network.advance(0.5)
        self.failureResultOf(asking, ResolutionFailed)
        self.assertLess(self.network.seconds(), MAX_SECONDS)
        self.assertLess(len(self.network.connections), 10)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_one_octet_a_second(self) -> None:
        """The whole answer has the time of one: then the next server is asked."""
        asking = self.asking(RecordType.MX, truncating, good)
        (connection,) = self.network.connections
        for octet in b"\x02\x00" + bytes(500):
            if asking.called:
                break
            connection.receive(bytes([octet]))
            self.network.advance(1)
        self.assertEqual(self.successResultOf(asking).records, ((10, "mx.example.com"),))
        self.assertEqual(self.network.seconds(), TCP_TIMEOUT)
        self.assertFalse(connection.is_open)

    def test_one_octet_a_second_from_all(self) -> None:
        """A look-up ends in its time, whatever drips."""
        asking = self.asking(RecordType.MX, truncating, truncating)
        while not asking.called and self.network.seconds() < 2 * MAX_SECONDS:
            for connection in self.network.connections:
                connection.receive(b"\x02")
            self.network.advance(1)
        self.failureResultOf(asking, ResolutionFailed)
        self.assertLessEqual(self.network.seconds(), MAX_SECONDS)
        self.assertFalse(any(each.is_open for each in self.network.connections))
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_the_longest_answer(self) -> None:
        """All of 65,535 octets are read, in pieces as a network brings them."""
        asking = self.asking(RecordType.TXT, truncating)
        query = self.network.asked[-1].query.to_wire()
        texts = [f'"{n:04}{"x" * 250}" "{"y" * 50}"' for n in range(MAX_READ)]
        octets = reply(query, [rrset("example.com", "TXT", *texts)]).to_wire(max_size=MAX_MESSAGE)
        octets += bytes(MAX_MESSAGE - len(octets))
        framed = len(octets).to_bytes(2, "big") + octets
        for start in range(0, len(framed), 1448):
            self.network.connections[-1].receive(framed[start : start + 1448])
        self.assertEqual(len(self.successResultOf(asking).records), MAX_READ)
        self.assertFalse(self.network.connections[-1].is_open)

    def test_many_addresses(self) -> None:
        """A host has a bounded number of addresses; an answer with more is none."""
        for count in (MAX_READ, MAX_READ + 1, 1000):
            texts = [f"10.0.{n >> 8}.{n & 255}" for n in range(count)]
            records = [rrset("example.com", "A", *texts)]

            def many(
                octets: bytes, via: str, records: list[dns.rrset.RRset] = records
            ) -> Iterable[bytes]:
                yield reply(octets, records).to_wire(max_size=MAX_MESSAGE)

            asking = self.asking(RecordType.A, many)
            self.network.pump([1] * MAX_SECONDS)
            if count <= MAX_READ:
                self.assertEqual(len(self.successResultOf(asking).records), count)
            else:
                self.failureResultOf(asking, ResolutionFailed)

    def test_failure_then_answer(self) -> None:
        """The only server failed: it is asked again as soon as mail is tried again."""
        codes = [Rcode.SERVFAIL]

        def recovering(octets: bytes, via: str) -> Iterable[bytes]:
            code = codes.pop() if codes else Rcode.NOERROR
            yield reply(octets, [] if code else [MX], code).to_wire()

        self.network.servers = {"192.0.2.1": recovering}
        resolver = Resolver(self.network, [("192.0.2.1", 53)], NOWHERE)
        first, second = (Deferred.fromCoroutine(resolver.mx("example.com")) for _ in range(2))
        self.failureResultOf(first, ResolutionFailed)
        self.assertEqual(list(self.successResultOf(second)), [(10, "mx.example.com")])

    def test_exchanger_is_an_alias(self) -> None:
        """Mail goes to the addresses behind a CNAME, against RFC 2181 section 10.3."""
        zone = Zone()
        zone.add("example.com", "MX", "10 alias.example.com.")
        for kind, address in (("A", "192.0.2.25"), ("AAAA", "2001:db8::25")):
            zone.table["alias.example.com", kind] = [
                rrset("alias.example.com", "CNAME", "real.example.com."),
                rrset("real.example.com", kind, address),
            ]
        self.network.servers = {"192.0.2.1": zone}
        resolver = Resolver(self.network, [("192.0.2.1", 53)], NOWHERE)
        finder = HostFinder(resolver, OwnHost("us.example", is_on_interface=lambda _: False))
        finding = Deferred.fromCoroutine(listed(finder.hosts(Hop(Agent.MX, "example.com"))))
        found = self.successResultOf(finding)
        self.assertEqual(found, [Host("alias.example.com", ["2001:db8::25", "192.0.2.25"])])


class ManyAddressesTests(SynchronousTestCase):
    """A host that has as many addresses as its DNS can say."""

    def test_bounded(self) -> None:
        """A hop has a few of them tried at one time."""
        addresses = [f"10.0.{n >> 8}.{n & 255}" for n in range(1000)]
        resolver = FakeResolver(
            {"many.example": [(1, "mx.many.example")]}, {"mx.many.example": addresses}
        )
        own = OwnHost("us.example", is_on_interface=lambda _: False)
        dialler = Dialler(Clock(), None, "us.example", resolver, FakeTLS(), own)
        finding = Deferred.fromCoroutine(
            listed(dialler.addresses(Hop(Agent.MX, "many.example"), []))
        )
        found = [each.address for each in self.successResultOf(finding)]
        self.assertEqual(found, addresses[:MAX_ADDRESSES])


async def listed(found: AsyncIterator[T]) -> list[T]:
    """All that is found."""
    return [each async for each in found]


def truncating(octets: bytes, via: str) -> Iterable[bytes]:
    """Say by datagram that the answer is long, and nothing by connection."""
    if via == "udp":
        yield reply(octets, flags=dns.flags.TC).to_wire()


def good(octets: bytes, via: str) -> Iterable[bytes]:
    """Say what there is."""
    yield reply(octets, [MX]).to_wire()
