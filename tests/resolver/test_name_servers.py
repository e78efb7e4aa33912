"""Name servers that misbehave, and what each can do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import dns.flags
import dns.message
from dns.rcode import Rcode
from twisted.internet.defer import Deferred
from twisted.trial.unittest import FailTest, SynchronousTestCase

from mta.resolver import Resolver
from mta.resolver.name_server import SILENCE, TRAIT_LIFETIME
from mta.resolver.resolv_conf import DEFAULT_TIMEOUTS
from mta.resolver.response import MAX_READ, MAX_RECORDS
from mta.resolver.transport import MAX_STRAYS, TCP_TIMEOUT
from tests.processes import temporary_folder
from tests.resolver.network import Network, Script, reply, rrset, soa

MX = rrset("example.com", "MX", "10 mx.example.com.")
FOUND = [(10, "mx.example.com")]


def says(*answer: Any, **arguments: Any) -> Script:
    """A server that says the same each time."""
    return lambda octets, via: [reply(octets, answer, **arguments).to_wire(max_size=0xFFFF)]


def in_lower_case(octets: bytes) -> bytes:
    """A response, with the letters of its question, which is example.com, in lower case."""
    return octets[:12] + octets[12:25].lower() + octets[25:]


GOOD = says(MX)
NOWHERE = says(code=Rcode.NXDOMAIN, authority=[soa(60)])
NOTHING = says(authority=[soa(60)])
ELSEWHERE = rrset("com", "NS", "ns.com.")


def silent(octets: bytes, via: str) -> Iterable[bytes]:
    """Say nothing."""
    return ()


def unreachable(octets: bytes, via: str) -> Iterable[bytes]:
    """Be behind no route."""
    raise OSError("network is unreachable")


def other_question(octets: bytes, name: str = "other.example", kind: str = "MX") -> bytes:
    """The answer to another question."""
    question = dns.message.make_query(name, kind, id=int.from_bytes(octets[:2], "big"))
    return reply(question.to_wire(), [rrset(name, "MX", "1 evil.example.")]).to_wire()


# What a server says that has no answer, and whether we hear that there is one at all.
NO_ANSWERS: dict[str, tuple[Script, bool]] = {
    "format error": (says(code=Rcode.FORMERR), True),
    "server failure": (says(code=Rcode.SERVFAIL), True),
    "not implemented": (says(code=Rcode.NOTIMP), True),
    "refused": (says(code=Rcode.REFUSED), True),
    "refused, without the question": (
        lambda octets, via: [octets[:2] + b"\x81\x85" + bytes(8)],
        True,
    ),
    "a code that nobody knows": (says(code=11), True),
    "other name servers": (says(authority=[ELSEWHERE]), True),
    "fewer records than it says": (
        lambda octets, via: [octets[:2] + b"\x81\x80\0\1\0\5\0\0\0\0" + octets[12:]],
        True,
    ),
    "a record that ends early": (
        lambda octets, via: [
            octets[:2]
            + b"\x81\x80\0\1\0\1\0\0\0\0"
            + octets[12:29]
            + b"\xc0\x0c\0\x0f\0\1\0\0\0\x3c\0\1\x0a"
        ],
        True,
    ),
    "the question": (lambda octets, via: [octets], False),
    "the answer to another question": (lambda octets, via: [other_question(octets)], False),
    "the answer to another type": (
        lambda octets, via: [other_question(octets, "example.com", "A")],
        False,
    ),
    "silence": (silent, False),
    "no way there": (unreachable, False),
    "truncated, and no connections": (
        lambda octets, via: [reply(octets, flags=dns.flags.TC).to_wire()] if via == "udp" else [],
        False,
    ),
}


class NameServerCase(SynchronousTestCase):
    """A resolver and the scripts of its servers."""

    def setUp(self) -> None:
        self.network = Network()
        self.hosts = temporary_folder(self) / "hosts"

    def resolver(self, *scripts: Script) -> Resolver:
        """A resolver that asks servers with these scripts."""
        self.network.servers = {
            f"192.0.2.{number}": script for number, script in enumerate(scripts)
        }
        servers = [(server, 53) for server in self.network.servers]
        return Resolver(self.network, servers, self.hosts, random=Random(1))

    def found_by(self, resolver: Resolver) -> Sequence[tuple[int, str]]:
        """The MX records of example.com, or the failure, when all time is over."""
        asking = Deferred.fromCoroutine(resolver.mx("example.com"))
        for _ in range(100):
            self.network.advance(1)
        return list(self.successResultOf(asking))

    def found(self, *scripts: Script) -> Sequence[tuple[int, str]]:
        """Likewise, by a new resolver."""
        self.network.asked.clear()
        return self.found_by(self.resolver(*scripts))

    @property
    def asked(self) -> list[str]:
        """The last digits of the servers that were asked, one after the other, by datagram."""
        return [each.server[-1] for each in self.network.asked if each.via == "udp"]


class OrderTests(NameServerCase):
    """Where one name server does not know, another may."""

    def test_the_next_one_is_asked(self) -> None:
        """Whatever the first one says instead of an answer."""
        for what, (script, _) in NO_ANSWERS.items():
            self.assertEqual(self.found(script, GOOD), FOUND, what)
            self.assertEqual(self.asked[-1], "1", what)
            self.assertEqual(self.found(script, script, NOTHING), [], what)

    def test_nobody_knows(self) -> None:
        """Then it is not known whether the name exists."""
        for what, (script, is_heard) in NO_ANSWERS.items():
            with self.assertRaises(FailTest) as caught:
                self.found(script, script)
            self.assertIn("ResolutionFailed", str(caught.exception), what)
            silence = "timed out", "no answer within"
            is_told = not any(each in str(caught.exception) for each in silence)
            self.assertEqual(is_told, is_heard, what)

    def test_an_answer_is_one(self) -> None:
        """No second name server is asked."""
        authoritative = says(authority=[ELSEWHERE], flags=dns.flags.AA)
        for script in (NOTHING, says(), authoritative):
            self.assertEqual(self.found(script, GOOD), [])
            self.assertEqual(self.asked, ["0"])
        with self.assertRaises(FailTest) as caught:
            self.found(NOWHERE, GOOD)
        self.assertIn("DomainNotFound", str(caught.exception))

    def test_a_server_that_said_nothing_is_asked_again(self) -> None:
        """And one that said that it does not know is not."""
        scripts = iter([silent, silent, GOOD])

        def later(octets: bytes, via: str) -> Iterable[bytes]:
            return next(scripts)(octets, via)

        self.assertEqual(self.found(says(code=Rcode.REFUSED), later), FOUND)
        self.assertEqual(self.asked, ["0", "1", "1", "1"])
        with self.assertRaises(FailTest):
            self.found(silent, silent)
        self.assertEqual(self.asked, ["0", "1"] * len(DEFAULT_TIMEOUTS))

    def test_silence_costs_once(self) -> None:
        """A server that said nothing a moment ago is asked last, and then first again."""
        resolver = self.resolver(silent, GOOD)
        asking = Deferred.fromCoroutine(resolver.mx("example.com"))
        self.network.advance(DEFAULT_TIMEOUTS[0])
        self.assertEqual(list(self.successResultOf(asking)), FOUND)
        for seconds, asked in ((0, ["1"]), (SILENCE, ["0", "1"])):
            self.network.asked.clear()
            self.network.advance(seconds)
            asking = Deferred.fromCoroutine(resolver.mx("other.example"))
            self.network.advance(DEFAULT_TIMEOUTS[0])
            self.assertEqual(self.asked, asked)
            self.successResultOf(asking)

    def test_rotation(self) -> None:
        """Where the system says so, each question begins at the next server."""
        self.resolver(GOOD, GOOD, GOOD)
        file = self.hosts.with_name("resolv.conf")
        lines = [f"nameserver {server}\n" for server in self.network.servers]
        file.write_text("".join(lines) + "options rotate\n")
        resolver = Resolver(self.network, (), self.hosts, file)
        for number in range(4):
            self.successResultOf(Deferred.fromCoroutine(resolver.mx(f"{number}.example")))
        self.assertEqual(self.asked, ["0", "1", "2", "0"])


class QueryTests(NameServerCase):
    """What a stranger has to guess."""

    def test_queries_differ(self) -> None:
        """Each has an id of its own, and the name in another case."""
        resolver = Resolver(self.network, [("192.0.2.1", 53)], self.hosts)
        self.network.servers["192.0.2.1"] = says()
        for _ in range(50):
            self.successResultOf(Deferred.fromCoroutine(resolver.mx("example.example.com")))
        queries = [each.query for each in self.network.asked]
        self.assertGreater(len({query.id for query in queries}), 45)
        self.assertGreater(len({str(query.question[0].name) for query in queries}), 45)

    def test_edns(self) -> None:
        """Datagrams may be as long as no path has to fragment them."""
        self.found(GOOD)
        [asked] = self.network.asked
        self.assertEqual((asked.query.edns, asked.query.payload), (0, 1232))
        self.assertTrue(asked.query.flags & dns.flags.RD)

    def test_guesses(self) -> None:
        """A wrong id or another question is passed over, and the right answer taken."""

        def guessed(octets: bytes, via: str) -> Iterable[bytes]:
            evil = rrset("example.com", "MX", "1 evil.example.")
            wrong = bytearray(reply(octets, [evil]).to_wire())
            wrong[1] ^= 1
            yield from (b"", octets[:11], bytes(wrong), other_question(octets), octets)
            yield from GOOD(octets, via)

        self.assertEqual(self.found(guessed), FOUND)
        self.assertEqual(self.network.vias, ["udp"])

    def test_many_guesses(self) -> None:
        """They may come to the right one: a connection can't be guessed."""

        def flood(octets: bytes, via: str) -> Iterable[bytes]:
            if via == "udp":
                yield from [octets] * (MAX_STRAYS + 1)
                evil = rrset("example.com", "MX", "1 evil.example.")
                yield reply(octets, [evil]).to_wire()
            yield from GOOD(octets, via)

        self.assertEqual(self.found(flood), FOUND)
        self.assertEqual(self.network.vias, ["udp", "tcp"])

    def test_nonsense_on_a_connection(self) -> None:
        """It ends; so does the connection."""

        def flood(octets: bytes, via: str) -> Iterable[bytes]:
            return [octets] * (MAX_STRAYS + 1)

        with self.assertRaises(FailTest):
            self.found(flood)
        self.assertEqual(self.found(flood, GOOD), FOUND)


