"""One TCP connection, whichever role we play on it.

Twisted calls the `Link` with what happens, the role calls it with what is to be done.
"""

from __future__ import annotations

from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.interfaces import IChannel, IRole, ITLSContext
from mta.link.conversation import Conversation
from mta.link.output import Output
from mta.session import LOCAL_ADDRESS, ChannelLost, ChannelTimeout, HandshakeFailed, TLSInfo
from mta.smtp.wire import Wire

MAPPED = "::ffff:"  # RFC 4291 section 2.5.5.2
MAX_UNREAD = 128 * 1024  # octets: a peer can't fill the memory faster than a role reads
HANDSHAKE_TIMEOUT = 60.0  # seconds: networks are slow, and RFC 5321 sets no time for it
WAKE_MARGIN = 60.0  # seconds: the wait ends by an alarm, and never by its deadline


@implementer(IChannel, IPushProducer, IHandshakeListener, IHalfCloseableProtocol)
class Link(Protocol):
    """One connection, and the channel of the role on it.

    `role` is the first one; it begins when the connection stands, and where `tls_at_once`, when
    TLS does.  `ended` fires when the conversation is over: with None, or with the exception of a
    role (ChannelLost, HopFailure, PeerFault...).  `record_per_line`: see `Output`.
    `handshake_timeout`: seconds for TLS to stand.
    """

    transport: Any  # ITCPTransport or IUNIXTransport, and ISSLTransport once TLS has begun

    def __init__(
        self,
        role: IRole,
        clock: IReactorTime,
        tls: ITLSContext | None = None,
        *,
        tls_at_once: bool = False,
        record_per_line: bool = False,
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
    ) -> None:
        self.wire = Wire()
        self.tls: TLSInfo | None = None
        self.closing = False
        self.remote_address = ""
        self.remote_port = 0
        self._first_role = role
        self._clock = clock
        self._tls = tls
        self._tls_at_once = tls_at_once
        self._handshake_timeout = handshake_timeout
        self._output = Output(record_per_line=record_per_line)
        self._conversation = Conversation(self._output, clock)
        self._arrived = False  # whether octets arrived since the role began to wait for them
        self._paused = False
        self._sleep: Deferred[None] | None = None

    @property
    def ended(self) -> Deferred[None]:
        """The end of the conversation; to cancel it aborts the connection."""
        return self._conversation.ended

    # --- IChannel: what a role may do

    def write(self, data: bytes) -> None:
        """See `IConnection.write`."""
        self._output.write(data)

    async def receive(self, end: float) -> None:
        """See `IConnection.receive`."""
        self._expect_octets()
        while True:
            await self._conversation.rest(end)
            if not self._output.is_congested and (self._arrived or self.closing):
                return

    async def drain(self, end: float) -> bool:
        """See `IConnection.drain`."""
        self._output.flush()
        self._expect_octets()
        if self._conversation.failure is not None:
            raise self._conversation.failure
        while self._output.is_congested:
            await self._conversation.rest(end)
            if self._arrived:
                return False
        return True

    async def start_tls(self, early: bytes = b"") -> None:
        """See `IConnection.start_tls`."""
        assert self._tls is not None
        if self._conversation.failure is not None:  # there is nothing left to shake hands with
            raise HandshakeFailed(str(self._conversation.failure))
        self.wire.drop()
        self._output.flush()
        self._tls.start(self.transport)
        if early:
            self.transport.protocol.dataReceived(early)  # that is Twisted's TLS now
        end = self._clock.seconds() + self._handshake_timeout
        try:
            while self.tls is None:
                await self._conversation.rest(end)
        except ChannelLost as lost:
            raise HandshakeFailed(str(lost)) from lost

    def abort(self) -> None:
        """See `IConnection.abort`."""
        self._output.abort()

    def seconds(self) -> float:
        """See `ISessionClock.seconds`."""
        return self._clock.seconds()

    async def sleep(self, seconds: float) -> None:
        """See `ISessionClock.sleep`."""
        if self._output.is_open:
            self._sleep = deferLater(self._clock, seconds)
            with suppress(CancelledError):
                await self._sleep
            self._sleep = None
        if not self._output.is_open:
            raise self._conversation.failure or ChannelLost("it is gone")

    async def wait_idle(self, event: Coroutine[Any, Any, bool], seconds: float) -> bool | None:
        """See `IIdleWait.wait_idle`."""
        results: list[bool | Failure] = []
        waiting = Deferred.fromCoroutine(event)
        waiting.addBoth(results.append)
        if not results:
            conversation = self._conversation
            waiting.addBoth(lambda _: conversation.wake())
            alarm = self._clock.callLater(seconds, conversation.wake)
            try:
                if not len(self.wire):
                    await conversation.rest(self._clock.seconds() + seconds + WAKE_MARGIN)
            finally:
                if alarm.active():
                    alarm.cancel()
                happened = list(results)
                waiting.cancel()
            if not happened:
                return None
        (result,) = results
        if isinstance(result, Failure):
            result.raiseException()
        return result

    def notice_loss(self, seconds: float) -> None:
        """See `IIdleWait.notice_loss`."""
        self._output.notice_loss(seconds)

    def _expect_octets(self) -> None:
        """Read on, unless enough is unread, and note arrivals from now on."""
        if self._paused and len(self.wire) < MAX_UNREAD:
            self._paused = False
            self.transport.resumeProducing()
        self._arrived = False

    # --- Twisted calls these

    def connectionMade(self) -> None:
        """Twisted calls this when the connection stands."""
        transport = self.transport
        self._output.open(transport)
        peer = transport.getPeer()
        host = host_of(peer)
        if not self.remote_address:
            self.remote_address, self.remote_port = host, getattr(peer, "port", 0)
        if isinstance(transport, Connection) and host != LOCAL_ADDRESS:
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        if self._tls_at_once:
            assert self._tls is not None
            self._conversation.deadline.set(self._clock.seconds() + self._handshake_timeout)
            self._tls.start(transport)
        else:
            self._conversation.begin(self._first_role, self)

    def handshakeCompleted(self) -> None:
        """Twisted calls this when TLS stands."""
        assert self._tls is not None
        self.tls = self._tls.info(self.transport)
        if self._conversation.has_begun:
            self._conversation.wake()
        else:
            self._conversation.begin(self._first_role, self)

    def dataReceived(self, data: bytes) -> None:
        """Twisted calls this with the octets that arrived."""
        self._arrived = True
        if self.wire.feed(data) > MAX_UNREAD and not self._paused:
            self._paused = True
            self.transport.pauseProducing()
        self._conversation.wake()

    def readConnectionLost(self) -> None:
        """Twisted calls this when the peer has closed its half."""
        self._conversation.fail(ChannelLost("closed by the peer"))

    def writeConnectionLost(self) -> None:
        """Twisted calls this when we closed our half, which we do not."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted calls this when the connection is gone."""
        self._output.lose()
        self._conversation.fail(ChannelLost(self._why_lost(reason)))
        if self._sleep is not None:
            self._sleep.cancel()
        self._conversation.deadline.stop()

    def _why_lost(self, reason: Failure) -> str:
        """The reason of a loss in words for the operator."""
        if not reason.check(ConnectionLost):
            return reason.getErrorMessage()
        if self._tls_at_once and self.tls is None:
            return (
                "it hung up before TLS began: a wrong port, or it lets this host not log in for a"
                " while"
            )
        return "it broke off the connection"

    def pauseProducing(self) -> None:
        """Twisted calls this when the peer takes less than we write."""
        self._output.pause()

    def resumeProducing(self) -> None:
        """Twisted calls this when the peer has taken what we wrote."""
        if self._output.resume():
            self._conversation.wake()

    def stopProducing(self) -> None:
        """Twisted calls this when nothing more can be written."""

    # --- the owner of the connection calls these

    def close_gently(self) -> None:
        """Let the role end its conversation at the next good moment."""
        self.closing = True
        self._conversation.wake()

    def time_out(self) -> None:
        """End the conversation as if the peer had taken too long."""
        self._conversation.fail(ChannelTimeout("timed out"))


def host_of(address: IAddress | None) -> str:
    """The IP address in one of Twisted's addresses; ``unix``: it has none.

    A socket that takes both families shows IPv4 addresses mapped into IPv6.
    """
    host: str = getattr(address, "host", None) or LOCAL_ADDRESS
    plain = host.removeprefix(MAPPED)
    return plain if "." in plain else host
