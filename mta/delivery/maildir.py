"""The Maildir: one file for each message, which readers need no lock for.

A message is written into ``tmp``, made durable, renamed into ``new``, and the folder is made
durable.  Messages share that work: what waits for one hop is written as one batch, in a thread.
The name of a file comes from the queue id, so that after a crash a repeated delivery can see
whether it had arrived.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zlib import crc32

from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from mta.delivery.final import final_pieces, trace_fields
from mta.interfaces import Delivery, IDeliveryAgent, IMailSource, Message, Target
from mta.mail import Hop, Mailbox, Outcome, Reply, Status

SMALL = 256 * 1024  # octets; larger content is written while it is read
MOST_FILES = 64  # of one batch, which are open at the same time
MOST_OCTETS = 8 * 2**20  # of the contents in memory for one batch

DELIVERED = Outcome(Status.DELIVERED, Reply(250, "2.0.0", ("Delivered to the mailbox",)))
UNREADABLE = Outcome(Status.DEFERRED, Reply(451, "4.3.0", ("The spool can't be read now",)))
_TROUBLE = {
    errno.ENOSPC: Outcome(Status.DEFERRED, Reply(452, "4.3.1", ("Insufficient storage",))),
    errno.EDQUOT: Outcome(Status.DEFERRED, Reply(452, "4.2.2", ("Mailbox full",))),
    errno.ENAMETOOLONG: Outcome(Status.FAILED, Reply(550, "5.1.3", ("Address too long",))),
}
_OTHER_TROUBLE = Outcome(Status.DEFERRED, Reply(451, "4.3.0", ("The mailbox can't be written",)))
_ADVICE = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there or raise the quota",
    errno.ENAMETOOLONG: "shorten the path in `deliver`",
    errno.ENOTDIR: "remove the file that stands where a folder should be",
    errno.EMFILE: "raise the limit of open files",
    errno.EROFS: "mount the file system for writing",
}
_USUAL_ADVICE = "let the user that this program runs as write there"


@implementer(IDeliveryAgent)
class MaildirAgent:
    """Delivers to the Maildirs of a hop, whose next hop is a path template.

    `hostname` becomes a part of file names.
    """

    log = Logger()

    def __init__(self, reactor: Any, pool: ThreadPool, hostname: str) -> None:
        self._reactor = reactor
        self._pool = pool
        self._hostname = hostname.replace("/", r"\057").replace(":", r"\072")

    async def deliver(self, hop: Hop, mail: IMailSource) -> None:
        """See `IDeliveryAgent.deliver`.

        Draws what waits, writes it as one batch, and draws again.
        """
        while batch := await self._gather(hop, mail):
            await self._in_thread(store, [letter for _, letters in batch for letter in letters])
            for delivery, letters in batch:
                self._settle(mail, delivery, letters)

    async def _gather(
        self, hop: Hop, mail: IMailSource
    ) -> list[tuple[Delivery, Sequence[Letter]]]:
        """Up to a batch of small messages; large ones are delivered on the way."""
        batch: list[tuple[Delivery, Sequence[Letter]]] = []
        files = octets = 0
        while files < MOST_FILES and octets < MOST_OCTETS:
            delivery = await mail.next()
            if delivery is None:
                break
            letters = [self._letter(hop, delivery.message, target) for target in delivery.targets]
            content = delivery.message.content
            if content.size > SMALL:
                await self._store_large(delivery, letters)
                self._settle(mail, delivery, letters)
                continue
            try:
                text = b"".join([piece async for piece in final_pieces(content)])
            except OSError as error:
                self._spool_failed(mail, delivery, error)
                continue
            for letter in letters:
                letter.text = text
            batch.append((delivery, letters))
            files += len(letters)
            octets += content.size
        return batch

    def _letter(self, hop: Hop, message: Message, target: Target) -> Letter:
        # Two addresses that one alias stands for may share a folder: the name tells them apart.
        address = crc32(str(target.address).encode("utf-8", "replace"))
        return Letter(
            base=fixed_part(hop.next_hop),
            maildir=locate(hop.next_hop, target.address),
            name=(
                f"{message.arrived:.0f}.Q{message.id}R{target.number}A{address:08x}"
                f".{self._hostname}"
            ),
            fields=trace_fields(message.envelope.reverse_path, target.address),
            is_repeat=message.recovered or message.attempts > 0,
        )
