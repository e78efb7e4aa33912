"""The inspector of clients: lists in the DNS, and greylisting.

It looks at each recipient, so that postmaster and abuse can always be reached, and at clients that
are neither users nor hosts of ours.
"""

from __future__ import annotations

from twisted.logger import Logger
from zope.interface import implementer

from mta.inspectors.greylisting import Greylisting
from mta.inspectors.lists import Lists, Standing
from mta.interfaces import IAccessPolicy, IInspector, IMessageInspector, ISessionInspector
from mta.mail import Envelope, MailArgument, Mailbox, Recipient, Reply
from mta.session import Origin, Session
from mta.settings import Service
from mta.smtp.errors import Refusal
from mta.verdict import ACCEPT, Verdict

ROLES = frozenset({"postmaster", "abuse"})  # RFC 5321 section 4.5.1, RFC 2142 section 4


@implementer(IInspector)
class ClientInspector:
    """Looks at clients from outside.  `greylisting` None: there is none."""

    def __init__(
        self, lists: Lists, greylisting: Greylisting | None, access: IAccessPolicy
    ) -> None:
        self.lists = lists
        self.greylisting = greylisting
        self.access = access
        self.needs_name = greylisting is not None

    def session(self, session: Session) -> ISessionInspector:
        """See `IInspector.session`."""
        return _Client(self, session)


@implementer(ISessionInspector)
class _Client:
    """Looks at the client of one session."""

    log = Logger()

    def __init__(self, inspector: ClientInspector, session: Session) -> None:
        self.inspector = inspector
        self.session = session
        self._standing: Standing | None = None
        greylisting = inspector.greylisting
        self.sender_policy = None if greylisting is None else greylisting.senders.of(session)

    async def connected(self) -> None:
        """Let all clients pass: this one may be a user."""

    async def hello(self) -> None:
        """Let all names pass."""

    async def unknown(self, line: bytes) -> None:
        """Leave the reply to the receiver."""

    async def message(
        self, id: str, argument: MailArgument, origin: Origin
    ) -> IMessageInspector | None:
        """Look at the recipients of a message, where it comes from outside."""
        session = self.session
        if (
            session.service is not Service.SMTP
            or (session.turned_peer and session.told is None)
            or not self.inspector.access.is_outsider(session)
        ):
            return None
        return _ClientMessage(self, argument.reverse_path)

    async def standing(self) -> Standing:
        """Return the standing of the client.  The lists are asked once."""
        if self._standing is None:
            self._standing = found = await self.inspector.lists.standing(self.session.client)
            if zone := found.rejected or found.junk or found.greylisted:
                self.log.info(
                    "{client} is on the list {zone}", client=self.session.client, zone=zone
                )
        return self._standing

    def close(self) -> None:
        """Forget nothing: nothing was kept."""


@implementer(IMessageInspector)
class _ClientMessage:
    """Looks at the recipients of one message."""

    def __init__(self, client: _Client, reverse_path: Mailbox) -> None:
        self._client = client
        self._reverse_path = reverse_path
        self._is_greylisted: bool | None = None
        self._waits: dict[str, Reply | None] = {}  # by domain of the recipient
        self._junk = ""

    async def recipient(self, recipient: Recipient) -> None:
        """Refuse it where the client is listed, or has to wait."""
        address = recipient.forward_path
        if address.local_part.lower() in ROLES:
            return
        standing = await self._client.standing()
        if standing.allowed:
            return
        listed = standing.junk
        if standing.rejected:
            if not self._client.session.is_acknowledged:
                raise Refusal(_rejection(self._client.session.client, standing))
            listed = standing.rejected  # the relay's notice could go to a forged address
        if listed:
            self._junk = f"its client is on the list {listed}"
        await self._greylist(address, is_listed=bool(standing.greylisted))

    async def _greylist(self, address: Mailbox, *, is_listed: bool) -> None:
        greylisting, session = self._client.inspector.greylisting, self._client.session
        sender_policy = self._client.sender_policy
        if greylisting is None or sender_policy is None or session.turned_peer:
            return  # a relay comes again, be its client what it may
        if self._is_greylisted is None:
            self._is_greylisted = await greylisting.concerns(
                sender_policy, self._reverse_path, is_listed=is_listed
            )
        if not self._is_greylisted:
            return
        if address.domain not in self._waits:  # of ours, so there are few
            wait = await greylisting.wait(session, self._reverse_path, address)
            self._waits[address.domain] = wait
        if wait := self._waits[address.domain]:
            raise Refusal(wait)

    async def header(self, envelope: Envelope, section: bytes) -> None:
        """Let all header sections pass."""

    async def body(self, piece: bytes) -> None:
        """Let all bodies pass."""

    async def end(self, section: bytes) -> Verdict:
        """Take the message for junk, where a list says so."""
        return Verdict(junk=self._junk) if self._junk else ACCEPT

    def abort(self) -> None:
        """Forget nothing: nothing was kept."""


def _rejection(client: str, standing: Standing) -> Reply:
    text = f"The host [{client}] is on the block list {standing.rejected}"
    return Reply(550, "5.7.1", (f"{text}: {standing.reason}" if standing.reason else text,))
