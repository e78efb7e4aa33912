"""What the resolver makes of answers, how long it remembers them, and the hosts file."""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import dns.message
from dns.rcode import Rcode
from dns.rdata import GenericRdata
from dns.rdataclass import RdataClass
from dns.rdatatype import RdataType
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mta.dns_answer import TLSA, Answer, RecordType
from mta.interfaces import DomainNotFound, IResolver, ResolutionFailed
from mta.resolver import Resolver, cache, lookups
from mta.resolver.chain import MAX_ALIASES, MAX_NEGATIVE_TTL, MAX_TTL, MIN_TTL
from tests.processes import temporary_folder
from tests.resolver.network import Network, Zone, reply, rrset, soa

SERVER = "192.0.2.53"
AD = dns.flags.AD


class ResolverCase(SynchronousTestCase):
    """A resolver, and a name server with a table."""

    server = SERVER

    def setUp(self) -> None:
        self.network = Network()
        self.zone = Zone()
        self.network.servers[self.server] = self.zone
        self.hosts = temporary_folder(self) / "hosts"
        self.resolver = Resolver(self.network, [(self.server, 53)], self.hosts, random=Random(1))

    def result(self, coroutine: Any) -> Any:
        """What asking returns at once, or raises."""
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def query(self, name: str, kind: RecordType) -> Answer:
        """The answer to a question."""
        answer: Answer = self.result(self.resolver.query(name, kind))
        return answer

    def mx(self, domain: str = "example.com") -> Sequence[tuple[int, str]]:
        """The MX records."""
        return list(self.result(self.resolver.mx(domain)))

    def addresses(self, host: str) -> Sequence[str]:
        """The addresses."""
        return list(self.result(self.resolver.addresses(host)))

    def failure(self, coroutine: Any) -> type[BaseException] | None:
        """What asking raises."""
        return self.failureResultOf(Deferred.fromCoroutine(coroutine)).type

    @property
    def questions(self) -> int:
        """How many queries the name server has seen."""
        return len(self.network.asked)


class CacheTests(ResolverCase):
    """How long answers are remembered."""

    def test_interface(self) -> None:
        """The resolver is one."""
        self.assertTrue(verifyObject(IResolver, self.resolver))

    def test_remembered(self) -> None:
        """An answer is used until its time to live is over."""
        self.zone.add("example.com", "MX", "1 a.example.com.", ttl=300)
        self.mx()
        self.network.advance(299)
        self.assertEqual(self.mx("EXAMPLE.com."), [(1, "a.example.com")])
        self.assertEqual(self.questions, 1)
        self.network.advance(1)
        self.mx()
        self.assertEqual(self.questions, 2)

    def test_time_to_live_is_bounded(self) -> None:
        """However long, or short, an answer wants to be remembered."""
        for ttl, seconds in ((10**6, MAX_TTL), (0, MIN_TTL)):
            self.zone.add("example.com", "MX", "1 a.example.com.", ttl=ttl)
            self.mx()
            asked = self.questions
            self.network.advance(seconds - 1)
            self.mx()
            self.assertEqual(self.questions, asked)
            self.network.advance(1)
            self.mx()
            self.assertEqual(self.questions, asked + 1)
            self.network.advance(MAX_TTL)

    def test_nothing_is_remembered(self) -> None:
        """That there is nothing, as long as the SOA record says, within bounds."""
        for minimum, seconds in ((30, 30), (10**6, MAX_NEGATIVE_TTL)):
            self.zone.table["example.com", "MX"] = {"authority": [soa(minimum)]}
            self.mx()
            asked = self.questions
            self.network.advance(seconds - 1)
            self.mx()
            self.assertEqual(self.questions, asked)
            self.network.advance(1)
            self.mx()
            self.assertEqual(self.questions, asked + 1)
            self.network.advance(seconds)

    def test_nothing_of_no_zone_is_not_remembered(self) -> None:
        """Without an SOA record, nothing says how long it holds."""
        for _ in range(2):
            self.assertEqual(self.mx(), [])
        self.assertEqual(self.questions, 2)

    def test_absence_is_remembered(self) -> None:
        """Likewise that a name does not exist."""
        self.zone.table["example.com", "MX"] = {"code": Rcode.NXDOMAIN, "authority": [soa(60)]}
        for _ in range(2):
            self.assertIs(self.failure(self.resolver.mx("example.com")), DomainNotFound)
        self.assertEqual(self.questions, 1)

    def test_failures_are_not_remembered(self) -> None:
        """A server that gave no answer is asked again."""
        for code in (Rcode.SERVFAIL, Rcode.REFUSED, Rcode.NOTIMP):
            before = self.questions
            self.zone.table["example.com", "MX"] = {"code": code}
            for _ in range(2):
                self.assertIs(self.failure(self.resolver.mx("example.com")), ResolutionFailed)
            self.assertGreaterEqual(self.questions, before + 2)

    def test_number_is_bounded(self) -> None:
        """The answer that was not used for the longest time gives way."""
        self.patch(cache, "MAX_ENTRIES", 2)
        self.assert_oldest_gives_way()

    def test_size_is_bounded(self) -> None:
        """Few long answers are much."""
        self.patch(cache, "MAX_OCTETS", 2 * cache.ENTRY_OCTETS + 200)
        self.assert_oldest_gives_way()

    def assert_oldest_gives_way(self) -> None:
        """Ask for three names, of which two are remembered."""
        for name in ("a.example", "b.example", "c.example"):
            self.zone.add(name, "MX", "1 x.")
        for name in ("a.example", "b.example", "a.example", "c.example", "a.example"):
            self.mx(name)
        self.assertEqual(self.questions, 3)
        self.mx("b.example")
        self.assertEqual(self.questions, 4)


