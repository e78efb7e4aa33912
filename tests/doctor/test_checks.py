"""The checks that ask other hosts, with tables in place of these."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mta.dns_answer import Answer, RecordType
from mta.doctor import lists, names, peers, ports
from mta.doctor.examination import CHECK_TIMEOUT, CHECKS, CheckFunction, examine
from mta.doctor.examined import DocumentFault, Examined, IProbe, NameServerSeen, SessionSeen
from mta.doctor.probe import Probe
from mta.doctor.result import State
from mta.inspection_settings import AllowList, BlockList
from mta.interfaces import IOwnHost, ResolutionFailed
from mta.mail import Agent, Hop, Mailbox, Outcome, Reply, Status
from mta.peers.status_files import PeerStatusFiles
from mta.queued import HopFailure
from mta.session import TLSInfo
from mta.settings import DAY, Domain, Listener, Peer, Service, Settings
from mta.testing import FakeResolver
from tests.processes import temporary_folder

HOST = "mail.example.com"
ADDRESS = "203.0.113.7"
SETTINGS = Settings(
    HOST,
    domains={"example.com": Domain("example.com", Hop(Agent.MAILDIR, "/m"))},
    own_addresses=(ADDRESS,),
    listen=(Listener("tcp:25"), Listener("tcp:465:interface=192.0.2.9", Service.SUBMISSION)),
)
TLS = TLSInfo("TLSv1.3", "x")
RELAY = Peer("vps", connect=Hop(Agent.SMTP, "relay.example", 465, implicit_tls=True))


@implementer(IProbe)
class FakeProbe:
    """Other hosts as tables: sessions by host and port, and replies by the command's first words.

    `sent` are the commands that came, with their host.
    """

    def __init__(self) -> None:
        self.sessions: dict[str | tuple[str, int], SessionSeen] = {}
        self.replies: dict[str, Reply] = {}
        self.failures: dict[str | tuple[str, int], str] = {}
        self.sent: list[tuple[str, str]] = []
        self.servers = [NameServerSeen("127.0.0.1")]
        self.documents: dict[str, str | Exception] = {}
        self.slow_after = 1000  # commands, of which the replies come in time

    async def name_servers(self) -> Sequence[NameServerSeen]:
        """Return those of the list."""
        return self.servers

    async def document(self, host: str, path: str) -> str:
        """Return the document of the table."""
        found = self.documents.get(host + path, DocumentFault("refused", is_there=False))
        if isinstance(found, Exception):
            raise found
        return found

    async def session(
        self, hop: Hop, commands: Sequence[str] = (), needed: str = ""
    ) -> SessionSeen:
        """Return the session of the table."""
        key: str | tuple[str, int] = (hop.next_hop, hop.port)
        if key not in self.sessions:
            key = hop.next_hop
        if key not in self.sessions:
            text = self.failures.get((hop.next_hop, hop.port), "refused")
            raise HopFailure(Outcome(Status.DEFERRED, Reply(451, "4.4.1", (text,))))
        seen = self.sessions[key]
        if needed and needed not in seen.keywords:
            return seen
        commands = commands[: self.slow_after]
        self.sent += [(hop.next_hop, command) for command in commands]
        return replace(seen, replies=[self._reply(command) for command in commands])

    def _reply(self, command: str) -> Reply:
        for start, reply in self.replies.items():
            if command.startswith(start):
                return reply
        return Reply(250, "", ("OK",))


class UnansweringResolver(FakeResolver):
    """A resolver whose servers are down."""

    async def query(self, name: str, kind: RecordType) -> Answer:
        """Fail."""
        raise ResolutionFailed(f"{name}: timed out")


@implementer(IOwnHost)
class Here:
    """This host has one name and one address."""

    def is_named(self, host: str) -> bool:
        """Compare."""
        return host == HOST

    def is_at(self, address: str) -> bool:
        """Compare."""
        return address == ADDRESS


class CheckCase(SynchronousTestCase):
    """One check on one situation."""

    def setUp(self) -> None:
        self.resolver = FakeResolver({"gmail.com": [(5, "mx.gmail.example")]}, {})
        self.probe = FakeProbe()
        self.settings = SETTINGS
        self.hosts = temporary_folder(self) / "hosts"

    @property
    def examined(self) -> Examined:
        """The situation."""
        return Examined(self.settings, self.resolver, Here(), self.probe, maybeDeferred, self.hosts)

    def states(self, check: CheckFunction) -> list[tuple[str, str]]:
        """State and text of each result."""

        async def collect() -> list[tuple[str, str]]:
            return [(each.state.value, each.text) async for each in check(self.examined)]

        return self.successResultOf(Deferred.fromCoroutine(collect()))

    def assert_states(self, check: CheckFunction, *expected: tuple[str, str]) -> None:
        """Each result has that state, and these words in its text."""
        found = self.states(check)
        self.assertEqual([state for state, _ in found], [state for state, _ in expected], found)
        for (_, text), (_, words) in zip(found, expected, strict=True):
            self.assertIn(words, text)


class NameTests(CheckCase):
    """The DNS."""

    def test_own_name(self) -> None:
        """It has a public address, which is ours."""
        self.assert_states(names.own_name, ("bad", "no address"))
        self.resolver.answers[HOST, RecordType.A] = Answer([ADDRESS, "10.0.0.1", "192.0.2.3"])
        self.assert_states(
            names.own_name, ("ok", ADDRESS), ("bad", "private"), ("unknown", "192.0.2.3")
        )

    def test_hosts_file(self) -> None:
        """Debian's line for a host without a fixed address."""
        self.resolver.answers[HOST, RecordType.A] = Answer([ADDRESS])
        self.hosts.write_text(f"127.0.0.1 localhost\n127.0.1.1 {HOST.upper()} mail # ours\n")
        self.assert_states(names.own_name, ("warn", "127.0.1.1"), ("ok", ADDRESS))

    def test_reverse(self) -> None:
        """Each address leads back to the name."""
        self.resolver.answers[HOST, RecordType.A] = Answer([ADDRESS])
        key = "7.113.0.203.in-addr.arpa", RecordType.PTR
        self.assert_states(names.reverse_names, ("bad", "no name"))
        self.resolver.answers[key] = Answer(["vps7.provider.example."])
        self.assert_states(names.reverse_names, ("warn", "vps7.provider.example"))
        self.resolver.answers[key] = Answer(["other.example", f"{HOST.upper()}."])
        self.assert_states(names.reverse_names, ("ok", HOST))

    def test_exchangers(self) -> None:
        """The mail of our domains comes here, by name or by address."""
        self.assert_states(names.exchangers, ("bad", "does not exist"))
        self.resolver.records = {"example.com": []}
        self.assert_states(names.exchangers, ("bad", "no MX"))
        self.resolver.records = {"example.com": [(0, "")]}
        self.assert_states(names.exchangers, ("bad", "takes no mail"))
        self.resolver.records = {"example.com": [(10, "mx.elsewhere.example")]}
        self.assert_states(names.exchangers, ("bad", "not here"))
        self.resolver.known = {"mx.elsewhere.example": [ADDRESS]}
        self.assert_states(names.exchangers, ("ok", "this host"))
        self.resolver.records = {"example.com": [(10, HOST)]}
        self.assert_states(names.exchangers, ("ok", "this host"))

    def test_an_office(self) -> None:
        """Its mail goes to the host that it dials, and its own name needs no address."""
        self.settings = replace(SETTINGS, peers={"vps": RELAY})
        self.resolver.records = {"example.com": [(10, "relay.example")]}
        self.assert_states(names.exchangers, ("ok", "which we dial"))
        self.resolver.records = {"example.com": [(10, "mx.elsewhere.example")]}
        self.assert_states(names.exchangers, ("unknown", "mx.elsewhere.example"))
        self.assert_states(names.own_name, ("ok", "needs no address"))
        self.assertEqual(self.states(names.reverse_names), [])

    def test_an_office_that_is_not_paired_yet(self) -> None:
        """Where its mail will come from is not known, and nothing is wrong."""
        self.settings = replace(SETTINGS, default_route=Hop(Agent.REJECT, "no relay yet"))
        self.assert_states(names.exchangers, ("unknown", "has no relay yet"))
        self.assert_states(names.own_name, ("ok", "needs no address"))
        self.assertEqual(self.states(names.reverse_names), [])
        self.assert_states(ports.outgoing, ("unknown", "before this office has a relay"))


