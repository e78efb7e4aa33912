"""Outgoing mail of one connection: taken from the source, in transactions, until it is settled."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mta.interfaces import ChannelLost, Delivery, HopFailure, IMailSource
from mta.mail import Body, Outcome, Reply, Status
from mta.smtp import replies
from mta.smtp.dialogue import Dialogue
from mta.smtp.errors import LocalFault
from mta.smtp.fit import Capabilities, Form, fit

MAX_TRANSACTIONS = 10_000  # on one connection, where the peer names no MAILMAX (RFC 9422)
DEFAULT_RCPTMAX = 100  # recipients that any server takes, RFC 5321 section 4.5.3.1.8
MAX_RECIPIENTS = 1000  # of one transaction, where the peer names a higher RCPTMAX
REPLY_WEIGHT = 512  # octets that a reply may have, RFC 5321 section 4.5.3.1.5


class Outgoing:
    """A delivery that was taken from the source, and the outcomes it has so far."""

    __slots__ = ("delivery", "form", "outcomes")

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.form = Form(delivery.message.content, Body.SEVEN_BIT)
        self.outcomes: list[Outcome | None] = [None] * len(delivery.targets)


@dataclass(slots=True)
class Transaction:
    """MAIL to the end of content, for some targets of an outgoing message.

    `places` are the targets' places in the delivery, `rejected` holds the replies to those
    that RCPT refused, `refusal` the reply that refused all.
    """

    outgoing: Outgoing
    places: Sequence[int]
    after_reset: bool = False
    rejected: dict[int, Reply] = field(default_factory=dict)
    refusal: Reply | None = None

    @property
    def accepted(self) -> list[int]:
        """The places that RCPT took."""
        return [place for place in self.places if place not in self.rejected]

    @property
    def weight(self) -> int:
        """Octets on their way because of it: replies that nobody reads would block the peer."""
        return self.outgoing.form.content.size + REPLY_WEIGHT * len(self.places)


class Outbox:
    """What was taken from the source and is not settled: to be sent, or on its way.

    `begun` are the transactions that were written, in whole or part, and not concluded; `ahead`
    is the weight of all of them.  `reset_needed`: the peer may be in a transaction.
    """

    def __init__(self, source: IMailSource, dialogue: Dialogue, capabilities: Capabilities) -> None:
        self.begun: deque[Transaction] = deque()
        self.ahead = 0
        self.reset_needed = False
        self._source = source
        self._dialogue = dialogue
        self._capabilities = capabilities
        self._waiting: deque[tuple[Outgoing, Sequence[int]]] = deque()
        self._transactions = 0
        self._progress = False  # whether this conversation settled anything in the peer's words

    @property
    def is_full(self) -> bool:
        """Whether no new delivery is to begin on this connection."""
        mail_max = self._capabilities.extensions.limit("MAILMAX", MAX_TRANSACTIONS)
        return self._dialogue.channel.closing or self._transactions >= mail_max

    async def next(self) -> Transaction | None:
        """What to send next; None: nothing now, or no more on this connection."""
        while not self._waiting:
            if self.is_full:
                return None
            delivery = await self._source.next()
            if delivery is None:
                return None
            await self._take(delivery)
        return Transaction(*self._waiting[0])  # it stays there until it has begun

    async def _take(self, delivery: Delivery) -> None:
        """Queue a delivery in the form this peer can take, or settle it where there is none."""
        outgoing = Outgoing(delivery)
        places = range(len(delivery.targets))
        try:
            form = await fit(delivery, self._capabilities)
        except OSError:
            form = replies.LOCAL_ERROR
        if isinstance(form, Reply):
            outgoing.outcomes = [refused(form, "")] * len(places)
            self._settle(outgoing)
            return
        outgoing.form = form
        limit = self._capabilities.extensions.limit("RCPTMAX", DEFAULT_RCPTMAX)
        most = min(limit, MAX_RECIPIENTS)
        for first in places[::most]:
            self._waiting.append((outgoing, places[first : first + most]))

    def begin(self, transaction: Transaction) -> None:
        """Count a transaction, the one that `next` gave, as on its way."""
        self._waiting.popleft()
        self._transactions += 1
        transaction.after_reset = self.reset_needed
        self.reset_needed = False
        self.begun.append(transaction)
        self.ahead += transaction.weight

    def refuse(self, transaction: Transaction, reply: Reply) -> None:
        """Note a refusal: the first one says why; what follows it is only its consequence."""
        if transaction.refusal is None:
            transaction.refusal = reply
        self.reset_needed = True

    def conclude(self, transaction: Transaction) -> None:
        """Take the outcomes from a transaction all of whose replies are there."""
        self.begun.remove(transaction)
        self.ahead -= transaction.weight
        self._progress = True
        outgoing = transaction.outgoing
        again = []
        for place in transaction.places:
            if outgoing.outcomes[place] is not None:
                continue
            rejected = transaction.rejected.get(place)
            reply = rejected or transaction.refusal
            assert reply is not None
            too_many = reply.code == 452 and place in transaction.rejected
            if too_many and transaction.accepted:
                again.append(place)  # RFC 5321 section 4.5.3.1.10
            else:
                outcome = refused(reply, self._dialogue.remote)
                outgoing.outcomes[place] = replace(outcome, strains=rejected is None)
        if not transaction.accepted:
            self.reset_needed = True
        if again:
            self._waiting.append((outgoing, again))
        self._settle(outgoing)

    def _settle(self, outgoing: Outgoing) -> None:
        outcomes = [outcome for outcome in outgoing.outcomes if outcome is not None]
        if len(outcomes) == len(outgoing.outcomes):
            self._source.settle(outgoing.delivery, outcomes)

    def abandon(self, error: Exception) -> Reply:
        """Defer what is not settled, as the connection is lost; returns why.

        Raises HopFailure where the peer took nothing on this connection: then other mail
        need not try at once.
        """
        reply = self._dialogue.reason(error)
        if isinstance(error, OSError):
            self._progress = True  # it was not the peer's fault
        is_theirs = not isinstance(error, (LocalFault, OSError))
        outcome = Outcome(Status.DEFERRED, reply, self._dialogue.remote, strains=is_theirs)
        is_new_try_due = self._dialogue.is_unheard and isinstance(error, ChannelLost)
        begun = [transaction.outgoing for transaction in self.begun]
        for outgoing in dict.fromkeys([*begun, *(waiting for waiting, _ in self._waiting)]):
            if is_new_try_due:
                self._source.give_back(outgoing.delivery)
                continue
            outgoing.outcomes = [known or outcome for known in outgoing.outcomes]
            self._settle(outgoing)
        self.begun.clear()
        self._waiting.clear()
        if not (self._progress or is_new_try_due):
            raise HopFailure(outcome) from error
        return reply


def refused(reply: Reply, remote: str) -> Outcome:
    """What a negative reply means for a recipient."""
    status = Status.FAILED if reply.is_permanent else Status.DEFERRED
    return Outcome(status, reply, remote)