class AnswerTests(ResolverCase):
    """What is made of an answer."""

    def test_reasons(self) -> None:
        """What a name server says instead of an answer is told in words."""
        for code, words in [
            (Rcode.SERVFAIL, "server failure"),
            (Rcode.REFUSED, "refused"),
            (Rcode.NOTIMP, "not implemented"),
            (Rcode.FORMERR, "format error"),
            (9, "error 9"),
            (2000, "error 2000"),
        ]:
            self.zone.table["example.com", "MX"] = {"code": code}
            failure = self.failureResultOf(Deferred.fromCoroutine(self.resolver.mx("example.com")))
            self.assertEqual(failure.getErrorMessage(), f"example.com: {words}")

    def test_null_mx(self) -> None:
        """A null MX is a host without a name."""
        self.zone.add("example.com", "MX", "0 .")
        self.assertEqual(self.mx(), [(0, "")])

    def test_no_such_name_and_no_such_record(self) -> None:
        """They differ, and neither is a failure."""
        self.zone.table["no.example", "TXT"] = {"code": Rcode.NXDOMAIN}
        self.assertEqual(self.query("no.example", RecordType.TXT), Answer((), False, "no.example"))
        self.assertEqual(self.query("a.example", RecordType.TXT), Answer((), True, "a.example"))
        self.assertEqual(self.query("a..example", RecordType.TXT), Answer((), False))

    def test_values(self) -> None:
        """Each type of records has its values, none twice, in the order in which they came."""
        table: list[tuple[str, str, object]] = [
            ("A", "192.0.2.1", "192.0.2.1"),
            ("AAAA", "2001:DB8:0::1", "2001:db8::1"),
            ("MX", "10 Mx.example.", (10, "mx.example")),
            ("NS", "Ns.example.", "ns.example"),
            ("PTR", r"we\.are.mail\000.example.", r"we\.are.mail\000.example"),
            ("TXT", '"v=spf1 " "a -all" "\\255"', b"v=spf1 a -all\xff"),
            ("TLSA", "3 1 0 c0ffee", TLSA(3, 1, 0, b"\xc0\xff\xee")),
            ("CNAME", "Other.example.", "other.example"),
        ]
        for kind, text, expected in table:
            self.zone.add("example.com", kind, text, text)
            answer = self.query("example.com", RecordType[kind])
            self.assertEqual(answer, Answer((expected,), True, "example.com"), kind)
        self.assertEqual({kind for kind, _, _ in table}, {kind.name for kind in RecordType})

    def test_texts_that_end_early(self) -> None:
        """They can't be read, and so it is not known what the name has."""
        for data, expected in ((b"\1a\0\2bc", b"abc"), (b"", b""), (b"\1a\2b", None)):
            records = rrset("example.com", "TXT")
            records.add(GenericRdata(RdataClass.IN, RdataType.TXT, data), 60)
            self.zone.table["example.com", "TXT"] = [records]
            if expected is None:
                asking = self.resolver.query("example.com", RecordType.TXT)
                self.assertIs(self.failure(asking), ResolutionFailed)
            else:
                self.assertEqual(self.query("example.com", RecordType.TXT).records, (expected,))
            self.network.advance(60)

    def test_unusable_tlsa_records(self) -> None:
        """They come as they are: what to make of them is for those who verify."""
        records = rrset("_25._tcp.mx.example", "TLSA")
        for data in (b"\3\1\1\xc0\xff", b"\xff\x09\x09"):
            records.add(GenericRdata(RdataClass.IN, RdataType.TLSA, data), 60)
        self.zone.table["_25._tcp.mx.example", "TLSA"] = [records]
        found = self.query("_25._tcp.mx.example", RecordType.TLSA).records
        self.assertEqual(set(found), {TLSA(3, 1, 1, b"\xc0\xff"), TLSA(255, 9, 9, b"")})

    def test_order(self) -> None:
        """Records come in the order of the server, which may balance load by it."""
        self.zone.add("a.example", "A", "192.0.2.3", "192.0.2.1", "192.0.2.2")
        self.assertEqual(self.addresses("a.example"), ["192.0.2.3", "192.0.2.1", "192.0.2.2"])

    def test_records_of_no_name(self) -> None:
        """A name that does not exist has none, whatever else the server says."""
        self.zone.table["example.com", "MX"] = {
            "answer": [rrset("example.com", "MX", "1 mx.example.")],
            "code": Rcode.NXDOMAIN,
        }
        self.assertIs(self.failure(self.resolver.mx("example.com")), DomainNotFound)

    def test_records_of_others(self) -> None:
        """A record that was not asked for is not believed."""
        self.zone.table["example.com", "MX"] = [
            rrset("evil.example", "MX", "1 evil.example."),
            rrset("example.com", "A", "192.0.2.66"),
        ]
        self.assertEqual(self.mx(), [])
        self.assertIs(self.failure(self.resolver.addresses("example.com")), DomainNotFound)

    def test_records_beside_the_answer(self) -> None:
        """What is in the additional section, or belongs to no alias of ours, is not kept."""
        mx = rrset("example.com", "MX", "1 mx.example.com.")
        stray = rrset("www.example", "A", "192.0.2.66")

        def poison(octets: bytes, via: str) -> list[bytes]:
            message = reply(octets, [mx, stray])
            message.additional = [rrset("mx.example.com", "A", "192.0.2.66"), stray]
            return [message.to_wire()]

        self.network.servers[SERVER] = poison
        self.assertEqual(self.mx(), [(1, "mx.example.com")])
        self.network.servers[SERVER] = self.zone
        for host in ("mx.example.com", "www.example"):
            self.assertIs(self.failure(self.resolver.addresses(host)), DomainNotFound)

    def test_impossible_names(self) -> None:
        """A name that can't be asked for does not exist."""
        for name in ("", "a..b", "x" * 64 + ".example", "a." * 127 + "example", "\u2025.x"):
            self.assertIs(self.failure(self.resolver.mx(name)), DomainNotFound, name)
            self.assertIs(self.failure(self.resolver.addresses(name)), DomainNotFound, name)
        self.assertEqual(self.network.asked, [])

    def test_odd_names(self) -> None:
        """A name of odd octets is asked for as it is: nothing in it is an escape."""
        for name in ("a\\.b.example", "_dmarc.example", "a b.example", "\\065.example"):
            self.query(name, RecordType.TXT)
            labels = self.network.asked[-1].query.question[0].name.labels
            self.assertEqual(b".".join(labels).lower(), name.encode() + b".")