class PortTests(CheckCase):
    """Our own ports, and those of others."""

    def test_interfaces(self) -> None:
        """Probes are interfaces' implementations."""
        verifyObject(IProbe, FakeProbe())
        verifyObject(IProbe, Probe(None, Clock(), None, None))  # type: ignore[arg-type]

    def test_listeners(self) -> None:
        """Each answers where it listens, and is ours."""
        self.probe.sessions["127.0.0.1"] = SessionSeen(HOST, frozenset(), None, 0.0)
        self.assert_states(ports.listeners, ("ok", "tcp:25"), ("bad", "tcp:465"))
        self.probe.sessions["192.0.2.9"] = SessionSeen("postfix.example", frozenset(), None, 0.0)
        self.assert_states(ports.listeners, ("ok", "tcp:25"), ("bad", "itself postfix.example"))

    def test_outgoing(self) -> None:
        """Port 25 of others; no matter where all mail leaves by a smart host."""
        self.assert_states(ports.outgoing, ("warn", "port 25"))
        self.probe.sessions["yahoo.com"] = SessionSeen("mx", frozenset(), TLS, 0.0)
        self.assert_states(ports.outgoing, ("ok", "open"))
        self.probe.sessions.clear()
        hop = Hop(Agent.HOLD, "vps")
        self.settings = replace(SETTINGS, default_route=hop)
        self.assert_states(ports.outgoing, ("ok", "hold:vps"))

    def test_open_relay(self) -> None:
        """A foreign address to a foreign address."""
        self.resolver.answers[HOST, RecordType.A] = Answer([ADDRESS])
        self.assert_states(ports.relaying, ("unknown", "can't be reached"))
        self.probe.sessions[ADDRESS] = SessionSeen(HOST, frozenset(), None, 0.0)
        self.assert_states(ports.relaying, ("bad", "open relay"))
        self.probe.replies["RCPT"] = Reply(550, "5.7.1", ("no",))
        self.assert_states(ports.relaying, ("ok", "550"))
        self.settings = replace(SETTINGS, listen=(Listener("tcp:25:interface=127.0.0.1"),))
        self.assert_states(ports.relaying, ("ok", "nothing listens"))


