"""A relay that asks an office about its mailboxes, in memory and on one fake clock."""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mta.access import AccessPolicy
from mta.access.counters import Counters
from mta.access.live_recipients import AnswerSources, LiveRecipients
from mta.link import Link
from mta.mail import Reply
from mta.peer_settings import Unknown, Verify
from mta.peers.link_questions import MAX_QUESTIONS, TIMEOUT
from mta.peers.peer_questions import PeerQuestions
from mta.queue.held_source import MAX_SMALL
from mta.session import LinkKind
from mta.settings import HOUR, Limits, Relay, Service
from mta.smtp import replies
from mta.smtp.receiver import Receiver
from mta.testing import ConnectionPair, FakeInspector, MemoryTransport
from tests.access.test_live_recipients import Sources
from tests.sides import BOB, sides

LARGE = b"large\r\n" * MAX_SMALL


class Client:
    """A client that says MAIL and RCPT to the relay."""

    def __init__(self, link: Link, clock: Clock) -> None:
        self._link = link
        self._clock = clock
        self._transport = MemoryTransport()
        link.makeConnection(self._transport)
        self.say("EHLO client.example", "MAIL FROM:<alice@client.example>")
        self.heard()

    def say(self, *lines: str) -> None:
        """Send commands."""
        self._link.dataReceived("".join(f"{line}\r\n" for line in lines).encode())

    def rcpt(self, *local_parts: str) -> None:
        """Send RCPT for mailboxes of the office."""
        self.say(*(f"RCPT TO:<{each}@office.example>" for each in local_parts))
        self._clock.advance(0)

    def heard(self) -> list[str]:
        """The beginning of each reply since the last time."""
        lines = self._transport.taken().decode().splitlines()
        return [line[:9] for line in lines if line[3:4] == " "]


