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
from mta.queued import HopFailure
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


OURS = "192.0.2.77"
# The records of example.com that lead to this host, by what they do.
LEADING_HERE: dict[str, list[tuple[str, str, str]]] = {
    "no MX record": [("example.com", "A", OURS)],
    "no MX record, and an alias": [
        ("example.com", "CNAME", "alias.example."),
        ("alias.example", "A", OURS),
    ],
    "an exchanger": [("example.com", "MX", "5 mx.example."), ("mx.example", "A", OURS)],
    "one that is an alias": [
        *(("example.com", "MX", "5 alias.example."), ("alias.example", "CNAME", "mx.example.")),
        ("mx.example", "A", OURS),
    ],
    "loopback": [("example.com", "MX", "5 mx.example."), ("mx.example", "A", "127.8.8.8")],
    "no address": [("example.com", "MX", "5 mx.example."), ("mx.example", "A", "0.0.0.0")],
    "mapped": [("example.com", "MX", "5 mx.example."), ("mx.example", "AAAA", f"::ffff:{OURS}")],
    "NAT64": [("example.com", "MX", "5 mx.example."), ("mx.example", "AAAA", f"64:ff9b::{OURS}")],
    "local NAT64": [
        ("example.com", "MX", "5 mx.example."),
        ("mx.example", "AAAA", f"64:ff9b:1::{OURS}"),
    ],
    "6to4": [("example.com", "MX", "5 mx.example."), ("mx.example", "AAAA", "2002:c000:24d::25")],
    "our name": [("example.com", "MX", "5 US.example.")],
    "localhost": [("example.com", "MX", "5 localhost.")],
    "a name that is an address": [("example.com", "MX", f"5 {OURS}.")],
    "a worse one as well": [
        *(("example.com", "MX", "5 us.example."), ("example.com", "MX", "9 mx.example.")),
        ("mx.example", "A", "192.0.2.1"),
    ],
}
# Those whose names only programs of old take for an address: nobody is dialled.
NO_NAMES = ("2130706433", "0x7f000001", "127.1", "0177.0.0.1")


class LeadingHereTests(SynchronousTestCase):
    """A stranger's records that lead to this host, in octets from a name server."""

    def found(self, records: Iterable[tuple[str, str, str]]) -> Failure | list[Host]:
        """The hosts to dial, or why there are none."""
        network, zone = Network(), Zone()
        network.servers = {"192.0.2.53": zone}
        for name, kind, text in records:
            kinds = ("A", "AAAA", "MX") if kind == "CNAME" else (kind,)
            targets = [each for each in records if f"{each[0]}." == text] if kind == "CNAME" else []
            for each in kinds:
                before = zone.table.get((name, each), [])
                ends = [rrset(*target) for target in targets if target[1] == each]
                zone.table[name, each] = [*before, rrset(name, kind, text), *ends]
        resolver = Resolver(network, [("192.0.2.53", 53)], NOWHERE)
        own = OwnHost("us.example", [OURS], is_on_interface=lambda _: False)
        finder = HostFinder(resolver, own)
        finding = Deferred.fromCoroutine(listed(finder.hosts(Hop(Agent.MX, "example.com"))))
        results: list[Failure | list[Host]] = []
        finding.addBoth(results.append)
        return results[0]

    def test_nothing_is_dialled(self) -> None:
        """The message goes back at once (RFC 5321 section 5.1)."""
        for what, records in LEADING_HERE.items():
            with self.subTest(what):
                found = self.found(records)
                assert isinstance(found, Failure), found
                found.trap(HopFailure)
                self.assertEqual(str(found.value.outcome.reply)[:9], "554 5.4.6")

    def test_others_are_dialled(self) -> None:
        """The same with an address of somebody else."""
        for what, records in LEADING_HERE.items():
            if OURS not in records[-1][2]:
                continue
            other = [(name, kind, text.replace(OURS, "192.0.2.78")) for name, kind, text in records]
            with self.subTest(what):
                found = self.found(other)
                assert isinstance(found, list), found
                self.assertEqual(len(found[0].addresses), 1)

    def test_names_that_are_none(self) -> None:
        """They are names, and have no address."""
        for name in NO_NAMES:
            [host] = self.found([("example.com", "MX", f"5 {name}.")])
            self.assertEqual((host.addresses, bool(host.failure)), ((), True), name)


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
