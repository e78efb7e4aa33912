"""A spool in memory, for receivers and for the queue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from twisted.internet.defer import Deferred
from zope.interface import implementer

from mta.interfaces import IPreviews, IQueue, ISpool, ITakenMail
from mta.mail import Envelope, Recipient
from mta.queued import (
    EVERYWHERE,
    AlreadyTaken,
    IDraft,
    Message,
    Notice,
    Progress,
    Settlement,
    State,
)
from mta.session import UNKNOWN_ORIGIN, Origin
from mta.spool import queue_id
from mta.spool.taken import key_of, without_taken
from mta.testing.delivery import FakeContent

POSTPONED_AT_ONCE = 1000  # messages
PIECE = 256 * 1024  # octets of content that is read


@implementer(IDraft)
class MemoryDraft:
    """A body in memory.  `failure`, where set, is raised by `write`.

    `header` is what the commit added, `addressed` are the recipients that it was told.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.id = queue_id.encode(number)
        self.addressed: tuple[Recipient, ...] = ()
        self.header = b""
        self.data = b""
        self.discarded = False
        self.failure: OSError | None = None

    def address(self, envelope: Envelope) -> None:
        """Remember the recipients."""
        self.addressed = envelope.recipients

    async def write(self, piece: bytes) -> None:
        """Append octets."""
        if self.failure:
            raise self.failure
        self.data += piece

    async def replace(self, other: IDraft) -> None:
        """Have the data of the other one, which is discarded."""
        assert isinstance(other, MemoryDraft)
        if other.failure:
            raise other.failure
        self.data = other.data
        other.discard()

    @property
    def content(self) -> bytes:
        """The header section and the body."""
        return self.header + self.data

    def discard(self) -> None:
        """Remember that it was discarded."""
        self.discarded = True


def _epoch() -> float:
    return 0.0


