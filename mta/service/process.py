"""The parts that live as long as the process, whatever is configured.

They are the spool, the runner, the counts; a reload makes none of them anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from zope.interface import Interface, implementer

from mta.access.accounts import Accounts
from mta.access.answer_table import AnswerTable
from mta.access.bans import Bans
from mta.access.counters import Counters
from mta.access.log_in_file import LogInFile, SharedLogIns
from mta.delivery.steps import Steps
from mta.files import in_words
from mta.inspectors.greylist_table import GreylistTable
from mta.interfaces import IMeter, ISpoolListener
from mta.limited_log import LimitedLog
from mta.link import RoundRobin
from mta.pairing.mailboxes import MailboxFiles, domains_with_mailboxes
from mta.pairing.pairings import Pairings
from mta.pairing.redemption import Redemption
from mta.pairing.told import ToldMailboxes
from mta.peers.announcements import Announcements
from mta.peers.counts import PeerCounts
from mta.peers.held import HeldMail
from mta.peers.peer_questions import PeerQuestions
from mta.peers.standing_links import StandingLinks
from mta.peers.status_files import PeerStatusFiles
from mta.peers.status_log import PeerStatusLog
from mta.queue.accepted import AcceptedMail
from mta.queue.runner import Runner
from mta.queued import Pressure
from mta.reporting.collector import Collector
from mta.reporting.store import ReportStore
from mta.sealing.spool import SealingSpool
from mta.service import threads
from mta.smtp.cost import Turns
from mta.smtp.second_copies import SecondCopies
from mta.smtp.srs import SenderRewriting
from mta.spool.clock import seconds_since_boot
from mta.spool.place import SpoolPlace
from mta.srs_key import agreed_srs_key, srs_key
from mta.tls import TLSFault, TLSUnreadable
from mta.users.local import CONCURRENT_HASHES

if TYPE_CHECKING:
    from mta.service.configured import Configured


# Seconds that sessions, exchanges and deliveries under way have to end when the service stops, or
# another configuration takes the place of theirs.
STOP_TIMEOUT = 10.0
_MAILBOXES_STAY = "the mailboxes that peers told stay as they were: {error}"
_AS_THEY_WERE = "{problem}; the certificates stay as they were"


class IConfigurable(Interface):
    """A part of the service that a reload gives another configuration."""

    def use(configured: Configured) -> None:
        """Go by this configuration from now on."""


class IReloader(Interface):
    """The part of the service that reads the configuration."""

    def ask() -> None:
        """Read the configuration again, by and by."""


@implementer(IConfigurable, ISpoolListener)
class Process:
    """The spool, the runner, the counters and the threads.

    It gets settings by `use` alone, so that none can be left behind by a reload.  `configured` is
    the configuration in force, `reloader` reads it again; a tool has none.  `is_first`: it is no
    worker, and tells what happens to all alike.
    """

    log = Logger()

    configured: Configured
    reloader: IReloader | None = None
    attended = False  # by a person who waits at a terminal

    def __init__(
        self, place: SpoolPlace, reactor: Any, meter: IMeter, *, is_first: bool = True
    ) -> None:
        """Open the spool at this place.  Raises OSError, SpoolDamaged among others."""
        threads.take_little_memory()
        self._limited = LimitedLog(self.log)
        self.place, self.reactor = place, reactor
        self.threads = reactor.getThreadPool()
        self.hashing = threads.LowPriorityPool(0, CONCURRENT_HASHES, "hashing")
        self.folder = folder = place.folder
        self.is_first, self.meter = is_first, meter
        self.spool = place.opened(
            reactor, self.threads, self, uptime=seconds_since_boot, meter=meter
        )
        self.spool.start()
        self.pressure = Pressure()
        self.turns, self.content_order = Turns(), RoundRobin(reactor)
        self.in_steps = Steps(reactor, self.content_order)
        self.runner = self._runner()
        self.accepted_mail = AcceptedMail(self.runner, meter)
        self.held = HeldMail(self.spool, self.runner)
        self.links = StandingLinks(Announcements(folder))
        self.questions = PeerQuestions(self.links, reactor)
        self.tables = place.shared_tables()
        self.srs = SenderRewriting(self._srs_key())
        self.peer_status_files = PeerStatusFiles(folder)
        self.peer_status = PeerStatusLog(self.peer_status_files, reactor, self.threads)
        self.peer_counts = PeerCounts(self.peer_status, reactor)
        self.intake = SealingSpool(self.spool, self.accepted_mail, self.peer_counts)
        self.second_copies = SecondCopies(self.spool)
        in_thread = partial(deferToThreadPool, reactor, self.threads)
        bans = Bans(time.time, SharedLogIns(LogInFile(folder), in_thread))
        self.counters = Counters(reactor, bans)
        self._share(in_thread)
        self.pairing = Redemption(Pairings(folder), in_thread)
        self.mailbox_files = MailboxFiles(folder)
        self._mailboxes_stamp = self.mailbox_files.stamp()
        self.told_mailboxes = ToldMailboxes(self.mailbox_files, self.answers, in_thread)

    def _runner(self) -> Runner:
        return Runner(
            self.spool,
            self.reactor,
            self.meter,
            now=self.spool.now,
            pressure=self.pressure,
            attempts=self.spool,
            in_steps=self.in_steps,
        )

    def _srs_key(self) -> bytes:
        """The secret of rewritten reverse-paths.

        The first process agrees on it with other nodes.
        """
        if not (self.place.database and self.is_first):
            return srs_key(self.folder)
        key, problem = agreed_srs_key(self.folder, self.tables)
        if problem:
            self.log.warn("srs.key: {problem}", problem=problem)
        return key

    def _share(self, in_thread: Callable[..., Deferred[Any]]) -> None:
        """Make what all processes count and remember in tables."""
        tables = self.tables
        self.accounts = Accounts(tables, self.reactor, in_thread)
        self.greylist = GreylistTable(tables, time.time, in_thread)
        self.answers = AnswerTable(tables, time.time, in_thread)
        self.report_store = ReportStore(tables)
        self.reports = Collector(self.report_store, in_thread, time.time)

    def wake(self) -> None:
        """See `ISpoolListener.wake`."""
        self.runner.wake()

    def recall(self) -> None:
        """See `ISpoolListener.recall`."""
        self.runner.recall()

    def retry(self) -> None:
        """See `ISpoolListener.retry`; peers that were down may be there again, too."""
        self.runner.retry()
        self.configured.customer.retry()

    def reload(self) -> None:
        """See `ISpoolListener.reload`."""
        if self.reloader is not None:
            self.reloader.ask()

    def use(self, configured: Configured) -> None:
        """See `IConfigurable.use`."""
        self.configured = configured
        self.meter.know(configured.settings.hops)
        self.counters.use(configured.settings.limits)
        self.intake.seals = configured.seals
        self.spool.reserve = configured.settings.limits.free_space
        self.runner.use(configured.runner)

    async def take_over(self) -> None:
        """Take over the mail that dead processes had leased."""
        try:
            freed = await self.spool.take_over()
        except OSError as error:
            self._limited.warn("take-over", "spool: {error}", error=str(error))
            self.runner.wake()  # some may be free, although it did not come to its end
            return
        if freed:
            self.log.info("{count} messages taken over", count=freed)
            self.runner.wake()

    async def refresh_certificates(self) -> None:
        """Read certificates whose files have changed.

        As a server and as a client we may show the same one.
        """
        configured = self.configured
        is_changed, problems = False, set()
        for tls in (configured.server_tls, configured.client_tls):
            try:
                is_changed |= await deferToThreadPool(
                    self.reactor, self.threads, tls.reload_if_changed
                )
            except TLSUnreadable as fault:
                self._limited.error("certificates", _AS_THEY_WERE, problem=str(fault))
            except TLSFault as fault:
                problems.add(str(fault))
        for problem in problems:
            self.log.error(_AS_THEY_WERE, problem=problem)
        if is_changed:
            self.log.info("certificates read again")

    async def refresh_mailboxes(self) -> None:
        """Go by the mailboxes that peers told, where they changed."""
        configured = self.configured
        stamp = self.mailbox_files.stamp()
        if stamp == self._mailboxes_stamp:
            return
        self._mailboxes_stamp = stamp
        try:
            domains = await deferToThreadPool(
                self.reactor, self.threads, domains_with_mailboxes, configured.settings
            )
        except OSError as error:
            self._mailboxes_stamp = -1  # they are tried again
            self._limited.error("mailboxes", _MAILBOXES_STAY, error=in_words(error))
            return
        configured.router.use(domains)
        if self.configured is not configured:  # it may have read the lists of before
            self._mailboxes_stamp = -1

    async def probe_lists(self) -> None:
        """Find out which lists of clients are of use."""
        await self.configured.lists.probe()

    async def send_reports(self) -> None:
        """Send the reports on judged mail that are due."""
        if self.configured.reports is not None:
            await self.configured.reports.run()

    async def stop(self, timeout: float) -> None:
        """End deliveries, after at most `timeout` seconds, and close the spool."""
        await self.runner.stop(timeout)
        await self.peer_status.flush()
        await self.peer_counts.flush()
        await self.accounts.flush()
        await self.reports.flush()
        await self.spool.stop()
        await deferToThreadPool(self.reactor, self.threads, self.tables.close)
