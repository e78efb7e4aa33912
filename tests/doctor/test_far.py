"""The looks of both ends of a link at each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from mta import __version__
from mta.dns_answer import Answer, RecordType
from mta.doctor import far
from mta.doctor import ports as doctor_ports
from mta.doctor.answers import ANSWER_TIMEOUT, Answers
from mta.doctor.examined import SessionSeen
from mta.doctor.look_files import LookFiles
from mta.doctor.result import ok
from mta.interfaces import IFarEndSource
from mta.mail import Agent, Hop, Reply
from mta.pairing.mailboxes import MailboxFiles, document_of
from mta.peers.status_files import PeerStatusFiles
from mta.session import Observation
from mta.settings import Domain, Peer
from mta.smtp.far_look import Question, answer_in, parse, reply_of
from mta.smtp.mailbox_list import digest_of
from mta.testing import FakeResolver
from tests.doctor.test_checks import ADDRESS, HOST, RELAY, SETTINGS, TLS, CheckCase
from tests.processes import temporary_folder

DIALLED = replace(RELAY, domains=("example.com",))
OFFICE = Peer("office", ("example.com", "b.example"), user="office")
SEEN = [Observation("bad", "port 25 is closed")]
NOW = 1_700_000_000.0


class AnswerTests(CheckCase):
    """The relay, asked by its office."""

    def setUp(self) -> None:
        super().setUp()
        self.spool = temporary_folder(self)
        held = Domain("example.com", Hop(Agent.HOLD, "office"), None, mailboxes_elsewhere=True)
        self.settings = replace(
            SETTINGS,
            spool=str(self.spool),
            domains={"example.com": held, "b.example": replace(held, name="b.example")},
            peers={"office": OFFICE},
        )
        self.clock = Clock()

    def asking(self, question: str, argument: str = "") -> Deferred[Sequence[Observation]]:
        """The answer, once it is there."""
        answers = Answers(self.examined, self.clock, lambda: NOW)
        self.assertTrue(verifyObject(IFarEndSource, answers))
        return Deferred.fromCoroutine(answers.answer(OFFICE, question, argument))

    def assert_answer(self, question: str, argument: str, *expected: tuple[str, str]) -> None:
        """Each observation has that state, and these words in its text."""
        found = self.successResultOf(self.asking(question, argument))
        self.assertEqual([each.state for each in found], [state for state, _ in expected], found)
        for each, (_, words) in zip(found, expected, strict=True):
            self.assertIn(words, each.text)
        self.assertEqual(answer_in(reply_of(found)), found)

    def test_clock(self) -> None:
        """It differs by more than a person need know of."""
        self.assert_answer("clock", f"{NOW + 5:.0f}", ("ok", "agree"))
        self.assert_answer("clock", f"{NOW + 90:.0f}", ("warn", "90 seconds ahead of"))
        self.assert_answer("clock", f"{NOW - 90:.0f}", ("warn", "90 seconds behind"))
        self.assert_answer("clock", "x", ("unknown", "no time"))

    def test_version(self) -> None:
        """Both are named where they differ."""
        self.assert_answer("version", __version__, ("ok", __version__))
        self.assert_answer("version", "0.0.1", ("warn", "0.0.1"))

    def test_domains(self) -> None:
        """Those of both ends, whichever has more."""
        self.assert_answer("domains", "example.com,b.example", ("ok", "agree"))
        self.assert_answer(
            "domains",
            "example.com,other.example",
            ("bad", "other.example is not among"),
            ("warn", "b.example is yours here"),
        )
        domain = Domain("example.com", Hop(Agent.MAILDIR, "/m"))
        self.settings = replace(self.settings, domains={"example.com": domain})
        self.assert_answer(
            "domains", "example.com,b.example", ("bad", "not held"), ("bad", "not taken here")
        )

    def test_exchanger(self) -> None:
        """The MX of the office's domains, and of no others."""
        self.resolver.records = {"example.com": [(10, HOST)], "b.example": [(10, "mx.elsewhere")]}
        self.assert_answer("exchanger", "example.com", ("ok", f"is sent to {HOST}"))
        self.assert_answer("exchanger", "b.example", ("bad", "mx.elsewhere"))
        self.assert_answer("exchanger", "gmail.com", ("unknown", "not among your domains"))
        self.resolver.records = {"example.com": []}
        self.assert_answer("exchanger", "example.com", ("bad", "no MX"))

    def test_spf(self) -> None:
        """By each address that the relay sends from, for the office's domains."""
        self.assert_answer("spf", "gmail.com", ("unknown", "not among your domains"))
        self.assert_answer("spf", "example.com", ("unknown", "not known here"))
        self.resolver.answers[HOST, RecordType.A] = Answer(["192.0.2.5"])
        key = "example.com", RecordType.TXT
        self.resolver.answers[key] = Answer([b"v=spf1 ip4:192.0.2.5 -all"])
        self.assert_answer("spf", "example.com", ("ok", "192.0.2.5: SPF says pass"))
        self.resolver.answers[key] = Answer([b"v=spf1 -all"])
        self.assert_answer("spf", "example.com", ("bad", "192.0.2.5: SPF says fail"))

    def test_no_answer(self) -> None:
        """A name server that is silent, or does not know."""

        class Silent(FakeResolver):
            async def mx(self, domain: str) -> Sequence[tuple[int, str]]:
                await Deferred()
                raise AssertionError

        self.resolver = Silent({}, {})
        asking = self.asking("exchanger", "example.com")
        self.assertNoResult(asking)
        self.clock.advance(ANSWER_TIMEOUT)
        [observation] = self.successResultOf(asking)
        self.assertEqual(observation.state, "unknown")
        self.assert_answer("weather", "", ("unknown", "does not know"))

    def test_link(self) -> None:
        """The exchanges, as this end sees them."""
        files = PeerStatusFiles(self.spool)
        self.assert_answer("link", "", ("warn", "no exchange yet"))
        files.update("office", last_exchange=NOW - 120, last_error="")
        self.assert_answer("link", "", ("ok", "2 minutes ago"))
        files.update("office", last_error="452 full")
        self.assert_answer("link", "", ("warn", "452 full"))

    def test_mailboxes(self) -> None:
        """The list of the office, here and there."""
        document = document_of(SETTINGS.domains, ["example.com"])
        self.assert_answer("mailboxes", digest_of(document), ("warn", "no mailboxes were told"))
        MailboxFiles(self.spool).keep("office", document)
        self.assert_answer("mailboxes", digest_of(document), ("ok", "the same"))
        self.assert_answer("mailboxes", digest_of(b""), ("warn", "another list"))
        self.settings = replace(self.settings, domains={})
        self.assert_answer("mailboxes", digest_of(b""), ("ok", "configured at this end"))

    def test_what_is_told(self) -> None:
        """It is kept, and shown by the check."""
        self.assert_states(far.told, ("unknown", "has not looked"))
        answers = Answers(self.examined, self.clock)
        self.successResultOf(Deferred.fromCoroutine(answers.keep(OFFICE, SEEN)))
        self.assert_states(far.told, ("bad", "office saw: port 25 is closed"))
        LookFiles(self.spool, lambda: NOW).keep("office", SEEN)
        self.assert_states(far.told, ("unknown", "looked at us"))
        LookFiles(self.spool).forget("office")
        self.assert_states(far.told, ("unknown", "has not looked"))

    def test_what_is_no_look(self) -> None:
        """A file that is damaged tells nothing; a folder that can't be made is logged."""
        files = LookFiles(self.spool)
        files.keep("office", SEEN)
        for octets in (b"", b"[]", b'{"at": 1}', b'{"at": 1, "seen": [["ok", 1]]}'):
            (self.spool / "looks" / "office.json").write_bytes(octets)
            self.assertIsNone(files.read("office"))
        self.settings = replace(self.settings, spool=str(self.spool / "not" / "there"))
        answers = Answers(self.examined, self.clock)
        self.successResultOf(Deferred.fromCoroutine(answers.keep(OFFICE, SEEN)))


