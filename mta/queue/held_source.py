"""The mail held for a peer, as a turned connection gets it.

RFC 2645, RFC 821 section 3.8.  What the peer was not offered yet comes first, the oldest of it.
Each message is routed again: what no longer waits for this peer takes its ordinary way.  What a
broken connection leaves unsettled goes on waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from mta.interfaces import IAttempts, IHeldLeases, IHeldSource
from mta.mail import Mailbox, Outcome, Status, is_among
from mta.queue.event import Event
from mta.queue.interfaces import IActiveQueue, IHeldOutlet
from mta.queue.offers import Offers
from mta.queue.outcomes import held_outcome
from mta.queue.tasks import Tasks
from mta.queue.waiting_line import WaitingLine
from mta.queued import EVERYWHERE, Delivery, Message

BATCH_SIZE = 20  # messages leased for a peer at once: it may take none of them
MAX_WAIT = 60.0  # seconds after which a waiting source looks again whether it has to wait
MAX_SMALL = 64 * 1024  # octets: content that a quick link takes while the main one is busy
MAX_IN_LINE = 100  # messages on a link, with which one whose sender waits may still join them


@implementer(IHeldSource, IHeldOutlet)
class HeldSource:
    """The mail of one peer for some of its domains.

    A leading dot means subdomains.  With `linger` over 0, `wait` waits up to so many seconds since
    the last delivery for new mail.  The connection calls `close` at its end, however it ended.
    """

    log = Logger()

    def __init__(
        self,
        peer: str,
        domains: Collection[str],
        linger: float,
        queue: IHeldLeases,
        active: IActiveQueue,
        attempts: IAttempts,
        tasks: Tasks,
        clock: IReactorTime,
        now: Callable[[], float],
    ) -> None:
        self.peer = peer
        self.is_closed = False
        self._domains = frozenset(domains)
        self._quick: HeldSource | None = None
        self._is_interrupted = False
        self._is_crowded = False  # there is more for a quick link than it had room for
        self._linger = linger
        self._queue = queue
        self._active = active
        self._attempts = attempts
        self._tasks = tasks
        self._clock = clock
        self._ready = WaitingLine()
        self._out: dict[int, Delivery] = {}  # a message may have several
        self._offers = Offers(now)
        self._stale = True  # the spool may hold something that we have not seen
        self._leasing = False
        self._last_used = clock.seconds()
        self._retired = False
        self._changed = Event(clock)
        self._returned = Event(clock)

    # --- for the connection

    async def next(self) -> Delivery | None:
        """See `IMailSource.next`."""
        while not self._retired:
            if self._ready:
                if not self._attempts.begin_attempt(self._ready.first.message.id):
                    self.retire()
                    return None
                delivery = self._ready.popleft()
                self._out[id(delivery)] = delivery
                self._last_used = self._clock.seconds()
                self.share()
                return delivery
            if self._stale and not self._leasing:
                self._begin_lease()
            elif self._leasing:
                await self._changed.wait(MAX_WAIT)
            else:
                return None
        return None

    async def wait(self) -> bool:
        """See `IMailSource.wait`."""
        while not self._retired:
            if self._is_interrupted:
                self._is_interrupted = False
                return True
            if self._ready or self._stale or self._leasing:
                return True
            left = self._last_used + self._linger - self._clock.seconds()
            if left <= 0:
                return False
            await self._changed.wait(min(left, MAX_WAIT))
        return False

    def report(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """See `IMailSource.report`.  After `close` nothing is recorded any more."""
        if len(outcomes) != len(delivery.targets):
            raise ValueError("one outcome for each target")
        if self._out.pop(id(delivery), None) is None:
            if self.is_closed:
                return
            raise ValueError("a delivery is settled once, by the source that handed it out")
        self._attempts.end_attempt(delivery.message.id)
        self._last_used = self._clock.seconds()
        if self._is_crowded and self._has_room:
            self._is_crowded, self._stale = False, True
        waiting = [_still_held(outcome) for outcome in outcomes]
        if any(outcome.status is Status.HELD for outcome in waiting):
            self._offers.deferred()
        self._active.report(delivery, waiting)
        if not self._out:
            self._returned.set()

    def return_unsent(self, delivery: Delivery) -> None:
        """See `IMailSource.return_unsent`: it goes on waiting."""
        self.report(delivery, [held_outcome(self.peer)] * len(delivery.targets))

    def retire(self) -> None:
        """Hand out no more; what is out may still be settled."""
        if self._retired:
            return
        self._retired = True
        self._changed.set()
        for delivery in self._ready.clear():
            self._go_on_waiting(delivery)

    def interrupt(self) -> None:
        """See `IHeldSource.interrupt`."""
        self._is_interrupted = True
        self._changed.set()

    def close(self) -> None:
        """See `IHeldSource.close`."""
        self.retire()
        self.is_closed = True
        out, self._out = self._out, {}
        for delivery in out.values():
            self._attempts.end_attempt(delivery.message.id)
            self._go_on_waiting(delivery)
        self._returned.set()

    # --- for the runner

    def takes(self, address: Mailbox) -> bool:
        """Tell whether this source hands out mail for that address."""
        return not self._retired and _is_wanted(address.domain, self._domains)

    @property
    def is_current(self) -> bool:
        """Tell whether new mail may go out at once.

        It may not while older mail waits in the spool.
        """
        return self._has_room and not (self._stale or self._leasing) and self._linger > 0

    @property
    def _has_room(self) -> bool:
        return not self._retired and len(self._ready) + len(self._out) < BATCH_SIZE

    @property
    def takes_at_once(self) -> bool:
        """Tell whether mail whose sender waits may go out here."""
        in_line = len(self._ready) + len(self._out)
        return not self._retired and self._linger > 0 and in_line < MAX_IN_LINE

    def let_go(self, id: str) -> None:
        """Note that the sender of a message waits no more."""
        self._ready.let_go(id)

    def give(self, delivery: Delivery) -> None:
        """Hand out this delivery next; it is settled as any other."""
        if self._retired:
            self._go_on_waiting(delivery)
            return
        self._ready.append(delivery)
        self.share()
        self._changed.set()

    def share_with(self, quick: HeldSource) -> None:
        """Share small mail with the source of a quick link."""
        self._quick = quick
        self.share()

    def share(self) -> None:
        """Give small mail to the quick link, if large mail delays it."""
        quick = self._quick
        if quick is None or not any(map(_is_large, self._out.values())):
            return
        for delivery in self._ready.clear():
            if quick._has_room and not _is_large(delivery):
                quick.give(delivery)
            else:
                self._ready.append(delivery)
        quick._is_crowded = not quick._has_room
        if self._stale and not self._leasing and self._has_room and quick._has_room:
            self._begin_lease()

    def withdraw(self, ids: Collection[str]) -> None:
        """Hand out none of these messages, but for what is out already."""
        for delivery in self._ready.clear():
            if delivery.message.id in ids:
                self._go_on_waiting(delivery)
            else:
                self._ready.append(delivery)

    def wake(self) -> None:
        """Look into the spool, which may hold new mail for the peer."""
        self._stale = True
        self.share()
        self._changed.set()

    async def stop(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for what is out, and close."""
        self.retire()
        end = self._clock.seconds() + timeout
        while self._out and (left := end - self._clock.seconds()) > 0:
            await self._returned.wait(left)
        self.close()

    def _begin_lease(self) -> None:
        self._leasing = True
        self._tasks.start(self._lease())

    async def _lease(self) -> None:
        """Lease some messages, whatever becomes of the call that waits for them."""
        self._stale = False
        messages: Sequence[Message] = ()
        try:
            messages = await self._queue.lease_held(
                self.peer, self._domains, BATCH_SIZE, self._offers.before
            )
        except OSError as error:
            self.log.error(
                "mail held for {peer} can't be read: {error}", peer=self.peer, error=str(error)
            )
        for message in messages:
            await self._active.attempt_held(message, self)
        if len(messages) == BATCH_SIZE:
            self._stale = True
        self._leasing = False
        self.share()
        self._changed.set()

    def _go_on_waiting(self, delivery: Delivery) -> None:
        self._active.report(delivery, [held_outcome(self.peer)] * len(delivery.targets))


def _is_wanted(domain: str, wanted: Collection[str]) -> bool:
    return EVERYWHERE in wanted or is_among(domain, wanted)


def _is_large(delivery: Delivery) -> bool:
    return delivery.message.content.size > MAX_SMALL


def _still_held(outcome: Outcome) -> Outcome:
    """The outcome, with a deferral as held mail has it."""
    if outcome.status is not Status.DEFERRED:
        return outcome
    return Outcome(Status.HELD, outcome.reply, outcome.remote)
