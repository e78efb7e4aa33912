"""The loop that dials a peer: when, how often, and what it does after failures."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mta.mail import Agent, Hop
from mta.peers.dial_loop import LINGERED, LONG_LINK, MAX_PAUSE, DialLoop
from mta.peers.exchange import ExchangeFailed
from mta.peers.interfaces import IExchanges
from mta.peers.tally import Tally
from mta.queued import HopFailure
from mta.settings import DAY, HOUR, Peer
from tests.sides import REFUSED

PROVIDER = Peer("provider", ("office.example",), connect=Hop(Agent.SMTP, "p.example"), every=300.0)


@implementer(IExchanges)
class DialLoopTests(SynchronousTestCase):
    """A loop whose exchanges the test ends, and a clock that it moves."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.exchanges: list[Deferred[Tally]] = []
        self.next_tries: list[float] = []
        self.sent = 0
        self.send_failure: HopFailure | None = None
        self.loop = self.make(PROVIDER)
        self.loop.start()

    def make(self, peer: Peer) -> DialLoop:
        """A loop without chance."""
        return DialLoop(peer, self, self.clock, lambda: 0.5)

    def exchange(self, peer: Peer) -> Awaitable[Tally]:
        """See `IExchanges.exchange`."""
        self.exchanges.append(Deferred())
        return self.exchanges[-1]

    async def send_held(self, peer: Peer) -> None:
        """See `IExchanges.send_held`."""
        self.sent += 1
        if self.send_failure:
            raise self.send_failure

    def note_next_try(self, peer: Peer, seconds: float) -> None:
        """See `IExchanges.note_next_try`."""
        self.next_tries.append(seconds)

    def end(self, **tally: object) -> None:
        """The exchange under way ends well."""
        self.exchanges[-1].callback(Tally(**tally))  # type: ignore[arg-type]

    def pause(self) -> float:
        """Seconds until the next exchange begins."""
        count, began = len(self.exchanges), self.clock.seconds()
        while len(self.exchanges) == count:
            self.clock.advance(0.5)
        return self.clock.seconds() - began

    def fail(self) -> None:
        """The exchange under way fails."""
        self.exchanges[-1].errback(HopFailure(REFUSED))

    def test_every_so_often(self) -> None:
        """An exchange begins `every` seconds after the last one began."""
        self.assertEqual(len(self.exchanges), 1)
        self.clock.advance(20)
        self.end()
        self.assertEqual(self.pause(), 280)

    def test_another_node_dials(self) -> None:
        """No exchange begins, our own mail is sent; when it is ours again, it is at once."""
        self.loop.allow(may_dial=False)
        self.fail()
        self.clock.pump([MAX_PAUSE] * 9)
        self.assertEqual(len(self.exchanges), 1)
        sent = self.sent
        self.loop.mail_came()
        self.assertEqual(self.sent, sent + 1)
        self.loop.allow(may_dial=True)
        self.loop.allow(may_dial=True)
        self.assertEqual(len(self.exchanges), 2)
        self.loop.allow(may_dial=False)
        self.end(turned=True, turned_for=LONG_LINK)
        self.loop.retry()
        self.clock.pump([MAX_PAUSE] * 3)
        self.assertEqual(len(self.exchanges), 2)
        self.loop.stop()
        self.successResultOf(self.loop.ended)

    def test_not_before_it_is_ours(self) -> None:
        """A loop that may not dial at its start does when it may."""
        self.loop.stop()
        self.loop = DialLoop(PROVIDER, self, self.clock, lambda: 0.5, may_dial=False)
        self.loop.start()
        self.assertEqual(len(self.exchanges), 1)
        self.loop.allow(may_dial=True)
        self.assertEqual(len(self.exchanges), 2)

    def test_failures(self) -> None:
        """The pauses double up to a cap, and the first success ends that."""
        pauses = []
        for _ in range(12):
            self.fail()
            pauses.append(self.pause())
        self.assertEqual(pauses[:5], [1, 2, 4, 8, 16])
        self.assertEqual(pauses[-1], MAX_PAUSE)
        self.end()
        self.assertEqual(self.pause(), 300)
        self.fail()
        self.assertEqual(self.pause(), 1)

    def test_the_wall_clock_is_set(self) -> None:
        """By a day, forward or back: the pauses after failures are the same."""
        pauses = []
        for jump in (DAY, -DAY, -DAY, DAY):
            with patch("time.time", return_value=time.time() + jump):
                self.fail()
                pauses.append(self.pause())
        self.assertEqual(pauses, [1, 2, 4, 8])
        self.assertEqual(self.next_tries, pauses)

    def test_a_held_link_ended(self) -> None:
        """However it ended: the next one is set up at once."""
        for lost in (True, False):
            self.end(turned=True, turned_for=LONG_LINK, lost=lost)
            self.assertEqual(self.pause(), 1)

    def test_a_link_that_breaks_at_once(self) -> None:
        """Again and again: that counts as failures."""
        pauses = []
        for _ in range(3):
            self.end(turned=True, turned_for=0.1, lost=True)
            pauses.append(self.pause())
        self.assertEqual(pauses, [1, 2, 4])

    def test_mail_came(self) -> None:
        """A call that moved mail before it failed is no failure in a row."""
        self.fail()
        self.assertEqual(self.pause(), 1)
        pauses = []
        for _ in range(3):
            self.end(turned=True, turned_for=0.1, lost=True, received=1)
            pauses.append(self.pause())
        for _ in range(2):
            self.exchanges[-1].errback(ExchangeFailed(REFUSED, Tally(sent=1)))
            pauses.append(self.pause())
        self.assertEqual(pauses, [1] * 5)
        self.exchanges[-1].errback(ExchangeFailed(REFUSED, Tally()))
        self.assertEqual(self.pause(), 1)
        self.exchanges[-1].errback(ExchangeFailed(REFUSED, Tally()))
        self.assertEqual(self.pause(), 2)

    def test_a_held_link_that_ends_soon(self) -> None:
        """Such as when the peer reads its configuration again: that is no whole pause."""
        for held_before in (True, False):
            self.setUp()
            if held_before:
                self.end(turned=True, turned_for=LONG_LINK)
                self.assertEqual(self.pause(), 1)
            pauses = []
            for _ in range(12):
                self.end(turned=True, turned_for=5.0, quiet_for=0.0 if held_before else LINGERED)
                pauses.append(self.pause())
            self.assertEqual((pauses[:4], pauses[-1]), ([1, 2, 4, 8], 300))
            self.end(turned=True, turned_for=LONG_LINK)
            self.assertEqual(self.pause(), 1)

    def test_wanted_now(self) -> None:
        """After failures a person may end the pause; one between exchanges stays."""
        self.loop.retry()
        self.end()
        self.loop.retry()
        self.assertEqual((len(self.exchanges), self.pause()), (1, 300))
        for _ in range(8):
            self.fail()
            self.pause()
        self.fail()
        count = len(self.exchanges)
        self.loop.retry()
        self.assertEqual(len(self.exchanges), count + 1)

    def test_next_try(self) -> None:
        """Who tells of failures hears how long each pause is."""
        for _ in range(3):
            self.fail()
            self.pause()
        self.end()
        self.assertEqual(self.next_tries, [1, 2, 4])

    def test_a_bug(self) -> None:
        """An exchange that fails for a fault of ours is logged, and counts as a failure."""
        self.exchanges[-1].errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.pause(), 1)

    def test_mail_came_between_exchanges(self) -> None:
        """The next exchange begins at once; but the pause after a failure is kept."""
        self.end()
        self.loop.mail_came()
        self.assertEqual((len(self.exchanges), self.sent), (2, 0))
        self.fail()
        self.loop.mail_came()
        self.assertEqual((len(self.exchanges), self.pause()), (2, 1))

    def test_mail_came_during_an_exchange(self) -> None:
        """It goes out on a second connection, and in the end on a third if that failed."""
        self.loop.mail_came()
        self.assertEqual(self.sent, 1)
        self.send_failure = HopFailure(REFUSED)
        self.loop.mail_came()
        self.loop.mail_came()
        self.assertEqual(self.sent, 2)
        self.send_failure = None
        self.clock.advance(1)
        self.assertEqual(self.sent, 3)

    def test_what_was_deferred_is_tried_again(self) -> None:
        """A held link has no next exchange: a second connection is made every so often."""
        self.clock.advance(300)
        self.assertEqual(self.sent, 1)

    def test_nothing_to_send(self) -> None:
        """With `send` off mail waits for nobody."""
        loop = self.make(Peer("quiet", connect=PROVIDER.connect, send=False))
        loop.start()
        loop.mail_came()
        self.assertEqual(self.sent, 0)

    def test_stop(self) -> None:
        """A pause ends, an exchange is waited for, and none begins any more."""
        self.loop.stop()
        self.assertNoResult(self.loop.ended)
        self.end()
        self.successResultOf(self.loop.ended)
        self.loop.mail_came()
        self.clock.advance(HOUR)
        self.assertEqual((len(self.exchanges), self.sent), (1, 0))

    def test_stop_in_a_pause(self) -> None:
        """It ends at once."""
        self.end()
        self.loop.stop()
        self.successResultOf(self.loop.ended)