class AliasTests(ResolverCase):
    """CNAME records."""

    def test_in_one_answer(self) -> None:
        """Aliases in an answer are followed; the answer names the last."""
        self.zone.table["a.example", "TXT"] = [
            rrset("A.example", "CNAME", "B.example."),
            rrset("b.example", "CNAME", "c.example."),
            rrset("C.example", "TXT", "x"),
        ]
        answer = self.query("a.example", RecordType.TXT)
        self.assertEqual(answer, Answer((b"x",), True, "c.example"))

    def test_asked_for(self) -> None:
        """Where a server does not follow an alias, we do; its time to live counts."""
        self.zone.table["example.com", "MX"] = [
            rrset("example.com", "CNAME", "Real.example.", ttl=10)
        ]
        self.zone.add("real.example", "MX", "1 mx.example.")
        self.assertEqual(self.mx(), [(1, "mx.example")])
        self.network.advance(10)
        self.mx()
        self.assertEqual(self.questions, 4)

    def test_to_nothing(self) -> None:
        """The zone of the last name says that there is nothing, or that it does not exist."""
        alias = rrset("example.com", "CNAME", "real.example.net.")
        for code, exists in ((Rcode.NOERROR, True), (Rcode.NXDOMAIN, False)):
            self.zone.table["example.com", "MX"] = {
                "answer": [alias],
                "code": code,
                "authority": [soa(0, "example.net")],
            }
            answer = self.query("example.com", RecordType.MX)
            self.assertEqual(answer, Answer((), exists, "real.example.net"))
        self.assertEqual(self.questions, 2)

    def test_loops(self) -> None:
        """Aliases that lead in a circle are a failure, in one answer or in several."""
        self.zone.table["a.example", "MX"] = [rrset("a.example", "CNAME", "b.example.")]
        self.zone.table["b.example", "MX"] = [rrset("b.example", "CNAME", "a.example.")]
        self.zone.table["self.example", "MX"] = [rrset("self.example", "CNAME", "self.example.")]
        self.zone.table["c.example", "MX"] = [
            rrset("c.example", "CNAME", "d.example."),
            rrset("d.example", "CNAME", "c.example."),
        ]
        for name in ("a.example", "self.example", "c.example"):
            failure = self.failureResultOf(Deferred.fromCoroutine(self.resolver.mx(name)))
            failure.trap(ResolutionFailed)
            self.assertIn("too many aliases", failure.getErrorMessage())

    def test_long_chains(self) -> None:
        """They are followed to a bound."""
        for number in range(MAX_ALIASES + 1):
            self.zone.table[f"{number}.example", "MX"] = [
                rrset(f"{number}.example", "CNAME", f"{number + 1}.example.")
            ]
        self.zone.add(f"{MAX_ALIASES + 1}.example", "MX", "1 mx.example.")
        self.assertEqual(self.mx("1.example"), [(1, "mx.example")])
        self.assertIs(self.failure(self.resolver.mx("0.example")), ResolutionFailed)


