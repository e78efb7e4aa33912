"""Commits new messages, and what became of others, for one owner."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from mta.queued import IContent, Message, Notice, Progress, Settlement, State
from mta.spool import leases, queue_id, rows
from mta.spool.content import IContentSource, MemoryContent
from mta.spool.drafts import Draft, Incoming
from mta.spool.interfaces import IAdmission, IDrafts
from mta.spool.jobs import Arrived, ICommitter, Job
from mta.spool.leasing import Leasing
from mta.spool.loading import ContentKey

# Seconds from MAIL to the end of most mail: where more comes, some of it is younger than that.
MAX_ARRIVAL = 0.1


class Commits:
    """Makes jobs of drafts, settlements and removals.

    `ids` gives new messages their numbers, `now` is in seconds since the epoch.
    """

    def __init__(
        self,
        committer: ICommitter,
        owner: int,
        leasing: Leasing,
        source: IContentSource,
        drafts: IDrafts,
        admission: IAdmission,
        ids: queue_id.QueueIds,
        now: Callable[[], float],
    ) -> None:
        self._committer = committer
        self._owner = owner
        self._leasing = leasing
        self._source = source
        self._drafts = drafts
        self._ids = ids
        self._now = now
        self._admission = admission
        self._arriving: set[int] = set()  # drafts whose messages may be committed in a moment
        self._begun: deque[tuple[float, int]] = deque()  # when, and which drafts

    def draft(self) -> Draft:
        """See `ISpool.draft`."""
        number = self._ids.next()
        self._forget_slow()
        self._arriving.add(number)
        self._begun.append((self._now(), number))
        return self._drafts.begin(number, self._arriving)

    def _forget_slow(self) -> None:
        """Expect drafts no more that are slow to come."""
        now, begun = self._now(), self._begun
        while begun and abs(now - begun[0][0]) > MAX_ARRIVAL:
            self._arriving.discard(begun.popleft()[1])

    async def preview(self, incoming: Incoming) -> Message | None:
        """See `IPreviews.preview`.  Raises SpoolFull or OSError."""
        if not await self._admission.may_come(incoming.envelope):
            return None
        draft = incoming.draft
        return Message(
            id=draft.id,
            arrived=queue_id.arrival(draft.number) + self._shift(draft.number),
            envelope=incoming.envelope,
            content=await draft.arrived(incoming.header),
            progress=tuple(map(Progress, incoming.envelope.recipients)),
            origin=incoming.origin,
        )

    async def settle(self, settlement: Settlement) -> Sequence[Message]:
        """See `IAttemptRecords.settle`.

        Raises SpoolFull or OSError; then we keep the lease.
        """
        number = queue_id.decode(settlement.id)
        incoming = await self._notices(settlement.notices)
        if all(progress.state is State.DONE for progress in settlement.progress):
            notices = await self.commit(incoming, removals=[number])
            await self._leasing.removed([number])
        else:
            notices = await self.commit(incoming, updates=[settlement])
            self._leasing.ended([number])
            if _is_for_others(settlement, self._now()):
                self._leasing.wake_others()
        return notices

    async def remove(self, ids: Collection[str], delay: float) -> None:
        """See `IAttemptRecords.remove`."""
        numbers = [*map(queue_id.decode, ids)]
        await self._committer.remove(numbers, delay)
        await self._leasing.removed(numbers)

    async def commit(
        self,
        incoming: Sequence[Incoming],
        updates: Sequence[Settlement] = (),
        removals: Sequence[int] = (),
    ) -> Sequence[Message]:
        """Commit new messages, leased to us or on hold, and other changes.

        All or nothing is left.  Returns no message whose recipients all have it already.  Raises
        SpoolFull or OSError.
        """
        try:
            arrivals = [await self._arrival(each) for each in incoming]
        except BaseException:
            _discard(incoming)
            raise
        self._arriving.difference_update(arrival.number for arrival in arrivals)
        self._forget_slow()
        job = Job(arrivals, updates, removals)
        if job.is_intake and self._arriving:  # others may share its commit in a moment
            committed = self._committer.submit_soon(job)
        else:
            committed = self._committer.submit(job)
        committed.addCallbacks(
            self._committed,
            _failed,
            callbackArgs=(incoming, arrivals, bool(updates)),
            errbackArgs=(incoming,),
        )
        answer: Deferred[Arrived] = Deferred()
        committed.addBoth(self._answer, answer, [each.draft.id for each in incoming])
        arrived = await answer  # a caller that is cancelled leaves a job that goes on
        made = (self._message(arrival, arrived) for arrival in arrivals)
        return [message for message in made if message.envelope.recipients]

    def _committed(
        self,
        arrived: Arrived,
        incoming: Sequence[Incoming],
        arrivals: Sequence[rows.Arrival],
        is_update: bool,
    ) -> Any:
        """Take the messages on; fires when nothing of their drafts is left."""
        twice = {number for number, left in arrived.sifted.items() if not left.recipients}
        unleased = twice.union(arrived.on_hold)
        self._leasing.took_in(each for each in arrivals if each.number not in unleased)
        _discard([each for each in incoming if each.draft.number in twice])
        removing = [each.draft.committed() for each in incoming]
        waiting = [each for each in removing if each is not None]
        # An update may be leased again at once: the answer must come before.
        if not waiting or is_update:
            return arrived
        return DeferredList(waiting).addCallback(lambda _: arrived)

    def _answer(self, result: Arrived | Failure, answer: Deferred[Any], ids: Sequence[str]) -> None:
        """Pass on what became of a commit.

        Messages whose client is gone are released.
        """
        if not answer.called:
            answer.callback(result)
        elif ids and not isinstance(result, Failure):
            Deferred.fromCoroutine(self._leasing.release(dict.fromkeys(ids, 0.0)))

    async def _notices(self, notices: Sequence[Notice]) -> list[Incoming]:
        incoming = []
        for notice in notices:
            draft = self.draft()
            await draft.write(notice.body)
            incoming.append(Incoming(draft, notice.envelope, notice.header, notice.origin))
        return incoming

    async def _arrival(self, incoming: Incoming) -> rows.Arrival:
        draft = incoming.draft
        return rows.Arrival(
            data=await draft.finish(),
            header=incoming.header,
            number=draft.number,
            envelope=incoming.envelope,
            due=leases.NEVER,
            owner=self._owner,
            size=incoming.size,
            is_ascii=incoming.is_ascii,
            origin=incoming.origin,
            on_hold=incoming.hold,
            reason=incoming.hold,
            shift=self._shift(draft.number),
        )

    def _shift(self, number: int) -> float:
        """The seconds by which the clock went back while a message came."""
        return min(0.0, self._now() - queue_id.arrival(number))

    def _message(self, arrival: rows.Arrival, arrived: Arrived) -> Message:
        envelope = arrived.sifted.get(arrival.number, arrival.envelope)
        return Message(
            id=queue_id.encode(arrival.number),
            arrived=queue_id.arrival(arrival.number) + arrival.shift,
            envelope=envelope,
            content=self._content_of(arrival),
            progress=tuple(map(Progress, envelope.recipients)),
            on_hold=arrived.on_hold.get(arrival.number, ""),
            origin=arrival.origin,
        )

    def _content_of(self, arrival: rows.Arrival) -> IContent:
        if arrival.data is not None:
            return MemoryContent(arrival.header, arrival.data, arrival.is_ascii)
        key = ContentKey(arrival.number, arrival.size, arrival.is_ascii, in_file=True)
        return self._source.content(key)


def _is_for_others(settlement: Settlement, now: float) -> bool:
    """Tell whether another process may have work with the message at once."""
    return settlement.due <= now or any(
        progress.state is State.HELD for progress in settlement.progress
    )


def _failed(failure: Failure, incoming: Sequence[Incoming]) -> Failure:
    _discard(incoming)
    return failure


def _discard(incoming: Sequence[Incoming]) -> None:
    """Discard drafts, with all that was written of them."""
    for each in incoming:
        each.draft.discard()
