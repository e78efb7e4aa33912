"""Lists in the DNS, and greylisting, as clients from outside meet them."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mta.dns_answer import Answer, RecordType
from mta.inspection_settings import (
    ALLOW_CODES,
    BLOCK_CODES,
    AllowList,
    BlockList,
    Greylist,
    GreylistWhen,
    ListAction,
)
from mta.inspectors import greylist_table
from mta.inspectors.clients import ClientInspector
from mta.inspectors.doubt import looks_dynamic
from mta.inspectors.greylist_table import GreylistTable
from mta.inspectors.greylisting import Greylisting
from mta.inspectors.list_answers import Answered, clean, meaning, question
from mta.inspectors.lists import Lists
from mta.inspectors.sender_policy import SenderPolicies
from mta.interfaces import (
    IInspector,
    IMessageInspector,
    IResolver,
    ISessionInspector,
    ResolutionFailed,
)
from mta.mail import NULL_PATH, MailArgument, Mailbox, Recipient, Reply
from mta.session import UNKNOWN_ORIGIN, Session, Testimony
from mta.settings import DAY, Service
from mta.shared_tables import forms
from mta.shared_tables.files import TableFolder
from mta.smtp.errors import Refusal
from mta.testing import FakeAccessPolicy, FakeResolver
from mta.verdict import ACCEPT, Verdict

CLIENT, OTHER, SIX = "192.0.2.1", "192.0.2.77", "2001:db8:1:2:3:4:5:6"
ZEN, SECOND, KNOWN = "zen.example", "second.example", "known.example"
ALICE, BOB = Mailbox("alice", "a.example"), Mailbox("bob", "b.example")
DELAY, KEEP = 300.0, 36 * DAY


@implementer(IResolver)
class ListServer(FakeResolver):
    """The DNS of some lists: answers by zone and address; `silent` zones never answer.

    A zone lists an address with these codes; the key ``*`` stands for any other address.
    """

    def __init__(self, **zones: dict[str, list[str]]) -> None:
        super().__init__({}, {})
        self.zones = {name.replace("_", "."): codes for name, codes in zones.items()}
        self.silent: set[str] = set()
        self.failing: set[str] = set()
        self.questions: list[tuple[str, RecordType]] = []
        self.waiting: list[Deferred[Answer]] = []

    async def query(self, name: str, kind: RecordType) -> Answer:
        """Answer by the tables."""
        self.questions.append((name, kind))
        for zone, codes in self.zones.items():
            if not name.endswith(f".{zone}"):
                continue
            if zone in self.silent:
                self.waiting.append(Deferred())
                return await self.waiting[-1]
            if zone in self.failing:
                raise ResolutionFailed(f"{name}: SERVFAIL")
            if kind is RecordType.A:
                listed = {question(ip_address(each), zone): each for each in codes if each != "*"}
                found = codes.get(listed.get(name, "*"), [])
                return Answer(found, exists=bool(found))
        return await super().query(name, kind)

    def about(self, zone: str, kind: RecordType = RecordType.A) -> list[str]:
        """The questions about clients to a zone: without those that probe it."""
        probe = question(ip_address("127.0.0.1"), zone)
        return [
            name
            for name, each in self.questions
            if name.endswith(zone) and each is kind and name != probe
        ]


class ClientCase(SynchronousTestCase):
    """Clients at an inspector with a DNS of its own."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.dns = ListServer(zen_example={CLIENT: ["127.0.0.2"]})
        self.access = Outsiders()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def inspector(
        self,
        *block: BlockList,
        allow: Sequence[AllowList] = (),
        greylist: Greylist | None = None,
    ) -> ClientInspector:
        """An inspector for these lists, and perhaps with greylisting."""
        self.senders = SenderPolicies(self.dns, "mx.example.net", self.clock, self.clock.seconds)
        greylisting = None
        if greylist is not None:
            greylisting = Greylisting(
                greylist,
                GreylistTable(TableFolder(self.folder), self.clock.seconds, maybeDeferred),
                self.senders,
                self.clock,
            )
        return ClientInspector(Lists(block, allow, self.dns, self.clock), greylisting, self.access)

    def client(self, inspector: ClientInspector, **session: Any) -> ISessionInspector:
        """The inspector of a session from outside."""
        fields = {"service": Service.SMTP, "client": CLIENT, "tls": None, **session}
        return inspector.session(Session(**fields))

    def begin(self, client: ISessionInspector, sender: Mailbox = ALICE) -> Any:
        """MAIL in a session."""
        return self.successResultOf(client.message("ID", MailArgument(sender), UNKNOWN_ORIGIN))

    def rcpt(self, message: IMessageInspector, address: Mailbox = BOB) -> Reply | None:
        """The reply that refuses a recipient; None: it is not refused."""
        return self.result(Deferred.fromCoroutine(message.recipient(Recipient(address))))

    def result(self, asked: Deferred[None]) -> Reply | None:
        """The reply of what has been asked."""
        asked.addErrback(lambda failure: failure.trap(Refusal) and failure.value.reply)
        reply: Any = self.successResultOf(asked)
        return reply  # type: ignore[no-any-return]

    def refusal(self, inspector: ClientInspector, **session: Any) -> Reply | None:
        """The reply to RCPT in a new session."""
        return self.rcpt(self.begin(self.client(inspector, **session)))