class AuthenticationTests(ResolverCase):
    """The verdict of DNSSEC."""

    def asked_of(self, server: str, flags: int = AD) -> Answer:
        """The answer of a server whose response has these flags."""
        self.network.servers[server] = self.zone
        self.zone.flags = flags
        self.zone.add("example.com", "MX", "1 mx.example.")
        resolver = Resolver(self.network, [(server, 53)], self.hosts)
        answer: Answer = self.result(resolver.query("example.com", RecordType.MX))
        return answer

    def test_this_host(self) -> None:
        """A server on loopback is asked for it, and believed."""
        for server in ("127.0.0.1", "127.0.0.53", "::1"):
            self.assertTrue(self.asked_of(server).is_authenticated, server)
            query = self.network.asked[-1].query
            self.assertTrue(query.ednsflags & dns.flags.DO)
            self.assertTrue(query.flags & AD)
            self.assertFalse(self.asked_of(server, 0).is_authenticated, server)

    def test_elsewhere(self) -> None:
        """Others are not: whoever is on the way to them can set the flag."""
        for server in (SERVER, "2001:db8::53"):
            self.assertFalse(self.asked_of(server).is_authenticated, server)
            query = self.network.asked[-1].query
            self.assertFalse(query.ednsflags & dns.flags.DO)
            self.assertFalse(query.flags & AD)

    def test_by_choice(self) -> None:
        """The file of the system can say that its servers are trusted."""
        self.zone.add("example.com", "MX", "1 mx.example.")
        self.zone.flags = AD
        file = temporary_folder(self) / "resolv.conf"
        for options, is_authenticated in (("", False), ("options edns0 trust-ad\n", True)):
            file.write_text(f"nameserver {SERVER}\n{options}")
            resolver = Resolver(self.network, (), self.hosts, file)
            answer = self.result(resolver.query("example.com", RecordType.MX))
            self.assertEqual(answer.is_authenticated, is_authenticated)

    def test_aliases(self) -> None:
        """Each response on the way must be authenticated."""
        self.network.servers["127.0.0.1"] = self.zone
        resolver = Resolver(self.network, [("127.0.0.1", 53)], self.hosts)
        alias = rrset("a.example", "CNAME", "b.example.")
        records = [rrset("b.example", "TXT", "x")]
        for first, second in ((AD, AD), (AD, 0), (0, AD)):
            self.zone.table["a.example", "TXT"] = {"answer": [alias], "flags": first}
            self.zone.table["b.example", "TXT"] = {"answer": records, "flags": second}
            answer = self.result(resolver.query("a.example", RecordType.TXT))
            self.assertEqual(answer.is_authenticated, bool(first & second))
            self.network.advance(MAX_TTL)

    def test_denial(self) -> None:
        """That there is nothing can be authenticated, too."""
        self.network.servers["127.0.0.1"] = self.zone
        resolver = Resolver(self.network, [("127.0.0.1", 53)], self.hosts)
        for code in (Rcode.NOERROR, Rcode.NXDOMAIN):
            self.zone.table["a.example", "TLSA"] = {"code": code, "flags": AD}
            answer = self.result(resolver.query("a.example", RecordType.TLSA))
            expected = Answer((), code == Rcode.NOERROR, "a.example", True)
            self.assertEqual(answer, expected)


