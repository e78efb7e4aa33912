"""Mail that was just accepted: logged, counted, and handed to the runner."""

from __future__ import annotations

from twisted.logger import Logger
from zope.interface import implementer

from mta.interfaces import IAcceptedMail, IOwnMail, IPassedMail, IPickedUpMail, ISessionMeter
from mta.mail import Reply
from mta.queue.runner import Runner
from mta.queued import Message
from mta.session import Session, Testimony


@implementer(IAcceptedMail, IPassedMail, IPickedUpMail, IOwnMail)
class AcceptedMail:
    """Begins to deliver what was committed a moment ago."""

    log = Logger()

    def __init__(self, runner: Runner, meter: ISessionMeter) -> None:
        self._runner = runner
        self._meter = meter

    def accepted(self, message: Message, session: Session) -> None:
        """See `IAcceptedMail.accepted`."""
        self.taken(message, session)
        self._runner.accept(message)

    def taken(self, message: Message, session: Session) -> None:
        """See `IPassedMail.taken`."""
        self._meter.accepted(session.service)
        client = session.forwarded or session
        self.log.info(
            "{queue_id} accepted <{reverse_path}> from {client} by {protocol}: {size} octets{via}",
            queue_id=message.id,
            reverse_path=str(message.envelope.reverse_path),
            client=client.client,
            protocol=client.protocol or "unknown",
            via=_via(client.told),
            identity=session.identity,
            size=message.content.size,
            recipients=len(message.envelope.recipients),
        )

    def refused(self, message: Message, session: Session, peer: str, reply: Reply) -> None:
        """See `IPassedMail.refused`."""
        self.log.info(
            "{queue_id} not accepted <{reverse_path}> from {client}: refused by {peer}: {reply}",
            queue_id=message.id,
            reverse_path=str(message.envelope.reverse_path),
            client=(session.forwarded or session).client,
            peer=peer,
            reply=str(reply),
        )

    def picked_up(self, message: Message, userid: int) -> None:
        """See `IPickedUpMail.picked_up`."""
        self.log.info(
            "{queue_id} accepted <{reverse_path}> from userid {userid}: {size} octets",
            queue_id=message.id,
            reverse_path=str(message.envelope.reverse_path),
            userid=userid,
            size=message.content.size,
            recipients=len(message.envelope.recipients),
        )
        self._runner.accept(message)

    def written(self, message: Message, subject: str) -> None:
        """See `IOwnMail.written`."""
        self.log.info(
            "{queue_id} written: {subject}, {size} octets",
            queue_id=message.id,
            subject=subject,
            size=message.content.size,
            recipients=len(message.envelope.recipients),
        )
        self._runner.accept(message)


def _via(told: Testimony | None) -> str:
    """The server that tells of a message's client, and its id there."""
    if told is None:
        return ""
    return f", via {told.by} as {told.id}" if told.id else f", via {told.by}"
