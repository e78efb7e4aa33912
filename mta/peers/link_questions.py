"""The questions that one link of a peer is to carry."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mta.interfaces import IHeldSource, IQuestions
from mta.queue.event import Event
from mta.session import RecipientAnswer, RecipientQuestion

MAX_QUESTIONS = 2000  # of one link, as many as its sender has in flight at most
TIMEOUT = 3.0  # seconds in which a question must be answered: a client waits for its RCPT
POLL = 3600.0  # seconds: the sender ends its wait before


@implementer(IQuestions)
class LinkQuestions:
    """Hands questions to the sender of the link, and its answers back.

    `is_late`: the peer has not answered one in time, and nothing since.  Until it does, it is not
    asked.  While the sender waits for mail, it does so at the `source`.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.is_late = False
        self.source: IHeldSource | None = None
        self._clock = clock
        self._waiting: deque[RecipientQuestion] = deque()
        self._asked: dict[RecipientQuestion, list[Deferred[RecipientAnswer]]] = {}
        self._came = Event(clock)
        self._is_closed = False

    async def ask(self, question: RecipientQuestion) -> RecipientAnswer:
        """Ask, once for all that want to know it; returns in `TIMEOUT`."""
        if self._is_closed or self.is_late:
            return RecipientAnswer.NONE
        if question not in self._asked:
            if len(self._asked) >= MAX_QUESTIONS:
                return RecipientAnswer.NONE
            self._asked[question] = []
            self._waiting.append(question)
            if len(self._waiting) == 1:  # those that come at the same moment go together
                self._clock.callLater(0, self._rouse)
        answer: Deferred[RecipientAnswer] = Deferred()
        self._asked[question].append(answer)
        timer = self._clock.callLater(TIMEOUT, self._late, question, answer)
        try:
            return await answer
        finally:
            if timer.active():
                timer.cancel()

    def _rouse(self) -> None:
        self._came.set()
        if self.source is not None and self._waiting:
            self.source.interrupt()

    def close(self) -> None:
        """Answer none any more: the link has ended."""
        self._is_closed = True
        for question in list(self._asked):
            self._answer(question, RecipientAnswer.NONE)

    def _late(self, question: RecipientQuestion, answer: Deferred[RecipientAnswer]) -> None:
        self.is_late = True
        self._asked[question].remove(answer)
        answer.callback(RecipientAnswer.NONE)

    def _answer(self, question: RecipientQuestion, answer: RecipientAnswer) -> None:
        for each in self._asked.pop(question, ()):
            each.callback(answer)

    # --- for the sender

    @property
    def are_waiting(self) -> bool:
        """See `IQuestions`."""
        return bool(self._waiting)

    def take(self, limit: int) -> Sequence[RecipientQuestion]:
        """See `IQuestions.take`."""
        return [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]

    def answered(self, question: RecipientQuestion, answer: RecipientAnswer) -> None:
        """See `IQuestions.answered`."""
        self.is_late = False
        self._answer(question, answer)

    async def wait(self) -> bool:
        """See `IQuestions.wait`."""
        while not self._waiting:
            await self._came.wait(POLL)
        return True