class PeerTests(CheckCase):
    """The peers that we dial."""

    def see(self, *keywords: str, has_tls: bool = True, round_trip: float = 0.1) -> None:
        """Let the relay be so."""
        self.settings = replace(SETTINGS, peers={"vps": RELAY})
        seen = SessionSeen(
            "relay.example", frozenset(keywords), TLS if has_tls else None, round_trip
        )
        self.probe.sessions["relay.example"] = seen

    def test_dialled(self) -> None:
        """Log-in, method, TLS, time."""
        self.settings = replace(SETTINGS, peers={"vps": RELAY})
        self.assert_states(peers.dialled, ("bad", "vps: refused"))
        self.see("ETRN")
        self.assert_states(peers.dialled, ("bad", "ATRN to us, but ETRN"))
        self.see("ATRN", has_tls=False)
        self.assert_states(peers.dialled, ("bad", "no TLS"))
        self.see("ATRN", round_trip=3.0)
        self.assert_states(peers.dialled, ("warn", "3000 ms"))
        self.see("ATRN")
        self.assert_states(peers.dialled, ("ok", "100 ms"))

    def test_exchanges(self) -> None:
        """The last one, at either end; a NAT that forgets has a remedy of its own."""
        dialling = Peer("office", user="office")
        spool = temporary_folder(self)
        self.settings = replace(
            SETTINGS, peers={"vps": RELAY, "office": dialling}, spool=str(spool)
        )
        self.assert_states(peers.exchanges, ("unknown", "no exchange yet"))
        self.assert_states(peers.dialling_in, ("unknown", "was never here"))
        files = PeerStatusFiles(spool)
        for name in ("vps", "office"):
            files.update(name, last_error="421 busy")
        self.assert_states(peers.exchanges, ("warn", "421 busy"))
        self.assert_states(peers.dialling_in, ("warn", "421 busy"))
        for name in ("vps", "office"):
            files.update(name, last_error="", last_exchange=time.time())
        self.assert_states(peers.exchanges, ("ok", "went well"))
        self.assert_states(peers.dialling_in, ("ok", "within the last day"))
        mark = files.mark_link("vps")
        self.addCleanup(os.close, mark)
        self.assert_states(peers.exchanges, ("ok", "the link stands"))
        files.update("office", last_exchange=time.time() - 3 * DAY)
        self.assert_states(peers.dialling_in, ("warn", "not here for 3 days"))

    def test_peers_with_etrn(self) -> None:
        """Their host is dialled, as for their mail."""
        hop = Hop(Agent.SMTP, "office.example", 2525)
        self.settings = replace(SETTINGS, peers={"office": Peer("office", etrn=hop), "vps": RELAY})
        self.assert_states(peers.called_back, ("bad", "refused"))
        self.probe.sessions["office.example"] = SessionSeen("office", frozenset(), TLS, 0.1)
        self.assert_states(peers.called_back, ("ok", "answers"))


