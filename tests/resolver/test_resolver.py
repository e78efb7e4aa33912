"""The domain name system, and the mail exchangers that it names."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from twisted.internet import reactor
from twisted.internet.defer import Deferred, TimeoutError, fail, gatherResults, succeed
from twisted.internet.error import CannotListenError, ConnectionRefusedError
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock, deferLater
from twisted.logger import LogLevel, capturedLogs
from twisted.names import authority, dns, server
from twisted.names.error import DNSNameError, DNSServerError
from twisted.trial.unittest import FailTest, SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from mta import resolver as resolver_module
from mta.delivery.dialler import Dialler
from mta.delivery.exchangers import MAX_EXCHANGERS, exchangers
from mta.interfaces import DomainNotFound, IResolver, ResolutionFailed
from mta.mail import Agent, Hop, Outcome, Status
from mta.queued import HopFailure
from mta.resolver import MAX_NEGATIVE_TTL, MAX_TTL, TIMEOUTS, Resolver
from mta.testing import FakeResolver, FakeTLS
from tests.processes import temporary_folder

MANY = 60  # MX records, more than a datagram holds


class NameServerTests(TestCase):
    """Against a name server on loopback."""

    timeout = 30.0

    def setUp(self) -> None:
        """Start the name server, for UDP and TCP on one port."""
        zone = _Zone(
            {
                "example.com": [
                    dns.Record_SOA(b"ns.example.com", minimum=60, ttl=60),
                    dns.Record_MX(20, b"b.example.com", ttl=60),
                    dns.Record_MX(10, b"A.example.com", ttl=60),
                ],
                "a.example.com": [
                    dns.Record_A("192.0.2.1", ttl=60),
                    dns.Record_A("192.0.2.2", ttl=60),
                    dns.Record_AAAA("2001:db8::1", ttl=60),
                ],
                "b.example.com": [dns.Record_A("192.0.2.3", ttl=60)],
                "www.example.com": [dns.Record_CNAME(b"a.example.com", ttl=60)],
                "null.example.com": [dns.Record_MX(0, b"", ttl=60)],
                "many.example.com": [
                    dns.Record_MX(n, f"exchanger-number-{n}.example.com".encode(), ttl=60)
                    for n in range(MANY)
                ],
                "xn--bcher-kva.example.com": [dns.Record_MX(1, b"b.example.com", ttl=60)],
            }
        )
        self.factory = server.DNSServerFactory(authorities=[zone])
        self.factory.noisy = False
        self.tcp, self.udp = _listen(self.factory)
        self.port = self.tcp.getHost().port
        self.resolver = Resolver(reactor, [("127.0.0.1", self.port)])

    async def tearDown(self) -> None:
        """Stop it, and wait until its connections are gone."""
        for connection in list(self.factory.connections):
            connection.transport.abortConnection()
        await self.tcp.stopListening()
        await self.udp.stopListening()
        while self.resolver._client.connections or self.factory.connections:
            await deferLater(reactor, 0.01)

    async def test_mx(self) -> None:
        """MX records have a preference and a host."""
        found = await self.resolver.mx("Example.com")
        self.assertEqual(sorted(found), [(10, "a.example.com"), (20, "b.example.com")])

    async def test_internationalised(self) -> None:
        """A U-label is looked up as its A-label."""
        self.assertEqual(await self.resolver.mx("bücher.example.com"), [(1, "b.example.com")])

    async def test_null_mx(self) -> None:
        """A null MX is a host without a name."""
        self.assertEqual(await self.resolver.mx("null.example.com"), [(0, "")])

    async def test_no_mx(self) -> None:
        """A name without MX records has none."""
        self.assertEqual(await self.resolver.mx("b.example.com"), [])

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

    async def test_datagrams_that_make_no_sense(self) -> None:
        """They say nothing, and above all not that there is nothing: the next one is asked."""
        asking = []
        for nonsense in (_promise, _cut, _echo):
            port = reactor.listenUDP(0, _Broken(nonsense), interface="127.0.0.1")
            self.addCleanup(port.stopListening)
            servers = [("127.0.0.1", port.getHost().port), ("127.0.0.1", self.port)]
            asking.append(Deferred.fromCoroutine(Resolver(reactor, servers).mx("b.example.com")))
            asking.append(Deferred.fromCoroutine(Resolver(reactor, servers).mx("example.com")))
        self.assertEqual([len(found) for found in await gatherResults(asking)], [0, 2] * 3)

    async def test_unknown(self) -> None:
        """A name that does not exist is not found."""
        for question in (self.resolver.mx, self.resolver.addresses):
            with self.assertRaises(DomainNotFound):
                await question("nowhere.example.com")


class _Broken(DatagramProtocol):
    """A name server that answers what a function makes of the question."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._answer = answer

    def datagramReceived(self, datagram: bytes, address: Any) -> None:
        """Twisted calls this."""
        self.transport.write(self._answer(datagram), address)