class CaseTests(NameServerCase):
    """Servers that change the case of the question, and forgers who can't know it."""

    def lower(self, connections: str = "served") -> Script:
        """A server that knows lower case alone."""

        def script(octets: bytes, via: str) -> Iterable[bytes]:
            if via == "udp" or connections == "served":
                yield in_lower_case(reply(octets, [MX]).to_wire())

        return script

    def test_confirmed_by_a_connection(self) -> None:
        """Then the server is known for it, and asked in lower case for a while."""
        resolver = self.resolver(self.lower())
        self.assertEqual(self.found_by(resolver), FOUND)
        self.assertEqual(self.network.vias, ["udp", "tcp"])
        self.assert_lower_for_a_while(resolver)

    def test_without_connections(self) -> None:
        """The question goes out again, with another id, in lower case."""
        resolver = self.resolver(self.lower("not served"))
        self.assertEqual(self.found_by(resolver), FOUND)
        self.assertEqual(self.network.vias, ["udp", "tcp", "udp"])
        first, _, last = (each.query for each in self.network.asked)
        self.assertNotEqual(first.id, last.id)
        self.assertEqual(str(last.question[0].name), "example.com.")
        self.assert_lower_for_a_while(resolver, "udp")

    def assert_lower_for_a_while(self, resolver: Resolver, *more: str) -> None:
        """See what the next questions look like."""
        self.network.asked.clear()
        self.successResultOf(Deferred.fromCoroutine(resolver.mx("another.example")))
        self.assertEqual(self.network.vias, ["udp"])
        self.assertEqual(str(self.network.asked[0].query.question[0].name), "another.example.")
        self.network.asked.clear()
        self.network.advance(3 * TRAIT_LIFETIME)
        self.found_by(resolver)
        self.assertEqual(self.network.vias[:2], ["udp", "tcp"])

    def test_forged(self) -> None:
        """A connection shows that it was not the server; its case counts from then on, too."""

        def forged(octets: bytes, via: str) -> Iterable[bytes]:
            if via == "udp":
                evil = rrset("example.com", "MX", "1 evil.example.")
                yield in_lower_case(reply(octets, [evil]).to_wire())
            yield from GOOD(octets, via)

        resolver = self.resolver(forged)
        self.assertEqual(self.found_by(resolver), FOUND)
        self.network.servers["192.0.2.0"] = GOOD
        self.successResultOf(Deferred.fromCoroutine(resolver.mx("another.example")))
        name = str(self.network.asked[-1].query.question[0].name)
        self.assertNotEqual(name, name.lower())

    def test_aliases(self) -> None:
        """The names that others gave are asked for in lower case as well."""
        alias = rrset("example.com", "CNAME", "MAIL.Example.")
        target = rrset("mail.example", "MX", "10 mx.example.com.")

        def script(octets: bytes, via: str) -> Iterable[bytes]:
            octets = octets[:12] + octets[12:-15].lower() + octets[-15:]
            is_first = b"\7example\3com" in octets
            yield reply(octets, [alias if is_first else target]).to_wire()

        self.assertEqual(self.found(script), FOUND)
        self.assertEqual(self.network.vias, ["udp", "tcp", "udp"])


