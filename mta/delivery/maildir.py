"""The Maildir agent: one file for each message, without locks.

The messages that wait for one hop are written as one batch, in a thread: many of them share the
cost of a sync.  The name of a file comes from the queue id, so that after a crash a repeated
delivery can see whether the first one succeeded.
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

from mta.delivery import maildir_files
from mta.delivery.final import final_pieces, trace_fields
from mta.delivery.maildir_files import MaildirFile
from mta.delivery.maildir_folders import JUNK
from mta.interfaces import IDeliveryAgent, IMailSource, IRoundRobin
from mta.limited_log import LimitedLog
from mta.mail import Hop, Mailbox, Outcome, Reply, Status
from mta.queued import Delivery, Message, Target
from mta.smtp.templates import TOO_LONG, file_name, mailbox_path, not_hidden

MAX_IN_MEMORY = 256 * 1024  # octets: larger content is written while it is read
MAX_FILES = maildir_files.MAX_OPEN  # files: of one batch, a last message for many mailboxes aside
MAX_OCTETS = 8 * 2**20  # octets: of content in memory for one batch, a last message aside
PORTION = 16  # files: of a message for many mailboxes, written at once beside other work
PORTION_COST = 0.01  # seconds: a thread computes for 1 ms, and its calls hold up all else

DELIVERED = Outcome(Status.DELIVERED, Reply(250, "2.0.0", ("Delivered to the mailbox",)))
UNREADABLE = Outcome(Status.DEFERRED, Reply(451, "4.3.0", ("The queue can't be read now",)))


@dataclass(frozen=True, slots=True)
class _WriteFailure:
    """An error of the disk, with advice for the operator."""

    status: Status
    reply: Reply
    advice: str


_UNWRITABLE = Reply(451, "4.3.0", ("The mailbox can't be written now",))
_FAILURES = {
    errno.ENOSPC: _WriteFailure(
        Status.DEFERRED, Reply(452, "4.3.1", ("Insufficient storage",)), "free some space there"
    ),
    errno.EDQUOT: _WriteFailure(
        Status.DEFERRED, Reply(452, "4.2.2", ("Mailbox full",)), "raise the quota or free space"
    ),
    errno.ENAMETOOLONG: _WriteFailure(Status.FAILED, TOO_LONG, "shorten the path in `deliver`"),
    errno.EROFS: _WriteFailure(Status.DEFERRED, _UNWRITABLE, "mount the file system for writing"),
    errno.EMFILE: _WriteFailure(Status.DEFERRED, _UNWRITABLE, "raise the limit of open files"),
    errno.ELOOP: _WriteFailure(
        Status.DEFERRED, _UNWRITABLE, "put a folder in its place: no link in a Maildir is followed"
    ),
    errno.ENOTDIR: _WriteFailure(
        Status.DEFERRED, _UNWRITABLE, "remove the file that stands where a folder should be"
    ),
}
_REFUSED = _WriteFailure(Status.DEFERRED, _UNWRITABLE, "let the user that we run as write there")
_BROKEN = _WriteFailure(Status.DEFERRED, _UNWRITABLE, "look after the disk")

# Errors for lack of something that may be there in a moment: mail does not wait for its schedule.
_RESOURCES = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
RESOURCE_WAIT = 5.0  # seconds: until mail that lacked a resource is tried again
RESOURCE_WAIT_MORE = 0.01  # seconds: for each message that lacked one since the last success
MAX_RESOURCE_WAIT = 300.0  # seconds: so that mail goes out soon after the resource is back


@dataclass(frozen=True, slots=True)
class _Copies:
    """A delivery, with one file for each of its targets."""

    delivery: Delivery
    files: Sequence[MaildirFile]

    @property
    def is_small(self) -> bool:
        return self.delivery.message.content.size <= MAX_IN_MEMORY


@implementer(IDeliveryAgent)
class MaildirAgent:
    """Delivers to the Maildirs of a hop.

    The next hop is a path template.  `hostname` becomes a part of file names.  `quotas` are the
    octets that each mailbox of a domain may have.  A message for many mailboxes is written portion
    by portion, each at its time in the `order`.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        pool: ThreadPool,
        hostname: str,
        quotas: Mapping[str, int] | None = None,
        order: IRoundRobin | None = None,
    ) -> None:
        self._reactor = reactor
        self._pool = pool
        self._quotas = quotas or {}
        self._order = order
        self._limited = LimitedLog(self.log)
        self._resource_failures = 0  # for lack of a resource, since the last success
        self._host = hostname.replace("/", r"\057").replace(":", r"\072")

    async def deliver(self, hop: Hop, mail: IMailSource) -> None:
        """See `IDeliveryAgent.deliver`.

        Writes what waits, up to one batch: more is for another call, when it is worth one.
        """
        taken = await self._take(hop, mail)
        batch = [copies for copies in taken if copies.is_small and await self._read(copies, mail)]
        files = [file for copies in batch for file in copies.files]
        if self._order is not None and any(len(copies.files) > PORTION for copies in batch):
            await self._store_in_portions(files, self._order)
        elif batch:
            await self._in_thread(maildir_files.store, files)
        for copies in batch:
            self._report(copies, mail)
        for copies in taken:
            if not copies.is_small:
                await self._write_in_pieces(copies, mail)

    async def _take(self, hop: Hop, mail: IMailSource) -> list[_Copies]:
        """Take the deliveries that wait, up to one batch."""
        taken: list[_Copies] = []
        count = octets = 0
        while count < MAX_FILES and octets < MAX_OCTETS:
            delivery = await mail.next()
            if delivery is None:
                break
            message = delivery.message
            files = [self._file(hop, message, target) for target in delivery.targets]
            copies = _Copies(delivery, files)
            taken.append(copies)
            count += len(files)
            octets += message.content.size if copies.is_small else 0
        return taken

    def _file(self, hop: Hop, message: Message, target: Target) -> MaildirFile:
        base, maildir = maildir_paths(hop.next_hop, target.address)
        _, former = maildir_paths(hop.next_hop, target.address, _former_name)
        # Two addresses that one alias stands for may share a folder: a sum tells them apart.
        address = crc32(str(target.address).encode("utf-8", "surrogatepass"))
        unique = f"Q{message.id}R{target.number}A{address:08x}"
        fields = trace_fields(message.envelope.reverse_path, target.address)
        return MaildirFile(
            base,
            maildir,
            name=f"{int(message.arrived)}.{unique}.{self._host}",
            fields=fields,
            is_repeat=message.recovered or message.attempts > 0,
            quota=self._quotas.get(target.address.domain, 0),
            size=len(fields) + message.content.size,
            former=former if former != maildir else None,
            folder=JUNK if message.origin.is_junk else "",
        )

    async def _read(self, copies: _Copies, mail: IMailSource) -> bool:
        """Give files their text; returns False where the spool can't be read."""
        content = copies.delivery.message.content
        try:
            text = b"".join([piece async for piece in final_pieces(content)])
        except OSError as error:
            self._report_unreadable(copies, mail, error)
            return False
        for file in copies.files:
            file.text = text
        return True

    async def _store_in_portions(self, files: Sequence[MaildirFile], order: IRoundRobin) -> None:
        """Bring many files onto stable storage, between other work."""
        for start in range(0, len(files), MAX_FILES):
            batch = files[start : start + MAX_FILES]
            for first in range(0, len(batch), PORTION):
                await order.next_portion(PORTION_COST)
                await self._in_thread(maildir_files.write, batch[first : first + PORTION])
            await order.next_portion(PORTION_COST)
            await self._in_thread(maildir_files.finish, batch)

    async def _write_in_pieces(self, copies: _Copies, mail: IMailSource) -> None:
        """Deliver a large message, one piece at a time."""
        content = copies.delivery.message.content
        for file in copies.files:
            await self._in_thread(maildir_files.begin, [file])
            await self._in_thread(maildir_files.append, file, file.fields)
            try:
                async with aclosing(final_pieces(content)) as pieces:
                    async for piece in pieces:
                        if file.error or file.has_arrived:
                            break
                        await self._in_thread(maildir_files.append, file, piece)
            except OSError as error:
                await self._in_thread(maildir_files.abandon, [file])
                self._report_unreadable(copies, mail, error)
                return
            await self._in_thread(maildir_files.finish, [file])
        self._report(copies, mail)

    def _in_thread(self, function: Callable[..., None], *args: Any) -> Deferred[None]:
        return deferToThreadPool(self._reactor, self._pool, function, *args)

    # --- outcomes

    def _report(self, copies: _Copies, mail: IMailSource) -> None:
        message = copies.delivery.message
        mail.report(copies.delivery, [self._outcome(message, file) for file in copies.files])

    def _outcome(self, message: Message, file: MaildirFile) -> Outcome:
        error = file.error
        if error is None:
            self._resource_failures = 0
            return DELIVERED
        failure = _FAILURES.get(error.errno or 0)
        if failure is None:
            failure = _REFUSED if isinstance(error, PermissionError) else _BROKEN
        # Over its own quota a mailbox stays for as long as its owner likes.
        wait = 0.0 if file.is_over_quota else self._resource_wait(error)
        fields = {"path": str(file.maildir), "reason": error.strerror, "advice": failure.advice}
        template = "{queue_id} can't be written to {path}: {reason}; {advice}"
        if wait:
            self._limited.error(str(error.errno), template, queue_id=message.id, **fields)
        else:
            self.log.error(template, queue_id=message.id, **fields)
        return Outcome(failure.status, failure.reply, wait=wait)

    def _resource_wait(self, error: OSError) -> float:
        """Seconds until mail that lacked a resource is tried again, else 0."""
        if error.errno not in _RESOURCES:
            return 0.0
        self._resource_failures += 1
        wait = RESOURCE_WAIT + RESOURCE_WAIT_MORE * self._resource_failures
        return min(wait, MAX_RESOURCE_WAIT)

    def _report_unreadable(self, copies: _Copies, mail: IMailSource, error: OSError) -> None:
        self.log.error(
            "{queue_id} can't be read from the spool: {reason}",
            queue_id=copies.delivery.message.id,
            reason=str(error),
        )
        unreadable = replace(UNREADABLE, wait=self._resource_wait(error))
        mail.report(copies.delivery, [unreadable] * len(copies.files))


def _former_name(text: str) -> str:
    """`text` as one file name of ASCII, as earlier versions had it."""
    return not_hidden(quote(text, safe="+=,", errors="surrogatepass"))


@lru_cache(maxsize=2048)
def maildir_paths(
    template: str, address: Mailbox, as_file_name: Callable[[str], str] = file_name
) -> tuple[Path, Path]:
    """The fixed part of a path template, and an address's Maildir.

    No address leads out of the fixed part, and no two that differ lead to the same folder
    where the template names all of an address.
    """
    fixed, _, _ = template.partition("{")
    return Path(f"{fixed}x").parent, Path(mailbox_path(template, address, as_file_name))
