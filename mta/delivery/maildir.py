"""The Maildir: one file for each message, which readers need no lock for.

What waits for one hop is written as one batch, in a thread: many messages share the cost of
being made durable.  The name of a file comes from the queue id, so that after a crash a repeated
delivery can see whether it had arrived.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zlib import crc32

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from mta.delivery import letters as disk
from mta.delivery.final import final_pieces, trace_fields
from mta.delivery.letters import Letter
from mta.interfaces import IDeliveryAgent, IMailSource
from mta.limited_log import LimitedLog
from mta.mail import Hop, Mailbox, Outcome, Reply, Status
from mta.queued import Delivery, Message, Target
from mta.smtp.templates import TOO_LONG, file_name, mailbox_path, not_hidden

SMALL = 256 * 1024  # octets; larger content is written while it is read
MAX_FILES = disk.MAX_OPEN  # of one batch, a last message for many mailboxes aside
MAX_OCTETS = 8 * 2**20  # of content in memory for one batch, a last message aside

DELIVERED = Outcome(Status.DELIVERED, Reply(250, "2.0.0", ("Delivered to the mailbox",)))
UNREADABLE = Outcome(Status.DEFERRED, Reply(451, "4.3.0", ("The queue can't be read now",)))


@dataclass(frozen=True, slots=True)
class _Trouble:
    """What an error of the disk means to the sender, and what the person in charge can do."""

    status: Status
    reply: Reply
    advice: str


_UNWRITABLE = Reply(451, "4.3.0", ("The mailbox can't be written now",))
_TROUBLES = {
    errno.ENOSPC: _Trouble(
        Status.DEFERRED, Reply(452, "4.3.1", ("Insufficient storage",)), "free some space there"
    ),
    errno.EDQUOT: _Trouble(
        Status.DEFERRED, Reply(452, "4.2.2", ("Mailbox full",)), "raise the quota or free space"
    ),
    errno.ENAMETOOLONG: _Trouble(Status.FAILED, TOO_LONG, "shorten the path in `deliver`"),
    errno.EROFS: _Trouble(Status.DEFERRED, _UNWRITABLE, "mount the file system for writing"),
    errno.EMFILE: _Trouble(Status.DEFERRED, _UNWRITABLE, "raise the limit of open files"),
    errno.ELOOP: _Trouble(
        Status.DEFERRED, _UNWRITABLE, "put a folder in its place: no link in a Maildir is followed"
    ),
    errno.ENOTDIR: _Trouble(
        Status.DEFERRED, _UNWRITABLE, "remove the file that stands where a folder should be"
    ),
}
# Of these there is too little now, and perhaps enough in a moment: mail waits for no schedule.
_RESOURCES = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
RESOURCE_WAIT = 5.0  # seconds
RESOURCE_WAIT_MORE = 0.01  # seconds, for each message that waits for the same already
MAX_RESOURCE_WAIT = 300.0  # seconds
_REFUSED = _Trouble(Status.DEFERRED, _UNWRITABLE, "let the user that we run as write there")
_BROKEN = _Trouble(Status.DEFERRED, _UNWRITABLE, "look after the disk")


@dataclass(frozen=True, slots=True)
class _Share:
    """A delivery with one letter for each of its targets."""

    delivery: Delivery
    letters: Sequence[Letter]

    @property
    def is_small(self) -> bool:
        return self.delivery.message.content.size <= SMALL


@implementer(IDeliveryAgent)
class MaildirAgent:
    """Delivers to the Maildirs of a hop, whose next hop is a path template.

    `hostname` becomes a part of file names.  `quotas` are the octets that each mailbox of a domain
    may have.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        pool: ThreadPool,
        hostname: str,
        quotas: Mapping[str, int] | None = None,
    ) -> None:
        self._reactor = reactor
        self._pool = pool
        self._quotas = quotas or {}
        self._limited = LimitedLog(self.log)
        self._lacking = 0  # attempts that found too little of something, since one succeeded
        self._host = hostname.replace("/", r"\057").replace(":", r"\072")

    async def deliver(self, hop: Hop, mail: IMailSource) -> None:
        """See `IDeliveryAgent.deliver`.

        Draws what waits, up to a batch, and writes it: more is for another visit, when it is
        worth one.
        """
        shares = await self._draw(hop, mail)
        batch = [share for share in shares if share.is_small and await self._read(share, mail)]
        if batch:
            letters = [letter for share in batch for letter in share.letters]
            await self._in_thread(disk.store, letters)
        for share in batch:
            self._settle(share, mail)
        for share in shares:
            if not share.is_small:
                await self._copy(share, mail)

    async def _draw(self, hop: Hop, mail: IMailSource) -> list[_Share]:
        """Take what waits, up to a batch."""
        shares: list[_Share] = []
        files = octets = 0
        while files < MAX_FILES and octets < MAX_OCTETS:
            delivery = await mail.next()
            if delivery is None:
                break
            message = delivery.message
            letters = [self._letter(hop, message, target) for target in delivery.targets]
            share = _Share(delivery, letters)
            shares.append(share)
            files += len(letters)
            octets += message.content.size if share.is_small else 0
        return shares

    def _letter(self, hop: Hop, message: Message, target: Target) -> Letter:
        base, maildir = places(hop.next_hop, target.address)
        _, former = places(hop.next_hop, target.address, _former_name)
        # Two addresses that one alias stands for may share a folder: a sum tells them apart.
        address = crc32(str(target.address).encode("utf-8", "surrogatepass"))
        unique = f"Q{message.id}R{target.number}A{address:08x}"
        fields = trace_fields(message.envelope.reverse_path, target.address)
        return Letter(
            base,
            maildir,
            name=f"{int(message.arrived)}.{unique}.{self._host}",
            fields=fields,
            is_repeat=message.recovered or message.attempts > 0,
            quota=self._quotas.get(target.address.domain, 0),
            size=len(fields) + message.content.size,
            former=former if former != maildir else None,
        )

    async def _read(self, share: _Share, mail: IMailSource) -> bool:
        """Give letters their text; where the spool can't be read, they are settled."""
        content = share.delivery.message.content
        try:
            text = b"".join([piece async for piece in final_pieces(content)])
        except OSError as error:
            self._put_off(share, mail, error)
            return False
        for letter in share.letters:
            letter.text = text
        return True

    async def _copy(self, share: _Share, mail: IMailSource) -> None:
        """Deliver a large message, one letter and one piece of it at a time."""
        content = share.delivery.message.content
        for letter in share.letters:
            await self._in_thread(disk.begin, [letter])
            await self._in_thread(disk.append, letter, letter.fields)
            try:
                async with aclosing(final_pieces(content)) as pieces:
                    async for piece in pieces:
                        if letter.error or letter.has_arrived:
                            break
                        await self._in_thread(disk.append, letter, piece)
            except OSError as error:
                await self._in_thread(disk.abandon, [letter])
                self._put_off(share, mail, error)
                return
            await self._in_thread(disk.finish, [letter])
        self._settle(share, mail)

    def _in_thread(self, function: Callable[..., None], *args: Any) -> Deferred[None]:
        return deferToThreadPool(self._reactor, self._pool, function, *args)

    def _settle(self, share: _Share, mail: IMailSource) -> None:
        message = share.delivery.message
        mail.report(share.delivery, [self._outcome(message, letter) for letter in share.letters])

    def _outcome(self, message: Message, letter: Letter) -> Outcome:
        error = letter.error
        if error is None:
            self._lacking = 0
            return DELIVERED
        trouble = _TROUBLES.get(error.errno or 0)
        if trouble is None:
            trouble = _REFUSED if isinstance(error, PermissionError) else _BROKEN
        # Over its own quota a mailbox stays for as long as its owner likes.
        wait = 0.0 if letter.is_over_quota else self._resource_wait(error)
        fields = {"path": str(letter.maildir), "reason": error.strerror, "advice": trouble.advice}
        template = "{queue_id} can't be written to {path}: {reason}; {advice}"
        if wait:
            self._limited.error(str(error.errno), template, queue_id=message.id, **fields)
        else:
            self.log.error(template, queue_id=message.id, **fields)
        return Outcome(trouble.status, trouble.reply, wait=wait)

    def _resource_wait(self, error: OSError) -> float:
        """Seconds until mail is tried again that found too little of something; 0: it did not."""
        if error.errno not in _RESOURCES:
            return 0.0
        self._lacking += 1
        return min(RESOURCE_WAIT + RESOURCE_WAIT_MORE * self._lacking, MAX_RESOURCE_WAIT)

    def _put_off(self, share: _Share, mail: IMailSource, error: OSError) -> None:
        self.log.error(
            "{queue_id} can't be read from the spool: {reason}",
            queue_id=share.delivery.message.id,
            reason=str(error),
        )
        unreadable = replace(UNREADABLE, wait=self._resource_wait(error))
        mail.report(share.delivery, [unreadable] * len(share.letters))


def _former_name(text: str) -> str:
    """`text` as one file name of ASCII, as earlier versions had it."""
    return not_hidden(quote(text, safe="+=,", errors="surrogatepass"))


@lru_cache(maxsize=2048)
def places(
    template: str, address: Mailbox, as_file_name: Callable[[str], str] = file_name
) -> tuple[Path, Path]:
    """The fixed part of a path template, and the Maildir of an address under it.

    No address leads out of the fixed part, and no two that differ lead to the same folder
    where the template names all of an address.
    """
    fixed, _, _ = template.partition("{")
    return Path(f"{fixed}x").parent, Path(mailbox_path(template, address, as_file_name))
