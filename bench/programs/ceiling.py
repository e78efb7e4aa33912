"""How fast reception can be: as little as can be said on Twisted, and our own without a spool.

``python -m bench.programs.ceiling {canned|null} CONFIGURATION`` listens on a port of its own, which
it prints.  ``canned`` answers without looking, but for the end of the content; ``null`` is our
reception as it is, from the link to the spool, which forgets each message at once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from twisted.internet import reactor as the_reactor
from twisted.internet.protocol import Protocol, ServerFactory
from zope.interface import implementer

from mta import config
from mta.access import AccessPolicy
from mta.access.counters import Counters
from mta.interfaces import IAcceptedMail, ISpool
from mta.link import LinkFactory, WaitingRoom
from mta.mail import Envelope
from mta.metrics import NullMeter
from mta.queued import IDraft, Message
from mta.routing import Router
from mta.service.listeners import Receivers
from mta.session import Origin, Session
from mta.smtp.receiver_config import ReceiverConfig
from mta.smtp.srs import SenderRewriting
from mta.spool.content import MemoryContent
from mta.spool.drafts import Draft
from mta.spool.folder import Folder
from mta.spool.queue_id import QueueIds

BACKLOG = 1024
_END = b"\r\n.\r\n"
_REPLIES = {b"D": b"354 go\r\n", b"E": b"250-canned.example\r\n250 PIPELINING\r\n"}


class Canned(Protocol):
    """Answers without looking."""

    _tail = b""
    _in_content = False

    def connectionMade(self) -> None:
        """Greet."""
        self.transport.setTcpNoDelay(True)  # type: ignore[union-attr]
        self._say(b"220 canned.example\r\n")

    def dataReceived(self, data: bytes) -> None:
        """One command, or a part of the content."""
        if self._in_content:
            self._tail = (self._tail + data)[-len(_END) :]
            if self._tail == _END:
                self._in_content = False
                self._say(b"250 OK\r\n")
            return
        verb = data[:1].upper()
        self._say(_REPLIES.get(verb, b"250 OK\r\n"))
        self._in_content = verb == b"D"
        if verb == b"Q":
            self.transport.loseConnection()  # type: ignore[union-attr]

    def _say(self, reply: bytes) -> None:
        self.transport.write(reply)  # type: ignore[union-attr]


@implementer(ISpool)
class NullSpool:
    """Forgets what it is given."""

    def __init__(self, folder: Path) -> None:
        self._folder = Folder(folder)
        self._ids = QueueIds(time.time)

    def draft(self) -> Draft:
        """See `ISpool.draft`."""
        return Draft(self._ids.next(), self._folder, 0, _never, set())

    async def commit(
        self, draft: IDraft, envelope: Envelope, header: bytes, origin: Origin, hold: str = ""
    ) -> Message:
        """See `ISpool.commit`; nothing is durable."""
        assert isinstance(draft, Draft)
        body = await draft.finish()
        assert body is not None
        return Message(draft.id, 0.0, envelope, MemoryContent(header, body, draft.is_ascii), ())


@implementer(IAcceptedMail)
class Forgotten:
    """Delivers nothing."""

    def accepted(self, message: Message, session: Session) -> None:
        """See `IAcceptedMail.accepted`."""


def _never(function: Callable[..., Any], *args: Any) -> NoReturn:
    raise RuntimeError("the messages of this measurement are small")


def receivers(path: Path, clock: Any) -> ServerFactory:
    """What `mta.service` makes of the first listener, with a `NullSpool`."""
    settings = config.load(path)
    listener = settings.listen[0]
    router = Router.from_settings(settings, SenderRewriting(b"k" * 32))
    access = AccessPolicy(settings.relay, settings.limits, (), router, None, Counters(clock))
    spool = NullSpool(Path(settings.spool))
    shared = ReceiverConfig(
        settings.hostname,
        spool,
        Forgotten(),
        access,
        settings.limits,
        time.time,
        listener.service,
        listener.tls,
    )
    factory = LinkFactory(clock, WaitingRoom(clock))
    factory.serve(Receivers(shared, NullMeter()))
    return factory


if __name__ == "__main__":
    reactor: Any = the_reactor
    factory: Any
    if sys.argv[1] == "canned":
        factory = ServerFactory.forProtocol(Canned)
    else:
        factory = receivers(Path(sys.argv[2]), reactor)
    port = reactor.listenTCP(0, factory, backlog=BACKLOG, interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    reactor.run()
