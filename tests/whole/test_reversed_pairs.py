"""Our provider against our customer, in memory: nothing is lost, wherever the connection breaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mta.interfaces import IRole
from mta.link import Link
from mta.mail import Reply
from mta.peers.customer import OWN_LINGER
from mta.peers.tally import Tally
from mta.queued import HopFailure
from mta.session import Session
from mta.settings import HOUR, Service
from mta.smtp.receiver import Receiver
from mta.testing import ConnectionPair, FakeReversal, GreetingRole, MemorySpool, MemoryTransport
from tests.conversations import receiver_config
from tests.sides import BOB, CAROL, CustomerSide, ProviderSide, sides

IN = [b"to the office %d\r\n" % number for number in range(4)]
OUT = [b"from the office %d\r\n" % number for number in range(3)]


class PairTests(SynchronousTestCase):
    """Two servers, mail for both directions waiting."""

    provider: ProviderSide
    office: CustomerSide
    origin = "off"

    def make(self, method: str = "atrn", linger: float = 0.0, every: float = 0.0) -> None:
        """The two, with mail."""
        self.provider, self.office = sides(method, linger, every, origin=self.origin)
        for body in IN:
            self.provider.put(BOB, body)
        for body in OUT:
            self.office.put(CAROL, body)

    def tearDown(self) -> None:
        self.office.dialler.cut()

    def exchange(self) -> Tally:
        """One whole exchange."""
        exchange = self.office.exchange()
        self.office.dialler.carry()
        return self.successResultOf(exchange)

    def advance(self, seconds: float) -> None:
        """Let time pass, second by second, while the connections carry what there is."""
        for _ in range(round(seconds)):
            self.provider.clock.advance(1)
            self.office.dialler.carry()

    @property
    def wires(self) -> list[ConnectionPair]:
        """The connections so far."""
        return self.office.dialler.wires


class ExchangeTests(PairTests):
    """An exchange that nothing disturbs."""

    def test_both_methods(self) -> None:
        """Mail goes both ways on one connection, oldest first, and is counted."""
        for method in ("atrn", "turn"):
            self.make(method)
            tally = self.exchange()
            self.assertEqual((tally.sent, tally.received, tally.lost), (3, 4, False))
            self.assertEqual((self.office.bodies, self.provider.bodies), (IN, OUT))
            self.assertEqual((self.provider.spool.messages, self.office.spool.messages), ([], []))
            self.assertEqual(len(self.wires), 1)

    def test_again(self) -> None:
        """The next exchange finds nothing: 453 to ATRN, and a turn for nothing with TURN."""
        for method, turned in (("atrn", False), ("turn", True)):
            self.make(method)
            self.exchange()
            tally = self.exchange()
            self.assertEqual((tally.sent, tally.received, tally.turned), (0, 0, turned))
            self.assertEqual([reply.code for reply in tally.replies], [250 if turned else 453])

    def test_records(self) -> None:
        """Both sides note what became of it, and the link while it stands."""
        self.make()
        exchange = self.office.exchange()
        while self.office.status.links + self.provider.status.links < 2:
            self.assertTrue(self.wires[0].carry())
        self.office.dialler.carry()
        self.successResultOf(exchange)
        for side, sent, received in ((self.office, 3, 4), (self.provider, 4, 0)):
            notes = side.status.notes
            self.assertEqual(side.status.links, 0)
            self.assertEqual((notes["sent"], notes["received"]), (sent, received))
            self.assertEqual(notes["last_error"], "")
            [ended] = side.status.exchanges
            self.assertEqual((ended.sent, ended.received, ended.error), (sent, received, ""))

    def test_one_change_of_roles(self) -> None:
        """Whoever has the receiver's role after the turn refuses another one."""
        self.make("turn")
        exchange = self.office.exchange()
        wire = self.wires[0]
        while not self.office.status.links:
            self.assertTrue(wire.carry())
        for command in (b"EHLO x\r\n", b"TURN\r\n", b"ATRN\r\n", b"STARTTLS\r\n"):
            wire.client.dataReceived(command)
        said = b"".join(wire.said_by_client())
        self.assertNotIn(b"TURN", said.split(b"250 HELP")[0])
        self.assertEqual(
            [line[:3] for line in said.split(b"\r\n")[-4:-1]], [b"502", b"502", b"503"]
        )
        wire.cut()
        self.successResultOf(exchange)


