"""Our provider against our customer, in memory: nothing is lost, wherever the connection breaks."""

from __future__ import annotations

from collections import Counter

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mta.interfaces import HopFailure
from mta.peers.tally import Tally
from mta.settings import HOUR
from tests.sides import BOB, CAROL, CustomerSide, ProviderSide, Wire, sides

IN = [b"to the office %d\r\n" % number for number in range(4)]
OUT = [b"from the office %d\r\n" % number for number in range(3)]


class PairTests(SynchronousTestCase):
    """Two servers, mail for both directions waiting."""

    provider: ProviderSide
    office: CustomerSide

    def make(self, method: str = "atrn", linger: float = 0.0, every: float = 0.0) -> None:
        """The two, with mail."""
        self.provider, self.office = sides(method, linger, every)
        for body in IN:
            self.provider.put(BOB, body)
        for body in OUT:
            self.office.put(CAROL, body)

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
    def wires(self) -> list[Wire]:
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
            self.assertEqual((self.office.shelf.bodies, self.provider.shelf.bodies), (IN, OUT))
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
        while self.office.ledger.links + self.provider.ledger.links < 2:
            self.assertTrue(self.wires[0].carry())
        self.office.dialler.carry()
        self.successResultOf(exchange)
        for side, sent, received in ((self.office, 3, 4), (self.provider, 4, 0)):
            notes = side.ledger.notes
            self.assertEqual(side.ledger.links, 0)
            self.assertEqual((notes["sent"], notes["received"]), (sent, received))
            self.assertEqual(notes["last_error"], "")

    def test_one_change_of_roles(self) -> None:
        """Whoever has the receiver's role after the turn refuses another one."""
        self.make("turn")
        exchange = self.office.exchange()
        wire = self.wires[0]
        while not self.office.ledger.links:
            wire.carry()
        for command in (b"EHLO x\r\n", b"TURN\r\n", b"ATRN\r\n", b"STARTTLS\r\n"):
            wire.client.dataReceived(command)
        said = b"".join(wire.said_by_client())
        self.assertNotIn(b"TURN", said.split(b"250 HELP")[0])
        self.assertEqual([line[:3] for line in said.split(b"\r\n")[-4:-1]], [b"502", b"502", b"503"])
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
        exchange.addErrback(lambda failure: failure.trap(HopFailure))
        self.successResultOf(exchange)
        self.exchange()
        self.assertEqual((self.provider.spool.messages, self.office.spool.messages), ([], []))
        expected = Counter(IN) + Counter(OUT)
        arrived = Counter(self.office.shelf.bodies) + Counter(self.provider.shelf.bodies)
        self.assertEqual(arrived - unseen, expected, f"{method}, {writes} writes")
        return True

    def unseen(self) -> Counter[bytes]:
        """The messages that one side has taken and the other doesn't know of."""
        unseen: Counter[bytes] = Counter()
        for taker, giver in ((self.office, self.provider), (self.provider, self.office)):
            waiting = {message.id for message in giver.spool.messages}
            known = [
                draft.data.partition(b"\r\n\r\n")[2]
                for draft in taker.spool.drafts
                if draft.is_committed
            ]
            del waiting
            unseen += Counter(known)
        return unseen
