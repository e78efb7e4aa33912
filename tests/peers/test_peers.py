"""The parts behind role reversal: dial loop, queue runs, status, and what we ask a peer for."""

from __future__ import annotations

import os
from collections.abc import Awaitable
from contextlib import nullcontext
from pathlib import Path
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mta.interfaces import (
    IAcceptedMail,
    IHeldMail,
    IHeldMailWatch,
    IMailSource,
    IRole,
    ITurnedRoles,
)
from mta.mail import Agent, Hop
from mta.peers.dial_loop import LINGERED, LONG_LINK, MAX_PAUSE, DialLoop
from mta.peers.exchange import ExchangeFailed, NoMail, atrn_command, etrn_by_queue, etrn_commands
from mta.peers.interfaces import IDialledPeer, ITallyWatch
from mta.peers.provider import MAX_LINKS, MAX_WANTED, Provider
from mta.peers.status_files import PeerStatus, PeerStatusFiles
from mta.peers.status_log import PeerStatusLog
from mta.peers.tally import CountedSource, Tally, Unwatched
from mta.peers.turned_receiver import TurnedReceiver
from mta.peers.turned_sender import OVERTAKEN_TIMEOUT
from mta.queued import HopFailure
from mta.settings import HOUR, Peer
from mta.smtp import replies
from mta.smtp.errors import Refusal
from mta.testing import ImmediateThreads
from tests.sides import REFUSED, FakeStatusLog, sides

PROVIDER = Peer("provider", ("office.example",), connect=Hop(Agent.SMTP, "p.example"), every=300.0)


@implementer(IDialledPeer)
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

    def exchange(self) -> Awaitable[Tally]:
        """Begin an exchange."""
        self.exchanges.append(Deferred())
        return self.exchanges[-1]

    async def send_held(self) -> None:
        """The second connection."""
        self.sent += 1
        if self.send_failure:
            raise self.send_failure

    def note_next_try(self, seconds: float) -> None:
        """See `IDialledPeer.note_next_try`."""
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


class CommandTests(SynchronousTestCase):
    """What we ask a peer that we dial."""

    def test_atrn(self) -> None:
        """Domains by name; all that the peer has where they can't be named in one line."""
        self.assertEqual(atrn_command(["a.example", "b.example"]), "ATRN a.example,b.example")
        self.assertEqual(atrn_command(["a.example", ".b.example"]), "ATRN")
        self.assertEqual(atrn_command([f"domain{n}.example" for n in range(100)]), "ATRN")

    def test_etrn(self) -> None:
        """One command a domain, with @ for those below."""
        self.assertEqual(
            etrn_commands(["a.example", ".b.example"]), ["ETRN a.example", "ETRN @b.example"]
        )
        self.assertEqual(
            etrn_by_queue(["ETRN a.example", "ETRN @b.example"]),
            {"ETRN a.example": "ETRN #a.example"},
        )

    def test_interfaces(self) -> None:
        """The sources are sources, and each room keeps its promises."""
        provider, office = sides()
        verifyObject(IHeldMail, provider.held)
        verifyObject(IHeldMailWatch, office.customer)
        verifyObject(ITurnedRoles, provider.provider)
        verifyObject(IMailSource, NoMail())
        verifyObject(IMailSource, CountedSource(NoMail(), Tally()))
        verifyObject(ITallyWatch, Unwatched())
        receiver = TurnedReceiver(
            office.peer, office.customer._receiver, Tally(), Unwatched(), nullcontext()
        )
        verifyObject(IRole, receiver)
        verifyObject(IAcceptedMail, receiver)


class QueueRunTests(SynchronousTestCase):
    """ETRN: runs for a peer, one at a time."""

    def setUp(self) -> None:
        self.asked: list[set[str]] = []
        self.running: list[Deferred[None]] = []
        self.status = FakeStatusLog()
        self.provider = Provider(
            "provider.example",
            self,  # the relay
            cast(IHeldMail, self),
            cast(PeerStatusLog, self.status),
            Clock(),
        )
        self.peer = Peer("office", (".example",), etrn=Hop(Agent.SMTP, "10.1.2.3", 25))

    def open(self, peer: str, domains: object, linger: float) -> Closeable:
        """Remember what was asked for."""
        self.asked.append(set(cast("list[str]", domains)))
        return Closeable()

    async def deliver(self, hop: Hop, mail: IMailSource) -> None:
        """See `IDeliveryAgent`."""
        self.running.append(Deferred())
        await self.running[-1]

    def test_one_at_a_time(self) -> None:
        """What is asked for during a run comes next, all at once."""
        for domain in ("a.example", "b.example", "c.example", "b.example"):
            self.provider.start_run(self.peer, [domain])
        self.assertEqual(self.asked, [{"a.example"}])
        self.running[0].callback(None)
        self.assertEqual(self.asked[1:], [{"b.example", "c.example"}])
        self.running[1].callback(None)
        self.provider.start_run(self.peer, ["a.example"])
        self.assertEqual(len(self.asked), 3)

    def test_bounded(self) -> None:
        """A peer that names ever more domains during a run is told to wait."""
        for number in range(MAX_WANTED + 1):
            self.provider.start_run(self.peer, [f"{number}.example"])
        with self.assertRaises(Refusal) as caught:
            self.provider.start_run(self.peer, ["more.example"])
        self.assertEqual(caught.exception.reply, replies.ETRN_LATER)

    def test_failure(self) -> None:
        """It is noted, and the next run may begin."""
        self.provider.start_run(self.peer, ["a.example"])
        self.running[0].errback(HopFailure(REFUSED))
        self.assertEqual(self.status.notes["last_error"], str(REFUSED.reply))
        self.provider.start_run(self.peer, ["a.example"])
        self.assertEqual(len(self.running), 2)

    def test_a_bug(self) -> None:
        """It is logged, and the next run may begin."""
        self.provider.start_run(self.peer, ["a.example"])
        self.running[0].errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.provider.start_run(self.peer, ["a.example"])
        self.assertEqual(len(self.running), 2)


