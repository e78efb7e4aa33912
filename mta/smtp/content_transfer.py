"""Content on the wire, by DATA or BDAT, and the replies.

RFC 5321 section 3.3, RFC 2033 section 4.2, RFC 3030.
"""

from __future__ import annotations

from collections.abc import Sequence

from mta.mail import Outcome, Reply, Status
from mta.session import ChannelLost, ChannelTimeout
from mta.smtp.content import DotWriter
from mta.smtp.dialogue import CONTENT, EMPTY, END, Dialogue, OutOfStep, accepts
from mta.smtp.envelope_exchange import ensure_in_order
from mta.smtp.fit import Capabilities, notices_of_peer
from mta.smtp.outgoing import Transaction, refused

NO_CHUNK = frozenset({500, 501, 502, 504})  # to BDAT: the chunk may be read as commands


class ContentTransfer:
    """Sends content, and takes outcomes from the replies to it.

    Raises OutOfStep where a reply may be the one to another command, and what `Dialogue` raises.
    """

    def __init__(self, dialogue: Dialogue, capabilities: Capabilities) -> None:
        self._dialogue = dialogue
        self._channel = dialogue.channel
        self._capabilities = capabilities

    # --- content

    async def write_data(self, transaction: Transaction) -> bool:
        """Write the content if DATA got 354.

        Returns whether a recipient is to get it, so that replies count.
        """
        if not transaction.is_open:
            return False
        if not transaction.has_recipients:
            await self._end_without_recipients()
            return False
        await self._dialogue.ensure_quiet()
        transaction.is_in_step = True
        await self._write(transaction, DotWriter())
        return True

    async def _end_without_recipients(self) -> None:
        """Send empty content, for no recipient (RFC 2920 section 3.1)."""
        if self._capabilities.lmtp:  # which may reply once, or not at all
            raise OutOfStep("354 to DATA without recipients")
        await self._dialogue.send(b".\r\n", 1)
        try:
            await self._dialogue.reply(EMPTY)
        except ChannelTimeout as lost:
            raise OutOfStep("no reply to the end of content without recipients") from lost

    async def write_chunk(self, transaction: Transaction) -> None:
        """Write the whole content as one chunk (RFC 3030)."""
        size = transaction.outgoing.form.content.size
        await self._dialogue.send(b"BDAT %d LAST\r\n" % size, 0)
        await self._write(transaction, None)

    async def _write(self, transaction: Transaction, dots: DotWriter | None) -> None:
        """Write the octets of content, with dots stuffed for DATA.

        The peer may reply to a chunk as soon as it has the last octet: the reply counts as expected
        before that is written.  Behind DATA the final dot comes first.
        """
        dialogue, content = self._dialogue, transaction.outgoing.form.content
        dialogue.stage = CONTENT
        transaction.has_begun = True
        left = content.size
        async for piece in content.pieces():
            await self._wait_for_room(transaction)
            left -= len(piece)
            if dots is None and not left:
                self._expect_replies(transaction)
            self._channel.write(dots.encode(piece) if dots else piece)
        if not transaction.has_ended:
            await self._wait_for_room(transaction)
            self._expect_replies(transaction)
        if dots:
            self._channel.write(dots.end())

    async def _wait_for_room(self, transaction: Transaction) -> None:
        """Wait until most of what was written is sent."""
        end = self._channel.seconds() + CONTENT.timeout
        try:
            while not await self._channel.drain(end):
                await self._dialogue.ensure_quiet()
            await self._dialogue.ensure_quiet()
        except (ChannelLost, OutOfStep) as error:
            self._note_early_refusal(transaction, error)
            raise

    def _note_early_refusal(self, transaction: Transaction, error: Exception) -> None:
        """Note a refusal that comes before the end of content.

        Raises OutOfStep where the reply may be the one to another command: with one command at a
        time it can't be.
        """
        reply = self._dialogue.unsolicited
        if reply is None or not (reply.is_transient or reply.is_permanent):
            return
        if self._capabilities.may_lose_step:
            raise OutOfStep(f"before the end of content: {reply}") from error
        if not self._capabilities.lmtp:
            transaction.refuse(reply)

    def _expect_replies(self, transaction: Transaction) -> None:
        transaction.has_ended = True
        self._dialogue.expect(len(transaction.accepted) if self._capabilities.lmtp else 1)

    # --- replies to content

    async def read_replies(self, transaction: Transaction) -> None:
        """Read the reply to content: with LMTP, one for each accepted recipient."""
        if self._capabilities.lmtp:
            await self._read_each_reply(transaction)
        else:
            self.judge(transaction, await self.read_reply(transaction))

    async def read_reply(self, transaction: Transaction) -> Reply:
        """Return the one reply to content, for `judge`."""
        reply = await self._dialogue.verdict(END)
        if transaction.has_recipients and not accepts(reply):
            ensure_in_order(reply, self._capabilities)
        return reply

    def judge(self, transaction: Transaction, reply: Reply) -> None:
        """Take outcomes from the one reply to content."""
        if not transaction.has_recipients:
            if accepts(reply) or reply.code in NO_CHUNK:
                raise OutOfStep(f"to content without recipients: {reply}")
            transaction.refuse(reply)
        elif accepts(reply):
            self.ensure_in_step(transaction)
            self._note_delivered(transaction, transaction.accepted, reply)
        elif not transaction.is_in_step and reply.code in NO_CHUNK:
            raise OutOfStep(f"to BDAT: {reply}")
        else:
            transaction.refuse(reply)

    async def _read_each_reply(self, transaction: Transaction) -> None:
        """Read the replies of LMTP.  Where they are too many, none has a sure recipient."""
        indices = transaction.accepted
        replies: list[tuple[int, Reply]] = []
        try:
            for index in indices:
                replies.append((index, await self._dialogue.verdict(END)))
        except ChannelLost:
            self._judge_each(transaction, replies)
            raise
        if len(indices) > 1:
            self._dialogue.ensure_in_step()
        self._judge_each(transaction, replies)

    def _judge_each(self, transaction: Transaction, replies: Sequence[tuple[int, Reply]]) -> None:
        for index, reply in replies:
            if accepts(reply):
                self._note_delivered(transaction, [index], reply)
            else:
                transaction.outgoing.outcomes[index] = refused(reply, self._dialogue.remote)

    def _note_delivered(
        self, transaction: Transaction, indices: Sequence[int], reply: Reply
    ) -> None:
        status = Status.DELIVERED if self._capabilities.lmtp else Status.RELAYED
        takes_notify = self._capabilities.extensions.offers("DSN")
        delivery = transaction.outgoing.delivery
        for index in indices:
            target = delivery.targets[index]
            notifies = takes_notify and (
                notices_of_peer(delivery, target) == delivery.recipient(target).notify
            )
            transaction.outgoing.outcomes[index] = Outcome(
                status, reply, self._dialogue.remote, notifies
            )

    def ensure_in_step(self, transaction: Transaction) -> None:
        """Raise OutOfStep where the replies may be those to another transaction."""
        if not transaction.is_in_step:
            self._dialogue.ensure_in_step()
