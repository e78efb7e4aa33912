"""The mail of a hop, for one of its hosts after the other (RFC 5321 section 5.1).

A delivery is settled when the hop is through with it: what one host did not take, and another
may, is kept back and handed out again on the next connection.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from zope.interface import implementer

from mta.interfaces import IMailSource
from mta.mail import Hop, Outcome, Status
from mta.queued import Delivery
from mta.smtp.outgoing import UNTRIED

MAX_KEPT = 100  # deliveries that one host put off, while it takes others
MAX_KEPT_TIME = 5.0  # seconds, likewise: until then nothing of their messages is recorded
MAX_SUSPECTS = 10_000  # remembered messages; who sends them may choose how many


class Suspects:
    """Messages whose content was on its way when a connection broke, by their queue ids.

    One of them may be what some box on the way can't stand: each is sent alone from then on, so
    that it breaks no connection that carries others.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[Hop, str], None] = OrderedDict()

    def __contains__(self, delivery: Delivery) -> bool:
        """Whether a message is one for its hop."""
        return _key(delivery) in self._known

    def judge(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> bool:
        """Learn from what became of a delivery on a connection; whether that broke over it."""
        key = _key(delivery)
        if any(outcome.broke_in_content for outcome in outcomes):
            self._known[key] = None
            if len(self._known) > MAX_SUSPECTS:
                self._known.popitem(last=False)
            return True
        if any(outcome.status is not Status.DEFERRED for outcome in outcomes):
            self._known.pop(key, None)
        return False


@dataclass(slots=True, eq=False)
class _Taken:
    """A delivery that was taken from the source, and the word on each target so far.

    `handed` is what the host at work was given: the delivery, with the targets that are open.
    """

    delivery: Delivery
    outcomes: list[Outcome | None]
    handed: Delivery

    @property
    def open_places(self) -> list[int]:
        """The places of the targets that another host may take."""
        known = enumerate(self.outcomes)
        return [place for place, outcome in known if outcome is None or outcome.try_next_host]

    def final_outcomes(self, last: Outcome | None) -> list[Outcome]:
        """The outcomes where no other host is asked: what is decided, and the word on the rest."""
        return [
            known if known is not None and not known.try_next_host else most_telling([last, known])
            for known in self.outcomes
        ]


@implementer(IMailSource)
class PerHost:
    """Hands out what `source` has for a hop, on one connection after the other.

    `has_asked`: the host at hand let us come to the point where mail is sent.  `progress`: the
    connection settled something.  `is_content_at_fault`: it broke over the
    content of a suspect that was alone on it, so that nothing is known to be wrong with the host.
    """

    def __init__(
        self, source: IMailSource, suspects: Suspects, seconds: Callable[[], float]
    ) -> None:
        self.has_asked = self.progress = self.is_content_at_fault = False
        self._source = source
        self._suspects = suspects
        self._seconds = seconds
        self._kept_since: float | None = None
        self._ready: deque[_Taken] = deque()
        self._out: dict[int, _Taken] = {}
        self._kept: list[_Taken] = []
        self._began = False
        self._takes_no_more = False
        self._alone = False  # whether a suspect is out
        self._has_settled = False  # whether any connection settled anything

    # --- for those who dial

    async def begin(self) -> bool:
        """Be ready for a connection; returns whether there is something to send on it.

        On the first one there is: it is begun for the sake of mail that waits.
        """
        self._take_back()
        self.has_asked = False
        self._ready.extendleft(reversed(self._kept))
        self._kept.clear()
        self._kept_since = None
        self.progress = self.is_content_at_fault = False
        if self._began and not self._ready:
            await self._take()
        has_mail = bool(self._ready) or not self._began
        self._began = True
        return has_mail

    def leave_host(self) -> None:
        """Turn to the next host.  Where this one settled something, new mail is left to it."""
        self._takes_no_more = self._takes_no_more or self._has_settled

    @property
    def is_through(self) -> bool:
        """Whether no other connection is needed for what was taken."""
        return not (self._ready or self._out or self._kept)

    @property
    def has_unsent(self) -> bool:
        """Whether the connection ended before all that was kept was handed out."""
        return bool(self._ready)

    @property
    def is_same_everywhere(self) -> bool:
        """Whether the other addresses of the host would say the same of all that is kept.

        So it is with what RCPT put off (mailbox busy, greylisted), and with what a host lacks.
        """
        return bool(self._kept) and not any(
            outcome is None or outcome.throttles
            for taken in self._kept
            for outcome in taken.outcomes
        )

    def finish(self, last: Outcome | None) -> None:
        """Settle what no host took, with the most telling word; `last` is the last host's own.

        What no host was asked about goes back where there is no such word.
        """
        self._take_back()
        for taken in [*self._kept, *self._ready]:
            if last is None and not any(taken.outcomes):
                self._source.return_unsent(taken.delivery)
                continue
            self._source.report(taken.delivery, taken.final_outcomes(last))
        self._kept.clear()
        self._ready.clear()

    def _take_back(self) -> None:
        """What a connection left without a word is kept."""
        self._kept += self._out.values()
        self._out.clear()
        self._alone = False

    # --- for the sender

    async def next(self) -> Delivery | None:
        """See `IMailSource.next`.  A suspect goes alone: when all before it have come back."""
        self.has_asked = True
        if self._alone:
            return None
        if not self._ready:
            await self._take()
        if not self._ready:
            return None
        taken = self._ready[0]
        is_suspect = taken.delivery in self._suspects
        if is_suspect and self._out:
            return None
        self._alone = is_suspect
        self._ready.popleft()
        self._out[id(taken.handed)] = taken
        return taken.handed

    async def wait(self) -> bool:
        """See `IMailSource.wait`.  What is kept back does not wait for new mail."""
        if self._ready or self._kept or self._takes_no_more:
            return bool(self._ready)
        return await self._source.wait()

    def report(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """See `IMailSource.report`: what another host or connection may take is kept back."""
        is_alone = self._alone
        taken = self._pop(delivery)
        if self._suspects.judge(taken.delivery, outcomes) and is_alone:
            self.is_content_at_fault = True
        if taken.handed is taken.delivery and not any(map(_is_open, outcomes)):
            self.progress = self._has_settled = True  # as nearly always
            self._source.report(delivery, outcomes)
            return
        decided = [
            (place, outcome)
            for place, outcome in zip(taken.open_places, outcomes, strict=True)
            if not outcome.untried
        ]
        for place, outcome in decided:
            known = taken.outcomes[place]
            taken.outcomes[place] = (
                most_telling([known, outcome]) if outcome.try_next_host else outcome
            )
        if places := taken.open_places:
            targets = tuple(taken.delivery.targets[place] for place in places)
            taken.handed = replace(taken.delivery, targets=targets)
            if len(decided) < len(outcomes):
                self.progress = self.progress or bool(decided)
                self._ready.appendleft(taken)
            else:
                self._kept.append(taken)
        else:
            self.progress = self._has_settled = True
            self._source.report(
                taken.delivery, [outcome for outcome in taken.outcomes if outcome is not None]
            )

    def return_unsent(self, delivery: Delivery) -> None:
        """See `IMailSource.return_unsent`."""
        taken = self._pop(delivery)
        if any(taken.outcomes):
            self._kept.append(taken)
        else:
            self._source.return_unsent(taken.delivery)

    async def _take(self) -> None:
        """Take one more delivery, if there is one for us."""
        if self._takes_no_more or self._is_kept_long:
            return
        delivery = await self._source.next()
        if delivery is not None:
            self._ready.append(_Taken(delivery, [None] * len(delivery.targets), delivery))

    @property
    def _is_kept_long(self) -> bool:
        """Whether what is kept should go on to the next host, however much is new."""
        if not self._kept:
            return False
        if self._kept_since is None:
            self._kept_since = self._seconds()
        late = self._seconds() - self._kept_since >= MAX_KEPT_TIME
        return late or len(self._kept) >= MAX_KEPT

    def _pop(self, delivery: Delivery) -> _Taken:
        taken = self._out.pop(id(delivery), None)
        if taken is None:
            raise ValueError("a delivery comes back once, from the connection that took it")
        self._alone = False
        return taken


def most_telling(outcomes: Sequence[Outcome | None]) -> Outcome:
    """What the words of several hosts mean together, untried where there is none.

    One that holds out hope counts before others, then one that a host said, then the last.
    """
    known = [outcome for outcome in outcomes if outcome is not None] or [UNTRIED]
    _, outcome = max(
        enumerate(known),
        key=lambda each: (each[1].status is Status.DEFERRED, bool(each[1].remote), each[0]),
    )
    return outcome


def _is_open(outcome: Outcome) -> bool:
    return outcome.try_next_host or outcome.untried


def _key(delivery: Delivery) -> tuple[Hop, str]:
    return delivery.targets[0].hop, delivery.message.id
