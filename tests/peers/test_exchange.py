"""An exchange with a peer that we dial: our mail must not keep the peer's from coming."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mta.delivery.dialler import Dialler
from mta.mail import Agent, Hop, Security
from mta.peers.exchange import Exchange
from mta.queued import Delivery, HopFailure, IContent
from mta.settings import Peer
from mta.smtp.fit import MAX_IN_MEMORY
from mta.smtp.header import body_of, section_of
from mta.testing import FakeMailSource, FakeResolver, FakeTLS, MemorySpool
from tests.conversations import receiver_config
from tests.next_hops import Connection
from tests.senders import mail

OFFERS = ("250-PIPELINING", "250-PIPELINING | 250-CHUNKING", "250-SIZE")


@implementer(IContent)
class Broken:
    """Content on a disk that fails when it is read again; it is too large to be kept."""

    is_ascii = True

    def __init__(self) -> None:
        self._octets = b"Subject: x\r\n\r\n" + b"body\r\n" * (MAX_IN_MEMORY // 6 + 1)
        self.size = len(self._octets)
        self._is_read = False

    async def header(self) -> bytes:
        """See `IContent.header`."""
        return await section_of(self.pieces())

    def body(self) -> AsyncIterator[bytes]:
        """See `IContent.body`."""
        return body_of(self.pieces())

    async def pieces(self) -> AsyncIterator[bytes]:
        """All of it, and then only the beginning."""
        if self._is_read:
            yield self._octets[:10]
            raise OSError("input/output error")
        self._is_read = True
        yield self._octets


def unreadable() -> Delivery:
    """A message whose content can't be read."""
    whole = mail()
    return replace(whole, message=replace(whole.message, content=Broken()))


class Scripted:
    """An exchange with a peer that says what the test says."""

    def __init__(self, deliveries: Iterable[Delivery], method: str) -> None:
        self.reactor = MemoryReactorClock()
        self.source = FakeMailSource(*deliveries)
        dialler = Dialler(
            self.reactor,
            cast(ThreadPool, None),
            "us.example",
            FakeResolver({}, {"provider.example": ["192.0.2.1"]}),
            FakeTLS(),
        )
        connect = Hop(Agent.SMTP, "provider.example", 366)
        peer = Peer(
            "provider", ("office.example",), connect=connect, tls=Security.OFF, method=method
        )
        self.exchange = Exchange(peer, dialler, receiver_config(MemorySpool()))
        self.running = Deferred.fromCoroutine(self.exchange.run(self.source))

    @property
    def dialled(self) -> int:
        """How many connections were asked for."""
        return len(self.reactor.tcpClients)

    def connection(self, keywords: str) -> Connection:
        """The connection that was asked for last, after EHLO."""
        address, port, factory, *_ = self.reactor.tcpClients[-1]
        connection = Connection(address, port, factory)
        connection.accept()
        for line in ("220 x", "250-x", *keywords.split(" | "), "250 HELP"):
            connection.say(line.encode() + b"\r\n")
        return connection


class TurnTests(SynchronousTestCase):
    """The turn happens whatever became of what we sent."""

    def assert_turned(self, scripted: Scripted, method: str) -> None:
        """The second connection asks for nothing but the turn."""
        self.assertEqual(scripted.dialled, 2)
        connection = scripted.connection("250-PIPELINING")
        command = "TURN" if method == "turn" else f"{method.upper()} office.example"
        self.assertEqual(
            connection.transport.taken().decode().splitlines(), ["EHLO us.example", command]
        )
        connection.say(
            b"453 4.2.0 You have no mail\r\n" if method != "etrn" else b"250 started\r\n"
        )
        connection.say(b"221 bye\r\n")
        connection.close()
        tally = self.successResultOf(scripted.running)
        self.assertEqual(len(tally.replies), 1)
        self.assertEqual(scripted.source.unreported, [])

    def test_our_content_can_not_be_read(self) -> None:
        """The connection had to end, as the message could not."""
        for method in ("atrn", "turn", "etrn"):
            for keywords in OFFERS:
                scripted = Scripted([unreadable()], method)
                connection = scripted.connection(keywords)
                for line in (b"250 mail", b"250 rcpt", b"354 go"):
                    connection.say(line + b"\r\n")
                connection.close()
                self.assert_turned(scripted, method)
                self.assertIn("4.3.0", str(scripted.source.outcomes["M1"][0].reply))

    def test_the_peer_breaks_off_over_our_mail(self) -> None:
        """At any step, whether it took something before or not."""
        for method in ("atrn", "turn", "etrn"):
            for lines in (
                [],
                [b"421 4.3.2 no mail here"],
                [b"eh?"],
                [b"250 mail"],
                [b"250 mail", b"250 rcpt"],
                [b"250 mail", b"250 rcpt", b"354 go"],
            ):
                scripted = Scripted([mail()], method)
                connection = scripted.connection("250-SIZE")
                for line in lines:
                    connection.say(line + b"\r\n")
                connection.close()
                self.assert_turned(scripted, method)
                self.assertTrue(scripted.source.outcomes["M1"])

    def test_nothing_was_sent(self) -> None:
        """Then it is not our mail that keeps the peer from answering."""
        for line in (b"421 no", b"554 never"):
            scripted = Scripted([mail()], "atrn")
            address, port, factory, *_ = scripted.reactor.tcpClients[0]
            connection = Connection(address, port, factory)
            connection.accept()
            connection.say(line + b"\r\n")
            connection.close()
            self.failureResultOf(scripted.running, HopFailure)
            self.assertEqual(scripted.dialled, 1)
        scripted = Scripted([], "atrn")
        scripted.connection("250-SIZE").close()
        self.failureResultOf(scripted.running, HopFailure)
        self.assertEqual(scripted.dialled, 1)

    def test_the_request_itself_fails(self) -> None:
        """That is not for our mail: it is the peer's word, or its silence."""
        for says, ends in ((b"250 turning\r\nEHLO forged\r\n", "octets after"), (b"", "failed")):
            scripted = Scripted([mail()], "atrn")
            connection = scripted.connection("250-SIZE")
            for line in (b"450 not now", b"250 reset"):
                connection.say(line + b"\r\n")
            connection.say(says)
            connection.close()
            failure = self.failureResultOf(scripted.running, HopFailure).value
            self.assertIn(ends.split()[0], str(failure.outcome.reply))
            self.assertEqual(scripted.dialled, 1)

    def test_we_stop(self) -> None:
        """No other connection is made for the turn."""
        scripted = Scripted([mail()], "atrn")
        connection = scripted.connection("250-SIZE")
        assert connection.link is not None
        connection.link.close_gently()
        for line in (b"250 mail", b"250 rcpt", b"354 go", b"250 taken", b"221 bye"):
            connection.say(line + b"\r\n")
        connection.close()
        self.failureResultOf(scripted.running, HopFailure)
        self.assertEqual(scripted.dialled, 1)
