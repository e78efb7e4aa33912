"""A relay that seals and its office, in memory: sealed there, whole here, wherever it breaks."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, globalLogPublisher

from mta.interfaces import IOwnMail
from mta.mail import Envelope, Mailbox, Outcome, Recipient, Status
from mta.peers.sealed_waits import SEALED_WAITS
from mta.queue.planning import SEALED, plan
from mta.queued import Message
from mta.sealing.keys import PrivateKey
from mta.sealing.opener import SealOpener
from mta.sealing.seals import Seals
from mta.sealing.spool import SealingSpool
from mta.session import UNKNOWN_ORIGIN
from mta.testing import FakeRouter, message
from tests.sealing.test_opener import Told
from tests.sealing.test_spool import HOPS, Written
from tests.sides import ALICE, BOB, CAROL, sides
from tests.whole import test_reversed_pairs
from tests.whole.test_reversed_pairs import IN, OUT, PairTests

KEY = PrivateKey.new()


def _seal(case: PairTests, *keys: PrivateKey) -> None:
    """Let the provider seal what waits for its office, which has these keys."""
    provider, office = case.provider, case.office
    written: IOwnMail = Written()
    spool = SealingSpool(provider.spool, written, provider.meter)
    spool.seals = Seals(provider.router, {"office": [KEY.public]})
    for body in IN:
        draft = spool.draft()
        envelope = Envelope(ALICE, (Recipient(BOB),), outside=True)
        draft.address(envelope)

        async def take(draft=draft, envelope=envelope, body=body) -> Message:  # type: ignore[no-untyped-def]
            await draft.write(body)
            header = b"Subject: test\r\n\r\n"
            return await spool.commit(draft, envelope, header, UNKNOWN_ORIGIN)

        case.provider.runner.accept(case.successResultOf(Deferred.fromCoroutine(take())))
    provider.clock.advance(0)
    case.told = Told()  # type: ignore[attr-defined]
    opener = SealOpener({"provider": keys}, case.told) if keys else None  # type: ignore[attr-defined]
    office.configure(opener=opener)


class SealedPairs(PairTests):
    """Two servers, sealed mail waiting at the provider and other mail at the office."""

    origin = "trust"

    def make(self, method: str = "atrn", linger: float = 0.0, every: float = 0.0) -> None:
        """The two, with mail."""
        self.provider, self.office = sides(method, linger, every, origin=self.origin)
        _seal(self, KEY)
        for body in OUT:
            self.office.put(CAROL, body)


class SealedTests(SealedPairs):
    """An exchange that nothing disturbs, and what can't be taken."""

    told: Told

    def setUp(self) -> None:
        self.events: list[LogEvent] = []
        observer = self.events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def test_it_arrives(self) -> None:
        """The office has each message in the clear, and nothing of it was so before."""
        self.make()
        for body in IN:
            for each in self.provider.spool.drafts:
                self.assertNotIn(body, each.content)
        tally = self.exchange()
        self.assertEqual((tally.sent, tally.received, tally.lost), (3, 4, False))
        self.assertEqual((self.office.bodies, self.provider.bodies), (IN, OUT))
        self.assertEqual(self.provider.spool.messages, [])

    def test_no_keyword(self) -> None:
        """It waits, and the peer's status says why."""
        self.make()
        self.office.spool.waiting.clear()
        _seal(self)
        self.exchange()
        self.assertEqual(self.office.bodies, [])
        self.assertEqual(len(self.provider.spool.messages), 2 * len(IN))
        self.assertEqual(self.provider.status.notes["obstacle"], SEALED_WAITS)
        self.assertEqual(self.provider.provider.links.not_opening, {"office"})
        self.assertEqual(self.logged(), 1)
        self.exchange()
        self.assertEqual(self.logged(), 1)

    def test_the_keyword_again(self) -> None:
        """What waited goes when it is offered, and the obstacle is gone."""
        self.make()
        opener = self.office.config.opener
        self.office.configure(opener=None)
        self.exchange()
        self.office.configure(opener=opener)
        self.provider.clock.advance(61)
        self.exchange()
        self.assertEqual(self.office.bodies, IN)
        self.assertEqual(self.provider.status.notes["obstacle"], "")
        self.assertEqual(self.provider.provider.links.not_opening, set())

    def logged(self) -> int:
        """How often the log says that the peer does not open it."""
        return sum("does not offer" in str(each.get("log_format")) for each in self.events)

    def test_unknown_key(self) -> None:
        """It waits, and the office's postmaster is told."""
        self.make()
        _seal(self, PrivateKey.new())
        self.exchange()
        self.assertEqual(self.office.bodies, [])
        self.assertEqual(len(self.provider.spool.messages), 2 * len(IN))
        ((subject, _),) = self.told
        self.assertEqual(subject, "sealed mail of provider can't be opened")

    def test_damaged(self) -> None:
        """One that is damaged stays; the others come."""
        self.make()
        first = self.provider.spool.messages[0]
        octets = self.successResultOf(Deferred.fromCoroutine(_content(first)))
        header = self.successResultOf(Deferred.fromCoroutine(first.content.header()))
        damaged = replace(
            first,
            content=type(first.content)(octets[:-1] + b"?", header_size=len(header)),  # type: ignore[call-arg]
        )
        self.provider.spool.put(damaged)
        self.exchange()
        self.assertEqual(self.office.bodies, IN[1:])
        self.assertEqual([each.id for each in self.provider.spool.messages], [first.id])


async def _content(message: Message) -> bytes:
    return b"".join([piece async for piece in message.content.pieces()])


class SealedCutTests(SealedPairs, test_reversed_pairs.CutTests):
    """The connection breaks after every write that there is."""

    def unseen(self) -> Counter[bytes]:
        """All that came while the provider still has something: its bodies can't be compared."""
        unseen = Counter(self.office.waiting()) & Counter(self.provider.bodies)
        return unseen + (Counter(self.office.bodies) if self.provider.spool.messages else Counter())


class PlanTests(SealedPairs):
    """Where sealed mail may go."""

    def test_to_its_peer_alone(self) -> None:
        """Where the configuration has become another, it waits, and is not delivered."""
        router = FakeRouter(HOPS)
        envelope = Envelope(ALICE, (Recipient(BOB), Recipient(Mailbox("c", "here.example"))))
        for sealed, count in ((False, 2), (True, 1)):
            made = message(envelope=replace(envelope, sealed=sealed))
            targets, settled = plan(made, router)
            self.assertEqual(len(targets), count)
            outcomes: list[Outcome] = [outcome for _, outcome in settled]
            self.assertEqual(outcomes, [SEALED] * (2 - count))
        self.assertIs(SEALED.status, Status.DEFERRED)

    def tearDown(self) -> None:
        """There is no connection."""
