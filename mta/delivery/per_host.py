"""The mail of a hop for its hosts (RFC 5321 section 5.1).

The hosts are tried one after the other.  A delivery is settled when the hop is through with it:
what one host did not accept, and another may, is handed out again on the next connection.
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

MAX_KEPT = 100  # deliveries: that one host put off, while it accepts others
MAX_KEPT_TIME = 5.0  # seconds: likewise, as nothing of their messages is recorded until then
MAX_SUSPECTS = 10_000  # messages: remembered, as strangers choose how many there are


class Suspects:
    """Messages that were in flight when a connection broke, by queue id.

    Perhaps a firewall on the way does not let one of them pass: each is sent alone from then on, so
    that it breaks no connection that carries others.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[Hop, str], None] = OrderedDict()

    def __contains__(self, delivery: Delivery) -> bool:
        """Tell whether a message is a suspect at its hop."""
        return _key(delivery) in self._known

    def learn(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> bool:
        """Learn from outcomes; returns whether the connection broke over the delivery."""
        key = _key(delivery)
        if any(outcome.broke_in_content for outcome in outcomes):
            self._known[key] = None
            if len(self._known) > MAX_SUSPECTS:
                self._known.popitem(last=False)
            return True
        if any(outcome.status is not Status.DEFERRED for outcome in outcomes):
            self._known.pop(key, None)
        return False


def _key(delivery: Delivery) -> tuple[Hop, str]:
    return delivery.targets[0].hop, delivery.message.id


@dataclass(slots=True, eq=False)
class _Taken:
    """A delivery taken from the source, and its outcomes so far.

    `open_part` is what the host at work is given: the delivery, with the targets that are open.
    """

    delivery: Delivery
    outcomes: list[Outcome | None]
    open_part: Delivery

    @property
    def open_indices(self) -> list[int]:
        """The indices of the targets that another host may accept."""
        known = enumerate(self.outcomes)
        return [index for index, outcome in known if outcome is None or outcome.try_next_host]

    def add(self, outcomes: Sequence[tuple[int, Outcome]]) -> None:
        """Note outcomes at one host, by the indices of their targets."""
        for index, outcome in outcomes:
            if outcome.try_next_host:
                outcome = most_telling([self.outcomes[index], outcome])
            self.outcomes[index] = outcome
        targets = tuple(self.delivery.targets[index] for index in self.open_indices)
        self.open_part = replace(self.delivery, targets=targets)

    def final_outcomes(self, last: Outcome | None) -> list[Outcome]:
        """The outcomes in the end; `last` is that of the last host."""
        return [
            known if known is not None and not known.try_next_host else most_telling([last, known])
            for known in self.outcomes
        ]


@implementer(IMailSource)
class PerHost:
    """The mail of `source` for a hop, on one connection after another.

    `has_asked`: on this connection a sender has asked for mail.  `progress`: the connection settled
    something.  `is_content_at_fault`: it broke over the content of a suspect that was alone on it,
    so that nothing is known to be wrong with the host.
    """

    def __init__(
        self, source: IMailSource, suspects: Suspects, seconds: Callable[[], float]
    ) -> None:
        self.has_asked = self.progress = self.is_content_at_fault = False
        self._source = source
        self._suspects = suspects
        self._seconds = seconds
        self._kept_since: float | None = None
        self._ready: deque[_Taken] = deque()  # to be handed out on this connection
        self._handed_out: dict[int, _Taken] = {}
        self._kept: list[_Taken] = []  # for the next connection, or the next host
        self._began = False
        self._takes_no_more = False
        self._suspect_is_out = False
        self._has_settled = False  # whether any connection settled anything

    # --- for the relay agent

    async def begin_connection(self) -> bool:
        """Be ready for a connection; returns whether there is mail for it.

        For the first one there is: it is begun for the sake of mail that waits.
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
        """Go on to the next host.

        It gets no new mail if this one settled something.
        """
        self._takes_no_more = self._takes_no_more or self._has_settled

    @property
    def is_done(self) -> bool:
        """Tell whether all that was taken is settled."""
        return not (self._ready or self._handed_out or self._kept)

    @property
    def has_unsent(self) -> bool:
        """Tell whether the connection ended before all mail was handed out."""
        return bool(self._ready)

    @property
    def is_same_at_all_addresses(self) -> bool:
        """Tell whether other addresses of the host would reply the same.

        So it is with what RCPT put off (mailbox busy, greylisted), and with what a host lacks.
        """
        return bool(self._kept) and not any(
            outcome is None or outcome.throttles
            for taken in self._kept
            for outcome in taken.outcomes
        )

    def finish(self, last: Outcome | None) -> None:
        """Settle all that no host accepted; `last` is the last host's outcome.

        Without that, mail that no host was asked about goes back to the source.
        """
        self._take_back()
        for taken in [*self._kept, *self._ready]:
            if last is None and not any(taken.outcomes):
                self._source.return_unsent(taken.delivery)
            else:
                self._source.report(taken.delivery, taken.final_outcomes(last))
        self._kept.clear()
        self._ready.clear()

    def _take_back(self) -> None:
        """Keep the deliveries that a connection left without an outcome."""
        self._kept += self._handed_out.values()
        self._handed_out.clear()
        self._suspect_is_out = False

    # --- for the sender

    async def next(self) -> Delivery | None:
        """See `IMailSource.next`.  A suspect goes alone, when all before it have come back."""
        self.has_asked = True
        if self._suspect_is_out:
            return None
        if not self._ready:
            await self._take()
        if not self._ready:
            return None
        taken = self._ready[0]
        is_suspect = taken.delivery in self._suspects
        if is_suspect and self._handed_out:
            return None
        self._suspect_is_out = is_suspect
        self._ready.popleft()
        self._handed_out[id(taken.open_part)] = taken
        return taken.open_part

    async def wait(self) -> bool:
        """See `IMailSource.wait`.  Mail that is kept does not wait for new mail."""
        if self._ready or self._kept or self._takes_no_more:
            return bool(self._ready)
        return await self._source.wait()

    def report(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """See `IMailSource.report`: what another host may accept is kept back."""
        is_alone = self._suspect_is_out
        taken = self._returned(delivery)
        if self._suspects.learn(taken.delivery, outcomes) and is_alone:
            self.is_content_at_fault = True
        if taken.open_part is taken.delivery and not any(map(_is_open, outcomes)):
            self.progress = self._has_settled = True  # as nearly always
            self._source.report(delivery, outcomes)
            return
        indexed = zip(taken.open_indices, outcomes, strict=True)
        decided = [(index, outcome) for index, outcome in indexed if not outcome.untried]
        taken.add(decided)
        if not taken.open_part.targets:
            self.progress = self._has_settled = True
            self._source.report(
                taken.delivery, [outcome for outcome in taken.outcomes if outcome is not None]
            )
        elif len(decided) < len(outcomes):
            self.progress = self.progress or bool(decided)
            self._ready.appendleft(taken)
        else:
            self._kept.append(taken)

    def return_unsent(self, delivery: Delivery) -> None:
        """See `IMailSource.return_unsent`."""
        taken = self._returned(delivery)
        if any(taken.outcomes):
            self._kept.append(taken)
        else:
            self._source.return_unsent(taken.delivery)

    async def _take(self) -> None:
        """Take one more delivery from the source, if it has one."""
        if self._takes_no_more or self._is_kept_long:
            return
        delivery = await self._source.next()
        if delivery is not None:
            self._ready.append(_Taken(delivery, [None] * len(delivery.targets), delivery))

    @property
    def _is_kept_long(self) -> bool:
        """Tell whether kept mail should not wait for more new mail."""
        if not self._kept:
            return False
        if self._kept_since is None:
            self._kept_since = self._seconds()
        late = self._seconds() - self._kept_since >= MAX_KEPT_TIME
        return late or len(self._kept) >= MAX_KEPT

    def _returned(self, delivery: Delivery) -> _Taken:
        taken = self._handed_out.pop(id(delivery), None)
        if taken is None:
            raise ValueError("a delivery comes back once, from the connection that took it")
        self._suspect_is_out = False
        return taken


def most_telling(outcomes: Sequence[Outcome | None]) -> Outcome:
    """The outcome of several hosts together, untried where there is none.

    A deferral counts before a failure, then a reply of a host before ours, then the last one.
    """
    known = [outcome for outcome in outcomes if outcome is not None] or [UNTRIED]
    _, outcome = max(
        enumerate(known),
        key=lambda each: (each[1].status is Status.DEFERRED, bool(each[1].remote), each[0]),
    )
    return outcome


def _is_open(outcome: Outcome) -> bool:
    return outcome.try_next_host or outcome.untried
