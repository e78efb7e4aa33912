"""The receiver on a connection that we dialled and turned."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace

from zope.interface import implementer

from mta.interfaces import IAcceptedMail, IChannel, IRole
from mta.peers.interfaces import ITallyWatch
from mta.peers.tally import Tally
from mta.queued import Message
from mta.session import ChannelLost, ChannelTimeout, Session
from mta.settings import Peer
from mta.smtp.receiver import Receiver
from mta.smtp.receiver_config import ReceiverConfig

SILENT_KEEPALIVES = 2.5  # keepalives without mail or NOOP on a dead link: two may be lost
DEAD = "the link is dead: no mail, no NOOP; a NAT or firewall between may have forgotten it"


@implementer(IRole, IAcceptedMail)
class TurnedReceiver:
    """Receives the mail of a peer, and counts it in a tally.

    It notes there how long the connection was turned, and how it ended.  `while_turned` lasts as
    long.
    """

    def __init__(
        self,
        peer: Peer,
        config: ReceiverConfig,
        tally: Tally,
        watch: ITallyWatch,
        while_turned: AbstractContextManager[None],
    ) -> None:
        self._silence = SILENT_KEEPALIVES * peer.keepalive
        self._accepted_mail = config.accepted_mail
        config = replace(
            config,
            accepted_mail=self,
            idle_timeout=self._silence,
            takes_origins=peer.is_trusted_with_origins,
        )
        self._receiver = Receiver(config, turned_peer=peer.name)
        self._tally = tally
        self._watch = watch
        self._while_turned = while_turned

    async def converse(self, channel: IChannel) -> IRole | None:
        """See `IRole.converse`."""
        tally, began = self._tally, channel.seconds()
        self._channel, self._quiet_since = channel, began
        channel.notice_loss(self._silence)
        tally.turned = True
        try:
            with self._while_turned:
                return await self._receiver.converse(channel)
        except ChannelTimeout:
            tally.lost, tally.error = True, DEAD
            return None
        except ChannelLost as lost:
            tally.lost, tally.error = True, f"the turned connection broke: {lost}"
            return None
        finally:
            ended = channel.seconds()
            tally.turned_for, tally.quiet_for = ended - began, ended - self._quiet_since

    def accepted(self, message: Message, session: Session) -> None:
        """See `IAcceptedMail.accepted`."""
        self._quiet_since = self._channel.seconds()
        self._tally.received += 1
        self._tally.octets += message.content.size
        self._watch.changed(self._tally)
        self._accepted_mail.accepted(message, session)
