"""The connections that wait for their refusal."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mta.link.waiting_room import WAIT, RefusedConnection, WaitingRoom
from mta.testing import MemoryTransport

REPLY = b"421 4.7.0 Later\r\n"


class WaitingRoomTests(SynchronousTestCase):
    """See the module."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.room = WaitingRoom(self.clock)
        self.room.size = 3

    def refuse(self, reply: bytes = REPLY) -> MemoryTransport:
        """One more connection."""
        connection = RefusedConnection(self.room, reply)
        connection.makeConnection(transport := MemoryTransport())
        return transport

    def test_it_waits(self) -> None:
        """Nothing is read, and nothing said, until it is closed."""
        transport = self.refuse()
        self.assertEqual(transport.producerState, "paused")
        self.clock.advance(WAIT - 1)
        self.assertEqual((transport.value(), transport.disconnecting), (b"", False))
        self.clock.advance(1)
        self.assertEqual((transport.value(), transport.disconnecting), (REPLY, True))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_each_its_time(self) -> None:
        """One that came later is refused later."""
        early = self.refuse()
        self.clock.advance(1)
        late = self.refuse()
        self.clock.advance(WAIT - 1)
        self.assertEqual((early.disconnecting, late.disconnecting), (True, False))
        self.clock.advance(1)
        self.assertTrue(late.disconnecting)

    def test_many_at_a_time(self) -> None:
        """Others work between two refusals."""
        transports = [self.refuse() for _ in range(3)]
        seen: list[list[bool]] = []
        self.clock.callLater(WAIT, lambda: seen.append([each.disconnecting for each in transports]))
        self.clock.advance(WAIT)
        self.assertEqual(seen, [[True, False, False]])
        self.assertTrue(all(each.disconnecting for each in transports))

    def test_full(self) -> None:
        """The oldest does not wait any longer then."""
        transports = [self.refuse() for _ in range(4)]
        self.assertEqual([each.disconnecting for each in transports], [True, False, False, False])
        self.assertEqual(transports[0].value(), REPLY)
        self.clock.advance(1)
        self.room.size = 0  # there are fewer places from now on
        last = self.refuse()
        self.assertTrue(all(each.disconnecting for each in (*transports, last)))
        self.clock.advance(WAIT)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_silent(self) -> None:
        """Where a TLS handshake would come first, it is only closed."""
        transport = self.refuse(b"")
        self.clock.advance(WAIT)
        self.assertEqual((transport.value(), transport.disconnecting), (b"", True))
