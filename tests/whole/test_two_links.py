"""A provider and a customer with two links: small mail does not wait for large mail."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mta.mail import Envelope, Recipient
from mta.queue.held_source import BATCH_SIZE, MAX_SMALL
from mta.session import UNKNOWN_ORIGIN, LinkKind
from mta.settings import HOUR
from mta.testing import ConnectionPair
from tests.sides import ALICE, BOB, CAROL, sides

LARGE = b"large\r\n" * MAX_SMALL


class TwoLinksTests(SynchronousTestCase):
    """Both links stand."""

    def setUp(self) -> None:
        self.make()

    def make(self, linger: float = HOUR, links: int = 2) -> None:
        """The two."""
        self.provider, self.office = sides(linger=linger, every=HOUR, links=links)
        self.office.customer.keep_up([self.office.peer])
        self.office.dialler.carry()

    def tearDown(self) -> None:
        self.office.dialler.cut()

    @property
    def wires(self) -> list[ConnectionPair]:
        """The connections so far: the main link, and the quick one."""
        return self.office.dialler.wires

    def stalled_by_large_mail(self) -> None:
        """Large mail is under way on the main link, which carries nothing."""
        self.wires[0].is_dead = True
        self.provider.take(BOB, LARGE)
        self.office.dialler.carry()

    def test_known_by_kind(self) -> None:
        """Neither takes over from the other, and each is found."""
        links = self.provider.provider.links
        kinds = [len(links.of("office", kind)) for kind in LinkKind]
        self.assertEqual(([wire.is_cut for wire in self.wires], kinds), ([False, False], [1, 1]))
        self.provider.clock.advance(100)
        self.assertEqual(len(self.wires), 2)

    def test_the_main_link_alone_has_mail(self) -> None:
        """While nothing hinders it."""
        carried = self.wires[1].carried
        self.provider.take(BOB, b"at once\r\n")
        self.office.dialler.carry()
        self.assertEqual((self.office.bodies, self.wires[1].carried), ([b"at once\r\n"], carried))

    def test_small_mail_passes_large_mail(self) -> None:
        """What came a moment ago, what another process took, and what was leased before."""
        self.stalled_by_large_mail()
        self.provider.take(BOB, b"small\r\n")
        self.office.dialler.carry()
        self.provider.put(BOB, b"by another process\r\n")
        self.office.dialler.carry()
        self.assertEqual(self.office.bodies, [b"small\r\n", b"by another process\r\n"])

    def test_much_small_mail(self) -> None:
        """All of it, more than is leased at a time."""
        self.stalled_by_large_mail()
        bodies = [b"%d\r\n" % number for number in range(3 * BATCH_SIZE)]
        for body in bodies:
            self.provider.put(BOB, body)
        self.office.dialler.carry()
        self.assertEqual(sorted(self.office.bodies), sorted(bodies))

    def test_large_mail_waits(self) -> None:
        """It goes on the main link alone, when that can carry again."""
        self.stalled_by_large_mail()
        self.provider.take(BOB, LARGE + b"second\r\n")
        self.office.dialler.carry()
        self.assertEqual(self.office.bodies, [])
        self.wires[0].is_dead = False
        self.office.dialler.carry()
        self.assertEqual(self.office.bodies, [LARGE, LARGE + b"second\r\n"])

    def test_mail_that_was_leased_when_it_became_busy(self) -> None:
        """A batch that begins with large mail: the rest of it need not wait."""
        self.wires[0].is_dead = True
        for body in (LARGE, b"1\r\n", b"2\r\n"):
            envelope = Envelope(ALICE, (Recipient(BOB),))
            self.provider.spool.add(envelope, b"Subject: test\r\n\r\n" + body, UNKNOWN_ORIGIN)
        self.provider.runner.wake()
        self.office.dialler.carry()
        self.assertEqual(self.office.bodies, [b"1\r\n", b"2\r\n"])

    def test_the_main_link_breaks(self) -> None:
        """What is under way on the quick one is not sent again."""
        self.stalled_by_large_mail()
        self.wires[1].is_dead = True
        self.provider.take(BOB, b"small\r\n")
        self.wires[0].cut()
        self.wires[1].is_dead = False
        self.office.dialler.carry()
        self.provider.clock.advance(2)
        self.office.dialler.carry()
        self.assertEqual(self.office.bodies, [b"small\r\n", LARGE])

    def test_the_quick_link_breaks(self) -> None:
        """What was under way on it goes on the main one."""
        self.stalled_by_large_mail()
        self.wires[1].is_dead = True
        self.provider.take(BOB, b"small\r\n")
        self.office.dialler.carry()
        self.wires[1].cut()
        self.wires[0].is_dead = False
        for _ in range(60):
            self.provider.clock.advance(1)
            self.office.dialler.carry()
        self.assertEqual(self.office.bodies, [LARGE, b"small\r\n"])
        self.assertEqual([wire.is_cut for wire in self.wires], [False, True, False])

    def test_mail_of_the_office(self) -> None:
        """It goes on a connection of its own, as with one link."""
        self.office.take(CAROL, b"out\r\n")
        self.office.dialler.carry()
        self.assertEqual(self.provider.bodies, [b"out\r\n"])
        self.assertEqual(len(self.wires), 3)
        self.assertEqual([wire.is_cut for wire in self.wires[:2]], [False, False])

    def test_one_link(self) -> None:
        """It is what there is without a setting."""
        self.make(links=1)
        self.assertEqual(len(self.wires), 1)

    def test_a_provider_that_holds_no_link(self) -> None:
        """The quick link is given up, and tried again ever more seldom; the mail goes."""
        self.make(linger=0.0)
        self.provider.put(BOB, b"in\r\n")
        self.assertEqual([wire.is_cut for wire in self.wires], [True, True])
        for _ in range(60):
            self.provider.clock.advance(1)
            self.office.dialler.carry()
        self.assertLess(len(self.wires), 10)

    def test_the_end(self) -> None:
        """Both end with the service."""
        stopping = Deferred.fromCoroutine(self.office.customer.stop(1.0))
        self.office.dialler.carry()
        self.successResultOf(stopping)
        self.assertEqual([wire.is_cut for wire in self.wires], [True, True])
