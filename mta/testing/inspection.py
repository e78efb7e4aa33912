"""An inspector that records what it sees."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from mta.interfaces import (
    IEnvelopeInspector,
    IInspector,
    IMessageInspector,
    ISessionInspector,
)
from mta.mail import Envelope, MailArgument, Recipient, Reply
from mta.session import Origin, Session
from mta.smtp.errors import Refusal
from mta.verdict import ACCEPT, Verdict


@implementer(IInspector, ISessionInspector, IMessageInspector, IEnvelopeInspector)
class FakeInspector:
    """Inspects one session and its messages.

    `seen` records what was asked, with what there was to see.  `refusals`: replies by the name of
    the method that refuses.  `verdict` is what `end` returns; `ready`: `body` waits for it.
    """

    needs_name = False

    def __init__(self, verdict: Verdict = ACCEPT, **refusals: Reply) -> None:
        self.verdict = verdict
        self.refusals = refusals
        self.seen: list[tuple[str, object]] = []
        self.origins: list[Origin] = []
        self.ready: Deferred[None] = succeed(None)
        self._session: Session | None = None

    @property
    def asked(self) -> list[str]:
        """The names of the methods that were called, in order."""
        return [name for name, _ in self.seen]

    def session(self, session: Session) -> ISessionInspector:
        """Inspect it."""
        self._session = session
        inspector: ISessionInspector = self
        return inspector

    async def connected(self) -> None:
        """Record the address of the client."""
        assert self._session is not None
        self._see("connected", self._session.client)

    async def hello(self) -> None:
        """Record the name of the client."""
        assert self._session is not None
        self._see("hello", self._session.hello)

    async def unknown(self, line: bytes) -> None:
        """Record the command."""
        self._see("unknown", line)

    async def message(self, id: str, argument: MailArgument, origin: Origin) -> IMessageInspector:
        """Record the reverse-path."""
        self.origins.append(origin)
        self._see("message", str(argument.reverse_path))
        inspector: IMessageInspector = self
        return inspector

    def close(self) -> None:
        """Record that it was called."""
        self.seen.append(("close", None))

    async def recipient(self, recipient: Recipient) -> None:
        """Record the forward-path."""
        self._see("recipient", str(recipient.forward_path))

    async def refused(self, recipient: Recipient, reply: Reply) -> None:
        """Record the forward-path."""
        self._see("refused", str(recipient.forward_path))

    async def data(self) -> None:
        """Record that it was called."""
        self._see("data", None)

    async def header(self, envelope: Envelope, section: bytes) -> None:
        """Record the header section."""
        self._see("header", section)

    async def body(self, piece: bytes) -> None:
        """Record the piece, and wait until `ready`."""
        self._see("body", piece)
        await self.ready

    async def end(self, section: bytes) -> Verdict:
        """Record the header section; return `verdict`."""
        self._see("end", section)
        return self.verdict

    def abort(self) -> None:
        """Record that it was called."""
        self.seen.append(("abort", None))

    def _see(self, name: str, what: object) -> None:
        self.seen.append((name, what))
        if name in self.refusals:
            raise Refusal(self.refusals[name])
