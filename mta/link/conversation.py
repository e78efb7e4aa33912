"""The driver of the roles on one connection.

The coroutine of a role waits either for the connection or for a Deferred.  The first is the hot
path, and costs no Deferred: the coroutine rests until an event wakes it.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from mta.interfaces import IChannel, IRole
from mta.link.deadline import Deadline
from mta.link.output import Output
from mta.session import ChannelLost, ChannelTimeout

CLOSE_TIMEOUT = 30.0  # seconds in which the peer may still take our last octets
LATE_CLOSE_TIMEOUT = 1.0  # seconds, the same for a peer that has already had all its time


class _Rest:
    """The object that the coroutine awaits when it waits for the connection."""

    __slots__ = ()

    def __await__(self) -> Generator[_Rest, None, None]:
        yield self


_REST = _Rest()


class Conversation:
    """The coroutine of the roles, which rests until an event wakes it.

    `ended` fires when it is over: with None, or with the exception of a role (ChannelLost,
    HopFailure, PeerFault...).  To cancel `ended` aborts the connection.  `failure` is the reason
    why a wait for the connection fails.
    """

    __slots__ = (
        "_clock",
        "_coroutine",
        "_is_over",
        "_is_resting",
        "_output",
        "deadline",
        "ended",
        "failure",
    )

    def __init__(self, output: Output, clock: IReactorTime) -> None:
        self.ended: Deferred[None] = Deferred(lambda _: output.abort())
        self.failure: ChannelLost | None = None
        self.deadline = Deadline(clock, self._time_passed)
        self._output = output
        self._clock = clock
        self._coroutine: Coroutine[Any, Any, None] | None = None
        self._is_resting = False
        self._is_over = False

    @property
    def has_begun(self) -> bool:
        """True once the first role has the connection."""
        return self._coroutine is not None

    def begin(self, role: IRole, channel: IChannel) -> None:
        """Let this role converse, and those that it names."""
        self.deadline.clear()
        self._coroutine = _converse(role, channel)
        self._step()

    async def rest(self, end: float) -> None:
        """Wait for an event.

        Raises ChannelLost when the connection ends, or the clock shows `end`, before that.
        """
        if self.failure is None:
            self.deadline.set(end)
            try:
                await _REST
            finally:
                self._is_resting = False  # also where the coroutine is thrown away as it waits
            self.deadline.clear()
        if self.failure is not None:
            raise self.failure

    def wake(self) -> None:
        """Go on, where the coroutine waits for the connection."""
        if self._is_resting:
            self._is_resting = False
            self._step()

    def fail(self, failure: ChannelLost) -> None:
        """Let this and each further wait for the connection fail."""
        if self.failure is None:
            self.failure = failure
        if self._is_over:
            return
        if self._coroutine is None:
            self._finish(failure)
        else:
            self.wake()

    def _step(self, error: BaseException | None = None) -> None:
        """Run the coroutine until it waits again."""
        coroutine = self._coroutine
        assert coroutine is not None
        try:
            waits_for = coroutine.throw(error) if error else coroutine.send(None)
        except StopIteration:
            self._finish(None)
        except ChannelLost as lost:
            self._finish(lost)
        except BaseException:  # noqa: BLE001 - outermost: `ended` tells the owner of the connection
            self._finish(Failure())
        else:
            self._is_resting = waits_for is _REST
            self._output.flush()
            if waits_for is not _REST:
                waits_for.addBoth(self._resolved)

    def _resolved(self, result: object) -> None:
        """Go on: the coroutine takes the result from the Deferred itself."""
        self._step(result.value if isinstance(result, Failure) else None)

    def _finish(self, error: Failure | ChannelLost | None) -> None:
        """Close the connection after all that was written."""
        output = self._output
        output.flush()
        self._is_over = True
        is_late = isinstance(self.failure, ChannelTimeout)
        if output.is_congested and is_late:
            output.abort()  # the peer has taken nothing for as long as it may
        elif output.is_open:
            output.close()
            timeout = LATE_CLOSE_TIMEOUT if is_late else CLOSE_TIMEOUT
            self.deadline.set(self._clock.seconds() + timeout)
        if self.ended.called:
            return  # it was cancelled
        if error is None:
            self.ended.callback(None)
        else:
            self.ended.errback(error)

    def _time_passed(self) -> None:
        if self._is_over:
            self._output.abort()
        else:
            self.fail(ChannelTimeout("timed out"))


async def _converse(role: IRole | None, channel: IChannel) -> None:
    while role is not None:
        role = await role.converse(channel)
