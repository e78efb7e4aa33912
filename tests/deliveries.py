"""Stand-ins for what surrounds a delivery agent: content, a source of mail, threads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from twisted.python.failure import Failure
from zope.interface import implementer

from mta.interfaces import IMailSource
from mta.mail import Envelope, Hop, Mailbox, Outcome, Recipient
from mta.queued import Delivery, IContent, Message, Progress, Target

SENDER = Mailbox("carol", "partner.example")
ALICE = Mailbox("alice", "example.com")
TEXT = b"Subject: test\r\n\r\nHello\r\n"


@implementer(IContent)
class Pieces:
    """Content that comes in these pieces; reading raises `failure` after them where it is set."""

    def __init__(self, *pieces: bytes, size: int = 0, failure: OSError | None = None) -> None:
        self.size = size or sum(map(len, pieces))
        self.is_ascii = all(piece.isascii() for piece in pieces)
        self._pieces = pieces
        self._failure = failure

    async def pieces(self) -> AsyncIterator[bytes]:
        """See `IContent`."""
        for piece in self._pieces:
            yield piece
        if self._failure is not None:
            raise self._failure


@implementer(IMailSource)
class Mail:
    """Hands out deliveries, and remembers the outcomes of each by its queue id."""

    def __init__(self, *deliveries: Delivery) -> None:
        self.waiting = list(deliveries)
        self.outcomes: dict[str, Sequence[Outcome]] = {}

    async def next(self) -> Delivery | None:
        """See `IMailSource`."""
        return self.waiting.pop(0) if self.waiting else None

    def report(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """See `IMailSource`."""
        assert len(outcomes) == len(delivery.targets)
        assert delivery.message.id not in self.outcomes, "settled once"
        self.outcomes[delivery.message.id] = outcomes

    @property
    def outcome(self) -> Outcome:
        """The only outcome."""
        ((only,),) = self.outcomes.values()
        return only


def delivery(
    hop: Hop,
    name: str = "A1",
    content: IContent | None = None,
    to: Sequence[Mailbox] = (ALICE,),
    reverse_path: Mailbox = SENDER,
    **more: Any,
) -> Delivery:
    """A message on its way, with a target for each address; `more` are fields of `Message`."""
    recipients = tuple(map(Recipient, to))
    message = Message(
        id=name,
        arrived=1700000000.75,
        envelope=Envelope(reverse_path, recipients),
        content=content or Pieces(TEXT),
        progress=tuple(map(Progress, recipients)),
        **more,
    )
    return Delivery(message, tuple(Target(n, address, hop) for n, address in enumerate(to)))


class Threads:
    """A reactor and a thread pool that do everything at once; `calls` are the functions' names."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def callFromThread(self, function: Callable[..., Any], *args: Any) -> None:
        """Threads call this."""
        function(*args)

    def callInThreadWithCallback(
        self, report: Callable[[bool, Any], None], function: Callable[..., Any], *args: Any
    ) -> None:
        """`deferToThreadPool` calls this."""
        self.calls.append(function.__name__)
        try:
            result = function(*args)
        except Exception:
            report(False, Failure())
        else:
            report(True, result)
