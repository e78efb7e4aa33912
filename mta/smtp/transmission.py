"""The transactions of a sender on the wire: envelope, content, and the replies to them.

RFC 5321 section 3.3, RFC 2033, RFC 2920, RFC 3030.
"""

from __future__ import annotations

from collections.abc import Sequence

from mta.mail import Outcome, Reply, Status
from mta.smtp.content import DotWriter
from mta.smtp.dialogue import CONTENT, DATA, END, MAIL, RCPT, Dialogue
from mta.smtp.fit import Capabilities, notices_of_peer
from mta.smtp.outgoing import Outbox, Transaction, refused


class Transmission:
    """Writes transactions to the peer, and reads what it replies to them."""

    def __init__(self, dialogue: Dialogue, capabilities: Capabilities, outbox: Outbox) -> None:
        self._dialogue = dialogue
        self._channel = dialogue.channel
        self._capabilities = capabilities
        self._outbox = outbox

    async def step_by_step(self, transaction: Transaction) -> bool:
        """The envelope for a peer without PIPELINING; whether content was sent."""
        if transaction.after_reset:
            await self._dialogue.command(b"RSET", MAIL)
        mail, *rcpts = transaction.commands
        self._channel.write(mail)
        await self._read_mail(transaction)
        if transaction.refusal is not None:
            return False
        for place, rcpt in zip(transaction.places, rcpts, strict=True):
            self._channel.write(rcpt)
            await self._read_rcpt(transaction, place)
        if not transaction.accepted:
            return False
        self._channel.write(b"DATA\r\n")
        return await self.read_data(transaction)

    def write_envelope(self, transaction: Transaction, last: bytes) -> None:
        """Write the envelope in one group; `last` is the command that ends the group."""
        reset = b"RSET\r\n" if transaction.after_reset else b""
        self._channel.write(reset + b"".join(transaction.commands) + last)

    async def read_envelope(self, transaction: Transaction) -> None:
        """The replies to one group, up to the last RCPT."""
        if transaction.after_reset:
            await self._dialogue.reply(MAIL)
        await self._read_mail(transaction)
        for place in transaction.places:
            await self._read_rcpt(transaction, place)

    async def _read_mail(self, transaction: Transaction) -> None:
        reply = await self._dialogue.reply(MAIL)
        transaction.is_answered = True
        if reply.code // 100 != 2:
            self._outbox.refuse(transaction, reply)

    async def _read_rcpt(self, transaction: Transaction, place: int) -> None:
        reply = await self._dialogue.reply(RCPT)
        if reply.code // 100 != 2 and transaction.refusal is None:
            transaction.rejected[place] = reply

    async def read_data(self, transaction: Transaction) -> bool:
        """The reply to DATA, and the content after it; whether content was sent."""
        reply = await self._dialogue.reply(DATA)
        if reply.code != 354:
            self._outbox.refuse(transaction, reply)
            return False
        if transaction.refusal is not None or not transaction.accepted:
            # RFC 2920 section 3.1: content must follow, and nobody is to get it.
            self._channel.write(b".\r\n")
            if not self._capabilities.lmtp:
                await self._dialogue.reply(END)
            return False
        await self._write_content(transaction, DotWriter())
        return True

    async def write_chunk(self, transaction: Transaction) -> None:
        """Write the whole content as one chunk (RFC 3030)."""
        size = transaction.outgoing.form.content.size
        self._channel.write(b"BDAT %d LAST\r\n" % size)
        await self._write_content(transaction, None)

    async def _write_content(self, transaction: Transaction, dots: DotWriter | None) -> None:
        """The octets of content, with dot stuffing where they go by DATA."""
        self._dialogue.step = CONTENT
        transaction.has_begun = True
        async for piece in transaction.outgoing.form.content.pieces():
            self._channel.write(dots.encode(piece) if dots else piece)
            end = self._channel.seconds() + CONTENT.timeout
            while not await self._channel.drain(end):
                pass
        if dots:
            self._channel.write(dots.end())
        transaction.has_ended = True

    async def end(self, transaction: Transaction) -> None:
        """The reply to content: one, or with LMTP one for each recipient that RCPT took."""
        if not self._capabilities.lmtp:
            reply = await self._dialogue.reply(END)
            if reply.code // 100 != 2:
                self._outbox.refuse(transaction, reply)
            else:
                self._deliver_to(transaction, transaction.accepted, reply)
            return
        for place in transaction.accepted:
            reply = await self._dialogue.reply(END)
            if reply.code // 100 == 2:
                self._deliver_to(transaction, [place], reply)
            else:
                transaction.outgoing.outcomes[place] = refused(reply, self._dialogue.remote)

    def _deliver_to(self, transaction: Transaction, places: Sequence[int], reply: Reply) -> None:
        if transaction.refusal is not None:
            return
        status = Status.DELIVERED if self._capabilities.lmtp else Status.RELAYED
        takes_notify = self._capabilities.extensions.offers("DSN")
        delivery = transaction.outgoing.delivery
        for place in places:
            target = delivery.targets[place]
            wanted = delivery.recipient(target).notify
            notifies = takes_notify and notices_of_peer(delivery, target) == wanted
            transaction.outgoing.outcomes[place] = Outcome(
                status, reply, self._dialogue.remote, notifies
            )
