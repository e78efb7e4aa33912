"""The way into the spool for mail that is sealed.

A message that waits for peers with a key is sealed as it comes: neither a file nor a row ever has
it in the clear.  One for others as well becomes two, one sealed and one not.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.logger import Logger
from zope.interface import implementer

from mta.interfaces import IOwnMail, IPeerMeter, IPreviews, ISpool
from mta.mail import Envelope, Mailbox, Recipient
from mta.queued import IDraft, Message
from mta.sealing.agefile import Sealing, sealed
from mta.sealing.seals import Seals
from mta.session import Origin


class NotSealed(OSError):
    """A message has a recipient now who can't read what was sealed."""


@implementer(IDraft)
class SealingDraft:
    """A body on its way in, sealed or plain or both.

    `plain` and `sealed` are the drafts of the two; `peers` are those that can open the latter.
    """

    def __init__(self, spool: ISpool, seals: Seals) -> None:
        self._spool = spool
        self._seals = seals
        first = spool.draft()
        self.id = first.id
        self.plain: IDraft | None = first
        self.sealed: IDraft | None = None
        self.peers: frozenset[str] = frozenset()
        self._sealing: Sealing | None = None
        self._is_addressed = False
        self._header = b""  # sealed, once the body is complete

    def address(self, envelope: Envelope) -> None:
        """See `IDraft.address`."""
        assert self.plain is not None and not self._is_addressed
        self._is_addressed = True
        found = [
            self._seals.peers(recipient, envelope.reverse_path) for recipient in envelope.recipients
        ]
        self.peers = frozenset().union(*found)
        if not self.peers:
            return
        if all(found):
            self.sealed, self.plain = self.plain, None
        else:
            self.sealed = self._spool.draft()
        self._sealing = Sealing(self._seals.keys(self.peers))

    def is_sealed_for(self, recipient: Recipient, reverse_path: Mailbox) -> bool:
        """Tell whether the sealed part is for a recipient."""
        peers = self._seals.peers(recipient, reverse_path)
        return bool(peers) and self.peers >= peers

    async def write(self, piece: bytes) -> None:
        """See `IDraft.write`.  Raises NotSealed where it is not known who is to have it."""
        if not self._is_addressed:
            raise NotSealed(f"{self.id}: it has no recipients yet")
        if self.plain is not None:
            await self.plain.write(piece)
        if self.sealed is not None and self._sealing is not None:
            octets = self._sealing.add(piece)
            if octets:
                await self.sealed.write(octets)

    async def replace(self, other: IDraft) -> None:
        """See `IDraft.replace`."""
        assert isinstance(other, SealingDraft)
        if (self.peers, self.plain is None) != (other.peers, other.plain is None):
            raise NotSealed(f"{self.id}: another body came for other recipients")
        if self.plain is not None and other.plain is not None:
            await self.plain.replace(other.plain)
        if self.sealed is not None and other.sealed is not None:
            await self.sealed.replace(other.sealed)
        self._sealing = other._sealing
        other.plain = other.sealed = None

    async def finish(self, header: bytes) -> bytes:
        """End the sealed part, once; return its header section, sealed.  Raises OSError."""
        if self._sealing is not None and self.sealed is not None:
            sealing, self._sealing = self._sealing, None
            await self.sealed.write(sealing.end())
            self._header = sealed(header, self._seals.keys(self.peers))
        return self._header

    def discard(self) -> None:
        """See `IDraft.discard`."""
        for each in (self.plain, self.sealed):
            if each is not None:
                each.discard()


@implementer(IPreviews)
class SealingSpool:
    """A spool behind what seals the mail for it.

    `seals` may be set at any time; None: no mail is sealed.  `mail` takes over the sealed part of a
    message that became two, `meter` counts what is sealed for each peer.
    """

    log = Logger()

    def __init__(self, spool: IPreviews, mail: IOwnMail, meter: IPeerMeter) -> None:
        self.seals: Seals | None = None
        self._spool = spool
        self._meter = meter
        self._mail = mail

    def draft(self) -> IDraft:
        """See `ISpool.draft`."""
        if self.seals is None:
            return self._spool.draft()
        return SealingDraft(self._spool, self.seals)

    async def commit(
        self, draft: IDraft, envelope: Envelope, header: bytes, origin: Origin, hold: str = ""
    ) -> Message:
        """See `ISpool.commit`.

        A message that becomes two is committed twice: where the second commit fails, the client is
        told so, and may send again what the first part brings already.
        """
        if not isinstance(draft, SealingDraft):
            return await self._spool.commit(draft, envelope, header, origin, hold)
        sealed, plain = self._parts(draft, envelope)
        first = None
        if sealed is not None and draft.sealed is not None:
            section = await draft.finish(header)
            first = await self._spool.commit(draft.sealed, sealed, section, origin, hold)
            draft.sealed = None
            for peer in draft.peers:
                self._meter.sealed(peer)
            if plain is None:
                return first
        assert plain is not None and draft.plain is not None
        try:
            return await self._spool.commit(draft.plain, plain, header, origin, hold)
        finally:
            if first is not None:
                self._mail.written(first, f"the sealed part of {draft.id}")

    async def preview(
        self, draft: IDraft, envelope: Envelope, header: bytes, origin: Origin
    ) -> Message | None:
        """See `IPreviews.preview`.  There is none of a message that becomes two."""
        if not isinstance(draft, SealingDraft):
            return await self._spool.preview(draft, envelope, header, origin)
        sealed, plain = self._parts(draft, envelope)
        if sealed is not None and draft.sealed is not None and plain is None:
            section = await draft.finish(header)
            return await self._spool.preview(draft.sealed, sealed, section, origin)
        if plain is not None and draft.plain is not None and sealed is None:
            return await self._spool.preview(draft.plain, plain, header, origin)
        return None

    def _parts(
        self, draft: SealingDraft, envelope: Envelope
    ) -> tuple[Envelope | None, Envelope | None]:
        """The envelopes of the sealed and of the other part.

        What is left without recipients is discarded.  Raises NotSealed.
        """
        sender = envelope.reverse_path
        inside = tuple(each for each in envelope.recipients if draft.is_sealed_for(each, sender))
        outside = tuple(each for each in envelope.recipients if each not in inside)
        if outside and draft.plain is None:
            self.log.error(
                "{queue_id} was sealed, and a filter has added a recipient who can't open it: it is"
                " not taken",
                queue_id=draft.id,
            )
            raise NotSealed(f"{draft.id}: a recipient can't open it")
        if not inside and draft.sealed is not None:
            draft.sealed.discard()
        if not outside and draft.plain is not None:
            draft.plain.discard()
        return (
            replace(envelope, recipients=inside, sealed=True) if inside else None,
            replace(envelope, recipients=outside) if outside else None,
        )