@implementer(ISpool, IPreviews, ITakenMail, IQueue)
class MemorySpool:
    """A spool with one owner, which keeps the promises of leases.

    `now`: seconds since the epoch.  `waiting`: messages and when they are due, `leased` and
    `on_hold`: the others, by queue id.  `failure` is raised by all that is asked until it is
    None again; `faults` is how many of the next requests fail besides.  `unwanted`: what was
    recalled.  `taken`: what peers have brought.  `offered`: when to a peer, by queue id.
    The lists record what was asked, in order.
    """

    def __init__(self, now: Callable[[], float] = _epoch) -> None:
        self.waiting: dict[str, tuple[Message, float]] = {}
        self.leased: dict[str, Message] = {}
        self.on_hold: dict[str, Message] = {}
        self.failure: OSError | None = None
        self.faults = 0
        self.unwanted: set[str] = set()
        self.taken: set[str] = set()
        self.offered: dict[str, float] = {}
        self.drafts: list[MemoryDraft] = []
        self.settlements: list[Settlement] = []
        self.notices: list[Notice] = []
        self.leases: list[int] = []  # the limits that were given
        self.released: list[str] = []
        self.postponed: list[int] = []  # how many, each time
        self.removals: list[list[str]] = []
        self.removal_delay = -1.0  # seconds, of the last removal
        self.now = now
        self._ids = queue_id.QueueIds(now)
        self._paused: list[Deferred[None]] | None = None

    # --- for the test

    @property
    def messages(self) -> list[Message]:
        """Everything in the spool, by queue id."""
        waiting = {id: message for id, (message, _) in self.waiting.items()}
        everything = self.leased | self.on_hold | waiting
        return [everything[id] for id in sorted(everything)]

    def put(self, message: Message, due: float = 0.0) -> None:
        """Let a message wait."""
        self.waiting[message.id] = (message, due)

    def lend(self, message: Message) -> Message:
        """Put a message in that is leased, as after a commit."""
        self.leased[message.id] = message
        return message

    def add(self, envelope: Envelope, content: bytes, origin: Origin = UNKNOWN_ORIGIN) -> Message:
        """Let a new message wait that is due."""
        message = _message(self._ids.next(), envelope, content, origin)
        self.put(message)
        return message

    def pause(self) -> None:
        """Let commits and records wait from now on."""
        self._paused = []

    def resume(self) -> None:
        """Do what waits, in order, and everything after it at once."""
        paused, self._paused = self._paused or [], None
        for deferred in paused:
            deferred.callback(None)

    # --- ISpool

    def draft(self) -> MemoryDraft:
        """Begin a message."""
        self.drafts.append(MemoryDraft(self._ids.next()))
        return self.drafts[-1]

    async def commit(
        self, draft: IDraft, envelope: Envelope, header: bytes, origin: Origin, hold: str = ""
    ) -> Message:
        """Keep a message, leased or on hold."""
        await self._begin()
        assert isinstance(draft, MemoryDraft)
        draft.header = header
        envelope = without_taken(envelope, self.taken, origin)
        if not envelope.recipients:
            draft.discard()
            raise AlreadyTaken(origin.told_id)
        message = _message(draft.number, envelope, draft.content, origin, len(header))
        if hold:
            message = self.on_hold[message.id] = replace(message, on_hold=hold)
            return message
        return self.lend(message)

    async def preview(
        self, draft: IDraft, envelope: Envelope, header: bytes, origin: Origin
    ) -> Message | None:
        """Return what would be committed; None where that would fail."""
        if self.failure or self.faults:
            return None
        assert isinstance(draft, MemoryDraft)
        return _message(draft.number, envelope, header + draft.data, origin, len(header))

    async def has_taken(self, origin: Origin, recipients: Collection[Recipient]) -> bool:
        """Tell whether all of these have the message."""
        self._fail()
        return all(key_of(origin, recipient) in self.taken for recipient in recipients)

    # --- IQueue

    async def lease_due(self, limit: int) -> Sequence[Message]:
        """Lease what is due, the longest overdue first."""
        self._fail()
        self.leases.append(limit)
        entries = sorted(self.waiting.values(), key=lambda entry: (entry[1], entry[0].id))
        return self._lease([m.id for m, due in entries if due <= self.now()][:limit])

    async def lease_held(
        self, peer: str, domains: Collection[str], limit: int, before: float
    ) -> Sequence[Message]:
        """Lease what a peer may be offered, the least recently offered first."""
        self._fail()
        offered = {each.id: self.offered.get(each.id, 0.0) for each in self._held(peer, domains)}
        found = sorted((at, id) for id, at in offered.items() if id in self.waiting)
        chosen = [id for at, id in found if at < before][:limit]
        self.offered |= dict.fromkeys(chosen, self.now())
        return self._lease(chosen)

    async def lease(self, ids: Collection[str]) -> Sequence[Message]:
        """Lease those of these that wait."""
        return self._lease([id for id in ids if id in self.waiting])

    async def count_held(self, peer: str, domains: Collection[str], limit: int) -> int:
        """Count what waits for a peer, up to a bound."""
        return min(len(self._held(peer, domains)), limit)

    async def peers_with_mail(self, peers: Collection[str]) -> Collection[str]:
        """Return those for which something waits."""
        self._fail()
        held = {peer: self._held(peer, [EVERYWHERE]) for peer in peers}
        return [peer for peer in peers if any(each.id in self.waiting for each in held[peer])]

    async def next_due(self) -> float | None:
        """Return when the next message is due."""
        return min((due for _, due in self.waiting.values()), default=None)

    async def settle(self, settlement: Settlement) -> Sequence[Message]:
        """Record an attempt."""
        await self._begin()
        self.settlements.append(settlement)
        if all(progress.state is State.DONE for progress in settlement.progress):
            self._forget(settlement.id)
        elif message := self.leased.pop(settlement.id, None):
            self.offered[message.id] = settlement.offered or self.offered.get(message.id, 0.0)
            changed = replace(
                message,
                progress=settlement.progress,
                attempts=settlement.attempts,
                warned=settlement.warned,
                recovered=message.recovered or settlement.recovered,
            )
            self.put(changed, settlement.due)
        self.notices += settlement.notices
        return [self.lend(self._notice(notice)) for notice in settlement.notices]

    async def remove(self, ids: Collection[str], delay: float) -> None:
        """Record for each message that all is done."""
        await self._begin()
        self.removal_delay = delay
        self.removals.append(list(ids))
        for message in filter(None, map(self._forget, ids)):
            progress = tuple(replace(each, state=State.DONE) for each in message.progress)
            attempts = message.attempts + 1
            self.settlements.append(
                Settlement(message.id, progress, self.now(), attempts, message.warned)
            )

    async def recalled(self, ids: Collection[str]) -> Collection[str]:
        """Return those that are `unwanted`, or not leased."""
        self._fail()
        return {id for id in ids if id in self.unwanted or id not in self.leased}

    async def postpone(
        self, dues: Mapping[str, float], warn_after: float, give_up_after: float
    ) -> Mapping[str, int]:
        """Put off what is due and waits for these hops alone."""
        counts: Counter[str] = Counter()
        entries = [(id, *entry) for id, entry in self.waiting.items() if entry[1] <= self.now()]
        for id, message, _ in entries[:POSTPONED_AT_ONCE]:
            hops = set(_hops(message))
            if not hops or not hops <= dues.keys():
                continue
            first = min(hops, key=lambda hop: (dues[hop], hop))
            due = min(dues[first], message.arrived + give_up_after)
            if warn_after and not message.warned:
                due = min(due, message.arrived + warn_after)
            if due > self.now():
                self.waiting[id] = message, due
                counts[first] += 1
        self.postponed.append(counts.total())
        return counts

    async def release(self, dues: Mapping[str, float]) -> None:
        """Give up leases."""
        for id, due in dues.items():
            self.released.append(id)
            if message := self.leased.pop(id, None):
                self.put(message, max(due, self.now()))

    # --- inside

    async def _begin(self) -> None:
        if self._paused is not None:
            resumed: Deferred[None] = Deferred()
            self._paused.append(resumed)
            await resumed
        self._fail()

    def _fail(self) -> None:
        if self.faults:
            self.faults -= 1
            raise OSError("disk full")
        if self.failure:
            raise self.failure

    def _forget(self, id: str) -> Message | None:
        """Remove a message, leased or not."""
        message, _ = self.waiting.pop(id, (None, 0.0))
        return self.leased.pop(id, None) or self.on_hold.pop(id, None) or message

    def _notice(self, notice: Notice) -> Message:
        return _message(self._ids.next(), notice.envelope, notice.content, notice.origin)

    def _lease(self, ids: Iterable[str]) -> Sequence[Message]:
        return [self.lend(self.waiting.pop(id)[0]) for id in ids]

    def _held(self, peer: str, domains: Collection[str]) -> list[Message]:
        return [
            message
            for message in self.messages
            if any(_waits_for(progress, peer, domains) for progress in message.progress)
        ]


def _message(
    number: int,
    envelope: Envelope,
    data: bytes,
    origin: Origin = UNKNOWN_ORIGIN,
    header_size: int | None = None,
) -> Message:
    pieces = (data[at : at + PIECE] for at in range(0, len(data), PIECE))
    return Message(
        id=queue_id.encode(number),
        arrived=queue_id.arrival(number),
        envelope=envelope,
        content=FakeContent(*pieces, header_size=header_size if envelope.sealed else None),
        progress=tuple(map(Progress, envelope.recipients)),
        origin=origin,
    )


def _hops(message: Message) -> Iterable[str]:
    for each in message.progress:
        if each.state is State.WAITING:
            domain = each.recipient.forward_path.domain
            yield each.history[-1].hop if each.history else f"mx:{domain}"


def _waits_for(progress: Progress, peer: str, domains: Collection[str]) -> bool:
    domain = progress.domain
    return (
        progress.state is State.HELD
        and progress.peer == peer
        and any(
            wanted in (domain, EVERYWHERE) or (wanted.startswith(".") and domain.endswith(wanted))
            for wanted in domains
        )
    )
