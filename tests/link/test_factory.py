"""The links of a listener."""

from __future__ import annotations

from typing import cast

from twisted.internet.address import IPv4Address
from twisted.logger import LogLevel, capturedLogs
from zope.interface import implementer

from mta.interfaces import IChannel, IFirstRoles, IRole
from mta.link import Link, LinkFactory, WaitingRoom
from mta.testing import GreetingRole, MemoryTransport, OneRole
from tests.link.cases import LinkTestCase, Role


@implementer(IFirstRoles)
class NoRole:
    """Takes no connection."""

    def first_role(self, client: str) -> IRole | None:
        return None


class FactoryTests(LinkTestCase):
    """What a listener makes of connections."""

    def connect(self, factory: LinkFactory) -> Link:
        """One more connection."""
        link = factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1025))
        assert isinstance(link, Link)
        link.makeConnection(MemoryTransport())
        return link

    def test_it_knows_the_links_that_stand(self) -> None:
        """From the connection to the end of the conversation."""
        factory = LinkFactory(self.clock, WaitingRoom(self.clock))
        factory.serve(OneRole(Role(self.reads)))
        links = {self.connect(factory) for _ in range(3)}
        self.assertEqual(factory.links, links)
        for link in links:
            self.assertEqual(link.remote_address, "192.0.2.1")
            self.lose(link)
        self.assertEqual(factory.links, set())

    def test_not_taken(self) -> None:
        """A connection without a first role gets a refusal, and leaves nothing behind."""
        factory = LinkFactory(self.clock, WaitingRoom(self.clock))
        factory.serve(NoRole(), refusal=b"421 4.7.0 Later\r\n")
        refused = factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1025))
        refused.makeConnection(transport := MemoryTransport())
        self.assertEqual(factory.links, set())
        self.assertEqual(transport.value(), b"421 4.7.0 Later\r\n")

    def test_a_new_configuration(self) -> None:
        """Connections that stand keep what they have."""
        factory = LinkFactory(self.clock, WaitingRoom(self.clock))
        factory.serve(OneRole(Role(self.reads)))
        old = self.connect(factory)
        factory.serve(OneRole(GreetingRole()))
        new = self.connect(factory)
        self.assertEqual(factory.links, {old})
        self.assertIsNone(self.successResultOf(new.ended))

    def test_bugs_are_told(self) -> None:
        """With the peer's address; a lost connection is none."""

        async def conversation(channel: IChannel) -> None:
            await channel.receive(channel.seconds() + 10.0)
            raise ZeroDivisionError

        factory = LinkFactory(self.clock, WaitingRoom(self.clock))
        factory.serve(OneRole(Role(conversation)))
        self.lose(self.connect(factory))
        self.assertEqual(self.flushLoggedErrors(), [])
        self.connect(factory).dataReceived(b"x")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(factory.links, set())

    def test_a_session_that_is_cut_is_no_bug(self) -> None:
        """Who waits for its end gives up when the service stops: one line, no traceback."""
        factory = LinkFactory(self.clock, WaitingRoom(self.clock))
        factory.serve(OneRole(Role(self.reads)))
        link = self.connect(factory)
        with capturedLogs() as events:
            link.ended.cancel()
        (event,) = (event for event in events if "peer" in event)
        self.assertEqual((event["log_level"], event["peer"]), (LogLevel.info, "192.0.2.1"))
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertTrue(cast("MemoryTransport", link.transport).disconnected)