class CutTests(PairTests):
    """The connection breaks after every write that there is."""

    def cut_after(self, method: str, writes: int) -> bool:
        """One exchange, cut after so many writes, and then others; whether there were so many."""
        self.make(method)
        exchange = self.office.exchange()
        wire = self.wires[0]
        while wire.carried < writes:
            if not wire.carry():
                return False
            self.provider.clock.advance(0)
        unseen = self.unseen()
        wire.cut()
        self.office.dialler.carry()  # another connection, where this one broke over our mail
        exchange.addErrback(lambda failure: failure.trap(HopFailure))
        self.successResultOf(exchange)
        for side in (self.office, self.provider):
            side.clock.advance(1)
        self.exchange()
        self.assertEqual((self.provider.spool.messages, self.office.spool.messages), ([], []))
        expected = Counter(IN) + Counter(OUT)
        arrived = Counter(self.office.bodies) + Counter(self.provider.bodies)
        self.assertEqual(expected - arrived, Counter(), f"{method}, {writes} writes")
        self.assertLessEqual(arrived - expected, unseen, f"{method}, {writes} writes")
        return True

    def unseen(self) -> Counter[bytes]:
        """The messages that one side has taken, where the other has not seen the 250."""
        office, provider = self.office, self.provider
        return (Counter(provider.waiting()) & Counter(office.bodies)) + (
            Counter(office.waiting()) & Counter(provider.bodies)
        )

    def cut_everywhere(self, method: str) -> None:
        """Cut after no write, after one, and so on to the last one."""
        writes = 0
        while self.cut_after(method, writes):
            writes += 1
        self.assertGreater(writes, 20)

    def test_atrn(self) -> None:
        """No message is lost; only one whose 250 was not seen comes twice."""
        self.cut_everywhere("atrn")

    def test_turn(self) -> None:
        """The same with TURN."""
        self.cut_everywhere("turn")


class KnownAgainTests(CutTests):
    """The same where the customer trusts the provider's word for origins, and so for ids."""

    origin = "trust"

    def unseen(self) -> Counter[bytes]:
        """Only mail of the customer's may come twice: it knows again what it has taken."""
        return Counter(self.office.waiting()) & Counter(self.provider.bodies)


