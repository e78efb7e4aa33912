"""SMTP on standard input and output, straight into the spool: ``sendmail -bs``."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from zope.interface import implementer

from mta.access.policy import rejection
from mta.commands.console import router_of
from mta.interfaces import (
    IAcceptedMail,
    IAccessPolicy,
    IChannel,
    IEvictable,
    IRouter,
    ISpool,
)
from mta.mail import Mailbox, Recipient
from mta.queued import Message
from mta.session import (
    LOCAL_ADDRESS,
    ChannelLost,
    ChannelTimeout,
    HandshakeFailed,
    Session,
    TLSInfo,
)
from mta.settings import Settings
from mta.smtp.errors import Refusal
from mta.smtp.receiver import Receiver
from mta.smtp.receiver_config import ReceiverConfig
from mta.smtp.wire import Wire
from mta.sync import result_of

_PIECE = 65536  # octets


def converse(settings: Settings, spool: ISpool, incoming: int, outgoing: int) -> None:
    """Hold one conversation over two descriptors.  Raises OSError."""
    access = LocalAccessPolicy(router_of(settings))
    config = ReceiverConfig(
        settings.hostname, spool, LeftToServer(), access, settings.limits, time.time
    )
    receiver = Receiver(config)
    with suppress(ChannelLost):  # who called us has ended
        result_of(receiver.converse(Pipes(incoming, outgoing)))


@implementer(IAcceptedMail)
class LeftToServer:
    """Leaves what was committed to the server, which the spool has woken."""

    def accepted(self, message: Message, session: Session) -> None:
        """See `IAcceptedMail.accepted`."""


@implementer(IChannel)
class Pipes:
    """A channel over two descriptors.  It blocks, so whatever is awaited is done at once."""

    remote_address = LOCAL_ADDRESS
    remote_port = 0
    tls: TLSInfo | None = None
    closing = False

    def __init__(self, incoming: int, outgoing: int) -> None:
        self.wire = Wire()
        self._incoming = incoming
        self._outgoing = outgoing

    def write(self, data: bytes) -> None:
        """See `IChannel.write`."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._outgoing, rest) :]

    async def receive(self, end: float) -> None:
        """See `IChannel.receive`."""
        left = max(0.0, end - self.seconds())
        ready, _, _ = select.select([self._incoming], [], [], left)
        if not ready:
            raise ChannelTimeout("timed out")
        octets = os.read(self._incoming, _PIECE)
        if not octets:
            raise ChannelLost("standard input ended")
        self.wire.feed(octets)

    async def drain(self, end: float) -> bool:
        """Nothing piles up."""
        return True

    def seconds(self) -> float:
        """See `IChannel.seconds`."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """See `IChannel.sleep`."""
        time.sleep(seconds)  # noqa: ASYNC251 (there is nothing else to do)

    async def wait_idle(self, event: Coroutine[Any, Any, bool], seconds: float) -> bool | None:
        """Nothing happens here but what the other end says."""
        event.close()
        return None

    async def start_tls(self, early: bytes = b"") -> None:
        """See `IChannel.start_tls`: there is no network."""
        raise HandshakeFailed("no TLS between two processes")

    def notice_loss(self, seconds: float) -> None:
        """See `IChannel.notice_loss`: the system tells of it at once."""

    def abort(self) -> None:
        """The next `receive` finds the end."""
        os.close(self._incoming)


@implementer(IAccessPolicy)
class LocalAccessPolicy:
    """Lets users who may write to the spool send anywhere.

    Unknown recipients are refused all the same.
    """

    def __init__(self, router: IRouter) -> None:
        self._router = router

    def takes(self, client: str) -> bool:
        """See `IAccessPolicy.takes`."""
        return True

    async def connect(self, session: Session, connection: IEvictable | None = None) -> None:
        """See `IAccessPolicy.connect`."""

    async def mail(self, session: Session, reverse_path: Mailbox) -> None:
        """See `IAccessPolicy.mail`."""

    async def rcpt(self, session: Session, reverse_path: Mailbox, recipient: Recipient) -> None:
        """See `IAccessPolicy.rcpt`."""
        if refusal := rejection(self._router.route(recipient.forward_path, reverse_path)):
            raise Refusal(refusal)

    def charge(self, session: Session) -> None:
        """See `IAccessPolicy.charge`."""

    def disconnect(self, session: Session) -> None:
        """See `IAccessPolicy.disconnect`."""

    async def auth(self, session: Session) -> None:
        """See `IAccessPolicy.auth`."""

    def authenticated(self, session: Session, user: str) -> float:
        """See `IAccessPolicy.authenticated`."""
        return 0.0

    def auth_failed(self, session: Session, user: str, is_known: bool) -> float:
        """See `IAccessPolicy.auth_failed`."""
        return 0.0

    def is_outsider(self, session: Session) -> bool:
        """See `IAccessPolicy.is_outsider`: it is a user of this machine."""
        return False

    def checks_authors(self, session: Session) -> bool:
        """See `IAccessPolicy.checks_authors`: no user logs in here."""
        return False

    def header_from(self, session: Session, mailbox: Mailbox) -> None:
        """See `IAccessPolicy.header_from`."""
