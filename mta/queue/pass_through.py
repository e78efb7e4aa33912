"""Mail that goes on to a peer while its sender waits.

The peer's answer is the sender's, then.  The first attempt comes before the commit, over a link
that stands in this process.  Where all recipients have the mail after it, that is never committed;
where all are refused, the sender hears it.  In all other cases, and after a minute, the message is
committed, and the same attempt is recorded.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mta.interfaces import (
    IFailureWatch,
    IPassedMail,
    IPassThrough,
    IPeerMeter,
    IPreviews,
    IRouter,
)
from mta.mail import Agent, Envelope, Hop, Mailbox, Reply
from mta.queue.attempt import Attempt, refused_by_hosts
from mta.queue.event import Event
from mta.queue.interfaces import IAttemptWatch
from mta.queue.passed_replies import sender_reply
from mta.queue.uncommitted import UncommittedAttempts
from mta.queued import IDraft
from mta.session import Origin, Session
from mta.smtp import replies
from mta.smtp.errors import Refusal
from mta.smtp.forwarding import is_forwarding
from mta.smtp.waiting_senders import MAX_WAIT


@dataclass(frozen=True, slots=True)
class PassingSeams:
    """The parts of the process that passing through needs."""

    spool: IPreviews
    attempts: UncommittedAttempts
    log: IPassedMail
    meter: IPeerMeter
    clock: IReactorTime


@implementer(IAttemptWatch)
class _End:
    """Waits for the end of one attempt."""

    def __init__(self, clock: IReactorTime) -> None:
        self.has_come = False
        self._event = Event(clock)

    def ended(self, attempt: Attempt) -> None:
        """See `IAttemptWatch.ended`."""
        self.has_come = True
        self._event.set()

    async def wait(self, timeout: float) -> None:
        """Return at the end, or after `timeout` seconds."""
        await self._event.wait(timeout)


@implementer(IPassThrough)
class PassThrough:
    """Passes mail through to some peers, by one configuration.

    `failures` hears of mail of users that a peer refuses.
    """

    def __init__(
        self,
        peers: Collection[str],
        router: IRouter,
        seams: PassingSeams,
        failures: IFailureWatch | None = None,
    ) -> None:
        self._peers = peers
        self._router = router
        self._seams = seams
        self._failures = failures

    async def pass_on(
        self, draft: IDraft, envelope: Envelope, header: bytes, origin: Origin, session: Session
    ) -> Reply | None:
        """See `IPassThrough.pass_on`."""
        seams = self._seams
        peer = "" if origin.turned_peer else self._peer_for(envelope)
        if not peer or not seams.attempts.may_begin(peer):
            return None
        message = await seams.spool.preview(draft, envelope, header, origin)
        if message is None:
            return None
        end = _End(seams.clock)
        attempt = seams.attempts.begin(message, peer, end)
        if attempt is None:
            return None
        await end.wait(MAX_WAIT)
        reply = sender_reply(attempt, peer) if end.has_come else None
        if reply is not None:
            draft.discard()
            self._settle(attempt, session, peer, reply)
            return reply
        seams.attempts.let_go(attempt)
        try:
            message = await seams.spool.commit(draft, envelope, header, origin)
        except BaseException:
            seams.attempts.forget(attempt, has_ended=end.has_come)
            raise
        seams.log.taken(message, session)
        seams.attempts.go_on(attempt, message, has_ended=end.has_come)
        return replies.queued(message.id)

    def _peer_for(self, envelope: Envelope) -> str:
        """The peer that is to have all of a message, if any."""
        found: set[str] = set()
        for recipient in envelope.recipients:
            address = recipient.forward_path
            try:
                hops = self._router.route(address, envelope.reverse_path)
            except Refusal:
                return ""
            found.update(self._peer_at(address, *each) for each in hops)
            if len(found) > 1 or "" in found:
                return ""
        return found.pop() if found else ""

    def _peer_at(self, address: Mailbox, final: Mailbox, hop: Hop) -> str:
        is_passed = hop.agent is Agent.HOLD and hop.next_hop in self._peers
        return hop.next_hop if is_passed and not is_forwarding(self._router, address, final) else ""

    def _settle(self, attempt: Attempt, session: Session, peer: str, reply: Reply) -> None:
        """End an attempt without a commit: log and count it."""
        seams, message = self._seams, attempt.message
        if reply.is_positive:
            seams.log.taken(message, session)
            seams.meter.passed_through(peer)
        seams.attempts.end(attempt)
        if reply.is_positive:
            return
        seams.log.refused(message, session, peer, reply)
        refused = refused_by_hosts(attempt.reports)
        if refused and self._failures is not None:
            self._failures.failed(message.origin, refused)
