"""Outgoing mail of one connection, from its source to its outcomes.

The `Outbox` cuts deliveries into transactions, and decides what replies, or the loss of the
connection, mean for each target.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mta.interfaces import IMailSource, ISigner, SigningFailed
from mta.mail import Body, Outcome, Reply, Status
from mta.queued import Delivery, HopFailure
from mta.session import ChannelLost, ChannelTimeout
from mta.smtp import replies
from mta.smtp.dialogue import Dialogue, PeerClosing
from mta.smtp.errors import LocalFault, UnsendableMessage
from mta.smtp.fit import Capabilities, Form, envelope_commands, fit, origin_commands

MAX_TRANSACTIONS = 10_000  # transactions: where the peer names no MAILMAX (RFC 9422)
LOCAL_ERROR = Outcome(Status.DEFERRED, replies.LOCAL_ERROR)
UNTRIED = Outcome(
    Status.DEFERRED,
    Reply(451, "4.4.0", ("The connection ended before this was sent",)),
    try_next_host=True,
    untried=True,
)
TOO_MANY_RECIPIENTS = "5.5.3"  # RFC 3463: too many for this transaction, not for good
REPLY_WEIGHT = 512  # octets: that a reply may have, RFC 5321 section 4.5.3.1.5

# The exceptions of a mistake in the program, other than those that end a conversation.
BUGS = (AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


class Outgoing:
    """A delivery taken from the source, and its outcomes so far."""

    __slots__ = ("delivery", "form", "outcomes")

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.form = Form(delivery.message.content, Body.SEVEN_BIT)
        self.outcomes: list[Outcome | None] = [None] * len(delivery.targets)


@dataclass(slots=True)
class Transaction:
    """A mail transaction for some targets of an outgoing message.

    `indices` are those of the targets in the delivery, `commands` MAIL and RCPT for them, and
    `origin_commands` come before these; with `after_reset`, RSET comes first and has no reply yet.
    `rejected` has the replies to those that RCPT refused, `refusal` is the reply that refused all.
    `is_answered`: the peer replied to some of it; `has_begun`: some of the content was written,
    `has_ended`: all of it.  `is_in_step`: each reply was awaited, so that it can only be its own.
    `is_open`: DATA got 354.
    """

    outgoing: Outgoing
    indices: Sequence[int]
    commands: Sequence[bytes]
    origin_commands: Sequence[bytes] = ()
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
        """The indices of the targets that RCPT accepted."""
        if not self.rejected:
            return self.indices
        return [index for index in self.indices if index not in self.rejected]

    @property
    def has_recipients(self) -> bool:
        """Tell whether the content is still wanted for a target."""
        return self.refusal is None and bool(self.accepted)

    @property
    def weight(self) -> int:
        """Octets in flight because of it, with room for replies."""
        return self.outgoing.form.content.size + REPLY_WEIGHT * len(self.indices)

    def refuse(self, reply: Reply) -> None:
        """Note that all of it is refused.

        The first reply counts: others only follow from it.
        """
        if self.refusal is None:
            self.refusal = reply


class Outbox:
    """The deliveries taken from the source and not settled.

    `in_flight` are the transactions of which some was written and that are not concluded, `weight`
    is that of all of them.  `reset_needed`: the peer may be in a transaction.  `progress`: the
    peer has replied to all of some transaction.
    """

    def __init__(
        self,
        source: IMailSource,
        dialogue: Dialogue,
        capabilities: Capabilities,
        signer: ISigner | None = None,
    ) -> None:
        self.in_flight: deque[Transaction] = deque()
        self.weight = 0
        self.reset_needed = False
        self.progress = False
        self._source = source
        self._dialogue = dialogue
        self._capabilities = capabilities
        self._signer = signer
        self._waiting: deque[Transaction] = deque()
        self._transactions = 0

    # --- taking deliveries

    @property
    def is_full(self) -> bool:
        """Tell whether no new delivery is to begin on this connection."""
        return self._dialogue.channel.closing or self._is_used_up

    @property
    def _is_used_up(self) -> bool:
        """Tell whether no transaction is to begin on this connection."""
        mail_max = self._capabilities.extensions.limit("MAILMAX", MAX_TRANSACTIONS)
        return self._transactions >= mail_max

    async def next(self) -> Transaction | None:
        """The next transaction to send; None where there is none now."""
        while not self._waiting or self._is_used_up:
            if self.is_full:
                return None
            delivery = await self._source.next()
            if delivery is None:
                return None
            await self._take(delivery)
        return self._waiting[0]  # it stays there until it has begun

    async def _take(self, delivery: Delivery) -> None:
        """Queue a delivery, or settle it if this peer can't take it."""
        outgoing = Outgoing(delivery)
        try:
            outgoing.form = await fit(delivery, self._capabilities, self._signer)
            self._waiting += self._transactions_for(outgoing)
        except UnsendableMessage as unsendable:
            outcome = replace(refused(unsendable.reply, ""), try_next_host=True)
            self._settle_all(outgoing, outcome)
        except SigningFailed as failed:  # for any host
            self._settle_all(outgoing, replace(refused(failed.reply, ""), try_next_host=False))
        except OSError:
            self._settle_all(outgoing, LOCAL_ERROR)
        except LocalFault as fault:  # of this message alone: the peer has seen nothing of it
            self._settle_all(outgoing, _local_fault(str(fault)))
        except BUGS as error:  # that some content reveals: other mail must not wait for it
            self._settle_all(outgoing, _local_fault(repr(error)))

    def _transactions_for(self, outgoing: Outgoing) -> list[Transaction]:
        """A transaction for each portion of targets that the peer takes.  Raises LocalFault."""
        most = self._capabilities.max_recipients
        indices = range(len(outgoing.outcomes))
        return [
            self._transaction(outgoing, indices[first : first + most]) for first in indices[::most]
        ]

    def _transaction(self, outgoing: Outgoing, indices: Sequence[int]) -> Transaction:
        commands = envelope_commands(outgoing.delivery, indices, outgoing.form, self._capabilities)
        told = origin_commands(outgoing.delivery.message, self._capabilities)
        return Transaction(outgoing, indices, commands, told)

    # --- one transaction

    def begin(self, transaction: Transaction) -> None:
        """Count the transaction that `next` gave as in flight."""
        self._waiting.popleft()
        self._transactions += 1
        transaction.after_reset = self.reset_needed
        self.reset_needed = False
        self.in_flight.append(transaction)
        self.weight += transaction.weight

    def conclude(self, transaction: Transaction) -> None:
        """Take the outcomes from a transaction all of whose replies are there."""
        self.in_flight.remove(transaction)
        self.weight -= transaction.weight
        self.progress = True
        outgoing = transaction.outgoing
        again = []
        for index in transaction.indices:
            if outgoing.outcomes[index] is not None:
                continue
            rejection = transaction.rejected.get(index)
            if rejection and _is_too_many(rejection) and transaction.accepted:
                again.append(index)
            else:
                reply = _corrected(rejection) if rejection else transaction.refusal
                assert reply is not None
                throttles = rejection is None and reply.is_transient
                outgoing.outcomes[index] = replace(self._refused(reply), throttles=throttles)
        if transaction.refusal is not None or not transaction.accepted:
            self.reset_needed = True
        if again:
            self._waiting.append(self._transaction(outgoing, again))
        self._report_if_complete(outgoing)

    def _refused(self, reply: Reply) -> Outcome:
        """The outcome of a target that the peer refused."""
        if reply.enhanced == TOO_MANY_RECIPIENTS:
            reply = replace(reply, enhanced="4.5.3", code=452)
        return refused(reply, self._dialogue.remote)

    # --- the end of the connection

    def return_waiting(self) -> None:
        """Leave deliveries that wait for a transaction to another connection."""
        for outgoing in dict.fromkeys(transaction.outgoing for transaction in self._waiting):
            self._return(outgoing)
        self._waiting.clear()

    def abandon(self, error: Exception, *, again: bool = False) -> Reply:
        """Settle everything, as the connection is lost; returns why it is.

        With `again`, another connection is to have the mail at once, as if the peer had said
        nothing: so it is after a connection that was idle is lost.  Raises HopFailure where the
        peer took nothing on this connection, nor broke off over the content of a message: then
        there is no use in sending it other mail at once.
        """
        reply = self._dialogue.failure_reply(error)
        again = again or (self._dialogue.was_idle and isinstance(error, ChannelLost))
        is_ours = isinstance(error, OSError)
        lost = Outcome(
            Status.DEFERRED, reply, self._dialogue.remote, throttles=not is_ours, try_next_host=True
        )
        in_flight, waiting = list(self.in_flight), list(self._waiting)
        self.in_flight.clear()
        self._waiting.clear()
        tried = dict.fromkeys(transaction.outgoing for transaction in in_flight)
        if not again:
            for transaction in in_flight:
                self._settle_cut_off(transaction, error, lost)
        for outgoing in dict.fromkeys([*tried, *(transaction.outgoing for transaction in waiting)]):
            if again or (self.progress and outgoing not in tried):
                self._return(outgoing)
            else:
                self._settle_all(outgoing, lost)
        is_over_content = any(each.is_answered and each.has_begun for each in in_flight)
        if not (self.progress or again or is_over_content or is_ours):
            raise HopFailure(lost) from error
        return reply

    def _settle_cut_off(self, transaction: Transaction, error: Exception, lost: Outcome) -> None:
        """Fill in the outcomes of a transaction that was cut off."""
        unanswered = _cut_off(transaction, error, lost)
        outcomes = transaction.outgoing.outcomes
        for index in transaction.indices:
            rejection = transaction.rejected.get(index)
            refusal = _corrected(rejection) if rejection else transaction.refusal
            outcome = self._refused(refusal) if refusal else unanswered
            outcomes[index] = outcomes[index] or outcome

    # --- reports to the source

    def _return(self, outgoing: Outgoing) -> None:
        if any(outgoing.outcomes):
            self._settle_all(outgoing, UNTRIED)
        else:
            self._source.return_unsent(outgoing.delivery)

    def _settle_all(self, outgoing: Outgoing, outcome: Outcome) -> None:
        outgoing.outcomes = [known or outcome for known in outgoing.outcomes]
        self._report_if_complete(outgoing)

    def _report_if_complete(self, outgoing: Outgoing) -> None:
        outcomes = [outcome for outcome in outgoing.outcomes if outcome is not None]
        if len(outcomes) == len(outgoing.outcomes):
            self._source.report(outgoing.delivery, outcomes)


