"""The mail that waits for a peer, as the source of a turned connection (RFC 2645, RFC 821 3.8).

Oldest first, and each message is routed again: what no longer waits for this peer takes its
ordinary way.  What a broken connection leaves unsettled goes on waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from mta.interfaces import IAttempts, IHeldSource, IQueue
from mta.mail import Mailbox, Outcome, Status
from mta.queue.bell import Bell
from mta.queue.noted import NoAttempts
from mta.queue.rounds import held_for
from mta.queued import Delivery, Message

PORTION = 20  # messages leased for a peer at once
EVERYWHERE = "."  # as a domain: any
POLL = 60.0  # seconds after which a lingering source looks into the spool unasked
PUT_OFF = 60.0  # seconds until mail that the peer deferred is offered to it again
MAX_PUT_OFF = 100  # messages deferred by a peer; it is handed no more on that connection


@implementer(IHeldSource)
class HeldMail:
    """What waits for one peer and some of its domains; a leading dot means subdomains.

    With `linger` over 0, `more` waits up to so many seconds since the last delivery for new
    mail.  Whoever asked for the source calls `close` when
    the connection is over, however it ended.
    """

    log = Logger()

    def __init__(
        self,
        peer: str,
        domains: Collection[str],
        linger: float,
        *,
        queue: IQueue,
        clock: IReactorTime,
        begin: Callable[[Message, HeldMail], Awaitable[None]],
        settled: Callable[[Delivery, Sequence[Outcome]], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        closed: Callable[[HeldMail], None],
        attempts: IAttempts | None = None,
    ) -> None:
        self.peer = peer
        self._domains = frozenset(domains)
        self._suffixes = tuple(domain for domain in domains if domain.startswith("."))
        self._linger = linger
        self._queue = queue
        self._clock = clock
        self._begin = begin
        self._settled = settled
        self._spawn = spawn
        self._on_close = closed
        self._attempts = attempts or NoAttempts()
        self._ready: deque[Delivery] = deque()
        self._out: dict[int, Delivery] = {}  # a message may have several
        self._put_off: deque[tuple[float, Delivery, Sequence[Outcome]]] = deque()
        self._given = 0
        self._stale = True  # whether the spool may hold something that we have not seen
        self._filling = False
        self._filled_at = 0.0
        self._last_used = clock.seconds()
        self._retired = False
        self._closed = False
        self._bell = Bell(clock)
        self._quiet = Bell(clock)

    # --- for the connection

    async def next(self) -> Delivery | None:
        """See `IMailSource.next`."""
        while not self._retired:
            if self._ready:
                if not self._attempts.begin_attempt(self._ready[0].message.id):
                    self.retire()
                    return None
                delivery = self._ready.popleft()
                self._out[id(delivery)] = delivery
                self._last_used = self._clock.seconds()
                return delivery
            if self._stale and not self._filling:
                self._filling = True
                self._spawn(self._fill())
            elif self._filling:
                await self._bell.wait(POLL)
            else:
                return None
        return None

    async def wait(self) -> bool:
        """See `IMailSource.wait`."""
        while not self._retired:
            if self._clock.seconds() >= self._filled_at + POLL:
                self._stale = True
            self._offer_again()
            if self._ready or self._stale or self._filling:
                return True
            left = self._last_used + self._linger - self._clock.seconds()
            if left <= 0:
                return False
            await self._bell.wait(min(left, POLL))
        return False

    def report(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """See `IMailSource.report`.  After `close` nothing is recorded any more.

        What the peer deferred goes back to the spool later: there, it would be the first to be
        handed out again.
        """
        if len(outcomes) != len(delivery.targets):
            raise ValueError("one outcome for each target")
        if self._out.pop(id(delivery), None) is None:
            if self._closed:
                return
            raise ValueError("a delivery is settled once, by the source that handed it out")
        self._attempts.end_attempt(delivery.message.id)
        self._last_used = self._clock.seconds()
        waiting = [_still_held(outcome) for outcome in outcomes]
        if self._retired or any(outcome.status is not Status.HELD for outcome in waiting):
            self._settled(delivery, waiting)
        else:
            self._put_off.append((self._clock.seconds(), delivery, waiting))
            if len(self._put_off) >= MAX_PUT_OFF:
                self.retire()
        if not self._out:
            self._quiet.ring()

    def return_unsent(self, delivery: Delivery) -> None:
        """See `IMailSource.return_unsent`: it goes on waiting."""
        self.report(delivery, [held_for(self.peer)] * len(delivery.targets))

    def retire(self) -> None:
        """Hand out no more; what is out may still be settled."""
        if self._retired:
            return
        self._retired = True
        self._bell.ring()
        while self._ready:
            self._return_unsent(self._ready.popleft())
        while self._put_off:
            _, delivery, outcomes = self._put_off.popleft()
            self._settled(delivery, outcomes)

    def close(self) -> None:
        """The connection is over: what it left unsettled goes on waiting."""
        if self._closed:
            return
        self.retire()
        self._closed = True
        out, self._out = self._out, {}
        for delivery in out.values():
            self._attempts.end_attempt(delivery.message.id)
            self._return_unsent(delivery)
        self._quiet.ring()
        self._on_close(self)

    # --- for the runner

    def takes(self, address: Mailbox) -> bool:
        """Whether this source hands out mail for that address."""
        if self._retired:
            return False
        return (
            address.domain in self._domains
            or EVERYWHERE in self._domains
            or (bool(self._suffixes) and address.domain.endswith(self._suffixes))
        )

    @property
    def is_current(self) -> bool:
        """Whether new mail may go out at once, as none that is older waits in the spool."""
        return (
            not (self._retired or self._stale or self._filling)
            and self._linger > 0
            and len(self._ready) + len(self._out) < PORTION
        )

    def give(self, delivery: Delivery) -> None:
        """Hand out this delivery next; it is settled as any other."""
        if self._retired:
            self._return_unsent(delivery)
            return
        self._given += 1
        self._ready.append(delivery)
        self._bell.ring()

    def withdraw(self, ids: Collection[str]) -> None:
        """Hand out none of these messages; what is out already may still be settled."""
        ready, self._ready = self._ready, deque()
        for delivery in ready:
            if delivery.message.id in ids:
                self._return_unsent(delivery)
            else:
                self._ready.append(delivery)

    def wake(self) -> None:
        """The spool may hold new mail for the peer."""
        self._stale = True
        self._bell.ring()

    async def stop(self, grace: float) -> None:
        """Hand out no more, wait up to `grace` seconds for what is out, and close."""
        self.retire()
        end = self._clock.seconds() + grace
        while self._out and (left := end - self._clock.seconds()) > 0:
            await self._quiet.wait(left)
        self.close()

    async def _fill(self) -> None:
        """Lease a portion, whoever may be cancelled meanwhile."""
        self._stale = False
        self._filled_at = self._clock.seconds()
        messages: Sequence[Message] = ()
        try:
            messages = await self._queue.lease_held(self.peer, self._domains, PORTION)
        except OSError as error:
            self.log.error(
                "mail held for {peer} can't be read: {error}", peer=self.peer, error=str(error)
            )
        given = self._given
        for message in messages:
            await self._begin(message, self)
        # Where nothing of a portion was for us, the next one would be the same again.
        if len(messages) == PORTION and self._given > given:
            self._stale = True
        self._filling = False
        self._bell.ring()

    def _return_unsent(self, delivery: Delivery) -> None:
        self._settled(delivery, [held_for(self.peer)] * len(delivery.targets))

    def _offer_again(self) -> None:
        """Put back what the peer deferred some time ago: a look into the spool will find it."""
        while self._put_off and self._clock.seconds() >= self._put_off[0][0] + PUT_OFF:
            _, delivery, outcomes = self._put_off.popleft()
            self._settled(delivery, outcomes)


def _still_held(outcome: Outcome) -> Outcome:
    """A deferral as held mail has it."""
    if outcome.status is not Status.DEFERRED:
        return outcome
    return Outcome(Status.HELD, outcome.reply, outcome.remote)
