"""Outgoing mail of one connection: taken from the source, in transactions, until it is settled."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mta.interfaces import IMailSource
from mta.mail import Body, Outcome, Reply, Status
from mta.queued import Delivery, HopFailure
from mta.session import ChannelLost, ChannelTimeout
from mta.smtp import replies
from mta.smtp.dialogue import Dialogue, PeerClosing
from mta.smtp.errors import LocalFault
from mta.smtp.fit import Capabilities, Form, envelope_commands, fit

MAX_TRANSACTIONS = 10_000  # on one connection, where the peer names no MAILMAX (RFC 9422)
LOCAL_ERROR = Outcome(Status.DEFERRED, replies.LOCAL_ERROR)
UNTRIED = Outcome(
    Status.DEFERRED,
    Reply(451, "4.4.0", ("The connection ended before this was sent",)),
    elsewhere=True,
    untried=True,
)
TOO_MANY_RECIPIENTS = "5.5.3"  # RFC 3463: too many for this transaction, not for good
REPLY_WEIGHT = 512  # octets that a reply may have, RFC 5321 section 4.5.3.1.5


# What a mistake in a program raises, other than what ends a conversation.
BUGS = (AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


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

    `places` are the targets' places in the delivery, `commands` MAIL and RCPT for them; with
    `after_reset`, RSET comes before them and has no reply yet.  `rejected` holds the replies to
    those that RCPT refused, `refusal` the reply that refused all.  `is_answered`: the peer replied
    to some of it; `has_begun`: some of the content was written, `has_ended`: all of it.
    `is_in_step`: each reply was awaited, so that it can only be its own.  `is_open`: DATA got 354.
    """

    outgoing: Outgoing
    places: Sequence[int]
    commands: Sequence[bytes]
    after_reset: bool = False
    rejected: dict[int, Reply] = field(default_factory=dict)
    refusal: Reply | None = None
    is_answered: bool = False
    has_begun: bool = False
    has_ended: bool = False
    is_in_step: bool = False
    is_open: bool = False

    @property
    def accepted(self) -> Sequence[int]:
        """The places that RCPT took."""
        if not self.rejected:
            return self.places
        return [place for place in self.places if place not in self.rejected]

    @property
    def has_takers(self) -> bool:
        """Whether somebody is to get the content."""
        return self.refusal is None and bool(self.accepted)

    @property
    def weight(self) -> int:
        """Octets on their way because of it: replies that nobody reads would block the peer."""
        return self.outgoing.form.content.size + REPLY_WEIGHT * len(self.places)