class OfficeTests(CheckCase):
    """The office, which dials its relay."""

    def setUp(self) -> None:
        super().setUp()
        self.settings = replace(
            SETTINGS, peers={"vps": DIALLED}, default_route=Hop(Agent.HOLD, "vps")
        )
        self.see("ATRN", "XDOCTOR")

    def see(self, *keywords: str) -> None:
        """Let the relay offer these."""
        seen = SessionSeen("relay.example", frozenset(keywords), TLS, 0.0)
        self.probe.sessions["relay.example"] = seen

    def test_answers(self) -> None:
        """Each question, with the relay's words and a remedy."""
        self.probe.replies = {
            "XDOCTOR ASK exchanger": Reply(250, "2.0.0", ("bad mail goes elsewhere",)),
            "XDOCTOR ASK spf": Reply(504, "5.5.4", ("not known",)),
            "XDOCTOR": Reply(250, "2.0.0", ("ok fine",)),
        }
        found = self.states(far.answers)
        self.assertIn(("bad", "vps says: mail goes elsewhere"), found)
        self.assertIn(("ok", "vps says: fine"), found)
        self.assertIn(("unknown", "vps says: 504 5.5.4 not known"), found)
        asked = [command.split()[2] for _, command in self.probe.sent]
        self.assertEqual(
            asked, ["version", "clock", "link", "domains", "mailboxes", "exchanger", "spf"]
        )
        for _, command in self.probe.sent:
            parse(command.partition(" ")[2].encode())

    def test_a_relay_that_can_not_be_asked(self) -> None:
        """It knows no questions, or is not there: that is not bad."""
        self.see("ATRN")
        self.assert_states(far.answers, ("unknown", "another program"))
        self.assertEqual(self.probe.sent, [])
        self.probe.sessions.clear()
        self.assert_states(far.answers, ("unknown", "can't be asked"))

    def test_answers_that_do_not_come(self) -> None:
        """Those that came in time count, and none is taken for a good one."""
        self.probe.slow_after = 1
        self.probe.replies["XDOCTOR"] = Reply(250, "2.0.0", ("ok fine",))
        self.assert_states(far.answers, ("unknown", "6 questions"), ("ok", "fine"))
        self.assert_states(far.relaying, ("unknown", "does not answer in time"))
        self.assert_states(far.senders, ("ok", "from <>"))
        self.resolver.answers[HOST, RecordType.A] = Answer([ADDRESS])
        self.probe.sessions[ADDRESS] = self.probe.sessions["relay.example"]
        self.assert_states(doctor_ports.relaying, ("unknown", "does not answer in time"))

    def test_ports(self) -> None:
        """Port 25 must be open; where it is silent, the office's provider may be the reason."""
        self.assert_states(far.ports, ("ok", "port 25"), ("ok", "port 465"), ("ok", "port 587"))
        self.probe.sessions.clear()
        key = ("relay.example", 25)
        self.probe.failures = {
            key: "no server listens on port 25",
            ("relay.example", 465): "no server listens on port 465",
            ("relay.example", 587): "no answer within 8 seconds",
        }
        self.assert_states(far.ports, ("bad", "port 25"), ("unknown", "port 587"))
        self.probe.failures[key] = "no answer within 8 seconds"
        self.assert_states(far.ports, ("unknown", "port 25"), ("unknown", "port 587"))

    def test_relaying(self) -> None:
        """It is tried from outside, without our log-in, and ends before DATA."""
        self.assert_states(far.relaying, ("bad", "open relay"))
        self.assertEqual([each[1][:4] for each in self.probe.sent], ["MAIL", "RCPT"])
        self.probe.replies["RCPT"] = Reply(550, "5.7.1", ("no",))
        self.assert_states(far.relaying, ("ok", "refuses"))
        self.probe.sessions.clear()
        self.assert_states(far.relaying, ("unknown", "can't be tried"))

    def test_senders(self) -> None:
        """Notices and forwards, by the way that our mail takes."""
        self.assert_states(far.senders, ("ok", "from <>"), ("ok", "from example.com"))
        self.probe.replies["MAIL FROM:<p"] = Reply(553, "5.7.1", ("not yours",))
        self.assert_states(far.senders, ("ok", "notices"), ("bad", "553 5.7.1 not yours"))
        self.probe.replies["MAIL FROM:<p"] = Reply(450, "4.7.1", ("later",))
        self.assert_states(far.senders, ("ok", "notices"), ("unknown", "later"))
        self.settings = replace(self.settings, default_route=Hop(Agent.SMTP, "smart.example", 465))
        self.assert_states(far.senders, ("unknown", "smart.example can't be tried"))
        self.settings = replace(self.settings, default_route=Hop(Agent.MX))
        self.assertEqual(self.states(far.senders), [])

    def tell(self) -> Sequence[tuple[str, str]]:
        """Tell the relay; returns what was sent."""
        self.probe.sent.clear()
        results = [ok("port 25 can be reached").of("vps"), ok("of another").of("x"), ok("of none")]
        telling = Deferred.fromCoroutine(far.tell(self.examined, results))
        self.assertNotIsInstance(self.successResultOf(telling), Failure)
        return self.probe.sent

    def test_a_look_of_a_server(self) -> None:
        """It tells all that it saw at once, and dials none that does not want to hear it."""
        other = replace(DIALLED, name="isp", connect=Hop(Agent.SMTP, "isp.example", 465))
        self.settings = replace(self.settings, peers={"vps": DIALLED, "isp": other})
        self.probe.sessions["isp.example"] = replace(
            self.probe.sessions["relay.example"], keywords=frozenset({"ATRN"})
        )

        def look() -> None:
            self.successResultOf(Deferred.fromCoroutine(far.look(self.examined)))

        look()
        self.assertEqual({host for host, _ in self.probe.sent}, {"relay.example"})
        [told] = [command for _, command in self.probe.sent if "TELL" in command]
        observations = parse(told.partition(" ")[2].encode())
        assert not isinstance(observations, Question)
        for words in ("port 25", "open relay", "notices"):
            self.assertTrue(any(words in each.text for each in observations), words)
        self.probe.sent.clear()
        self.see("ATRN")
        look()
        self.assertEqual(self.probe.sent, [])

    def test_telling(self) -> None:
        """The relay hears what concerns it, where it can."""
        [(host, command)] = self.tell()
        told = parse(command.partition(" ")[2].encode())
        self.assertEqual(
            (host, told), ("relay.example", [Observation("ok", "port 25 can be reached")])
        )
        self.see("ATRN")
        self.assertEqual(self.tell(), [])
        self.probe.sessions.clear()
        self.assertEqual(self.tell(), [])