class AddressTests(ResolverCase):
    """Addresses of a host."""

    def test_families_take_turns(self) -> None:
        """IPv6 comes first, and then one of each."""
        self.zone.add("a.example", "A", "192.0.2.1", "192.0.2.2")
        self.zone.add("a.example", "AAAA", "2001:db8::1")
        found = self.addresses("a.example")
        self.assertEqual(found, ["2001:db8::1", "192.0.2.1", "192.0.2.2"])

    def test_one_family_fails(self) -> None:
        """Addresses of the other one are enough."""
        self.zone.table["a.example", "AAAA"] = {"code": Rcode.SERVFAIL}
        self.zone.add("a.example", "A", "192.0.2.1")
        self.assertEqual(self.addresses("a.example"), ["192.0.2.1"])

    def test_no_address(self) -> None:
        """It is final only where both questions were answered."""
        self.assertIs(self.failure(self.resolver.addresses("a.example")), DomainNotFound)
        self.zone.table["a.example", "AAAA"] = {"code": Rcode.SERVFAIL}
        self.assertIs(self.failure(self.resolver.addresses("a.example")), ResolutionFailed)

    def test_literal(self) -> None:
        """An IP address is its own."""
        for address in ("192.0.2.1", "2001:db8::1"):
            self.assertEqual(self.addresses(address), [address])
        self.assertEqual(self.network.asked, [])

    def test_hosts(self) -> None:
        """The hosts file comes first, and is read again when it changes."""
        self.hosts.write_text(
            "# a\n192.0.2.9 One one.example # b\n2001:DB8::9\tone\n192.0.2.9 one\nx y\n\n"
        )
        self.assertEqual(self.addresses("ONE"), ["192.0.2.9", "2001:db8::9"])
        self.assertEqual(self.addresses("one.example"), ["192.0.2.9"])
        change(self.hosts, "192.0.2.10 one\n")
        self.assertEqual(self.addresses("one"), ["192.0.2.10"])
        self.assertEqual(self.network.asked, [])

    def test_hosts_unreadable(self) -> None:
        """What it says stays true; a name that it may have is not looked for elsewhere."""
        self.hosts.write_text("192.0.2.9 one\n")
        error = OSError(errno.EMFILE, "Too many open files")
        for name in ("read_bytes", "stat"):
            with patch.object(Path, name, side_effect=error):
                self.assertIs(self.failure(self.resolver.addresses("one")), ResolutionFailed)
        self.assertEqual(self.addresses("one"), ["192.0.2.9"])
        change(self.hosts, "192.0.2.10 one\n")
        for name in ("read_bytes", "stat"):
            with patch.object(Path, name, side_effect=error):
                self.assertEqual(self.addresses("one"), ["192.0.2.9"])
        self.assertEqual(self.addresses("one"), ["192.0.2.10"])
        self.assertEqual(self.network.asked, [])

    def test_localhost(self) -> None:
        """The name localhost needs neither file nor server, but the file may say more."""
        self.assertEqual(self.addresses("localhost"), ["::1", "127.0.0.1"])
        self.hosts.write_text("127.0.0.1 localhost\n")
        self.assertEqual(self.addresses("localhost"), ["127.0.0.1"])


