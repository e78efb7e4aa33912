"""The transactions of a sender on the wire: envelope, content, and the replies to them.

RFC 5321 section 3.3, RFC 2033, RFC 2920, RFC 3030.
"""

from __future__ import annotations

from collections.abc import Sequence

from mta.mail import Outcome, Reply, Status
from mta.session import ChannelLost, ChannelTimeout
from mta.smtp.content import DotWriter
from mta.smtp.dialogue import (
    AHEAD,
    CONTENT,
    DATA,
    EMPTY,
    END,
    MAIL,
    RCPT,
    Dialogue,
    Misplaced,
    OutOfStep,
    Step,
)
from mta.smtp.fit import Capabilities, notices_of_peer
from mta.smtp.outgoing import Outbox, Transaction, refused

NOT_NOW = frozenset({500, 502, 503})  # say of the command that it was none, or came out of order
NO_CHUNK = frozenset({500, 501, 502, 504})  # to BDAT: the chunk may be read as commands


class Transmission:
    """Writes transactions to the peer, and reads what it replies to them.

    Raises OutOfStep where a reply may belong to something else, and what `Dialogue` raises.
    """

    def __init__(self, dialogue: Dialogue, capabilities: Capabilities, outbox: Outbox) -> None:
        self._dialogue = dialogue
        self._channel = dialogue.channel
        self._capabilities = capabilities
        self._outbox = outbox

    # --- the envelope

    async def step_by_step(self, transaction: Transaction) -> bool:
        """The envelope for a peer without PIPELINING; whether content was sent."""
        transaction.is_in_step = True
        if transaction.after_reset:
            await self._dialogue.send(b"RSET\r\n", 1)
            await self._read_reset(transaction, MAIL)
        mail, *rcpts = transaction.commands
        await self._dialogue.send(mail, 1)
        await self._read_mail(transaction, MAIL)
        if transaction.refusal is not None:
            return False
        for place, rcpt in zip(transaction.places, rcpts, strict=True):
            await self._dialogue.send(rcpt, 1)
            await self._read_rcpt(transaction, place)
        if not transaction.accepted:
            return False
        await self._dialogue.send(b"DATA\r\n", 1)
        await self.read_data(transaction)
        return await self.write_data(transaction)

    async def write_envelope(self, transaction: Transaction, last: bytes) -> None:
        """Write the envelope in one group; `last` is the command that ends the group."""
        commands = [b"RSET\r\n"] if transaction.after_reset else []
        commands += transaction.commands
        if last:
            commands.append(last)
        await self._dialogue.send(b"".join(commands), len(commands))

    async def read_envelope(self, transaction: Transaction, *, is_ahead: bool = False) -> None:
        """The replies to one group, up to the last RCPT.

        `is_ahead`: it was sent behind content, where some peers read nothing.
        """
        step = AHEAD if is_ahead else MAIL
        try:
            if transaction.after_reset:
                await self._read_reset(transaction, step)
                step = MAIL
            await self._read_mail(transaction, step)
        except ChannelTimeout as lost:
            if self._dialogue.step is AHEAD:
                raise OutOfStep("the peer dropped what was sent ahead") from lost
            raise
        for place in transaction.places:
            await self._read_rcpt(transaction, place)

    async def _read_reset(self, transaction: Transaction, step: Step) -> None:
        reply = await self._dialogue.reply(step)
        transaction.after_reset = False
        if reply.code != 250:  # RFC 5321 section 4.1.1.5
            raise Misplaced(f"to RSET: {reply}")

    async def _read_mail(self, transaction: Transaction, step: Step) -> None:
        reply = await self._verdict(step)
        transaction.is_answered = True
        if not _is_ok(reply):
            self._demand_in_order(reply)
            self._outbox.refuse(transaction, reply)

    async def _read_rcpt(self, transaction: Transaction, place: int) -> None:
        reply = await self._verdict(RCPT)
        if not _is_ok(reply) and transaction.refusal is None:
            self._demand_in_order(reply)
            transaction.rejected[place] = reply

    async def read_data(self, transaction: Transaction) -> None:
        """The reply to DATA, which takes the content or refuses the transaction."""
        reply = await self._dialogue.reply(DATA)
        if reply.code == 354:
            transaction.is_open = True
            return
        if reply.is_positive:
            raise Misplaced(str(reply))
        if transaction.has_takers:
            self._demand_in_order(reply)
        self._outbox.refuse(transaction, reply)

    async def write_data(self, transaction: Transaction) -> bool:
        """The content after the reply to DATA, where that asked for it; whether it was sent."""
        if not transaction.is_open:
            return False
        if not transaction.has_takers:
            await self._end_for_nobody()
            return False
        await self._dialogue.check()
        transaction.is_in_step = True
        await self._write_content(transaction, DotWriter())
        return True

    async def _end_for_nobody(self) -> None:
        """RFC 2920 section 3.1: content must follow, and nobody is to get it."""
        if self._capabilities.lmtp:
            raise OutOfStep("a start of content that is for nobody")  # replies to it: none, or one
        await self._dialogue.send(b".\r\n", 1)
        try:
            await self._dialogue.reply(EMPTY)
        except ChannelTimeout as lost:
            raise OutOfStep("no reply to the end of content that was for nobody") from lost

    # --- the content

    async def write_chunk(self, transaction: Transaction) -> None:
        """Write the whole content as one chunk (RFC 3030)."""
        size = transaction.outgoing.form.content.size
        await self._dialogue.send(b"BDAT %d LAST\r\n" % size, 0)
        await self._write_content(transaction, None)

    async def _write_content(self, transaction: Transaction, dots: DotWriter | None) -> None:
        """The octets of content, with dot stuffing where they go by DATA.

        The reply may come as soon as the last octet is written: that of a chunk has no dot behind
        it, and is not waited for here.
        """
        dialogue, content = self._dialogue, transaction.outgoing.form.content
        dialogue.step = CONTENT
        transaction.has_begun = True
        left = content.size
        async for piece in content.pieces():
            await self._wait_for_room(transaction)
            left -= len(piece)
            if dots is None and not left:
                self._end_content(transaction)
            self._channel.write(dots.encode(piece) if dots else piece)
        if not transaction.has_ended:
            await self._wait_for_room(transaction)
            self._end_content(transaction)
        if dots:
            self._channel.write(dots.end())

    async def _wait_for_room(self, transaction: Transaction) -> None:
        """Return when all but a little was sent, and the peer has said nothing unasked."""
        end = self._channel.seconds() + CONTENT.timeout
        try:
            while not await self._channel.drain(end):
                await self._dialogue.check()
            await self._dialogue.check()
        except (ChannelLost, OutOfStep) as error:
            self._judge_early(transaction, error)
            raise

    def _judge_early(self, transaction: Transaction, error: Exception) -> None:
        """Note a refusal of content that comes before its end, as too large or as spam.

        With one command at a time it can be nothing else.  Raises OutOfStep where it can.
        """
        reply = self._dialogue.unasked
        if reply is None or not (reply.is_transient or reply.is_permanent):
            return
        if self._capabilities.may_lose_step:
            raise OutOfStep(f"before the end of content: {reply}") from error
        if not self._capabilities.lmtp:
            self._outbox.refuse(transaction, reply)

    def _end_content(self, transaction: Transaction) -> None:
        transaction.has_ended = True
        self._dialogue.expect(len(transaction.accepted) if self._capabilities.lmtp else 1)

    async def end(self, transaction: Transaction, following: Transaction | None = None) -> None:
        """The reply to content: one, or with LMTP one for each recipient that RCPT took.

        Where the `following` transaction is on its way, a reply to that which can't be its own
        shows that this one may not have been either.
        """
        if self._capabilities.lmtp:
            await self._end_for_each(transaction, transaction.accepted)
            return
        reply = await self._verdict(END)
        if transaction.has_takers and not _is_ok(reply):
            self._demand_in_order(reply)
        if following is not None:
            try:
                await self._read_beginning(following)
            except Misplaced:
                raise
            except (ChannelLost, OutOfStep):
                self._judge(transaction, reply)
                self._outbox.conclude(transaction)
                raise
        self._judge(transaction, reply)

    async def _read_beginning(self, following: Transaction) -> None:
        """The first replies to what was sent ahead: to RSET, or else up to DATA."""
        if self._capabilities.streams:
            await self._read_reset(following, MAIL)
        else:
            await self.read_envelope(following, is_ahead=True)
            await self.read_data(following)

    def _judge(self, transaction: Transaction, reply: Reply) -> None:
        """What the one reply to content means."""
        places = transaction.accepted
        if not transaction.has_takers:
            if _is_ok(reply) or reply.code in NO_CHUNK:
                raise OutOfStep(f"to content for nobody: {reply}")
            self._outbox.refuse(transaction, reply)
        elif _is_ok(reply):
            self.verify(transaction)
            self._deliver_to(transaction, places, reply)
        elif not transaction.is_in_step and reply.code in NO_CHUNK:
            raise OutOfStep(f"to BDAT: {reply}")
        else:
            self._outbox.refuse(transaction, reply)

    async def _end_for_each(self, transaction: Transaction, places: Sequence[int]) -> None:
        """The replies of LMTP; where too many come, nobody knows which is whose."""
        said: list[tuple[int, Reply]] = []
        try:
            for place in places:
                said.append((place, await self._verdict(END)))
        except ChannelLost:
            self._judge_each(transaction, said)
            raise
        if len(places) > 1:
            self._dialogue.verify()
        self._judge_each(transaction, said)

    def _judge_each(self, transaction: Transaction, said: Sequence[tuple[int, Reply]]) -> None:
        for place, reply in said:
            if _is_ok(reply):
                self._deliver_to(transaction, [place], reply)
            else:
                transaction.outgoing.outcomes[place] = refused(reply, self._dialogue.remote)

    def verify(self, transaction: Transaction) -> None:
        """Raise OutOfStep where the replies to a transaction may have been those to another."""
        if not transaction.is_in_step:
            self._dialogue.verify()

    # --- replies

    async def _verdict(self, step: Step) -> Reply:
        """A reply that takes something or refuses it: any other is not the one awaited."""
        reply = await self._dialogue.reply(step)
        if not _is_ok(reply) and reply.is_positive:
            raise Misplaced(str(reply))
        return reply

    def _demand_in_order(self, reply: Reply) -> None:
        """Raise OutOfStep where a refusal may only mean the manner in which the command came."""
        if self._capabilities.pipelines and reply.code in NOT_NOW:
            raise OutOfStep(str(reply))

    def _deliver_to(self, transaction: Transaction, places: Sequence[int], reply: Reply) -> None:
        status = Status.DELIVERED if self._capabilities.lmtp else Status.RELAYED
        takes_notify = self._capabilities.extensions.offers("DSN")
        delivery = transaction.outgoing.delivery
        for place in places:
            target = delivery.targets[place]
            notifies = takes_notify and (
                notices_of_peer(delivery, target) == delivery.recipient(target).notify
            )
            transaction.outgoing.outcomes[place] = Outcome(
                status, reply, self._dialogue.remote, notifies
            )


def _is_ok(reply: Reply) -> bool:
    """Whether something was taken: 250 to 259, no greeting or good-bye."""
    return reply.code // 10 == 25
