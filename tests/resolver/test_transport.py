"""Real sockets, on loopback."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import dns.flags
import dns.message
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol, Factory
from twisted.names import authority, server
from twisted.names import dns as twisted_dns
from twisted.protocols.basic import Int16StringReceiver
from twisted.trial.unittest import SkipTest, TestCase

from mta.dns_answer import Answer, RecordType
from mta.interfaces import DomainNotFound
from mta.resolver import Resolver
from tests.resolver.network import Script, reply, rrset

MANY = 60  # MX records, more than a datagram holds
MX = rrset("example.com", "MX", "10 mx.example.com.")
EVIL = rrset("example.com", "MX", "1 evil.example.")


def good(octets: bytes, via: str) -> Iterable[bytes]:
    """The answer."""
    yield reply(octets, [MX]).to_wire()


class LoopbackServer:
    """A name server with a script, on one port for datagrams and connections.

    `stranger` is a port beside it, which sends before the server does.
    """

    def __init__(self, case: TestCase, script: Script, address: str = "127.0.0.1") -> None:
        self.script = script
        self.ports: set[int] = set()
        self.ids: set[bytes] = set()
        factory = Factory.forProtocol(lambda: _Stream(script))
        factory.noisy = False
        for _ in range(100):
            tcp = reactor.listenTCP(0, factory, interface=address)
            self.port = tcp.getHost().port
            try:
                udp = reactor.listenUDP(self.port, _Datagrams(self), interface=address)
                break
            except CannotListenError:
                tcp.stopListening()
        self.stranger = reactor.listenUDP(0, DatagramProtocol(), interface=address)
        for port in (tcp, udp, self.stranger):
            case.addCleanup(port.stopListening)
        self.resolver = Resolver(reactor, [(address, self.port)])


class _Datagrams(DatagramProtocol):
    noisy = False

    def __init__(self, server: LoopbackServer) -> None:
        self._server = server

    def datagramReceived(self, datagram: bytes, address: Any) -> None:
        """Twisted calls this."""
        self._server.ports.add(address[1])
        self._server.ids.add(datagram[:2])
        self._server.stranger.write(reply(datagram, [EVIL]).to_wire(), address)
        for each in self._server.script(datagram, "udp"):
            self.transport.write(each, address)


class _Stream(Int16StringReceiver):
    def __init__(self, script: Script) -> None:
        self._script = script

    def stringReceived(self, string: bytes) -> None:
        """Twisted calls this."""
        for each in self._script(string, "tcp"):
            self.sendString(each)


class SocketTests(TestCase):
    """Datagrams and connections."""

    timeout = 30.0

    async def test_each_query_has_its_port(self) -> None:
        """Port and id are others each time; what a stranger sends is not taken."""
        server = LoopbackServer(self, good)
        for _ in range(20):
            answer = await server.resolver.query("example.com", RecordType.MX)
            self.assertEqual(answer, Answer(((10, "mx.example.com"),), True, "example.com"))
            server.resolver = Resolver(reactor, [("127.0.0.1", server.port)])
        self.assertGreater(len(server.ports), 15)
        self.assertGreater(len(server.ids), 15)

    async def test_ipv6(self) -> None:
        """A server may have an IPv6 address, for datagrams and connections."""

        def truncating(octets: bytes, via: str) -> Iterable[bytes]:
            yield reply(octets, [MX], flags=0 if via == "tcp" else dns.flags.TC).to_wire()

        try:
            server = LoopbackServer(self, truncating, "::1")
        except CannotListenError:
            raise SkipTest("this machine has no IPv6") from None
        self.assertEqual(list(await server.resolver.mx("example.com")), [(10, "mx.example.com")])

    async def test_no_connections(self) -> None:
        """A server that can't be reached is passed over."""
        closed = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        port = closed.getHost().port
        await closed.stopListening()
        truncating = LoopbackServer(
            self, lambda octets, via: [reply(octets, flags=dns.flags.TC).to_wire()]
        )
        other = LoopbackServer(self, good)
        for first in (port, truncating.port):
            servers = [("127.0.0.1", first), ("127.0.0.1", other.port)]
            found = await Resolver(reactor, servers).mx("example.com")
            self.assertEqual(list(found), [(10, "mx.example.com")])

    async def test_datagrams_that_make_no_sense(self) -> None:
        """They say nothing, and above all not that there is nothing: the next one is asked."""
        other = LoopbackServer(self, good)
        asking = []
        for nonsense in (_promise, _cut, _echo):
            broken = LoopbackServer(self, lambda octets, via, f=nonsense: [f(octets)])
            servers = [("127.0.0.1", broken.port), ("127.0.0.1", other.port)]
            asking.append(Deferred.fromCoroutine(Resolver(reactor, servers).mx("example.com")))
        found = await gatherResults(asking)
        self.assertEqual([len(each) for each in found], [1] * 3)