class Outsiders(FakeAccessPolicy):
    """A policy for which clients without a log-in are outsiders, but for some networks."""

    def is_outsider(self, session: Session) -> bool:
        """Return whether the client neither logged in nor is in 10.0.0.0/8."""
        return not session.identity and not session.client.startswith("10.")


class BlockListTests(ClientCase):
    """Block lists and allow lists."""

    def test_interfaces(self) -> None:
        """All three inspectors are what they say."""
        inspector = self.inspector(BlockList(ZEN))
        client = self.client(inspector)
        verifyObject(IInspector, inspector)
        verifyObject(ISessionInspector, client)
        verifyObject(IMessageInspector, self.begin(client))
        verifyObject(IResolver, self.dns)

    def test_rejects(self) -> None:
        """A client on a list is refused at RCPT, with the list and its text."""
        name = question(ip_address(CLIENT), ZEN)
        self.dns.answers[name, RecordType.TXT] = Answer([b"see https://zen.example/\r\n550 x"])
        expected = f"The host [{CLIENT}] is on the block list {ZEN}: see https://zen.example/ 550 x"
        inspector = self.inspector(BlockList(ZEN))
        self.assertEqual(self.refusal(inspector), Reply(550, "5.7.1", (expected,)))
        self.assertIsNone(self.refusal(inspector, client=OTHER))

    def test_no_text(self) -> None:
        """A list need not have a text."""
        reply = self.refusal(self.inspector(BlockList(ZEN)))
        self.assertEqual(str(reply), f"550 5.7.1 The host [{CLIENT}] is on the block list {ZEN}")

    def test_roles(self) -> None:
        """Postmaster and abuse can be reached from anywhere, and no list is asked for them."""
        message = self.begin(self.client(self.inspector(BlockList(ZEN))))
        for address in (Mailbox("postmaster"), Mailbox("Abuse", "b.example")):
            self.assertIsNone(self.rcpt(message, address))
        self.assertEqual(self.dns.questions, [])
        self.assertIsNotNone(self.rcpt(message, BOB))

    def test_not_ours(self) -> None:
        """Users, our networks, other services and turned connections are not asked about."""
        inspector = self.inspector(BlockList(ZEN))
        for session in (
            {"identity": "alice"},
            {"client": "10.0.0.1"},
            {"service": Service.SUBMISSION},
            {"service": Service.LMTP},
            {"turned_peer": "provider"},
        ):
            self.assertIsNone(self.begin(self.client(inspector, **session)), session)
        for client in ("127.0.0.1", "::1", "unix", "unknown", "fe80::1%eth0"):
            self.assertIsNone(self.refusal(inspector, client=client))
        self.assertEqual(self.dns.questions, [])

    def test_asked_once(self) -> None:
        """The lists are asked once in a session, and again in the next one."""
        inspector = self.inspector(BlockList(ZEN))
        client = self.client(inspector)
        for _ in range(2):
            self.rcpt(self.begin(client))
        self.assertEqual(len(self.dns.about(ZEN)), 1)
        self.refusal(inspector)
        self.assertEqual(len(self.dns.about(ZEN)), 2)

    def test_codes(self) -> None:
        """Only the codes that are named count."""
        for code, is_listed in (
            ("127.0.0.2", True),
            ("127.0.0.11", True),
            ("127.0.0.12", False),
            ("127.0.0.1", False),
            ("127.1.0.2", False),
            ("127.255.255.255", False),
            ("127.255.255.254", False),
            ("93.184.216.34", False),
        ):
            self.dns.zones[ZEN] = {CLIENT: [code]}
            found = self.refusal(self.inspector(BlockList(ZEN)))
            self.assertEqual(found is not None, is_listed, code)
        self.dns.zones[ZEN] = {CLIENT: ["127.0.0.12", "127.0.0.3"]}
        self.assertIsNotNone(self.refusal(self.inspector(BlockList(ZEN))))
        own = BlockList(ZEN, ((int(IPv4Address("127.0.1.4")),) * 2,))
        self.assertIsNone(self.refusal(self.inspector(own)))

    def test_allow_list(self) -> None:
        """A client on an allow list may be on any block list."""
        self.dns.zones[KNOWN] = {CLIENT: ["127.0.5.1"]}
        allow = [AllowList(KNOWN)]
        self.assertIsNone(self.refusal(self.inspector(BlockList(ZEN), allow=allow)))
        self.dns.zones[KNOWN] = {"*": ["127.0.0.255"]}  # the questions were too many
        self.assertIsNotNone(self.refusal(self.inspector(BlockList(ZEN), allow=allow)))

    def test_junk(self) -> None:
        """A list can make junk of mail, instead of refusing it."""
        inspector = self.inspector(BlockList(ZEN, action=ListAction.JUNK))
        message = self.begin(self.client(inspector))
        self.assertIsNone(self.rcpt(message))
        expected = Verdict(junk=f"its client is on the list {ZEN}")
        self.assertEqual(self.successResultOf(message.end(b"")), expected)
        message = self.begin(self.client(inspector, client=OTHER))
        self.rcpt(message)
        self.assertIs(self.successResultOf(message.end(b"")), ACCEPT)

    def test_the_worst_counts(self) -> None:
        """Where several lists have a client, one that rejects it counts."""
        self.dns.zones[SECOND] = {CLIENT: ["127.0.0.2"]}
        junk = BlockList(ZEN, action=ListAction.JUNK)
        self.assertIn(SECOND, str(self.refusal(self.inspector(junk, BlockList(SECOND)))))

    def test_in_parallel(self) -> None:
        """A list that is silent costs five seconds, whatever there are of them."""
        zones = [f"z{n}.example" for n in range(5)]
        self.dns.zones.update({zone: {} for zone in zones})
        self.dns.silent.update(zones)
        inspector = self.inspector(*map(BlockList, zones), BlockList(ZEN))
        message = self.begin(self.client(inspector))
        asked = Deferred.fromCoroutine(message.recipient(Recipient(BOB)))
        self.assertEqual(len(self.dns.waiting), 5)
        self.clock.advance(4.9)
        self.assertNoResult(asked)
        self.clock.advance(0.2)
        self.assertIn(ZEN, str(self.result(asked)))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_answer(self) -> None:
        """A list that fails has no client."""
        self.dns.failing.add(ZEN)
        self.assertIsNone(self.refusal(self.inspector(BlockList(ZEN))))

    def test_silent_about_the_reason(self) -> None:
        """A text that does not come is no reason to let the client in."""
        inspector = self.inspector(BlockList(ZEN))
        self.refusal(inspector)
        message = self.begin(self.client(inspector))
        query = self.dns.query

        async def silent(name: str, kind: RecordType) -> Answer:
            return await (Deferred() if kind is RecordType.TXT else query(name, kind))

        self.patch(self.dns, "query", silent)
        asked = Deferred.fromCoroutine(message.recipient(Recipient(BOB)))
        self.clock.pump([5.1])
        self.assertIn(ZEN, str(self.result(asked)))


