"""Transactions on the wire, each from its envelope to its outcomes."""

from __future__ import annotations

from mta.session import ChannelLost
from mta.smtp.content_transfer import ContentTransfer
from mta.smtp.dialogue import Dialogue, Misplaced, OutOfStep
from mta.smtp.envelope_exchange import EnvelopeExchange
from mta.smtp.fit import Capabilities
from mta.smtp.outgoing import Outbox, Transaction


class Transmission:
    """Begins, ends and concludes the transactions of an outbox.

    `envelopes` and `contents` have what comes in between.
    """

    def __init__(self, dialogue: Dialogue, capabilities: Capabilities, outbox: Outbox) -> None:
        self.envelopes = EnvelopeExchange(dialogue, capabilities)
        self.contents = ContentTransfer(dialogue, capabilities)
        self._dialogue = dialogue
        self._capabilities = capabilities
        self._outbox = outbox

    async def begin(self, transaction: Transaction, last: bytes = b"") -> None:
        """Write the envelope in one group, with the command `last`."""
        await self._dialogue.ensure_quiet()
        self._outbox.begin(transaction)
        await self.envelopes.write(transaction, last)

    async def send_envelope(self, transaction: Transaction) -> None:
        """Send the envelope and DATA, and read the replies to them."""
        if self._capabilities.pipelines:
            await self.begin(transaction, b"DATA\r\n")
            await self.envelopes.read(transaction)
            await self.envelopes.read_data(transaction)
        else:
            await self._dialogue.ensure_quiet()
            self._outbox.begin(transaction)
            await self.envelopes.step_by_step(transaction)

    async def send_by_itself(self, transaction: Transaction) -> None:
        """Send a message by BDAT, its content when the envelope was accepted."""
        await self.begin(transaction)
        await self.envelopes.read(transaction)
        if transaction.has_recipients:
            await self.contents.write_chunk(transaction)
            await self.contents.read_replies(transaction)
        self.conclude(transaction)

    async def end(self, transaction: Transaction, following: Transaction | None) -> None:
        """Read the replies to content, and conclude the transaction.

        Where the `following` transaction is in flight, its first replies are read as well: if one
        of them can't be its own, the reply to this content may not have been either.
        """
        if following is None:
            await self.contents.read_replies(transaction)
        else:
            reply = await self.contents.read_reply(transaction)
            try:
                await self._read_beginning(following)
            except Misplaced:
                raise
            except (ChannelLost, OutOfStep):
                self.contents.judge(transaction, reply)
                self._outbox.conclude(transaction)
                raise
            self.contents.judge(transaction, reply)
        self.conclude(transaction)

    async def _read_beginning(self, following: Transaction) -> None:
        """Read the first replies to a transaction that was sent ahead.

        To RSET alone, where the whole message was; else up to DATA.
        """
        if self._capabilities.streams:
            await self.envelopes.read_reset(following)
        else:
            await self.envelopes.read(following, is_ahead=True)
            await self.envelopes.read_data(following)

    def conclude(self, transaction: Transaction) -> None:
        """Take the outcomes of a transaction.  Raises OutOfStep for replies too many."""
        self.contents.ensure_in_step(transaction)
        self._outbox.conclude(transaction)
