"""Commits what comes, and what attempts changed: from drafts to messages that are leased to us."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from mta.limited_log import LimitedLog
from mta.mail import Envelope
from mta.queued import IContent, Message, Progress, Settlement
from mta.spool import leases, queue_id, rows
from mta.spool.content import Draft, Incoming, InThread, MemoryContent
from mta.spool.holds import StandingHolds
from mta.spool.jobs import ICommitter, Job
from mta.spool.leasing import Leasing
from mta.spool.loading import ContentKey

_limited = LimitedLog(Logger())


class Commits:
    """Commits for one owner.

    `leased` learns what is leased to us, by number, and whether it has a file; `release` gives
    back, by their ids, messages that nobody waits for any more.
    """

    def __init__(
        self,
        committer: ICommitter,
        owner: int,
        leasing: Leasing,
        in_thread: InThread,
        now: Callable[[], float],
        leased: dict[int, bool],
        release: Callable[[Mapping[str, float]], Coroutine[Any, Any, None]],
    ) -> None:
        self._committer = committer
        self._owner = owner
        self._leasing = leasing
        self._in_thread = in_thread
        self._now = now
        self._leased = leased
        self._release = release
        self._holds = StandingHolds(committer.folder)
        self._open: set[int] = set()  # drafts whose messages may come to be committed

    def draft(self, number: int) -> Draft:
        """Somewhere to write content that arrives, for a message with this number."""
        self._open.add(number)
        folder, forget = self._committer.folder, self._open.discard
        return Draft(number, folder, self._owner, self._in_thread, forget)

    async def commit(
        self,
        incoming: Sequence[Incoming],
        updates: Sequence[Settlement] = (),
        removals: Sequence[int] = (),
    ) -> Sequence[Message]:
        """Commit new messages, leased to us or on hold, and other changes.

        All or nothing is left.
        """
        try:
            arrivals = [await self._arrival(each) for each in incoming]
        except BaseException:
            _discard(incoming)
            raise
        self._open.difference_update(arrival.number for arrival in arrivals)
        job = Job(arrivals, updates, removals)
        if job.is_intake and self._open:  # others may share its commit in a moment
            committed = self._committer.submit_soon(job)
        else:
            committed = self._committer.submit(job)
        named = [*incoming]
        committed.addCallbacks(
            lambda _: self._committed(named, arrivals), lambda failure: _failed(failure, named)
        )
        if not updates:  # else it may be leased again at once, and nobody may wait here
            committed.addCallback(_settled_down)
        answer: Deferred[Any] = Deferred()
        committed.addBoth(self._tell, answer, [each.draft.id for each in incoming])
        await answer  # who is cancelled leaves a job that goes on
        return [*map(self._taken_in, arrivals)]

    def _committed(
        self, incoming: Sequence[Incoming], arrivals: Sequence[rows.Arrival]
    ) -> list[Deferred[None]]:
        """What came is ours; returns when nothing of the drafts is left."""
        for arrival in arrivals:
            if not arrival.on_hold:
                self._leased[arrival.number] = arrival.data is None
        settling = [each.draft.committed() for each in incoming]
        return [each for each in settling if each is not None]

    def _tell(self, result: object, answer: Deferred[Any], ids: Sequence[str]) -> None:
        """Pass on what became of a commit; what came in for somebody who is gone is let go."""
        if not answer.called:
            answer.callback(result)
        elif ids and not isinstance(result, Failure):
            Deferred.fromCoroutine(self._release(dict.fromkeys(ids, 0.0)))

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
            on_hold=incoming.hold or self._hold(incoming.envelope),
            reason=incoming.hold,
            shift=min(0.0, self._now() - queue_id.arrival(draft.number)),
        )

    def _hold(self, envelope: Envelope) -> str:
        """The standing hold that a message fits, or empty.  Raises OSError, and says so."""
        try:
            return str(self._holds.which(envelope) or "")
        except OSError as error:
            _limited.error("holds", "no mail is taken: {error}", error=str(error))
            raise

    def _taken_in(self, arrival: rows.Arrival) -> Message:
        return Message(
            id=queue_id.encode(arrival.number),
            arrived=queue_id.arrival(arrival.number) + arrival.shift,
            envelope=arrival.envelope,
            content=self._content_of(arrival),
            progress=tuple(map(Progress, arrival.envelope.recipients)),
            on_hold=arrival.on_hold,
            origin=arrival.origin,
        )

    def _content_of(self, arrival: rows.Arrival) -> IContent:
        if arrival.data is not None:
            return MemoryContent(arrival.header, arrival.data, arrival.is_ascii)
        return self._leasing.content(
            ContentKey(arrival.number, arrival.size, arrival.is_ascii, in_file=True)
        )


def _settled_down(waiting: Sequence[Deferred[None]]) -> Deferred[Any] | None:
    return DeferredList(waiting) if waiting else None


def _failed(failure: Failure, incoming: Sequence[Incoming]) -> Failure:
    _discard(incoming)
    return failure


def _discard(incoming: Sequence[Incoming]) -> None:
    """Forget drafts, and whatever of them was written."""
    for each in incoming:
        each.draft.discard()