class LookUpTests(ResolverCase):
    """Look-ups under way."""

    def setUp(self) -> None:
        super().setUp()
        self.zone.add("example.com", "MX", "1 mx.example.")
        self.network.servers[SERVER] = self.later
        self.held = 0
        self.answering = False

    def later(self, octets: bytes, via: str) -> list[bytes]:
        """Answer only when the time has come."""
        if not self.answering:
            self.held += 1
            return []
        return list(self.zone(octets, via))

    def ask(self, name: str = "example.com") -> Deferred[Any]:
        """Ask for MX records."""
        return Deferred.fromCoroutine(self.resolver.mx(name))

    def release(self) -> None:
        """Let the server answer, the next time it is asked."""
        self.answering = True
        self.network.advance(1)

    def test_shared(self) -> None:
        """The same question is asked once, however many want to know."""
        asking = [self.ask(), self.ask("EXAMPLE.com"), self.ask()]
        self.assertEqual(self.questions, 1)
        self.release()
        for each in asking:
            self.assertEqual(list(self.successResultOf(each)), [(1, "mx.example")])
        self.assertEqual(self.questions, 2)

    def test_a_shared_failure(self) -> None:
        """All hear of it."""
        asking = [self.ask(), self.ask()]
        self.zone.table["example.com", "MX"] = {"code": Rcode.SERVFAIL}
        self.release()
        for each in asking:
            failure = self.failureResultOf(each, ResolutionFailed)
            self.assertEqual(failure.getErrorMessage(), "example.com: server failure")

    def test_cancelled(self) -> None:
        """Others who asked get the answer all the same, and later ones from memory."""
        first, second = self.ask(), self.ask()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.release()
        self.assertEqual(list(self.successResultOf(second)), [(1, "mx.example")])
        self.assertEqual(self.network.open_ports, 0)

    def test_all_cancelled(self) -> None:
        """The answer is remembered, and a failure disturbs nobody."""
        for code in (Rcode.SERVFAIL, Rcode.NOERROR):
            self.answering = False
            asking = self.ask()
            asking.cancel()
            self.failureResultOf(asking, CancelledError)
            if code:
                self.zone.table["example.com", "MX"] = {"code": code}
            else:
                self.zone.add("example.com", "MX", "1 mx.example.")
            self.release()
        asked = self.questions
        self.assertEqual(self.mx(), [(1, "mx.example")])
        self.assertEqual(self.questions, asked)

    def test_number_at_once(self) -> None:
        """There are sockets for so many, and others wait for them."""
        self.patch(lookups, "MAX_QUERIES", 3)
        self.resolver = Resolver(self.network, [(SERVER, 53)], self.hosts)
        asking = [self.ask(f"{number}.example") for number in range(10)]
        self.assertEqual(self.network.most_ports, 3)
        self.release()
        for each in asking:
            self.assertEqual(list(self.successResultOf(each)), [])
        self.assertEqual(self.network.open_ports, 0)
        self.assertEqual(self.network.most_ports, 3)

    def test_time(self) -> None:
        """A look-up ends, also one that waits for others."""
        self.patch(lookups, "MAX_QUERIES", 1)
        self.resolver = Resolver(self.network, [(SERVER, 53)] * 100, self.hosts)
        asking = [self.ask("a.example"), self.ask("b.example")]
        self.network.advance(lookups.MAX_SECONDS)
        for each, name in zip(asking, "ab", strict=True):
            failure = self.failureResultOf(each, ResolutionFailed)
            expected = f"{name}.example: no answer within 60 seconds"
            self.assertEqual(failure.getErrorMessage(), expected)
        self.assertEqual(self.network.open_ports, 0)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_time_for_a_connection(self) -> None:
        """It ends with the time for the look-up."""
        self.network.servers[SERVER] = lambda octets, via: [
            reply(octets, flags=dns.flags.TC).to_wire()
        ]
        self.network.hanging.add(SERVER)
        asking = self.ask()
        self.network.advance(lookups.MAX_SECONDS)
        failure = self.failureResultOf(asking, ResolutionFailed)
        self.assertIn("no answer within", failure.getErrorMessage())
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_the_end_of_the_process(self) -> None:
        """A look-up that is under way then ends without a word."""
        words: list[object] = []
        self.patch(sys, "unraisablehook", words.append)
        asking = self.ask()
        del asking, self.resolver
        self.network.calls.clear()
        gc.collect()
        self.assertEqual(words, [])

    def test_a_fault_of_ours(self) -> None:
        """It is logged, and a failure like any other for those that ask."""

        def fail(*_: object) -> None:
            raise ZeroDivisionError

        self.patch(self.resolver._lookups._servers, "ask", fail)
        failure = self.failureResultOf(self.ask(), ResolutionFailed)
        self.assertEqual(failure.getErrorMessage(), "example.com: a fault of our own")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


def change(path: Path, text: str) -> None:
    """Write a file so that its time changes however coarse the clock is."""
    before = path.stat().st_mtime_ns
    path.write_text(text)
    os.utime(path, ns=(before + 10**9, before + 10**9))
