"""Envelopes on the wire: RSET, XFORWARD, MAIL, RCPT, DATA and their replies.

RFC 5321 section 3.3, RFC 2920.
"""

from __future__ import annotations

from mta.mail import Reply
from mta.session import ChannelTimeout
from mta.smtp.dialogue import (
    AHEAD,
    DATA,
    MAIL,
    RCPT,
    Dialogue,
    Misplaced,
    OutOfStep,
    Stage,
    accepts,
)
from mta.smtp.fit import Capabilities
from mta.smtp.outgoing import Transaction

NOT_NOW = frozenset({500, 502, 503})  # an unknown command, or one in a bad sequence


class EnvelopeExchange:
    """Writes the envelopes of transactions, and reads the replies to them.

    Raises OutOfStep where a reply may be the one to another command, and what `Dialogue` raises.
    """

    def __init__(self, dialogue: Dialogue, capabilities: Capabilities) -> None:
        self._dialogue = dialogue
        self._capabilities = capabilities

    async def step_by_step(self, transaction: Transaction) -> None:
        """Exchange the envelope and DATA with a peer without PIPELINING."""
        transaction.is_in_step = True
        if transaction.after_reset:
            await self._dialogue.send(b"RSET\r\n", 1)
            await self.read_reset(transaction)
        for command in transaction.origin_commands:
            await self._dialogue.send(command, 1)
            await self._dialogue.verdict(MAIL)
        mail, *rcpts = transaction.commands
        await self._dialogue.send(mail, 1)
        await self._read_mail(transaction, MAIL)
        if transaction.refusal is not None:
            return
        for index, rcpt in zip(transaction.indices, rcpts, strict=True):
            await self._dialogue.send(rcpt, 1)
            await self._read_rcpt(transaction, index)
        if transaction.accepted:
            await self._dialogue.send(b"DATA\r\n", 1)
            await self.read_data(transaction)

    async def write(self, transaction: Transaction, last: bytes) -> None:
        """Write the envelope in one group, which ends with the command `last`."""
        commands = [b"RSET\r\n"] if transaction.after_reset else []
        commands += transaction.origin_commands
        commands += transaction.commands
        if last:
            commands.append(last)
        await self._dialogue.send(b"".join(commands), len(commands))

    async def read(self, transaction: Transaction, *, is_ahead: bool = False) -> None:
        """Read the replies to one group, up to the last RCPT.

        `is_ahead`: it was sent behind content, where some peers read nothing.
        """
        stage = AHEAD if is_ahead else MAIL
        try:
            if transaction.after_reset:
                await self.read_reset(transaction, stage)
                stage = MAIL
            for _ in transaction.origin_commands:
                await self._dialogue.verdict(stage)  # whatever it is, the mail goes on
                stage = MAIL
            await self._read_mail(transaction, stage)
        except ChannelTimeout as lost:
            if self._dialogue.stage is AHEAD:
                raise OutOfStep("the peer dropped what was sent ahead") from lost
            raise
        for index in transaction.indices:
            await self._read_rcpt(transaction, index)

    async def read_reset(self, transaction: Transaction, stage: Stage = MAIL) -> None:
        """Read the reply to the RSET before the transaction."""
        reply = await self._dialogue.reply(stage)
        transaction.after_reset = False
        if reply.code != 250:  # RFC 5321 section 4.1.1.5
            raise Misplaced(f"to RSET: {reply}")

    async def _read_mail(self, transaction: Transaction, stage: Stage) -> None:
        reply = await self._dialogue.verdict(stage)
        transaction.is_answered = True
        if not accepts(reply):
            ensure_in_order(reply, self._capabilities)
            transaction.refuse(reply)

    async def _read_rcpt(self, transaction: Transaction, index: int) -> None:
        reply = await self._dialogue.verdict(RCPT)
        if not accepts(reply) and transaction.refusal is None:
            ensure_in_order(reply, self._capabilities)
            transaction.rejected[index] = reply

    async def read_data(self, transaction: Transaction) -> None:
        """Read the reply to DATA: 354, or a refusal."""
        reply = await self._dialogue.reply(DATA)
        if reply.code == 354:
            transaction.is_open = True
            return
        if reply.is_positive:
            raise Misplaced(str(reply))
        if transaction.has_recipients:
            ensure_in_order(reply, self._capabilities)
        transaction.refuse(reply)


def ensure_in_order(refusal: Reply, capabilities: Capabilities) -> None:
    """Raise OutOfStep for a refusal that may be due to pipelining alone."""
    if capabilities.pipelines and refusal.code in NOT_NOW:
        raise OutOfStep(str(refusal))
