"""One TCP connection, whichever role we play on it.

A `Link` drives the conversation of its role: a coroutine that waits either for the
connection (`receive`, `drain`) or for a Deferred.  The first is the hot path, and costs no
Deferred: the coroutine rests in the Link until Twisted calls.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine, Generator
from typing import Any
from typing import Protocol as Shape

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.interfaces import IChannel, IRole
from mta.session import LOCAL_ADDRESS, ChannelLost, ChannelTimeout, HandshakeFailed, TLSInfo
from mta.smtp.wire import Wire

MAX_UNREAD = 128 * 1024  # octets; reading pauses above
HANDSHAKE_TIMEOUT = 60.0  # seconds
ALARM_MARGIN = 60.0  # seconds after an alarm in which it must have rung
MAX_UNSENT = 64 * 1024  # octets that wait for what else is said before we listen again
CLOSE_TIMEOUT = 30.0  # seconds in which the peer may still take our last words
KEEPALIVE_PROBES = 3  # of TCP, unanswered, before a connection is lost
LAST_CHANCE = 1.0  # the same for a peer that has already had all its time


class TLSContext(Shape):
    """How a Link begins TLS, and what it learns when TLS has begun."""

    def start(self, transport: Any) -> None:
        """Begin the handshake on our side."""

    def info(self, transport: Any) -> TLSInfo:
        """What the finished handshake proved."""


class _Rest:
    """What the conversation awaits when it waits for the connection itself."""

    __slots__ = ()

    def __await__(self) -> Generator[_Rest, None, None]:
        yield self


_REST = _Rest()


@implementer(IChannel, IPushProducer, IHandshakeListener, IHalfCloseableProtocol)
class Link(Protocol):
    """One connection: hands its octets to the role that is played on it.

    `ended` fires when the conversation is over: with None, or with what the role raised
    (ChannelLost, HopFailure, PeerFault...).
    """

    transport: Any  # ITCPTransport or IUNIXTransport, and ISSLTransport once TLS has begun

    # Whether each line is a TLS record of its own, for clients that read one line and then wait for
    # the socket, though more of the same record is with them already (fetchmail).
    record_per_line = False

    def __init__(
        self,
        role: Callable[[Link], IRole],
        clock: IReactorTime,
        tls: TLSContext | None = None,
        *,
        tls_at_once: bool = False,
    ) -> None:
        self.wire = Wire()
        self.tls: TLSInfo | None = None
        self.closing = False
        self.remote_address = ""
        self.ended: Deferred[None] = Deferred(lambda _: self.abort())
        self._first_role = role
        self._clock = clock
        self._tls = tls
        self._tls_at_once = tls_at_once
        self._conversation: Coroutine[Any, Any, None] | None = None
        self._unsent: list[bytes] = []
        self._unsent_octets = 0
        self._came = False  # whether octets arrived since somebody began to wait for them
        self._resting = False
        self._congested = False
        self._at_once = False  # whether octets may go past the transport, where none wait
        self._paused = False
        self._connected = False
        self._over = False
        self._failure: ChannelLost | None = None
        self._deadline: float | None = None
        self._timer: IDelayedCall | None = None

    # --- IChannel: what a role may do

    def write(self, data: bytes) -> None:
        """See `IChannel.write`.

        All that is said before the conversation waits goes out together: in few packets, and none
        of them late, as it may be where small ones follow each other (RFC 896).
        """
        self._unsent.append(data)
        self._unsent_octets += len(data)
        if self._unsent_octets > MAX_UNSENT:
            self._flush()

    async def receive(self, end: float) -> None:
        """See `IChannel.receive`."""
        self._expect_octets()
        while True:
            await self._rest(end)
            if not self._congested and (self._came or self.closing):
                return

    async def drain(self, end: float) -> bool:
        """See `IChannel.drain`."""
        self._flush()
        self._expect_octets()
        if self._failure is not None:
            raise self._failure
        while self._congested:
            await self._rest(end)
            if self._came:
                return False
        return True

    def seconds(self) -> float:
        """See `IChannel.seconds`."""
        return self._clock.seconds()

    async def sleep(self, seconds: float) -> None:
        """See `IChannel.sleep`."""
        await deferLater(self._clock, seconds)

    async def wait_idle(self, event: Coroutine[Any, Any, bool], seconds: float) -> bool | None:
        """See `IChannel.wait_idle`."""
        results: list[bool | Failure] = []
        waiting = Deferred.fromCoroutine(event)
        waiting.addBoth(results.append)
        if not results:
            waiting.addBoth(lambda _: self._wake())
            alarm = self._clock.callLater(seconds, self._wake)
            try:
                if not len(self.wire):
                    await self._rest(self._clock.seconds() + seconds + ALARM_MARGIN)
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

    async def start_tls(self) -> None:
        """See `IChannel.start_tls`."""
        assert self._tls is not None
        if self._failure is not None:  # there is nothing left to shake hands with
            raise HandshakeFailed(str(self._failure))
        self.wire.drop()
        self._flush()
        self._tls.start(self.transport)
        end = self._clock.seconds() + HANDSHAKE_TIMEOUT
        try:
            while self.tls is None:
                await self._rest(end)
        except ChannelLost as lost:
            raise HandshakeFailed(str(lost)) from lost

    def notice_loss(self, seconds: float) -> None:
        """See `IChannel.notice_loss`."""
        if not (self._connected and isinstance(self.transport, Connection)):
            return
        handle = self.transport.socket  # `getHandle` is that of TLS, where it is on
        if handle.family not in (socket.AF_INET, socket.AF_INET6):
            return
        pause = max(1, int(seconds / (KEEPALIVE_PROBES + 1)))  # the first probe comes after one
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            (socket.TCP_KEEPIDLE, pause),
            (socket.TCP_KEEPINTVL, pause),
            (socket.TCP_KEEPCNT, KEEPALIVE_PROBES),
            (socket.TCP_USER_TIMEOUT, int(seconds * 1000)),
        ):
            handle.setsockopt(socket.IPPROTO_TCP, option, value)

    def abort(self) -> None:
        """See `IChannel.abort`."""
        if self._connected:
            self.transport.abortConnection()

    def _expect_octets(self) -> None:
        """Somebody begins to wait for octets: read on, unless enough is unread."""
        if self._paused and len(self.wire) < MAX_UNREAD:
            self._paused = False
            self.transport.resumeProducing()
        self._came = False

    async def _rest(self, end: float) -> None:
        """Wait until Twisted calls, or the clock shows `end`; raise what happened meanwhile."""
        if self._failure is None:
            self._expect(end)
            try:
                await _REST
            finally:
                self._resting = False  # also where the conversation is thrown away as it waits
            self._deadline = None
        if self._failure is not None:
            raise self._failure

    # --- Twisted calls these

    def connectionMade(self) -> None:
        """Twisted calls this when the connection stands."""
        self._connected = True
        self._at_once = isinstance(self.transport, Connection)
        host = host_of(self.transport.getPeer())
        self.remote_address = self.remote_address or host
        if self._at_once and host != LOCAL_ADDRESS:
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        if self._tls_at_once:
            assert self._tls is not None
            self._expect(self._clock.seconds() + HANDSHAKE_TIMEOUT)
            self._tls.start(self.transport)
        else:
            self._begin()

    def handshakeCompleted(self) -> None:
        """Twisted calls this when TLS stands."""
        assert self._tls is not None
        self.tls = self._tls.info(self.transport)
        if self._conversation is None:
            self._begin()
        else:
            self._wake()

    def dataReceived(self, data: bytes) -> None:
        """Twisted calls this with what arrived."""
        self._came = True
        if self.wire.feed(data) > MAX_UNREAD and not self._paused:
            self._paused = True
            self.transport.pauseProducing()
        self._wake()

    def readConnectionLost(self) -> None:
        """Twisted calls this when the peer will send no more, but may still read."""
        self._fail(ChannelLost("closed by the peer"))

    def writeConnectionLost(self) -> None:
        """Twisted calls this when we closed our half, which we never do alone."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted calls this when the connection is gone."""
        self._connected = self._at_once = False
        self._fail(ChannelLost(reason.getErrorMessage()))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def pauseProducing(self) -> None:
        """Twisted calls this when the peer takes less than we write."""
        self._congested = True

    def resumeProducing(self) -> None:
        """Twisted calls this when the peer has taken what we wrote."""
        was_congested, self._congested = self._congested, False
        self._at_once = isinstance(self.transport, Connection)
        if was_congested:
            self._wake()

    def stopProducing(self) -> None:
        """Twisted calls this when nothing more can be written."""

    # --- for the service

    def close_gently(self) -> None:
        """Let the role end its conversation at the next good moment."""
        self.closing = True
        self._wake()

    def time_out(self) -> None:
        """End the conversation as if the peer had taken too long."""
        self._fail(ChannelTimeout("timed out"))

    # --- the conversation

    def _flush(self) -> None:
        """Send what was said."""
        if not self._unsent:
            return
        data = b"".join(self._unsent)
        self._unsent.clear()
        self._unsent_octets = 0
        if self._at_once and not self.transport.TLS:
            data = self._send(data)
        if not (self._connected and data):
            return
        if self.record_per_line and self.transport.TLS:
            for line in data.splitlines(keepends=True):
                # The transport itself would put them together.
                TLSMemoryBIOProtocol.write(self.transport.protocol, line)
        else:
            self.transport.write(data)

    def _send(self, data: bytes) -> bytes:
        """Give octets to the system; returns those that have to wait for the transport.

        The transport would write them in the next turn of the reactor, after changing twice what
        that watches: for short replies, this is most of their cost.
        """
        count = self.transport.writeSomeData(data)
        rest = data[count:] if isinstance(count, int) else data  # the transport finds it lost
        self._at_once = not rest
        # Twisted resumes only what it has paused, and it pauses for much more than a short rest.
        self.transport.producerPaused = bool(rest)
        return rest

    def _begin(self) -> None:
        self._deadline = None
        self._conversation = self._converse()
        self._step()

    async def _converse(self) -> None:
        role: IRole | None = self._first_role(self)
        while role is not None:
            role = await role.converse(self)

    def _wake(self) -> None:
        if self._resting:
            self._resting = False
            self._step()

    def _step(self, error: BaseException | None = None) -> None:
        """Run the conversation until it waits again."""
        conversation = self._conversation
        assert conversation is not None
        try:
            waits_for = conversation.throw(error) if error else conversation.send(None)
        except StopIteration:
            self._finish(None)
        except ChannelLost as lost:
            self._finish(lost)
        except BaseException:  # noqa: BLE001 - outermost: `ended` tells whoever waits for it
            self._finish(Failure())
        else:
            self._resting = waits_for is _REST
            self._flush()
            if waits_for is not _REST:
                waits_for.addBoth(self._resolved)

    def _resolved(self, result: object) -> None:
        """What the conversation waited for is there."""
        self._step(result.value if isinstance(result, Failure) else None)

    def _finish(self, error: Failure | ChannelLost | None) -> None:
        """The conversation is over: close, after all that was written."""
        self._flush()
        self._over = True
        if self._congested and isinstance(self._failure, ChannelTimeout):
            self.abort()  # the peer has taken nothing for as long as it may
        elif self._connected:
            self.transport.unregisterProducer()
            self.transport.loseConnection()
            is_late = isinstance(self._failure, ChannelTimeout)
            left = LAST_CHANCE if is_late else CLOSE_TIMEOUT
            self._expect(self._clock.seconds() + left)
        if self.ended.called:
            return  # cancelled by whoever waited for it
        if error is None:
            self.ended.callback(None)
        else:
            self.ended.errback(error)

    # --- time

    def _expect(self, end: float) -> None:
        """Let the conversation fail when the clock shows `end` before anything has happened.

        The timer is moved only when it would fire too late: most waits end long before.
        """
        self._deadline = end
        if self._timer is None:
            self._timer = self._clock.callLater(self._left(end), self._time_passed)
        elif self._timer.getTime() > end:
            self._timer.reset(self._left(end))

    def _left(self, end: float) -> float:
        return max(0.0, end - self._clock.seconds())

    def _time_passed(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        left = self._deadline - self._clock.seconds()
        if left > 0:
            self._timer = self._clock.callLater(left, self._time_passed)
        elif self._over:
            self.abort()
        else:
            self._fail(ChannelTimeout("timed out"))

    def _fail(self, failure: ChannelLost) -> None:
        if self._failure is None:
            self._failure = failure
        if self._over:
            return
        if self._conversation is None:
            self._finish(failure)
        else:
            self._wake()


def host_of(address: IAddress | None) -> str:
    """The IP address in an address of Twisted's; ``unix`` where it has none."""
    return getattr(address, "host", None) or LOCAL_ADDRESS


class LinkFactory(ServerFactory):
    """Makes a Link for every connection that a listener takes, and knows those that stand."""

    log = Logger()
    noisy = False

    def __init__(self, clock: IReactorTime) -> None:
        self.links: set[Link] = set()
        self._clock = clock

    def serve(self, role: Callable[[Link], IRole], tls: TLSContext | None = None) -> None:
        """What connections that come from now on get; those that stand are not touched."""
        self._role = role
        self._tls = tls

    def buildProtocol(self, address: IAddress | None) -> Link:
        """Twisted calls this for each connection."""
        link = Link(self._role, self._clock, self._tls)
        link.remote_address = host_of(address)
        self.links.add(link)
        link.ended.addErrback(self._failed, link).addBoth(lambda _: self.links.discard(link))
        return link

    def _failed(self, failure: Failure, link: Link) -> None:
        if failure.check(CancelledError):  # by the service, which stops
            self.log.info(
                "session with {peer} cut: it did not end in time",
                peer=link.remote_address,
            )
        elif not failure.check(ChannelLost):
            self.log.failure(
                "session with {peer} failed",
                failure=failure,
                peer=link.remote_address,
            )