def _promise(question: bytes) -> bytes:
    """Five answers, of which there is none."""
    return question[:2] + b"\x81\x80\0\1\0\5\0\0\0\0" + question[12:]


def _cut(question: bytes) -> bytes:
    """An MX record without its host."""
    head = question[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + question[12:29]
    return head + b"\xc0\x0c\0\x0f\0\1\0\0\0\x3c\0\1\x0a"


def _echo(question: bytes) -> bytes:
    """The question."""
    return question


class NameServerTests(TestCase):
    """Against Twisted's name server, which knows no EDNS, on loopback."""

    timeout = 30.0

    def setUp(self) -> None:
        """Start the name server, for UDP and TCP on one port."""
        zone = _Zone(
            {
                "example.com": [
                    twisted_dns.Record_SOA(b"ns.example.com", minimum=60, ttl=60),
                    twisted_dns.Record_MX(20, b"b.example.com", ttl=60),
                    twisted_dns.Record_MX(10, b"A.example.com", ttl=60),
                ],
                "a.example.com": [
                    twisted_dns.Record_A("192.0.2.1", ttl=60),
                    twisted_dns.Record_A("192.0.2.2", ttl=60),
                    twisted_dns.Record_AAAA("2001:db8::1", ttl=60),
                ],
                "b.example.com": [twisted_dns.Record_A("192.0.2.3", ttl=60)],
                "www.example.com": [twisted_dns.Record_CNAME(b"a.example.com", ttl=60)],
                "null.example.com": [twisted_dns.Record_MX(0, b"", ttl=60)],
                "many.example.com": [
                    twisted_dns.Record_MX(n, f"exchanger-number-{n}.example.com".encode(), ttl=60)
                    for n in range(MANY)
                ],
                "xn--bcher-kva.example.com": [twisted_dns.Record_MX(1, b"b.example.com", ttl=60)],
            }
        )
        self.factory = server.DNSServerFactory(authorities=[zone])
        self.factory.noisy = False
        self.tcp, self.udp = _listen(self.factory)
        self.resolver = Resolver(reactor, [("127.0.0.1", self.tcp.getHost().port)])

    async def tearDown(self) -> None:
        """Stop it."""
        for connection in list(self.factory.connections):
            connection.transport.abortConnection()
        await self.tcp.stopListening()
        await self.udp.stopListening()

    async def test_mx(self) -> None:
        """MX records have a preference and a host."""
        found = await self.resolver.mx("Example.com")
        self.assertEqual(sorted(found), [(10, "a.example.com"), (20, "b.example.com")])

    async def test_internationalised(self) -> None:
        """A U-label is looked up as its A-label."""
        found = await self.resolver.mx("bücher.example.com")
        self.assertEqual(list(found), [(1, "b.example.com")])

    async def test_null_mx(self) -> None:
        """A null MX is a host without a name."""
        self.assertEqual(list(await self.resolver.mx("null.example.com")), [(0, "")])

    async def test_no_mx(self) -> None:
        """A name without MX records has none."""
        self.assertEqual(list(await self.resolver.mx("b.example.com")), [])

    async def test_truncated(self) -> None:
        """What does not fit a datagram comes by TCP."""
        self.assertEqual(len(await self.resolver.mx("many.example.com")), MANY)

    async def test_addresses(self) -> None:
        """IPv6 and IPv4 take turns."""
        found = await self.resolver.addresses("a.example.com")
        self.assertEqual(found[0], "2001:db8::1")
        self.assertEqual(set(found[1:]), {"192.0.2.1", "192.0.2.2"})

    async def test_alias(self) -> None:
        """A CNAME is followed."""
        found = await self.resolver.addresses("www.example.com")
        self.assertEqual(set(found), {"2001:db8::1", "192.0.2.1", "192.0.2.2"})

    async def test_unknown(self) -> None:
        """A name that does not exist is not found."""
        for question in (self.resolver.mx, self.resolver.addresses):
            with self.assertRaises(DomainNotFound):
                await question("nowhere.example.com")


class _Zone(authority.FileAuthority):
    """The zone example.com with these records."""

    def __init__(self, records: dict[str, list[Any]]) -> None:
        self._zone = {name.encode(): own for name, own in records.items()}
        super().__init__("")

    def loadFile(self, filename: str) -> None:
        """Twisted calls this."""
        self.records = self._zone
        self.soa = b"example.com", self._zone[b"example.com"][0]


def _listen(factory: server.DNSServerFactory) -> tuple[Any, Any]:
    """Listen on a port that is free for both TCP and UDP."""
    for _ in range(100):
        tcp = reactor.listenTCP(0, factory, interface="127.0.0.1")
        try:
            protocol = twisted_dns.DNSDatagramProtocol(factory)
            udp = reactor.listenUDP(tcp.getHost().port, protocol, interface="127.0.0.1")
        except CannotListenError:
            tcp.stopListening()
        else:
            return tcp, udp
    raise AssertionError("no port is free for both")
