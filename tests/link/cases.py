"""A link on a transport in memory, with a role that does what a test says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mta.interfaces import IChannel, IRole
from mta.link import Link
from mta.session import ChannelLost
from mta.testing import FakeTLS, MemoryTransport

Conversation = Callable[[IChannel], Awaitable[IRole | None]]


@implementer(IRole)
class Role:
    """A role that holds the conversation it is given."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation

    async def converse(self, channel: IChannel) -> IRole | None:
        """See `IRole`."""
        return await self._conversation(channel)


class LinkTestCase(SynchronousTestCase):
    """A Link in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.transport = MemoryTransport(lenient=True)
        self.tls = FakeTLS()
        self.log: list[str] = []

    def link(self, conversation: Conversation, *, tls_at_once: bool = False) -> Link:
        """A connected link with a role that holds that conversation."""
        link = Link(Role(conversation), self.clock, self.tls, tls_at_once=tls_at_once)
        link.makeConnection(self.transport)
        return link

    def lose(self, link: Link) -> None:
        """The connection ends cleanly."""
        link.connectionLost(Failure(ConnectionDone()))

    def assert_lost(self, link: Link, kind: type[ChannelLost] = ChannelLost) -> ChannelLost:
        """The conversation ended for want of a connection."""
        lost = self.failureResultOf(link.ended).value
        self.assertIs(type(lost), kind)
        assert isinstance(lost, ChannelLost)
        return lost

    async def reads(self, channel: IChannel) -> None:
        """A conversation that notes what arrives, until the connection ends."""
        while True:
            await channel.receive(channel.seconds() + 10.0)
            self.log.append(channel.wire.take().decode())