def _promise(question: bytes) -> bytes:
    """Five answers, of which there is none."""
    return question[:2] + b"\x81\x80\0\1\0\5\0\0\0\0" + question[12:]


def _cut(question: bytes) -> bytes:
    """An MX record without its host."""
    head = question[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + question[12:]
    return head + b"\xc0\x0c\0\x0f\0\1\0\0\0\x3c\0\1\x0a"


def _echo(question: bytes) -> bytes:
    """The question."""
    return question


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
            protocol = dns.DNSDatagramProtocol(factory)
            udp = reactor.listenUDP(tcp.getHost().port, protocol, interface="127.0.0.1")
        except CannotListenError:
            tcp.stopListening()
        else:
            return tcp, udp
    raise AssertionError("no port is free for both")


class ScriptedClient:
    """Answers from a table: records and authority, or an exception."""

    def __init__(self, **_: Any) -> None:
        self.table: dict[tuple[str, int], Any] = {}
        self.asked: list[tuple[str, int]] = []

    def query(self, query: dns.Query) -> Deferred[Any]:
        """The resolver calls this."""
        key = query.name.name.decode(), query.type
        self.asked.append(key)
        answer = self.table.get(key, ([], []))
        if isinstance(answer, Exception):
            return fail(answer)
        return succeed((*answer, []))


def header(name: str, payload: Any, ttl: int = 600) -> dns.RRHeader:
    """A record in an answer."""
    return dns.RRHeader(name.encode(), payload.TYPE, dns.IN, ttl, payload)


def soa(minimum: int) -> dns.RRHeader:
    """What comes with an answer that there is nothing."""
    return header("example.com", dns.Record_SOA(b"ns.example.com", minimum=minimum), 86400)


class ResolverTests(SynchronousTestCase):
    """What is made of answers, and how long they are remembered."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.hosts = temporary_folder(self) / "hosts"
        with patch.object(resolver_module, "NameServers", ScriptedClient):
            self.resolver = Resolver(self.clock, [("192.0.2.53", 53)], self.hosts)
        self.client: Any = self.resolver._client

    def mx(self, domain: str = "example.com") -> Sequence[tuple[int, str]]:
        """The MX records, or what asking raises."""
        return self.successResultOf(Deferred.fromCoroutine(self.resolver.mx(domain)))

    def addresses(self, host: str) -> Sequence[str]:
        """The addresses, likewise."""
        return self.successResultOf(Deferred.fromCoroutine(self.resolver.addresses(host)))

    def failure(self, coroutine: Any) -> type[BaseException] | None:
        """What asking raises."""
        return self.failureResultOf(Deferred.fromCoroutine(coroutine)).type

    def test_interface(self) -> None:
        """The resolver is one."""
        self.assertTrue(verifyObject(IResolver, self.resolver))

    def test_remembered(self) -> None:
        """An answer is used until its time to live is over."""
        self.client.table["example.com", dns.MX] = (
            [header("example.com", dns.Record_MX(1, b"a.example.com"), 300)],
            [],
        )
        self.mx()
        self.clock.advance(299)
        self.assertEqual(self.mx("EXAMPLE.com."), [(1, "a.example.com")])
        self.assertEqual(len(self.client.asked), 1)
        self.clock.advance(1)
        self.mx()
        self.assertEqual(len(self.client.asked), 2)

    def test_time_to_live_is_bounded(self) -> None:
        """However long an answer wants to be remembered."""
        self.client.table["example.com", dns.MX] = (
            [header("example.com", dns.Record_MX(1, b"a.example.com"), 10**6)],
            [],
        )
        self.mx()
        self.clock.advance(MAX_TTL)
        self.mx()
        self.assertEqual(len(self.client.asked), 2)

    def test_nothing_is_remembered(self) -> None:
        """That there is nothing, as long as the SOA record says, within bounds."""
        for minimum, seconds in ((30, 30), (10**6, MAX_NEGATIVE_TTL)):
            self.client.table["example.com", dns.MX] = ([], [soa(minimum)])
            self.mx()
            asked = len(self.client.asked)
            self.clock.advance(seconds - 1)
            self.mx()
            self.assertEqual(len(self.client.asked), asked)
            self.clock.advance(1)

    def test_absence_is_remembered(self) -> None:
        """Likewise that a name does not exist."""
        message = dns.Message()
        message.authority = [soa(60)]
        self.client.table["example.com", dns.MX] = DNSNameError(message)
        for _ in range(2):
            self.assertIs(self.failure(self.resolver.mx("example.com")), DomainNotFound)
        self.assertEqual(len(self.client.asked), 1)

    def test_failures_are_not_remembered(self) -> None:
        """Who gave no answer is asked again."""
        for error in (TimeoutError(), DNSServerError(dns.Message()), ConnectionRefusedError()):
            self.client.table["example.com", dns.MX] = error
            self.assertIs(self.failure(self.resolver.mx("example.com")), ResolutionFailed)
        self.assertEqual(len(self.client.asked), 3)

    def test_reasons(self) -> None:
        """What a name server says instead of an answer is told in words."""
        for code, words in [(dns.ESERVER, "server failure"), (dns.EREFUSED, "refused"), (9, "9")]:
            self.client.table["example.com", dns.MX] = DNSServerError(dns.Message(rCode=code))
            failure = self.failureResultOf(Deferred.fromCoroutine(self.resolver.mx("example.com")))
            self.assertRegex(failure.getErrorMessage(), f"^example.com: .*{words}$")

    def test_memory_is_bounded(self) -> None:
        """The answer that was not used for the longest time gives way."""
        self.patch(resolver_module, "MAX_ANSWERS", 2)
        for name in ("a.example", "b.example", "c.example"):
            self.client.table[name, dns.MX] = ([header(name, dns.Record_MX(1, b"x"))], [])
        for name in ("a.example", "b.example", "a.example", "c.example", "a.example"):
            self.mx(name)
        self.assertEqual(len(self.client.asked), 3)
        self.mx("b.example")
        self.assertEqual(len(self.client.asked), 4)

    def test_alias_is_asked_for(self) -> None:
        """Where a server does not follow an alias, we do; its time to live counts."""
        self.client.table["example.com", dns.MX] = (
            [header("example.com", dns.Record_CNAME(b"Real.example"), 10)],
            [],
        )
        self.client.table["real.example", dns.MX] = (
            [header("real.example", dns.Record_MX(1, b"mx.example"))],
            [],
        )
        self.assertEqual(self.mx(), [(1, "mx.example")])
        self.clock.advance(10)
        self.mx()
        self.assertEqual(len(self.client.asked), 4)

    def test_alias_loop(self) -> None:
        """Aliases that lead in a circle are a failure."""
        for one, other in (("a.example", "b.example"), ("b.example", "a.example")):
            self.client.table[one, dns.MX] = ([header(one, dns.Record_CNAME(other.encode()))], [])
        self.assertIs(self.failure(self.resolver.mx("a.example")), ResolutionFailed)

    def test_loop_in_one_answer(self) -> None:
        """Also within one answer."""
        self.client.table["a.example", dns.MX] = (
            [
                header("a.example", dns.Record_CNAME(b"b.example")),
                header("b.example", dns.Record_CNAME(b"a.example")),
            ],
            [],
        )
        self.assertEqual(self.mx("a.example"), [])

    def test_records_of_others(self) -> None:
        """A record that nobody asked for is not believed."""
        self.client.table["example.com", dns.MX] = (
            [header("evil.example", dns.Record_MX(1, b"evil.example"))],
            [],
        )
        self.assertEqual(self.mx(), [])

    def test_one_family_fails(self) -> None:
        """Addresses of one family are enough."""
        self.client.table["a.example", dns.AAAA] = TimeoutError()
        self.client.table["a.example", dns.A] = (
            [header("a.example", dns.Record_A("192.0.2.1"))],
            [],
        )
        self.assertEqual(self.addresses("a.example"), ["192.0.2.1"])

    def test_no_address(self) -> None:
        """No address is final only where everybody answered."""
        self.assertIs(self.failure(self.resolver.addresses("a.example")), DomainNotFound)
        self.client.table["a.example", dns.AAAA] = TimeoutError()
        self.assertIs(self.failure(self.resolver.addresses("a.example")), ResolutionFailed)

    def test_literal(self) -> None:
        """An IP address is its own."""
        for address in ("192.0.2.1", "2001:db8::1"):
            self.assertEqual(self.addresses(address), [address])
        self.assertEqual(self.client.asked, [])

    def test_hosts(self) -> None:
        """The hosts file comes first, and is read again when it changes."""
        self.hosts.write_text("# a\n192.0.2.9 One one.example # b\n2001:db8::9\tone\nx y\n\n")
        self.assertEqual(self.addresses("ONE"), ["192.0.2.9", "2001:db8::9"])
        self.assertEqual(self.addresses("one.example"), ["192.0.2.9"])
        _change(self.hosts, "192.0.2.10 one\n")
        self.assertEqual(self.addresses("one"), ["192.0.2.10"])
        self.assertEqual(self.client.asked, [])

    def test_localhost(self) -> None:
        """The name localhost needs neither file nor server, but the file may say more."""
        self.assertEqual(self.addresses("localhost"), ["::1", "127.0.0.1"])
        self.hosts.write_text("127.0.0.1 localhost\n")
        self.assertEqual(self.addresses("localhost"), ["127.0.0.1"])

    def test_impossible_names(self) -> None:
        """A name that can't be asked for does not exist."""
        for name in ("", "a..b", "x" * 64 + ".example", "a." * 127 + "example", "\u2025.x"):
            self.assertIs(self.failure(self.resolver.mx(name)), DomainNotFound, name)
            self.assertIs(self.failure(self.resolver.addresses(name)), DomainNotFound, name)


def _change(path: Path, text: str) -> None:
    """Write a file so that its time changes however coarse the clock is."""
    before = path.stat().st_mtime_ns
    path.write_text(text)
    os.utime(path, ns=(before + 10**9, before + 10**9))


Said = dns.Message | Exception


def message(
    code: int = dns.OK,
    *answers: dns.RRHeader,
    authority: Sequence[dns.RRHeader] = (),
    name: str = "example.com",
    kind: int = dns.MX,
    is_answer: bool = True,
    authoritative: bool = False,
) -> dns.Message:
    """What a name server says to a question for MX records."""
    made = dns.Message(answer=is_answer, rCode=code, auth=authoritative)
    made.queries = [dns.Query(name.encode(), kind)]
    made.answers = list(answers)
    made.authority = list(authority)
    return made


GOOD = message(dns.OK, header("example.com", dns.Record_MX(10, b"mx.example.com")))
NOWHERE = message(dns.ENAME, authority=[soa(60)])
NOTHING = message(dns.OK, authority=[soa(60)])
ELSEWHERE = header("com", dns.Record_NS(b"ns.com"))
SILENT = dns.DNSQueryTimeoutError(1)
NO_ANSWERS: dict[str, Said] = {
    "format error": message(dns.EFORMAT),
    "server failure": message(dns.ESERVER),
    "not implemented": message(dns.ENOTIMP),
    "refused": message(dns.EREFUSED),
    "a code that nobody knows": message(11),
    "a question": message(is_answer=False),
    "the answer to another question": message(name="other.example"),
    "the answer to another type": message(kind=dns.A),
    "other name servers": message(authority=[ELSEWHERE]),
    "silence": SILENT,
    "no way there": OSError("network is unreachable"),
}


class NameServersTests(SynchronousTestCase):
    """Where one name server does not know, another may."""

    def ask(self, *said: Said | Sequence[Said]) -> Sequence[tuple[int, str]]:
        """The MX records, where each name server says this, one thing each time it is asked."""
        servers = [(f"192.0.2.{number}", 53) for number in range(len(said))]
        self.asked: list[str] = []
        sayings = {
            server: list(each) if isinstance(each, Sequence) else [each] * 10
            for server, each in zip(servers, said, strict=True)
        }

        def query(server: tuple[str, int], *_: object) -> Deferred[dns.Message]:
            self.asked.append(server[0][-1])
            word = sayings[server].pop(0)
            return fail(word) if isinstance(word, Exception) else succeed(word)

        self.resolver = Resolver(Clock(), servers, temporary_folder(self) / "hosts")
        self.patch(self.resolver._client, "_query", query)
        return self.successResultOf(Deferred.fromCoroutine(self.resolver.mx("example.com")))

    def test_the_next_one_is_asked(self) -> None:
        """Whatever the first one says instead of an answer."""
        for what, said in NO_ANSWERS.items():
            self.assertEqual(self.ask(said, GOOD), [(10, "mx.example.com")], what)
            self.assertEqual(self.asked, ["0", "1"], what)
            self.assertEqual(self.ask(said, said, NOTHING), [], what)

    def test_nobody_knows(self) -> None:
        """Then it is not known whether the name exists."""
        for what, said in NO_ANSWERS.items():
            with self.assertRaises(FailTest) as caught:
                self.ask(said, said)
            self.assertIn("ResolutionFailed", str(caught.exception), what)

    def test_an_answer_is_one(self) -> None:
        """No second name server is asked."""
        for said in (NOTHING, message(), message(authority=[ELSEWHERE], authoritative=True)):
            self.assertEqual(self.ask(said, GOOD), [])
            self.assertEqual(self.asked, ["0"])
        with self.assertRaises(FailTest) as caught:
            self.ask(NOWHERE, GOOD)
        self.assertIn("DomainNotFound", str(caught.exception))

    def test_who_said_nothing_is_asked_again(self) -> None:
        """And who said that it does not know is not."""
        refused = NO_ANSWERS["refused"]
        found = self.ask([refused], [SILENT, SILENT, GOOD])
        self.assertEqual(found, [(10, "mx.example.com")])
        self.assertEqual(self.asked, ["0", "1", "1", "1"])
        with self.assertRaises(FailTest):
            self.ask(SILENT, SILENT)
        self.assertEqual(self.asked, ["0", "1"] * len(TIMEOUTS))


class ExchangerTests(SynchronousTestCase):
    """RFC 5321 section 5.1: which hosts to try, in which order."""

    def ask(self, *records: tuple[int, str], seed: int = 0) -> Any:
        """The Deferred of the exchangers for these records."""
        shuffle = Random(seed).shuffle
        resolver = FakeResolver({"example.com": records}, {})
        return Deferred.fromCoroutine(exchangers(resolver, "example.com", shuffle))

    def hosts(self, *records: tuple[int, str], seed: int = 0) -> list[list[str]]:
        """The exchangers."""
        hosts: list[list[str]] = self.successResultOf(self.ask(*records, seed=seed))
        return hosts

    def test_order(self) -> None:
        """The lowest preference comes first."""
        self.assertEqual(self.hosts((20, "b"), (10, "a"), (30, "c")), [["a"], ["b"], ["c"]])

    def test_equals(self) -> None:
        """Among equals, each is first at times."""
        records = (10, "a"), (10, "b"), (5, "x")
        orders = {str(self.hosts(*records, seed=seed)) for seed in range(20)}
        self.assertEqual(orders, {"[['x'], ['a', 'b']]", "[['x'], ['b', 'a']]"})

    def test_twice(self) -> None:
        """A host that is named twice is tried once, at the better of its places."""
        self.assertEqual(self.hosts((20, "a"), (10, "b"), (10, "a"))[1:], [])

    def test_no_records(self) -> None:
        """A domain without MX records is its own exchanger."""
        self.assertEqual(self.hosts(), [["example.com"]])

    def test_null_mx(self) -> None:
        """A domain can say that it takes no mail (RFC 7505)."""
        failure = self.failureResultOf(self.ask((0, "")), HopFailure)
        self.assertEqual(str(failure.value.outcome.reply)[:10], "556 5.1.10")

    def test_null_among_others(self) -> None:
        """Where it names hosts as well, these count."""
        self.assertEqual(self.hosts((0, ""), (10, "a")), [["a"]])

    def test_too_many(self) -> None:
        """The worst of very many are left out."""
        records = [(number, f"{number}.example.com") for number in range(100)]
        self.assertEqual(len(self.hosts(*records)), MAX_EXCHANGERS)


class DiallerTests(SynchronousTestCase):
    """A next host whose name does not exist."""

    def failure_of(self, hop: Hop) -> Outcome:
        """What it means for the mail."""
        resolver = Resolver(Clock(), [("192.0.2.53", 53)])
        self.patch(resolver, "_ask", self.find_nothing)
        dialler = Dialler(Clock(), None, "us.example", resolver, FakeTLS())
        conversation = Deferred.fromCoroutine(dialler.converse(hop, lambda demands: None))
        failure = self.failureResultOf(conversation, HopFailure)
        outcome: Outcome = failure.value.outcome
        return outcome

    async def find_nothing(self, name: bytes, kind: int) -> object:
        """What `Resolver._ask` finds."""
        raise DomainNotFound(name.decode())

    def test_recipients(self) -> None:
        """A recipient's domain that is not there is not there."""
        outcome = self.failure_of(Hop(Agent.MX, "gone.example"))
        self.assertEqual(str(outcome.reply), "550 5.1.2 Domain not found: gone.example")

    def test_ours(self) -> None:
        """A host that we named ourselves waits for us to correct it, and we are told."""
        for agent in (Agent.SMTP, Agent.LMTP):
            with capturedLogs() as logs:
                outcome = self.failure_of(Hop(agent, "gone.example", 25))
            self.assertEqual(outcome.status, Status.DEFERRED)
            self.assertEqual(outcome.reply.enhanced, "4.3.5")
            self.assertEqual([LogLevel.error], [each["log_level"] for each in logs])