class ExaminationTests(CheckCase):
    """All checks together."""

    def test_time(self) -> None:
        """A check whose question is not answered is unknown, and the others are not lost."""

        class Silent(FakeResolver):
            async def query(self, name: str, kind: RecordType) -> Answer:
                await Deferred()
                raise AssertionError

        self.settings = replace(SETTINGS, spool=str(temporary_folder(self)))
        self.resolver = Silent({}, {})
        clock = Clock()
        examining = examine(self.examined, clock)
        clock.advance(CHECK_TIMEOUT + 0.1)
        clock.advance(20)
        found = {check.id: results for check, results in self.successResultOf(examining)}
        self.assertEqual(list(found), [check.id for check in CHECKS])
        [result] = found["names.transport"]
        self.assertEqual(
            (result.state, result.text), (State.UNKNOWN, "no answer within 15 seconds")
        )
        self.assertIs(found["machine.disk"][0].state, State.OK)

    def test_no_answer(self) -> None:
        """Servers that are down do not mean that records are missing."""
        self.settings = replace(SETTINGS, spool=str(temporary_folder(self)))
        self.resolver = UnansweringResolver({}, {})
        found = {
            check.id: results
            for check, results in self.successResultOf(examine(self.examined, Clock()))
        }
        self.assertIs(found["names.policies"][0].state, State.UNKNOWN)

    def test_offline(self) -> None:
        """No other host is asked."""
        self.settings = replace(SETTINGS, spool=str(temporary_folder(self)))
        examining = examine(self.examined, Clock(), offline=True)
        outside = {check.id for check in CHECKS if check.asks_outside}
        for check, results in self.successResultOf(examining):
            if check.id in outside:
                self.assertEqual(results, ())

    def test_a_fault_of_ours(self) -> None:
        """It is one unknown result."""
        self.patch(FakeResolver, "mx", lambda resolver, domain: 1 / 0)
        self.settings = replace(SETTINGS, spool=str(temporary_folder(self)))
        found = {
            check.id: results
            for check, results in self.successResultOf(examine(self.examined, Clock()))
        }
        self.assertIn("a fault of the program", found["names.exchangers"][0].text)
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))

    def test_lists(self) -> None:
        """Lists answer as lists do, or it is said what they do."""
        self.settings = replace(
            SETTINGS,
            block_lists=(BlockList("zen.example"),),
            allow_lists=(AllowList("ok.example"),),
        )
        listed, unlisted = "2.0.0.127.zen.example", "1.0.0.127.zen.example"
        self.resolver.answers["2.0.0.127.ok.example", RecordType.A] = Answer(["127.0.5.0"])
        fine = ("ok", "ok.example answers")
        for codes, others, expected in (
            (["127.0.0.4"], [], ("ok", "zen.example answers")),
            ([], [], ("warn", "does not list 127.0.0.2")),
            (["127.0.0.2"], ["127.0.0.2"], ("bad", "lists every address")),
            (["127.255.255.254"], ["127.255.255.254"], ("warn", "refuses our questions")),
            (["198.51.100.1"], ["198.51.100.1"], ("warn", "something else answers")),
        ):
            self.resolver.answers[listed, RecordType.A] = Answer(codes)
            self.resolver.answers[unlisted, RecordType.A] = Answer(others)
            self.assert_states(lists.lists, expected, fine)
        self.resolver = UnansweringResolver({}, {})
        unknown = ("unknown", "gives no answer")
        self.assert_states(lists.lists, unknown, unknown)

    def test_the_manual(self) -> None:
        """It has each check in its table, by its name."""
        manual = (Path(__file__).parents[2] / "docs" / "doctor.rst").read_text()
        for check in CHECKS:
            self.assertIn(f"\n_`{check.id}` ", manual)
            self.assertIn(check.purpose, manual)

    def test_roles(self) -> None:
        """Postmaster is always there; abuse is not."""
        self.settings = replace(SETTINGS, spool=str(temporary_folder(self)))
        aliases = {"abuse": (Mailbox("alice", "example.com"),)}
        domain = replace(
            SETTINGS.domains["example.com"], mailboxes=frozenset({"alice"}), aliases=aliases
        )
        [check] = [check for check in CHECKS if check.id == "mail.roles"]
        self.settings = replace(self.settings, domains={"example.com": domain})
        self.assert_states(check.look, ("ok", "postmaster@"), ("ok", "abuse@"), ("warn", "root@"))
        aliases["root"] = aliases["abuse"]
        self.assert_states(check.look, ("ok", "postmaster@"), ("ok", "abuse@"), ("ok", "root@"))
        self.settings = SETTINGS
        self.assert_states(
            check.look, ("warn", "postmaster@"), ("warn", "abuse@"), ("warn", "root@")
        )
        self.settings = replace(SETTINGS, domains={})
        self.assert_states(check.look, ("unknown", "no domain of ours yet"))