TOLD = Testimony("provider", "7Zk", "ESMTP")


class ToldClientTests(ClientCase):
    """Clients that another server tells of."""

    def test_on_a_turned_connection(self) -> None:
        """A listed one's mail is junk: who refuses it lets the relay write to a forged address."""
        inspector = self.inspector(BlockList(ZEN), greylist=Greylist(GreylistWhen.ALWAYS, DELAY))
        message = self.begin(self.client(inspector, turned_peer="provider", told=TOLD))
        self.assertIsNone(self.rcpt(message))
        expected = Verdict(junk=f"its client is on the list {ZEN}")
        self.assertEqual(self.successResultOf(message.end(b"")), expected)
        other = self.begin(self.client(inspector, turned_peer="provider", told=TOLD, client=OTHER))
        self.assertIsNone(self.rcpt(other))
        self.assertIs(self.successResultOf(other.end(b"")), ACCEPT)

    def test_behind_a_relay_whose_sender_waits(self) -> None:
        """It is refused through the relay, which writes no notice; it need not come again."""
        inspector = self.inspector(BlockList(ZEN), greylist=Greylist(GreylistWhen.ALWAYS, DELAY))
        client = self.client(inspector, turned_peer="provider", told=TOLD, sender_waits=True)
        self.assertEqual(str(self.rcpt(self.begin(client)))[:9], "550 5.7.1")
        other = self.client(
            inspector, turned_peer="provider", told=TOLD, sender_waits=True, client=OTHER
        )
        self.assertIsNone(self.rcpt(self.begin(other)))

    def test_behind_a_proxy(self) -> None:
        """The sender still listens: it is refused, or has to come again."""
        inspector = self.inspector(BlockList(ZEN), greylist=Greylist(GreylistWhen.ALWAYS, DELAY))
        self.assertEqual(str(self.refusal(inspector, told=TOLD))[:9], "550 5.7.1")
        for client in (OTHER, "127.0.0.1", "::1", "unknown"):
            for name in ("", "localhost"):
                found = self.refusal(inspector, told=TOLD, client=client, name=name)
                self.assertEqual(str(found)[:9], "450 4.7.1", client)

    def test_a_name_without_an_address(self) -> None:
        """It proves nothing."""
        greylist = Greylist(GreylistWhen.DOUBTFUL, DELAY)
        self.dns.answers["a.example", RecordType.TXT] = Answer([b"v=spf1 ?all"])
        found = self.refusal(
            self.inspector(greylist=greylist), told=TOLD, client="unknown", name="mx.a.example"
        )
        self.assertEqual(str(found)[:9], "450 4.7.1")