class HeldLinkTests(PairTests):
    """The provider holds the link: nothing but silence and NOOP, until mail comes."""

    def setUp(self) -> None:
        self.make(linger=HOUR, every=HOUR)
        self.office.customer.keep_up([self.office.peer])
        self.office.dialler.carry()
        self.assertEqual((self.office.bodies, self.provider.bodies), (IN, OUT))

    def test_mail_goes_out_at_once(self) -> None:
        """Mail that came in here, and mail that another process put into the spool."""
        self.provider.take(BOB, b"at once\r\n")
        self.office.dialler.carry()
        self.provider.put(BOB, b"by another process\r\n")
        self.office.dialler.carry()
        self.assertEqual(self.office.bodies[4:], [b"at once\r\n", b"by another process\r\n"])
        self.assertEqual((len(self.wires), self.provider.clock.seconds() % 60), (1, 20.0))

    def test_mail_of_the_office_goes_out_at_once(self) -> None:
        """On a second connection, which stays for more, and ends; the first one stays."""
        self.office.take(CAROL, b"at once\r\n")
        self.office.dialler.carry()
        self.assertEqual(self.provider.bodies[3:], [b"at once\r\n"])
        self.advance(OWN_LINGER - 1)
        self.office.take(CAROL, b"on the same\r\n")
        self.office.dialler.carry()
        self.office.put(CAROL, b"by another process\r\n")
        self.office.dialler.carry()
        more = [b"on the same\r\n", b"by another process\r\n"]
        self.assertEqual(self.provider.bodies[4:], more)
        self.assertEqual([wire.is_cut for wire in self.wires], [False, False])
        self.advance(OWN_LINGER + 1)
        self.assertEqual([wire.is_cut for wire in self.wires], [False, True])
        self.office.take(CAROL, b"on a third\r\n")
        self.office.dialler.carry()
        self.assertEqual(self.provider.bodies[6:], [b"on a third\r\n"])

    def test_the_second_connection_breaks(self) -> None:
        """While it waits for more: what comes then goes out on another."""
        self.office.take(CAROL, b"at once\r\n")
        self.office.dialler.carry()
        self.wires[1].cut()
        self.office.take(CAROL, b"later\r\n")
        self.advance(5)
        self.assertEqual(self.provider.bodies[3:], [b"at once\r\n", b"later\r\n"])
        self.assertEqual([wire.is_cut for wire in self.wires], [False, True, False])

    def test_keepalive(self) -> None:
        """A NOOP each minute, and the link stays."""
        carried = self.wires[0].carried
        self.advance(180)
        self.assertEqual((self.wires[0].carried - carried, len(self.wires)), (6, 1))

    def test_the_round_trip(self) -> None:
        """The provider notes that of EHLO, and of a NOOP that took longer or less long."""
        self.assertEqual(self.provider.status.notes["round_trip"], 0.0)
        for delay, noted in ((0.2, 0.2), (0.21, 0.2), (0.1, 0.1)):
            self.advance(59)
            self.provider.clock.advance(1)
            self.provider.clock.advance(delay)
            self.office.dialler.carry()
            self.assertAlmostEqual(self.provider.status.notes["round_trip"], noted, 3)

    def test_the_round_trip_at_the_office(self) -> None:
        """The office notes that of its own EHLO, at each call."""
        self.assertEqual(self.office.status.notes["round_trip"], 0.0)

    def test_refused_by_the_office(self) -> None:
        """It is counted, each message once."""
        self.office.router.refusals["bob@office.example"] = Reply(550, "5.1.1", ("No such user",))
        for body in (b"one\r\n", b"two\r\n"):
            self.provider.take(BOB, body)
        self.office.dialler.carry()
        self.assertEqual(self.provider.meter.counted, [("office", "refused")] * 2)

    def test_a_dead_link(self) -> None:
        """The provider gives up a link on which NOOP has no answer; its mail waits for the next."""
        self.wires[0].is_dead = True
        self.advance(60 + 31)
        self.assertEqual(self.provider.status.links, 0)
        self.provider.take(BOB, b"later\r\n")
        self.assertEqual(self.provider.waiting(), [b"later\r\n"])
        self.advance(300)
        self.assertEqual(self.office.bodies[4:], [b"later\r\n"])
        self.assertEqual(len(self.wires), 2)

    def test_the_office_gives_a_dead_link_up(self) -> None:
        """It knows when a NOOP is due, and dials again when two have not come."""
        self.wires[0].is_dead = True
        self.advance(149)
        self.assertEqual((self.office.status.links, len(self.wires)), (1, 1))
        self.advance(3)
        self.assertIn("the link is dead", self.office.status.errors["provider"][-1])
        self.provider.take(BOB, b"later\r\n")
        self.advance(5)
        self.assertEqual(self.office.bodies[4:], [b"later\r\n"])

    def test_mail_on_a_dead_link(self) -> None:
        """What went out on it goes out on the next link, soon after that stands."""
        self.wires[0].is_dead = True
        self.provider.take(BOB, b"into the void\r\n")
        self.assertEqual(self.provider.waiting(), [b"into the void\r\n"])
        second = self.office.exchange()
        self.advance(11)
        self.assertEqual(self.office.bodies[4:], [b"into the void\r\n"])
        self.assertTrue(self.wires[0].is_closed_by_server)
        self.wires[1].cut()
        self.assertTrue(self.successResultOf(second).lost)

    def test_a_second_link_takes_over(self) -> None:
        """The first one ends as after its last message, and new mail goes out on the second."""
        second = self.office.exchange()
        self.office.dialler.carry()
        self.assertEqual([wire.is_cut for wire in self.wires], [True, False])
        self.provider.take(BOB, b"on the second\r\n")
        self.office.dialler.carry()
        self.assertEqual(self.office.bodies[4:], [b"on the second\r\n"])
        self.wires[1].cut()
        self.assertTrue(self.successResultOf(second).lost)

    def test_dialled_again(self) -> None:
        """A held link that broke is set up anew within about a second."""
        self.advance(20)
        self.wires[0].cut()
        self.advance(2)
        self.assertEqual(len(self.wires), 2)
        self.assertEqual((self.office.status.links, self.provider.status.links), (1, 1))

    def test_the_end_of_linger(self) -> None:
        """The provider ends the link; a customer that was held so long comes again at once."""
        self.advance(3600)
        self.assertTrue(self.wires[0].is_cut)
        self.advance(2)
        self.assertEqual([wire.is_cut for wire in self.wires], [True, False])

    def test_the_office_stops(self) -> None:
        """It says 421, and that is no trouble for the provider."""
        stopping = Deferred.fromCoroutine(self.office.customer.stop(10.0))
        self.office.dialler.carry()
        self.successResultOf(stopping)
        self.assertTrue(self.wires[0].is_cut)
        self.assertEqual(self.provider.status.notes["last_error"], "")
        self.advance(7200)
        self.assertEqual(len(self.wires), 1)

    def test_a_reply_to_nothing(self) -> None:
        """Whoever answers before it is asked can't be trusted with mail: the link ends."""
        self.wires[0].server.dataReceived(b"250 OK\r\n")
        self.assertTrue(self.wires[0].is_closed_by_server)
        self.assertIn("a reply to nothing", str(self.provider.status.notes["last_error"]))

    def test_the_office_is_told_to_stop_and_the_link_is_dead(self) -> None:
        """It waits no longer than it may."""
        self.wires[0].is_dead = True
        self.office.take(CAROL, b"x\r\n")
        stopping = Deferred.fromCoroutine(self.office.customer.stop(10.0))
        self.assertNoResult(stopping)
        self.provider.clock.advance(10)
        self.successResultOf(stopping)


class SlowReversal(FakeReversal):
    """Takes its time over ATRN."""

    def __init__(self) -> None:
        self.looked: Deferred[None] = Deferred()

    async def atrn(self, session: Session, domains: Sequence[str]) -> IRole:
        """See `IReversal`."""
        await self.looked
        return GreetingRole()


class EmptyBufferTests(SynchronousTestCase):
    """What comes before the 250 to ATRN can't be a reply to us."""

    def test_while_the_spool_is_looked_into(self) -> None:
        """503, and the roles stay, though nothing had come when ATRN did."""
        reversal, transport = SlowReversal(), MemoryTransport()
        shared = receiver_config(MemorySpool(), service=Service.SUBMISSION, reversal=reversal)
        link = Link(Receiver(shared), Clock())
        link.makeConnection(transport)
        link.dataReceived(b"EHLO x.example\r\n")
        link.dataReceived(b"ATRN\r\n")
        transport.taken()
        link.dataReceived(b"220 forged\r\n")
        reversal.looked.callback(None)
        replies = transport.taken().split(b"\r\n")
        self.assertEqual([reply[:3] for reply in replies], [b"503", b"500", b""])