class EDNSTests(NameServerCase):
    """Servers that know nothing of EDNS (RFC 6891 section 7)."""

    def plain(self, code: int, known: Script = GOOD, edns: bool = False) -> Script:
        """A server that says this to an OPT record."""

        def script(octets: bytes, via: str) -> Iterable[bytes]:
            if dns.message.from_wire(octets).edns < 0:
                return known(octets, via)
            response = reply(octets, code=code)
            if not edns:
                response.use_edns(False)
            return [response.to_wire()]

        return script

    def test_asked_again_without(self) -> None:
        """And asked without from then on, for a while."""
        for code in (Rcode.FORMERR, Rcode.NOTIMP):
            self.network.asked.clear()
            resolver = self.resolver(self.plain(code))
            self.assertEqual(self.found_by(resolver), FOUND)
            self.successResultOf(Deferred.fromCoroutine(resolver.mx("another.example")))
            self.assertEqual([each.query.edns for each in self.network.asked], [0, -1, -1])
            self.network.advance(TRAIT_LIFETIME)
            self.successResultOf(Deferred.fromCoroutine(resolver.mx("third.example")))
            self.assertEqual(self.network.asked[-2].query.edns, 0)

    def test_without_the_question(self) -> None:
        """Some only send back a header."""

        def script(octets: bytes, via: str) -> Iterable[bytes]:
            if dns.message.from_wire(octets).edns < 0:
                return GOOD(octets, via)
            return [octets[:2] + b"\x81\x81" + bytes(8)]

        self.assertEqual(self.found(script), FOUND)

    def test_another_fault(self) -> None:
        """A server that knows EDNS, or fails without it as well, is not taken for an old one."""
        resolver = self.resolver(self.plain(Rcode.FORMERR, edns=True))
        with self.assertRaises(FailTest):
            self.found_by(resolver)
        self.assertEqual([each.query.edns for each in self.network.asked], [0])
        self.network.asked.clear()
        resolver = self.resolver(self.plain(Rcode.FORMERR, says(code=Rcode.SERVFAIL)))
        for _ in range(2):
            with self.assertRaises(FailTest):
                self.found_by(resolver)
        self.assertEqual([each.query.edns for each in self.network.asked], [0, -1, 0, -1])