class Closeable(NoMail):
    """A source that can be closed."""

    def close(self) -> None:
        """See `IHeldSource`."""


class TurnedSenderTests(SynchronousTestCase):
    """The role after a turn."""

    def test_interface(self) -> None:
        """It is a role."""
        provider, _ = sides()
        verifyObject(IRole, provider.provider.sender_for(provider.peer, ["office.example"]))

    def test_bounded(self) -> None:
        """A peer that turns connections and leaves them be gets no more of them."""
        _, office = sides(linger=HOUR)
        exchanges = []
        for _ in range(MAX_LINKS):
            exchanges.append(office.exchange())
            office.dialler.carry()
            office.dialler.wires[-1].is_dead = True
        refused = office.exchange()
        office.dialler.carry()
        failure = self.failureResultOf(refused, HopFailure)
        self.assertEqual(failure.value.outcome.reply, replies.ATRN_REFUSED)
        office.clock.advance(OVERTAKEN_TIMEOUT)
        office.dialler.carry()
        exchanges.append(office.exchange())
        office.dialler.carry()
        for wire in office.dialler.wires:
            wire.cut()
        for exchange in exchanges:
            self.assertTrue(self.successResultOf(exchange).turned)


class PeerStatusTests(SynchronousTestCase):
    """What is kept of exchanges, in files."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir(parents=True)
        self.now = 100.0
        self.files = PeerStatusFiles(self.folder, lambda: self.now)

    def test_nothing_yet(self) -> None:
        """No file: nothing is known, and no link stands."""
        self.assertEqual(self.files.read("office"), PeerStatus())
        self.assertIsNone(self.files.link_since("office"))

    def test_update(self) -> None:
        """What is not named stays."""
        self.files.update("office", last_exchange=5.0, sent=3)
        self.files.update("office", last_error="451 no")
        self.assertEqual(
            self.files.read("office"), PeerStatus(5.0, "451 no", 3, 0, 100.0, 100.0, None)
        )
        self.assertEqual(self.files.read("lab"), PeerStatus())

    def test_failures_in_a_row(self) -> None:
        """When they began stays known until all is well again."""
        self.files.update("office", last_error="451 no", next_try=101.0)
        self.now = 102.0
        self.files.update("office", last_error="451 still no")
        self.assertEqual(
            self.files.read("office"), PeerStatus(None, "451 still no", 0, 0, 102.0, 100.0, None)
        )
        self.files.update("office", last_error="", sent=1)
        self.assertEqual(self.files.read("office"), PeerStatus(sent=1))

    def test_of_another_version(self) -> None:
        """What a newer program wrote there is passed over."""
        (self.folder / "peers").mkdir()
        (self.folder / "peers" / "office.json").write_text('{"sent": 3, "moon": "full"}')
        self.assertEqual(self.files.read("office"), PeerStatus(sent=3))

    def test_a_damaged_file(self) -> None:
        """It is as good as none."""
        self.files.update("office", sent=3)
        for text in ("", "{", "[1]", '{"unknown": 1}'):
            (self.folder / "peers" / "office.json").write_text(text)
            self.assertEqual(self.files.read("office"), PeerStatus())

    def test_link(self) -> None:
        """It stands as long as somebody holds it."""
        first, second = self.files.mark_link("office"), self.files.mark_link("office")
        self.assertIsNotNone(self.files.link_since("office"))
        os.close(first)
        self.assertIsNotNone(self.files.link_since("office"))
        os.close(second)
        self.assertIsNone(self.files.link_since("office"))

    def test_log(self) -> None:
        """It keeps the order of changes, and a link while it stands."""
        threads = ImmediateThreads()
        log = PeerStatusLog(self.files, threads, threads)  # type: ignore[arg-type]
        with log.link("office"):
            self.assertIsNotNone(self.files.link_since("office"))
            log.note("office", sent=1)
            log.note("office", sent=2)
        self.successResultOf(Deferred.fromCoroutine(log.flush()))
        self.assertEqual(self.files.read("office").sent, 2)
        self.assertIsNone(self.files.link_since("office"))

    def test_a_folder_that_can_not_be_written(self) -> None:
        """Nobody is hindered."""
        (self.folder / "peers").write_text("a file, not a folder")
        threads = ImmediateThreads()
        log = PeerStatusLog(self.files, threads, threads)  # type: ignore[arg-type]
        with log.link("office"):
            log.note("office", sent=1)
        self.successResultOf(Deferred.fromCoroutine(log.flush()))