class LiveTests(SynchronousTestCase):
    """The office has one link, or two, and no mailbox of the name nobody."""

    links = 1

    def setUp(self) -> None:
        self.sources = Sources()
        self.inspector = FakeInspector()
        self.provider, self.office = sides(
            linger=HOUR,
            every=HOUR,
            links=self.links,
            verify=Verify.LIVE,
            inspectors=[self.inspector],
        )
        self.office.router.refusals["nobody@office.example"] = replies.NO_SUCH_USER
        self.unknown = Unknown.ACCEPT
        self.office.customer.keep_up([self.office.peer])
        self.carry()

    def tearDown(self) -> None:
        self.office.dialler.cut()

    @property
    def wires(self) -> list[ConnectionPair]:
        """The connections of the office."""
        return self.office.dialler.wires

    def carry(self) -> None:
        """Carry all there is."""
        self.office.dialler.carry()

    def client(self, errors: int = 20) -> Client:
        """A client of the relay."""
        provider, clock = self.provider, self.provider.clock
        peer = replace(provider.peer, unknown=self.unknown)
        questions = PeerQuestions(provider.provider.links, clock)
        live = LiveRecipients(
            {"office.example": peer},
            AnswerSources(questions, self.sources, self.sources),
            self.sources,  # type: ignore[arg-type]
        )
        access = AccessPolicy(
            Relay(()), Limits(), [peer], provider.router, None, Counters(clock), None, live
        )
        limits = replace(Limits(), errors=errors, greet_delay=0.0)
        config = replace(
            provider.config, access=access, service=Service.SMTP, limits=limits, reversal=None
        )
        return Client(Link(Receiver(config), clock), clock)

    def test_each_answer(self) -> None:
        """Yes is 250, no is 550 in our own words, and anything else is taken."""
        refusals = self.office.router.refusals
        refusals["full@office.example"] = Reply(452, "4.2.2", ("inner.office.lan: full",))
        refusals["barred@office.example"] = Reply(550, "5.7.1", ("inner.office.lan: barred",))
        refusals["gone@office.example"] = Reply(550, "5.1.1", ("inner.office.lan: gone",))
        client = self.client()
        client.rcpt("bob", "nobody", "full", "barred", "gone")
        self.carry()
        self.assertEqual(
            client.heard(), ["250 2.1.5", "550 5.1.1", "250 2.1.5", "250 2.1.5", "550 5.1.1"]
        )
        self.assertEqual(
            [source for _, source in self.sources.counted],
            ["link", "link", "link", "unknown", "link"],
        )

    def test_the_words_are_ours(self) -> None:
        """Nothing of the office's reply is shown."""
        self.office.router.refusals["bob@office.example"] = Reply(550, "5.1.1", ("lan.inner",))
        client = self.client()
        client.rcpt("bob")
        self.carry()
        text = client._transport.taken().decode()
        self.assertEqual(text, f"550 5.1.1 {replies.NO_SUCH_USER.text}\r\n")

    def test_a_new_mailbox_is_known_at_once(self) -> None:
        """Once it was not asked for before."""
        del self.office.router.refusals["nobody@office.example"]
        client = self.client()
        client.rcpt("nobody")
        self.carry()
        self.assertEqual(client.heard(), ["250 2.1.5"])

    def test_remembered(self) -> None:
        """The second time nothing crosses the link."""
        for _ in range(2):
            client = self.client()
            client.rcpt("bob", "nobody")
            self.carry()
            self.assertEqual(client.heard(), ["250 2.1.5", "550 5.1.1"])
            carried = sum(wire.carried for wire in self.wires)
        self.assertEqual(sum(wire.carried for wire in self.wires), carried)
        self.assertEqual(
            [source for _, source in self.sources.counted], ["link"] * 2 + ["cache"] * 2
        )

    def test_many_sessions(self) -> None:
        """What they ask at one moment goes together; each has its own answer."""
        carried = sum(wire.carried for wire in self.wires)
        clients = [self.client() for _ in range(30)]
        for number, client in enumerate(clients):
            name = "nobody" if number % 3 == 0 else f"m{number}"
            client.say(f"RCPT TO:<{name}@office.example>")
        self.provider.clock.advance(0)
        self.carry()
        for number, client in enumerate(clients):
            self.assertEqual(client.heard(), ["550 5.1.1" if number % 3 == 0 else "250 2.1.5"])
        self.assertLess(sum(wire.carried for wire in self.wires) - carried, 10)

    def test_nothing_is_counted_or_looked_at(self) -> None:
        """A question makes no message at the office, and shows nothing to its inspectors."""
        self.test_each_answer()
        self.assertEqual(self.office.spool.messages, [])
        self.assertEqual(set(self.inspector.asked), {"connected", "hello"})
        self.provider.take(BOB, b"a message\r\n")
        self.carry()
        self.assertIn("message", self.inspector.asked)

    def test_a_dictionary_attack(self) -> None:
        """Unknown names count as errors, from the link and from memory: 421 in the end."""
        client = self.client(errors=5)
        for number in range(7):
            name = f"guess{number}"
            self.office.router.refusals[f"{name}@office.example"] = replies.NO_SUCH_USER
            client.rcpt(name)
            self.carry()
        self.assertEqual(client.heard()[-1][:3], "421")
        self.assertLess(len(self.sources.asked or self.sources.kept), 7)

    def test_no_link(self) -> None:
        """The list, or else the rule."""
        self.office.dialler.cut()
        client = self.client()
        for self.sources.list, reply in (
            (None, "250 2.1.5"),
            (True, "250 2.1.5"),
            (False, "550 5.1.1"),
        ):
            client.rcpt("bob")
            self.assertEqual(client.heard(), [reply])
        self.unknown, self.sources.list = Unknown.DEFER, None
        client = self.client()
        client.rcpt("bob")
        self.assertEqual(client.heard(), ["450 4.1.1"])

    def test_the_link_breaks(self) -> None:
        """What was asked has no answer, at once."""
        for wire in self.wires:
            wire.is_dead = True
        client = self.client()
        client.rcpt("bob")
        self.assertEqual(client.heard(), [])
        self.office.dialler.cut()
        self.assertEqual(client.heard(), ["250 2.1.5"])
        self.assertEqual(self.sources.counted, [("office", "unknown")])

    def test_a_silent_office(self) -> None:
        """Three seconds are waited once; then it is not asked until it has answered."""
        for wire in self.wires:
            wire.is_dead = True
        first, second = self.client(), self.client()
        first.rcpt("bob")
        self.provider.clock.advance(TIMEOUT - 0.1)
        self.assertEqual(first.heard(), [])
        self.provider.clock.advance(0.2)
        self.assertEqual(first.heard(), ["250 2.1.5"])
        second.rcpt("bob2")
        self.provider.clock.advance((self.links - 1) * TIMEOUT)  # for the second link
        second.rcpt("bob3")
        self.assertEqual(second.heard(), ["250 2.1.5"] * 2)
        for wire in self.wires:
            wire.is_dead = False
        self.carry()
        second.rcpt("nobody")
        self.carry()
        self.assertEqual(second.heard(), ["550 5.1.1"])

    def test_bounded(self) -> None:
        """Questions that an office leaves open are so many at most."""
        for wire in self.wires:
            wire.is_dead = True
        clients = [self.client() for _ in range(3)]
        for number in range(MAX_QUESTIONS // 500 + 1):
            for client in clients:
                client.rcpt(f"a{number}")
        link = self.provider.provider.links.newest("office", LinkKind.MAIN)
        assert link is not None
        self.assertLessEqual(len(link.questions._asked), MAX_QUESTIONS)


class BusyLinkTests(LiveTests):
    """With two links: the same, and more."""

    links = 2

    def test_a_busy_link(self) -> None:
        """Large mail on the main link delays no question."""
        self.wires[0].is_dead = True
        self.provider.take(BOB, LARGE)
        self.carry()
        client = self.client()
        client.rcpt("bob", "nobody")
        self.carry()
        self.assertEqual(client.heard(), ["250 2.1.5", "550 5.1.1"])

    def test_a_quick_link_that_is_silent(self) -> None:
        """The main one is asked then."""
        self.wires[1].is_dead = True
        client = self.client()
        client.rcpt("bob")
        self.provider.clock.advance(TIMEOUT + 0.1)
        self.assertEqual(client.heard(), ["250 2.1.5"])
        client.rcpt("nobody")
        self.carry()
        self.assertEqual(client.heard(), ["550 5.1.1"])


class OneBusyLinkTests(LiveTests):
    """With one link, which large mail keeps busy."""

    def test_a_busy_link(self) -> None:
        """The question waits for three seconds, and what comes then is answered behind the mail."""
        self.wires[0].is_dead = True
        self.provider.take(BOB, LARGE)
        self.carry()
        client = self.client()
        client.rcpt("nobody")
        self.provider.clock.advance(TIMEOUT + 0.1)
        self.assertEqual(client.heard(), ["250 2.1.5"])
        self.wires[0].is_dead = False
        self.carry()
        self.assertEqual(self.office.bodies, [LARGE])
        client.rcpt("nobody")
        self.carry()
        self.assertEqual(client.heard(), ["550 5.1.1"])
