"""Next hops in memory: what our delivery dials, says and makes of it, on one fake clock.

All is real from the destinations on, but the DNS and the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from mta.delivery.dialler import Dialler
from mta.delivery.own_host import OwnHost
from mta.delivery.relay import RelayAgent
from mta.link import Link
from mta.mail import Agent, Envelope, Hop, Mailbox, Outcome, Recipient, Security
from mta.queue.destinations import Destinations
from mta.queue.interfaces import IDeliveryResults
from mta.queue.noted import NoAttempts
from mta.queued import Delivery, Pressure
from mta.settings import Queue
from mta.testing import FakeResolver, FakeTLS, MemoryTransport, delivery

DOMAIN = "peer.example"
ALICE = Mailbox("alice", "us.example")
CONTENT = b"Subject: x\r\n\r\nbody\r\n"


class Connection:
    """A connection that our delivery asked for."""

    def __init__(self, address: str, port: int, factory: Any) -> None:
        self.address = address
        self.port = port
        self.factory = factory
        self.transport = MemoryTransport(lenient=True)
        self.link: Link | None = None

    def accept(self) -> None:
        """Let it come about."""
        wrapped = self.factory.buildProtocol(None)
        wrapped.makeConnection(self.transport)
        self.link = wrapped._wrappedProtocol

    def refuse(self) -> None:
        """Nobody listens there."""
        self.factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))

    def say(self, octets: bytes) -> None:
        """The host sends octets, where anybody still listens."""
        if not self.transport.disconnecting:
            assert self.link is not None
            self.link.dataReceived(octets)

    def close(self) -> None:
        """The host closes the connection."""
        self._lose(ConnectionDone())

    def reset(self) -> None:
        """The connection is reset."""
        self._lose(ConnectionLost())

    def _lose(self, reason: Exception) -> None:
        assert self.link is not None
        self.transport.disconnecting = True
        self.link.connectionLost(Failure(reason))


@implementer(IDeliveryResults)
class NextHops:
    """Our delivery, and the hosts that it dials.

    `outcomes` are what became of each message, the last attempt of it; `connections` those that
    nobody has accepted or refused.
    """

    def __init__(
        self,
        names: FakeResolver,
        *,
        hop: Hop | None = None,
        queue: Queue | None = None,
        own: OwnHost | None = None,
        attended: bool = False,
    ) -> None:
        self.hop = hop or Hop(Agent.MX, DOMAIN, security=Security.OFF)
        self.reactor = MemoryReactorClock()
        self.names = names
        self.outcomes: dict[str, Sequence[Outcome]] = {}
        self.pressure = Pressure()
        self.returned: list[str] = []
        self.left: list[str] = []
        self.sent = 0
        self._dialled = 0
        own = own or OwnHost("us.example", is_on_interface=lambda address: False)
        dialler = Dialler(
            self.reactor,
            cast(ThreadPool, None),
            "us.example",
            names,
            FakeTLS("ab" * 32),
            own,
            pressure=self.pressure,
            attended=attended,
        )
        agent = RelayAgent(dialler)
        self.destinations = Destinations(self.reactor, self, self.pressure, NoAttempts())
        self.destinations.use(dict.fromkeys(Agent, agent), queue or Queue(per_destination=1))

    def report(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """See `IDeliveryResults.report`."""
        assert delivery.message.id not in self.outcomes, "settled once"
        self.outcomes[delivery.message.id] = tuple(outcomes)

    def not_attempted(self, delivery: Delivery) -> None:
        """See `IDeliveryResults.not_attempted`."""
        self.returned.append(delivery.message.id)

    def outcome_unknown(self, delivery: Delivery) -> None:
        """See `IDeliveryResults.outcome_unknown`."""
        self.left.append(delivery.message.id)

    def send(
        self,
        name: str,
        *local_parts: str,
        content: bytes = CONTENT,
        hop: Hop | None = None,
        **more: Any,
    ) -> None:
        """Let a message to those people wait for the hop."""
        hop = hop or self.hop
        self.outcomes.pop(name, None)
        self.sent += 1
        recipients = tuple(Recipient(Mailbox(one, DOMAIN)) for one in local_parts or ("bob",))
        envelope = Envelope(more.pop("reverse_path", ALICE), recipients, **more)
        self.destinations.add(hop, delivery(hop, name, content, envelope=envelope))

    @property
    def is_idle(self) -> bool:
        """Whether something became of all that was sent."""
        return len(self.outcomes) + len(self.returned) + len(self.left) >= self.sent

    def dispatch(self) -> None:
        """Set all that waits going."""
        self.destinations.dispatch()

    def stop(self) -> None:
        """End it all."""
        Deferred.fromCoroutine(self.destinations.stop(0.0))

    def next_connection(self) -> Connection | None:
        """The next connection that was asked for and nobody has looked at."""
        clients = self.reactor.tcpClients
        if self._dialled == len(clients):
            return None
        address, port, factory, *_ = clients[self._dialled]
        self._dialled += 1
        return Connection(address, port, factory)
