"""The sending of reports, some time after midnight in UTC."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mta import __version__
from mta.authentication.reports.destinations import Destinations, destinations
from mta.authentication.reports.document import DAY, Report, Reporter
from mta.authentication.reports.message import AUTHOR, message, report_id
from mta.interfaces import IOwnMail, IResolver, ISpool
from mta.mail import NULL_PATH, Envelope, Mailbox, Notify, Recipient
from mta.queued import AlreadyTaken
from mta.reporting.store import ReportStore
from mta.session import NOTICE_ORIGIN
from mta.settings import Settings

MIN_DELAY = 600  # seconds after midnight: by then all processes have told the store of the day
MAX_DELAY = 6 * 3600  # seconds after midnight: reports of a day do not all come at once
RETRY_PAUSE = 3600.0  # seconds until the DNS is asked again for a report
MAX_AGE = 3  # days after which a report is dropped, whatever keeps it
MAX_AT_ONCE = 20  # reports of a call: each has the DNS asked, and is a message to commit


class ReportSender:
    """Writes a message for each policy domain and day.

    Each is written once, by whichever node: the spool remembers it in the transaction that commits
    it, so that one which dies before the store has forgotten the report leaves no second one.
    `in_thread` calls a function that blocks; `now` gives seconds since the epoch.
    """

    log = Logger()

    def __init__(
        self,
        settings: Settings,
        store: ReportStore,
        spool: ISpool,
        mail: IOwnMail,
        resolver: IResolver,
        in_thread: Callable[..., Deferred[Any]],
        now: Callable[[], float],
    ) -> None:
        self._hostname = settings.hostname
        self._is_signed = bool(settings.signing_domain(settings.hostname))
        self._store = store
        self._spool = spool
        self._mail = mail
        self._resolver = resolver
        self._in_thread = in_thread
        self._now = now

    async def run(self) -> None:
        """Send what is due, a bounded number at a time."""
        now = self._now()
        try:
            today = int(now) // DAY
            waiting = await self._in_thread(self._store.waiting, today, now, RETRY_PAUSE)
            due = [each for each in waiting if self._due(*each) <= now][:MAX_AT_ONCE]
            for day, domain in due:
                if await self._in_thread(self._store.claim, day, domain, now, RETRY_PAUSE):
                    await self._send(day, domain)
        except OSError as error:
            self.log.warn("DMARC reports: {error}", error=str(error))

    def _due(self, day: int, domain: str) -> float:
        """The time to send a report at, always the same one."""
        seed = hashlib.sha256(f"{self._hostname}!{domain}!{day}".encode()).digest()
        delay = int.from_bytes(seed[:4], "big") % (MAX_DELAY - MIN_DELAY)
        return (day + 1) * DAY + MIN_DELAY + delay

    async def _send(self, day: int, domain: str) -> None:
        """Send one report, or keep it for later.  Raises OSError."""
        age = int(self._now()) // DAY - day
        found = None
        if age <= MAX_AGE:  # a server may have been down for long
            found = await self._in_thread(self._store.read, day, domain)
        if found is not None:
            published, rows = found
            to = await destinations(self._resolver, domain, published.rua)
            if not to.is_complete and age < MAX_AGE:
                return
            if to.max_sizes and rows:
                id = report_id(self._hostname, domain, day)
                await self._write(Report(day, published, rows, id), to)
        await self._in_thread(self._store.remove, day, domain)

    async def _write(self, report: Report, to: Destinations) -> None:
        """Commit the message of a report.  Raises OSError."""
        contact = f"postmaster@{self._hostname}"
        reporter = Reporter(self._hostname, contact, f"mailturn {__version__}")
        subject = f"DMARC report on {report.published.domain}"
        addresses, now = to.of(0), self._now()
        section, body = await self._in_thread(message, report, reporter, addresses, now)
        size = len(section) + len(body)
        if len(taking := to.of(size)) < len(addresses):
            self.log.info(
                "{subject}: too long for {count} of its addresses ({size} octets)",
                subject=subject,
                size=size,
                count=len(addresses) - len(taking),
            )
            if not taking:
                return
            section, body = await self._in_thread(message, report, reporter, taking, now)
        never = frozenset({Notify.NEVER})
        recipients = tuple(Recipient(address, never) for address in taking)
        envelope = Envelope(self._reverse_path, recipients)
        draft = self._spool.draft()
        try:
            draft.address(envelope)
            await draft.write(body)
        except BaseException:
            draft.discard()
            raise
        origin = replace(NOTICE_ORIGIN, told_id=f"dmarc:{report.published.domain}:{report.day}")
        try:
            committed = await self._spool.commit(draft, envelope, section, origin)
        except AlreadyTaken:
            return
        self._mail.written(committed, subject)

    @property
    def _reverse_path(self) -> Mailbox:
        """The reverse-path that lets the message pass DMARC.

        Without a signature SPF must vouch for it; there is no such mailbox, and so no bounce.
        """
        return NULL_PATH if self._is_signed else Mailbox(AUTHOR, self._hostname)