class HealthTests(ClientCase):
    """Lists that have gone mad, and come to reason again."""

    def events(self, captured: list[LogEvent]) -> list[str]:
        """The log, but for clients that are listed."""
        lines = [formatEvent(event) for event in captured]
        return [line for line in lines if "is on the list" not in line]

    def assert_left_out(self, codes: list[str], line: str) -> None:
        """A list that answers everything so is left out for an hour, and told of once."""
        inspector = self.inspector(BlockList(ZEN))
        good, self.dns.zones[ZEN] = self.dns.zones[ZEN], {"*": codes}
        with capturedLogs() as captured:
            for _ in range(3):
                self.assertIsNone(self.refusal(inspector))
            self.clock.advance(3599)
            self.assertIsNone(self.refusal(inspector))
            self.clock.advance(2)
            self.assertIsNone(self.refusal(inspector))
        self.assertEqual(self.events(captured), [line])
        self.assertEqual(self.dns.about(ZEN), [])
        self.dns.zones[ZEN] = good
        self.assertIsNone(self.refusal(inspector))
        with capturedLogs() as captured:
            self.clock.advance(3600)
            self.assertIsNotNone(self.refusal(inspector))
        self.assertEqual(self.events(captured), [f"the list {ZEN} is in use again"])

    def test_lists_everything(self) -> None:
        """A list that lists what no list has is left out."""
        line = f"the list {ZEN} is left out: it lists every address"
        self.assert_left_out(["127.0.0.2"], line)

    def test_lists_everything_for_another_reason(self) -> None:
        """So is one whose reason would not count."""
        line = f"the list {ZEN} is left out: it lists every address"
        self.assert_left_out(["127.0.1.255"], line)

    def test_refuses(self) -> None:
        """So is one that refuses the questions."""
        line = (
            f"the list {ZEN} is left out: it refuses our questions, as it does those of name"
            " servers that many share; use one of your own"
        )
        self.assert_left_out(["127.255.255.254"], line)

    def test_foreign(self) -> None:
        """So is one in whose place a website answers."""
        line = f"the list {ZEN} is left out: something else answers in its place"
        self.assert_left_out(["198.51.100.7"], line)

    def test_refuses_later(self) -> None:
        """A list that refuses between two looks is left out at once."""
        inspector = self.inspector(BlockList(ZEN))
        self.assertIsNotNone(self.refusal(inspector))
        self.dns.zones[ZEN] = {CLIENT: ["127.255.255.255"]}
        with capturedLogs() as captured:
            for _ in range(3):
                self.assertIsNone(self.refusal(inspector))
        self.assertEqual(len(self.events(captured)), 1)
        self.assertEqual(len(self.dns.about(ZEN)), 2)

    def test_silent(self) -> None:
        """A list that is silent keeps three clients waiting, and for a minute no more."""
        inspector = self.inspector(BlockList(ZEN))
        self.assertIsNotNone(self.refusal(inspector))
        self.dns.silent.add(ZEN)
        with capturedLogs() as captured:
            for _ in range(3):
                message = self.begin(self.client(inspector))
                asked = Deferred.fromCoroutine(message.recipient(Recipient(BOB)))
                self.assertNoResult(asked)
                self.clock.advance(5)
                self.assertIsNone(self.result(asked))
            self.assertIsNone(self.refusal(inspector))
        expected = f"the list {ZEN} is left out for a minute: it is silent"
        self.assertEqual(self.events(captured), [expected])
        self.dns.silent.clear()
        self.clock.advance(60)
        self.assertIsNotNone(self.refusal(inspector))

    def test_no_answer_at_first(self) -> None:
        """A list is looked at again in a minute where the DNS was down, and is out until then."""
        inspector = self.inspector(BlockList(ZEN))
        self.dns.failing.add(ZEN)
        self.assertIsNone(self.refusal(inspector))
        self.dns.failing.clear()
        self.clock.advance(59)
        self.assertIsNone(self.refusal(inspector))
        self.clock.advance(1)
        self.assertIsNotNone(self.refusal(inspector))

    def test_no_answer_later(self) -> None:
        """One that was sound before stays in use."""
        inspector = self.inspector(BlockList(ZEN))
        self.assertIsNotNone(self.refusal(inspector))
        self.clock.advance(3600)
        self.dns.failing.add(ZEN)
        self.assertIsNone(self.refusal(inspector))
        self.dns.failing.clear()
        self.assertIsNotNone(self.refusal(inspector))