class Outbox:
    """What was taken from the source and is not settled: to be sent, or on its way.

    `begun` are the transactions that were written, in whole or part, and not concluded; `ahead`
    is the weight of all of them.  `reset_needed`: the peer may be in a transaction.  `progress`:
    the peer has replied to all of some transaction.
    """

    def __init__(self, source: IMailSource, dialogue: Dialogue, capabilities: Capabilities) -> None:
        self.begun: deque[Transaction] = deque()
        self.ahead = 0
        self.reset_needed = False
        self.progress = False
        self._source = source
        self._dialogue = dialogue
        self._capabilities = capabilities
        self._waiting: deque[Transaction] = deque()
        self._transactions = 0

    @property
    def is_full(self) -> bool:
        """Whether no new delivery is to begin on this connection."""
        return self._dialogue.channel.closing or self._is_used_up

    @property
    def _is_used_up(self) -> bool:
        """Whether no transaction is to begin on this connection."""
        mail_max = self._capabilities.extensions.limit("MAILMAX", MAX_TRANSACTIONS)
        return self._transactions >= mail_max

    async def next(self) -> Transaction | None:
        """What to send next; None: nothing now, or no more on this connection."""
        while not self._waiting or self._is_used_up:
            if self.is_full:
                return None
            delivery = await self._source.next()
            if delivery is None:
                return None
            await self._take(delivery)
        return self._waiting[0]  # it stays there until it has begun

    async def _take(self, delivery: Delivery) -> None:
        """Queue a delivery in the form this peer can take, or settle it where there is none."""
        outgoing = Outgoing(delivery)
        try:
            form = await fit(delivery, self._capabilities)
            if isinstance(form, Reply):
                self._settle_all(outgoing, replace(refused(form, ""), elsewhere=True))
                return
            outgoing.form = form
            self._waiting += self._transactions_for(outgoing)
        except OSError:
            self._settle_all(outgoing, LOCAL_ERROR)
        except LocalFault as fault:  # of this message alone: nothing of it was said
            self._settle_all(outgoing, _local_fault(str(fault)))
        except BUGS as error:  # of ours, that some content shows: others must not wait for it
            self._settle_all(outgoing, _local_fault(repr(error)))

    def _transactions_for(self, outgoing: Outgoing) -> list[Transaction]:
        """A transaction for each portion of targets that the peer takes.  Raises LocalFault."""
        most = self._capabilities.max_recipients
        places = range(len(outgoing.outcomes))
        return [
            self._transaction(outgoing, places[first : first + most]) for first in places[::most]
        ]

    def _transaction(self, outgoing: Outgoing, places: Sequence[int]) -> Transaction:
        commands = envelope_commands(outgoing.delivery, places, outgoing.form, self._capabilities)
        return Transaction(outgoing, places, commands)

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
        self.progress = True
        outgoing = transaction.outgoing
        again = []
        for place in transaction.places:
            if outgoing.outcomes[place] is not None:
                continue
            rejected = transaction.rejected.get(place)
            reply = _meant(rejected) if rejected else transaction.refusal
            assert reply is not None
            if rejected is not None and _is_too_many(rejected) and transaction.accepted:
                again.append(place)
            else:
                outcome = self._refused(reply)
                strains = rejected is None and reply.is_transient
                outgoing.outcomes[place] = replace(outcome, strains=strains)
        if not transaction.accepted:
            self.reset_needed = True
        if again:
            self._waiting.append(self._transaction(outgoing, again))
        self._settle(outgoing)

    def leave(self) -> None:
        """Leave to another connection what waits for a transaction of its own."""
        for outgoing in dict.fromkeys(transaction.outgoing for transaction in self._waiting):
            self._leave(outgoing)
        self._waiting.clear()

    def _leave(self, outgoing: Outgoing) -> None:
        if any(outgoing.outcomes):
            self._settle_all(outgoing, UNTRIED)
        else:
            self._source.return_unsent(outgoing.delivery)

    def _refused(self, reply: Reply) -> Outcome:
        """What a negative reply of the peer means for a recipient."""
        if reply.enhanced == TOO_MANY_RECIPIENTS:
            reply = replace(reply, enhanced="4.5.3", code=452)
        return refused(reply, self._dialogue.remote)

    def _settle(self, outgoing: Outgoing) -> None:
        outcomes = [outcome for outcome in outgoing.outcomes if outcome is not None]
        if len(outcomes) == len(outgoing.outcomes):
            self._source.report(outgoing.delivery, outcomes)

    def _settle_all(self, outgoing: Outgoing, outcome: Outcome) -> None:
        outgoing.outcomes = [known or outcome for known in outgoing.outcomes]
        self._settle(outgoing)

    def abandon(self, error: Exception, *, again: bool = False) -> Reply:
        """Defer what is not settled, as the connection is lost; returns why.

        With `again`, another connection is to have it at once, as if nothing had been said: so it
        is with one that was idle and is gone.  Raises HopFailure where the peer took nothing on
        this connection, nor broke off over the content of a message: then other mail need not try
        at once.
        """
        reply = self._dialogue.reason(error)
        again = again or (self._dialogue.is_unheard and isinstance(error, ChannelLost))
        is_ours = isinstance(error, OSError)
        lost = Outcome(
            Status.DEFERRED, reply, self._dialogue.remote, strains=not is_ours, elsewhere=True
        )
        begun, waiting = list(self.begun), list(self._waiting)
        self.begun.clear()
        self._waiting.clear()
        tried = dict.fromkeys(transaction.outgoing for transaction in begun)
        if not again:
            for transaction in begun:
                self._judge(transaction, error, lost)
        for outgoing in dict.fromkeys([*tried, *(transaction.outgoing for transaction in waiting)]):
            if again or (self.progress and outgoing not in tried):
                self._leave(outgoing)
            else:
                self._settle_all(outgoing, lost)
        is_over_content = any(each.is_answered and each.has_begun for each in begun)
        if not (self.progress or again or is_over_content or is_ours):
            raise HopFailure(lost) from error
        return reply

    def _judge(self, transaction: Transaction, error: Exception, lost: Outcome) -> None:
        """The outcomes of a transaction that the loss of the connection cut off."""
        word = _word(transaction, error, lost)
        outcomes = transaction.outgoing.outcomes
        for place in transaction.places:
            rejected = transaction.rejected.get(place)
            refusal = _meant(rejected) if rejected else transaction.refusal
            said = self._refused(refusal) if refusal else word
            outcomes[place] = outcomes[place] or said


def _meant(rejection: Reply) -> Reply:
    """A refusal of RCPT as it is meant: 552 without a reason is 452 (section 4.5.3.1.10)."""
    is_unexplained = rejection.code == 552 and not rejection.enhanced
    return replace(rejection, code=452) if is_unexplained else rejection


def _is_too_many(reply: Reply) -> bool:
    """Whether a reply to RCPT may mean that the transaction is full (RFC 5321 section 4.5.3.1.10).

    552 does so too.  Where it meant the mailbox, it says the same in the next transaction.
    """
    return reply.code in (452, 552) or reply.enhanced == TOO_MANY_RECIPIENTS


def _word(transaction: Transaction, error: Exception, lost: Outcome) -> Outcome:
    """What the loss of the connection means for a transaction that had begun."""
    if not transaction.has_begun:
        return lost
    if isinstance(error, OSError) and not transaction.has_ended:
        return LOCAL_ERROR
    if isinstance(error, PeerClosing):  # the peer says that it has not taken it
        return replace(lost, broke=transaction.is_answered)
    # The peer may have taken what it has in whole: where nobody knows, another host must not have
    # it at once.  A peer that closed, and had not even replied to MAIL, has not got so far.
    closed = isinstance(error, ChannelLost) and not isinstance(error, ChannelTimeout)
    is_doubtful = transaction.has_ended and (transaction.is_answered or not closed)
    return replace(lost, broke=not isinstance(error, OSError), elsewhere=not is_doubtful)


def refused(reply: Reply, remote: str) -> Outcome:
    """What a negative reply means for a recipient: a transient one, that another host may do it."""
    status = Status.FAILED if reply.is_permanent else Status.DEFERRED
    return Outcome(status, reply, remote, elsewhere=not reply.is_permanent)


def _local_fault(text: str) -> Outcome:
    return Outcome(Status.DEFERRED, Reply(451, "4.3.0", (f"Local error in processing: {text}",)))
