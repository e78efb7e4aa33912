"""The surroundings of a delivery agent: messages, and a source of them."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from mta.interfaces import IDeliveryAgent, IMailSource, ISigner, SigningFailed
from mta.mail import Agent, Body, Envelope, Hop, Mailbox, Outcome, Recipient, Reply, Status
from mta.queued import Delivery, IContent, Message, Progress, Target
from mta.smtp.header import body_of, section_of
from mta.smtp.topped import ToppedContent

ALICE = Mailbox("alice", "example.com")
CAROL = Mailbox("carol", "partner.example")
TEXT = b"Subject: test\r\n\r\nHello\r\n"
HOP = Hop(Agent.SMTP, "peer.example", 25)
RELAYED = Outcome(Status.RELAYED, Reply(250, "2.0.0", ("OK",)), "mx.example")


@implementer(IContent)
class FakeContent:
    """Content that comes in these pieces.

    `failure`, where set, is raised after them.  `size` may be said wrong.  `header_size`: the
    octets of the header section, where an empty line does not tell its end.
    """

    def __init__(
        self,
        *pieces: bytes,
        size: int = 0,
        failure: OSError | None = None,
        header_size: int | None = None,
    ) -> None:
        self.size = size or sum(map(len, pieces))
        self.is_ascii = all(piece.isascii() for piece in pieces)
        self._pieces = pieces
        self._failure = failure
        self._header_size = header_size

    async def header(self) -> bytes:
        """Return what the pieces have of the header section."""
        if self._header_size is not None:
            return b"".join(self._pieces)[: self._header_size]
        return await section_of(self.pieces())

    async def body(self) -> AsyncIterator[bytes]:
        """Yield what is behind it."""
        if self._header_size is not None:
            yield b"".join(self._pieces)[self._header_size :]
        else:
            async for piece in body_of(self.pieces()):
                yield piece

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the pieces."""
        for piece in self._pieces:
            yield piece
        if self._failure is not None:
            raise self._failure


def message(
    id: str = "A1",
    content: bytes | IContent = TEXT,
    *,
    to: Sequence[Mailbox] = (ALICE,),
    reverse_path: Mailbox = CAROL,
    envelope: Envelope | None = None,
    **fields: Any,
) -> Message:
    """Make a message; `envelope` says more than `to` and `reverse_path`.

    `fields` are those of `Message`.
    """
    envelope = envelope or Envelope(reverse_path, tuple(map(Recipient, to)))
    values: dict[str, Any] = {
        "arrived": 1700000000.75,
        "content": FakeContent(content) if isinstance(content, bytes) else content,
        "progress": tuple(map(Progress, envelope.recipients)),
    }
    return Message(id=id, envelope=envelope, **(values | fields))


def delivery(
    hop: Hop = HOP,
    id: str = "A1",
    content: bytes | IContent = TEXT,
    *,
    addresses: Sequence[Mailbox] | None = None,
    **more: Any,
) -> Delivery:
    """Make a message on its way to a hop.

    `more` is what `message` takes.  `addresses`: where aliases made others of the recipients.
    """
    made = message(id, content, **more)
    if addresses is None:
        addresses = [recipient.forward_path for recipient in made.envelope.recipients]
    targets = (Target(number, address, hop) for number, address in enumerate(addresses))
    return Delivery(made, tuple(targets))


@implementer(IMailSource)
class FakeMailSource:
    """Deliveries for one hop, and what became of them.

    `waiting`: what was not taken.  `outcomes`: what was reported, by queue id.  `returned`: the
    queue ids of what was returned unsent.  With `waits`, more mail may come until `finish`.
    """

    def __init__(self, *deliveries: Delivery, waits: bool = False) -> None:
        self.waiting = deque(deliveries)
        self.outcomes: dict[str, Sequence[Outcome]] = {}
        self.returned: list[str] = []
        self._taken: dict[str, Delivery] = {}
        self._waits = waits
        self._is_interrupted = False
        self._event: Deferred[bool] | None = None

    # --- for the test

    def give(self, delivery: Delivery) -> None:
        """Add one more."""
        self.waiting.append(delivery)
        self._wake()

    def interrupt(self) -> None:
        """End the wait, or the next one, as if there were mail."""
        event, self._event = self._event, None
        if event is None:
            self._is_interrupted = True
        else:
            event.callback(True)

    def finish(self) -> None:
        """Let no more come."""
        self._waits = False
        self._wake()

    @property
    def outcome(self) -> Outcome:
        """The only outcome."""
        ((only,),) = self.outcomes.values()
        return only

    @property
    def unreported(self) -> list[str]:
        """The queue ids of what was taken, and neither reported nor returned."""
        return list(self._taken)

    def _wake(self) -> None:
        event, self._event = self._event, None
        if event is not None:
            event.callback(bool(self.waiting))

    # --- IMailSource

    async def next(self) -> Delivery | None:
        """Hand out the next one."""
        if not self.waiting:
            return None
        delivery = self.waiting.popleft()
        self._taken[delivery.message.id] = delivery
        return delivery

    async def wait(self) -> bool:
        """Return whether there is mail, once that is known."""
        if self._is_interrupted:
            self._is_interrupted = False
            return True
        if self.waiting or not self._waits:
            return bool(self.waiting)
        event: Deferred[bool] = Deferred(lambda _: setattr(self, "_event", None))
        self._event = event
        return await event

    def report(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """Keep the outcomes: one for each target, and once."""
        assert self._taken.pop(delivery.message.id) is delivery
        assert len(outcomes) == len(delivery.targets)
        self.outcomes[delivery.message.id] = tuple(outcomes)

    def return_unsent(self, delivery: Delivery) -> None:
        """Note that another connection shall have it."""
        assert self._taken.pop(delivery.message.id) is delivery
        self.returned.append(delivery.message.id)


@implementer(IDeliveryAgent)
class FakeAgent:
    """An agent that reports what a table says of each address.

    `outcome` is for all others.  `deliveries`: hop, queue id and addresses of each;
    `contents`: what it read.
    """

    def __init__(self, outcome: Outcome = RELAYED) -> None:
        self.outcome = outcome
        self.outcomes: dict[str, Outcome] = {}
        self.deliveries: list[tuple[Hop, str, list[str]]] = []
        self.contents: list[bytes] = []

    async def attempt(self, delivery: Delivery) -> None:
        """Do nothing.  Tests that wait or fail before a report replace it."""

    async def deliver(self, hop: Hop, mail: IMailSource) -> None:
        """Report an outcome for all that `mail` hands out."""
        while (delivery := await mail.next()) is not None:
            addresses = [str(target.address) for target in delivery.targets]
            self.deliveries.append((hop, delivery.message.id, addresses))
            self.contents.append(b"".join([p async for p in delivery.message.content.pieces()]))
            await self.attempt(delivery)
            mail.report(delivery, [self.outcomes.get(each, self.outcome) for each in addresses])


@implementer(ISigner)
class FakeSigner:
    """Puts a field on top of mail, or fails with a reply.

    `asked` records the ids of the messages, and what they were converted for.
    """

    def __init__(self, failure: Reply | None = None) -> None:
        self.asked: list[tuple[str, Body | None]] = []
        self._failure = failure

    async def signed(
        self, delivery: Delivery, content: IContent, conversion: Body | None
    ) -> IContent:
        """Return the content with a field that tells its size."""
        self.asked.append((delivery.message.id, conversion))
        if self._failure is not None:
            raise SigningFailed(self._failure)
        return ToppedContent(b"Signed: %d\r\n" % content.size, content)