class StartTests(ClientCase):
    """What is found out about lists when the server starts."""

    def lines(self, *seconds: float, **zones: list[str]) -> list[str]:
        """The log of a start, with these answers about addresses of the test."""
        self.dns.zones[ZEN] = zones
        lists = Lists([BlockList(ZEN)], [AllowList(KNOWN)], self.dns, self.clock)
        self.dns.zones[KNOWN] = {"127.0.0.2": ["127.0.10.0"]}
        with capturedLogs() as captured:
            probing = Deferred.fromCoroutine(lists.probe())
            self.clock.pump(seconds)
            self.successResultOf(probing)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return [formatEvent(event) for event in captured]

    def test_sound(self) -> None:
        """Of those nothing is said."""
        self.assertEqual(self.lines(**{"127.0.0.2": ["127.0.0.4"]}), [])
        self.assertEqual(self.lines(**{"127.0.0.2": ["127.0.9.9"]}), [])  # a code of its own

    def test_everything(self) -> None:
        """A list that has every address is left out before the first client comes."""
        line = f"the list {ZEN} is left out: it lists every address"
        self.assertEqual(self.lines(**{"*": ["127.0.0.2"]}), [line])

    def test_nothing(self) -> None:
        """One that does not even have the address for tests may be gone; told of once."""
        line = f"the list {ZEN} does not have 127.0.0.2, as all lists do: does it still exist?"
        self.assertEqual(self.lines(), [line])
        lists = Lists([BlockList(ZEN)], [], self.dns, self.clock)
        with capturedLogs() as captured:
            for _ in range(3):
                self.successResultOf(Deferred.fromCoroutine(lists.probe()))
        self.assertEqual(len(captured), 1)

    def test_no_answer(self) -> None:
        """Nobody waits for it; it is asked again with a client, a minute later."""
        self.dns.failing.add(ZEN)
        (line,) = self.lines()
        self.assertRegex(line, f"^the list {ZEN} does not answer: .*SERVFAIL$")
        self.dns.failing.clear()
        self.dns.silent.add(ZEN)
        expected = f"the list {ZEN} does not answer: no answer within 5 seconds"
        self.assertEqual(self.lines(4.9, 0.2), [expected])