class TruncationTests(NameServerCase):
    """Answers that do not fit a datagram."""

    def truncating(self, by_tcp: Script) -> Script:
        """A server that has room for nothing."""

        def script(octets: bytes, via: str) -> Iterable[bytes]:
            if via == "tcp":
                return by_tcp(octets, via)
            return [reply(octets, [MX], flags=dns.flags.TC).to_wire()]

        return script

    def test_by_connection(self) -> None:
        """They come by TCP, however long."""
        many = [rrset("example.com", "MX", f"{n} {n}.{'x' * 60}.example.") for n in range(MAX_READ)]
        self.assertEqual(len(self.found(self.truncating(says(*many)))), MAX_READ)
        self.assertEqual(self.network.vias, ["udp", "tcp"])

    def test_too_many(self) -> None:
        """No more records than we read in a moment."""
        many = [rrset("example.com", "MX", f"{n} mx.example.") for n in range(MAX_READ + 1)]
        others = [rrset("example.com", "TXT", f"{n}") for n in range(MAX_RECORDS)]
        for records in (many, [MX, *others]):
            with self.assertRaises(FailTest) as caught:
                self.found(self.truncating(says(*records)))
            self.assertIn("makes no sense", str(caught.exception))
        self.assertEqual(self.found(self.truncating(says(MX, *others[2:]))), FOUND)

    def test_truncated_again(self) -> None:
        """That is no answer."""
        with self.assertRaises(FailTest):
            self.found(self.truncating(says(flags=dns.flags.TC)))

    def test_silence(self) -> None:
        """The connection is given up."""
        resolver = self.resolver(self.truncating(silent), GOOD)
        asking = Deferred.fromCoroutine(resolver.mx("example.com"))
        self.network.advance(TCP_TIMEOUT)
        self.assertEqual(list(self.successResultOf(asking)), FOUND)
        self.assertEqual(self.network.getDelayedCalls(), [])


class SystemTests(NameServerCase):
    """The name servers of the system."""

    def setUp(self) -> None:
        super().setUp()
        self.file: Path = self.hosts.with_name("resolv.conf")
        for number in range(4):
            self.network.servers[f"192.0.2.{number}"] = says()
        self.network.servers["127.0.0.1"] = says()
        self.system = Resolver(self.network, (), self.hosts, self.file)

    def server_asked(self) -> str:
        """Which server is asked."""
        self.successResultOf(Deferred.fromCoroutine(self.system.mx("example.com")))
        return self.network.asked[-1].server

    def test_read_again(self) -> None:
        """The file may come, change, and go for a moment."""
        self.assertEqual(self.server_asked(), "127.0.0.1")
        self.file.write_text("# a\nsearch example.com\nnameserver 192.0.2.1 # b\n")
        self.assertEqual(self.server_asked(), "192.0.2.1")
        other = self.file.with_name("other")
        other.write_text("nameserver x\nnameserver\n; nameserver 192.0.2.3\nnameserver 192.0.2.2")
        other.rename(self.file)
        self.assertEqual(self.server_asked(), "192.0.2.2")
        self.file.unlink()
        self.assertEqual(self.server_asked(), "192.0.2.2")