def refused(reply: Reply, remote: str) -> Outcome:
    """The outcome of a negative reply.

    After a transient one, another host may accept the message.
    """
    status = Status.FAILED if reply.is_permanent else Status.DEFERRED
    return Outcome(status, reply, remote, try_next_host=not reply.is_permanent)


def _corrected(rejection: Reply) -> Reply:
    """A refusal of RCPT, with 452 for an unexplained 552.

    RFC 5321 section 4.5.3.1.10 wants it so.
    """
    is_unexplained = rejection.code == 552 and not rejection.enhanced
    return replace(rejection, code=452) if is_unexplained else rejection


def _is_too_many(reply: Reply) -> bool:
    """Tell whether RCPT was perhaps refused because the transaction is full.

    By RFC 5321 section 4.5.3.1.10; 552 may mean that, too.  Where it meant the mailbox, the reply
    in the next transaction is the same.
    """
    return reply.code in (452, 552) or reply.enhanced == TOO_MANY_RECIPIENTS


def _cut_off(transaction: Transaction, error: Exception, lost: Outcome) -> Outcome:
    """The outcome of a transaction that was cut off without a reply."""
    if not transaction.has_begun:
        return lost
    if isinstance(error, OSError) and not transaction.has_ended:
        return LOCAL_ERROR
    if isinstance(error, PeerClosing):  # the peer says that it has not taken it
        return replace(lost, broke_in_content=transaction.is_answered)
    # The peer may have accepted what it has in whole: while that is unknown, another host must not
    # get it at once.  A peer that closed without even a reply to MAIL has not got so far.
    closed = isinstance(error, ChannelLost) and not isinstance(error, ChannelTimeout)
    is_doubtful = transaction.has_ended and (transaction.is_answered or not closed)
    is_ours = isinstance(error, OSError)
    return replace(lost, broke_in_content=not is_ours, try_next_host=not is_doubtful)


def _local_fault(text: str) -> Outcome:
    return Outcome(Status.DEFERRED, Reply(451, "4.3.0", (f"Local error in processing: {text}",)))