class AnswerTests(SynchronousTestCase):
    """Questions and answers."""

    def test_questions(self) -> None:
        """An address is reversed; one of IPv6 stands for its /64."""
        self.assertEqual(question(ip_address(CLIENT), ZEN), f"1.2.0.192.{ZEN}")
        expected = "0." * 16 + f"2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.{ZEN}"
        self.assertEqual(question(ip_address(SIX), ZEN), expected)

    def test_no_answer(self) -> None:
        """No answer means that the client is not listed."""
        self.assertIs(meaning([], BLOCK_CODES), Answered.NOT_LISTED)

    def test_mixed(self) -> None:
        """One foreign address spoils an answer, and so does a refusal."""
        self.assertIs(meaning(["127.0.0.2", "192.0.2.1"], BLOCK_CODES), Answered.FOREIGN)
        self.assertIs(meaning(["127.0.0.2", "127.255.255.252"], ALLOW_CODES), Answered.REFUSED)

    @given(st.binary(max_size=600))
    def test_texts(self, text: bytes) -> None:
        """A text is one short line of ASCII, whatever a list sends."""
        found = clean(text)
        self.assertLessEqual(len(found), 200)
        self.assertTrue(found.isascii() and (found.isprintable() or not found))


class DoubtTests(SynchronousTestCase):
    """Names that seem to be one of many."""

    def test_dynamic(self) -> None:
        """A name with the address in it, or with a word for a line, is one."""
        for name in (
            "host-192-0-2-1.isp.example",
            "1.2.0.192.isp.example",
            "192000002001.isp.example",
            "c0000201.isp.example",
            "p192-0-2.isp.example",
            "x7.dynamic.isp.example",
            "adsl-7.isp.example",
            "Pool-7.isp.example.",
            "client.dhcp.isp.example",
        ):
            self.assertTrue(looks_dynamic(name, CLIENT), name)
        for name in ("2001-db8-1-2-3-4-5-6.isp.example", "3000400050006.isp.example"):
            self.assertTrue(looks_dynamic(name.replace("3-4-5-6", "0003000400050006"), SIX), name)

    def test_static(self) -> None:
        """Names that people give are none."""
        for name in (
            "mail.example.com",
            "mx1.example.com",
            "mail-192.example.com",
            "o1.ptr2048.mail.example.com",
            "mail-lf1-f41.google.example",
            "mout.kundenserver.example",
            "spool.example.com",
            "mail.dyn",
        ):
            self.assertFalse(looks_dynamic(name, CLIENT), name)
        self.assertFalse(looks_dynamic("mail.example.com", SIX))

    @given(st.text(max_size=40), st.ip_addresses())
    def test_any(self, name: str, address: Any) -> None:
        """Any name can be looked at."""
        looks_dynamic(name, str(address))


class GreylistTests(ClientCase):
    """Greylisting."""

    ALWAYS = Greylist(GreylistWhen.ALWAYS)
    DOUBTFUL = Greylist(GreylistWhen.DOUBTFUL)

    def test_later(self) -> None:
        """A client that comes again after the delay passes, from then on at once."""
        inspector = self.inspector(greylist=self.ALWAYS)
        for seconds, left in ((0.0, 301), (100.0, 201), (199.0, 2)):
            self.clock.advance(seconds)
            expected = Reply(450, "4.7.1", (f"Greylisted, try again in {left} seconds",))
            self.assertEqual(self.refusal(inspector), expected)
        self.clock.advance(1.0)
        for seconds in (0.0, 1.0, 35 * DAY, 35 * DAY):
            self.clock.advance(seconds)
            self.assertIsNone(self.refusal(inspector))
        self.clock.advance(36 * DAY + 1)
        self.assertIsNotNone(self.refusal(inspector))

    def test_told_once(self) -> None:
        """A client that names many recipients is logged once for each of our domains."""
        message = self.begin(self.client(self.inspector(greylist=self.ALWAYS)))
        with capturedLogs() as captured:
            replies = {str(self.rcpt(message, Mailbox(f"b{n}", "b.example"))) for n in range(9)}
        self.assertEqual((len(captured), len(replies)), (1, 1))

    def test_too_late(self) -> None:
        """One that comes again after days begins anew."""
        inspector = self.inspector(greylist=self.ALWAYS)
        self.refusal(inspector)
        self.clock.advance(3 * DAY)
        self.assertIsNotNone(self.refusal(inspector))

    def test_key(self) -> None:
        """Network, domain of the sender and domain of the recipient are what counts."""
        inspector = self.inspector(greylist=self.ALWAYS)
        self.refusal(inspector)
        self.clock.advance(DELAY)
        same = {"client": OTHER}, {"client": CLIENT}
        for session in same:
            message = self.begin(self.client(inspector, **session), Mailbox("other", "A.example"))
            self.assertIsNone(self.rcpt(message, Mailbox("x", "B.example")))
        self.assertIsNotNone(self.refusal(inspector, client="192.0.3.1"))
        self.assertIsNotNone(self.rcpt(self.begin(self.client(inspector), NULL_PATH)))
        message = self.begin(self.client(inspector))
        self.assertIsNotNone(self.rcpt(message, Mailbox("bob", "c.example")))
        self.refusal(inspector, client=SIX)
        self.clock.advance(DELAY)
        self.assertIsNone(self.refusal(inspector, client="2001:db8:1:2::9"))
        self.assertIsNotNone(self.refusal(inspector, client="2001:db8:1:3::9"))

    def test_shared(self) -> None:
        """Processes and restarts share what is known."""
        self.refusal(self.inspector(greylist=self.ALWAYS))
        self.clock.advance(DELAY)
        self.assertIsNone(self.refusal(self.inspector(greylist=self.ALWAYS)))
        self.assertEqual((self.folder / "greylist.sqlite").stat().st_mode & 0o777, 0o600)

    def test_doubtful(self) -> None:
        """Those without a confirmed name of their own, or without SPF, have to wait."""
        self.dns.answers["a.example", RecordType.TXT] = Answer([b"v=spf1 ?all"])
        inspector = self.inspector(greylist=self.DOUBTFUL)
        self.assertTrue(inspector.needs_name)
        for session, record, waits in (
            ({"name": "mx.a.example"}, b"v=spf1 ?all", False),
            ({"name": ""}, b"v=spf1 ?all", True),
            ({"name": "192-0-2-1.isp.example"}, b"v=spf1 ?all", True),
            ({"name": "mx.a.example"}, b"v=spf1 -all", True),
            ({"name": "mx.a.example"}, b"v=spf1 ~all", True),
            ({"name": "mx.a.example"}, b"no record", True),
            ({"name": ""}, b"v=spf1 ip4:192.0.2.0/24 -all", False),
        ):
            self.dns.answers["a.example", RecordType.TXT] = Answer([record])
            found = self.refusal(inspector, **session)
            self.assertEqual(found is not None, waits, (session, record))

    def test_always(self) -> None:
        """Always means not those whom SPF or an allow list vouches for."""
        inspector = self.inspector(greylist=self.ALWAYS)
        self.dns.answers["a.example", RecordType.TXT] = Answer([b"v=spf1 ip4:192.0.2.1"])
        self.assertIsNone(self.refusal(inspector))
        self.dns.answers.clear()
        self.dns.zones[KNOWN] = {CLIENT: ["127.0.5.1"]}
        inspector = self.inspector(allow=[AllowList(KNOWN)], greylist=self.ALWAYS)
        self.assertIsNone(self.refusal(inspector))
        self.assertIsNotNone(self.refusal(inspector, client=OTHER))

    def test_by_a_list(self) -> None:
        """A list can say who has to wait, where others never have to."""
        block = BlockList(ZEN, action=ListAction.GREYLIST)
        inspector = self.inspector(block, greylist=Greylist())
        self.assertIsNotNone(self.refusal(inspector))
        self.assertIsNone(self.refusal(inspector, client=OTHER))
        self.clock.advance(DELAY)
        self.assertIsNone(self.refusal(inspector))

    def test_silent_dns(self) -> None:
        """Where SPF gets no answer in time, the name decides."""
        self.dns.zones["a.example"] = {}
        self.dns.silent.add("a.example")
        sender = Mailbox("alice", "x.a.example")
        inspector = self.inspector(greylist=self.DOUBTFUL)
        for name in ("mx.a.example", ""):
            message = self.begin(self.client(inspector, name=name), sender)
            asked = Deferred.fromCoroutine(message.recipient(Recipient(BOB)))
            self.clock.advance(9.9)
            self.assertNoResult(asked)
            self.clock.advance(0.2)
            self.assertEqual(self.result(asked) is not None, name == "")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_damaged(self) -> None:
        """A file that can't be used is no reason to refuse mail: the log tells of it."""
        (self.folder / "greylist.sqlite").write_bytes(b"this is not a database" * 100)
        inspector = self.inspector(greylist=self.ALWAYS)
        with capturedLogs() as captured:
            self.assertIsNone(self.refusal(inspector))
        (line,) = [formatEvent(each) for each in captured]
        self.assertIn("file is not a database: stop the server, remove the file", line)

    def test_bounded(self) -> None:
        """The table has a bound; those that never came back are forgotten before others."""
        self.patch(forms, "MAX_ROWS", 20)
        self.patch(forms, "SPARED_ROWS", 5)
        self.patch(greylist_table, "CHECK_EVERY", 1)
        table = GreylistTable(TableFolder(self.folder), self.clock.seconds, maybeDeferred)

        def wait(name: str) -> float:
            return self.successResultOf(table.wait(name, DELAY, KEEP))

        wait("known")
        self.clock.advance(DELAY)
        self.assertEqual(wait("known"), 0)
        for number in range(100):
            self.clock.advance(1)
            wait(f"{number}")
        self.assertEqual(wait("known"), 0)
        self.assertEqual(wait("99"), DELAY)
        (rows,) = table._work.tables.change(
            lambda each: each.execute("SELECT count(*) FROM client").fetchone()
        )
        self.assertLessEqual(rows, 20)

    def test_clock_set_back(self) -> None:
        """A clock that was set back makes no client wait for longer than the delay."""
        table = GreylistTable(TableFolder(self.folder), lambda: 1000.0, maybeDeferred)
        self.successResultOf(table.wait("x", DELAY, KEEP))
        table = GreylistTable(TableFolder(self.folder), lambda: 0.0, maybeDeferred)
        self.assertEqual(self.successResultOf(table.wait("x", DELAY, KEEP)), DELAY)
