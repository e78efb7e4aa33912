"""Collecting for a day, and sending after midnight."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email import message_from_bytes
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mta.authentication.reports.message import is_report
from mta.inspectors.interfaces import IJudgedMail
from mta.interfaces import IOwnMail
from mta.mail import NULL_PATH, Agent, Hop, Mailbox, Notify
from mta.queued import Message
from mta.reporting import collector as collector_module
from mta.reporting import sender as sender_module
from mta.reporting.collector import Collector
from mta.reporting.sender import MAX_DELAY, MIN_DELAY, RETRY_PAUSE, ReportSender
from mta.reporting.store import ReportStore
from mta.settings import DAY, DKIMKey, Domain, Settings
from mta.shared_tables.files import TableFolder
from mta.testing import MemorySpool
from tests.authentication.reports.test_destinations import Resolver
from tests.authentication.reports.test_rows import FAILED, JUDGED, JUNK, NOTHING, RECORD
from tests.shared_tables.stores import DatabaseStores

TODAY = 20784  # 2026-11-27, in days since the epoch
NOON = (TODAY + 0.5) * DAY
HOST = "mail.receiver.example"
RECORDS = {
    "_dmarc.example.com": [b"v=DMARC1; p=reject"],
    "example.com._report._dmarc.example.net": [b"v=DMARC1"],
}


@implementer(IOwnMail)
class OwnMail:
    """Records what was written."""

    def __init__(self) -> None:
        self.subjects: list[str] = []
        self.messages: list[Message] = []

    def written(self, message: Message, subject: str) -> None:
        """See `IOwnMail.written`."""
        self.messages.append(message)
        self.subjects.append(subject)


class ReportingCase(SynchronousTestCase):
    """A process that collects and sends, with a clock that the test moves."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.clock = Clock()
        self.clock.advance(NOON)
        self.store = ReportStore(TableFolder(self.folder))
        self.mail = OwnMail()
        self.spool = MemorySpool(self.clock.seconds)
        self.resolver = Resolver(dict(RECORDS))
        self.failure: OSError | None = None

    def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Call a function at once, or fail."""
        if self.failure is not None:
            failure, self.failure = self.failure, None
            return maybeDeferred(self._fail, failure)
        return maybeDeferred(function, *arguments)

    def _fail(self, failure: OSError) -> None:
        raise failure

    def collector(self) -> Collector:
        """One of a process."""
        return Collector(self.store, self.in_thread, self.clock.seconds)

    def sender(self, *keys: DKIMKey, host: str = HOST) -> ReportSender:
        """The one that sends."""
        domain = Domain("receiver.example", Hop(Agent.DISCARD), dkim=keys)
        settings = Settings(host, domains={"receiver.example": domain})
        return ReportSender(
            settings,
            self.store,
            self.spool,
            self.mail,
            self.resolver,
            self.in_thread,
            self.clock.seconds,
        )

    def run_all(self, sender: ReportSender | None = None) -> None:
        """Let it look once."""
        running = (sender or self.sender()).run()
        self.successResultOf(Deferred.fromCoroutine(running))

    def collect(self, count: int = 1) -> None:
        """Judge messages, and store the counts."""
        collector = self.collector()
        for _ in range(count):
            collector.judged(JUDGED, JUNK)
        self.successResultOf(Deferred.fromCoroutine(collector.flush()))

    def to_midnight(self) -> None:
        """Go on to the end of the day."""
        self.clock.advance((TODAY + 1) * DAY - self.clock.seconds())

    def content(self, message: Message) -> bytes:
        """The octets of a message."""

        async def read() -> bytes:
            return b"".join([piece async for piece in message.content.pieces()])

        return self.successResultOf(Deferred.fromCoroutine(read()))


class CollectorTests(ReportingCase):
    """What is counted, and when it is stored."""

    def test_is_a_listener(self) -> None:
        verifyObject(IJudgedMail, self.collector())
        verifyObject(IOwnMail, self.mail)

    def test_batches(self) -> None:
        """Like messages are one row; nothing is written before the batch is."""
        collector = self.collector()
        for judged in (JUDGED, JUDGED, replace(JUDGED, client="192.0.2.9"), JUDGED):
            collector.judged(judged, JUNK)
        collector.judged(replace(JUDGED, dmarc=None), NOTHING)
        self.assertEqual([], self.store.waiting(TODAY + 1))
        self.successResultOf(Deferred.fromCoroutine(collector.flush()))
        found = self.store.read(TODAY, "example.com")
        assert found is not None
        self.assertEqual([3, 1], [count for _, count in found[1]])
        self.successResultOf(Deferred.fromCoroutine(collector.flush()))
        self.assertEqual(found, self.store.read(TODAY, "example.com"))

    def test_midnight(self) -> None:
        """A message counts for the day that it came on, whenever that is stored."""
        collector = self.collector()
        collector.judged(JUDGED, JUNK)
        self.to_midnight()
        collector.judged(JUDGED, JUNK)
        self.successResultOf(Deferred.fromCoroutine(collector.flush()))
        self.assertEqual(
            [(TODAY, "example.com"), (TODAY + 1, "example.com")], self.store.waiting(TODAY + 2)
        )

    def test_failure(self) -> None:
        """What could not be stored is stored with the next batch."""
        collector = self.collector()
        collector.judged(JUDGED, JUNK)
        self.failure = OSError(28, "No space left on device")
        self.successResultOf(Deferred.fromCoroutine(collector.flush()))
        collector.judged(JUDGED, JUNK)
        self.successResultOf(Deferred.fromCoroutine(collector.flush()))
        found = self.store.read(TODAY, "example.com")
        assert found is not None
        self.assertEqual([2], [count for _, count in found[1]])

    def test_bound(self) -> None:
        """Memory is bounded; what is known goes on to be counted."""
        self.patch(collector_module, "MAX_PENDING", 2)
        collector = self.collector()
        for client in ("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.1"):
            collector.judged(replace(JUDGED, client=client), JUNK)
        self.successResultOf(Deferred.fromCoroutine(collector.flush()))
        found = self.store.read(TODAY, "example.com")
        assert found is not None
        self.assertEqual([2, 1], [count for _, count in found[1]])


class SenderTests(ReportingCase):
    """When a report goes out, and to whom."""

    def test_one_message_a_day(self) -> None:
        """Some hours after midnight, once, to all addresses that may be used."""
        self.collect(2)
        self.run_all()
        self.to_midnight()
        self.clock.advance(MIN_DELAY - 1)
        self.run_all()
        self.assertEqual([], self.mail.messages)
        self.clock.advance(MAX_DELAY)
        for _ in range(2):
            self.run_all()
        [message] = self.mail.messages
        self.assertEqual(["DMARC report on example.com"], self.mail.subjects)
        envelope = message.envelope
        self.assertEqual(
            ["d@example.com", "e@example.net"],
            [str(each.forward_path) for each in envelope.recipients],
        )
        self.assertTrue(all(each.notify == {Notify.NEVER} for each in envelope.recipients))
        self.assertEqual([], self.store.waiting(TODAY + 9))
        content = self.content(message)
        self.assertTrue(is_report(content))
        self.assertEqual(len(content), message.content.size)
        self.assertEqual("notice", message.origin.service)

    def test_jitter(self) -> None:
        """Reports of a day are spread over the night, each at its own time."""
        collector = self.collector()
        assert RECORD is not None
        for n in range(20):
            domain = f"d{n}.example"
            dmarc = replace(FAILED, policy_domain=domain, domain=domain)
            record = replace(RECORD, rua=(f"mailto:d@{domain}",))
            collector.judged(replace(JUDGED, dmarc=replace(dmarc, record=record)), JUNK)
        self.successResultOf(Deferred.fromCoroutine(collector.flush()))
        self.to_midnight()
        self.clock.advance(MAX_DELAY / 2)
        self.run_all()
        first = len(self.mail.messages)
        self.assertTrue(0 < first < 20, first)
        self.clock.advance(MAX_DELAY / 2)
        self.run_all()
        self.assertEqual(20, len(self.mail.messages))

    def test_reverse_path(self) -> None:
        """Null where we sign; else one for which SPF can vouch."""
        key = DKIMKey("s", Path("key.pem"))
        for keys, expected in (
            ((key,), NULL_PATH),
            ((), Mailbox("noreply-dmarc", HOST)),
        ):
            self.setUp()
            self.collect()
            self.to_midnight()
            self.clock.advance(MAX_DELAY)
            self.run_all(self.sender(*keys))
            self.assertEqual(expected, self.mail.messages[-1].envelope.reverse_path)

    def test_sizes(self) -> None:
        """One that is longer than an address takes is not sent there."""
        for uris, expected in (
            (("mailto:d@example.com!10m", "mailto:s@example.com!500"), ["d@example.com"]),
            (("mailto:d@example.com!1k", "mailto:s@example.com!500"), []),
        ):
            self.setUp()
            dmarc = replace(FAILED, record=replace(RECORD, rua=uris))
            collector = self.collector()
            collector.judged(replace(JUDGED, dmarc=dmarc), JUNK)
            self.successResultOf(Deferred.fromCoroutine(collector.flush()))
            self.to_midnight()
            self.clock.advance(MAX_DELAY)
            self.run_all()
            recipients = [
                str(each.forward_path)
                for message in self.mail.messages
                for each in message.envelope.recipients
            ]
            self.assertEqual(expected, recipients)
            for message in self.mail.messages:
                self.assertNotIn(b"s@example.com", self.content(message))
            self.assertEqual([], self.store.waiting(TODAY + 9))

    def test_no_address(self) -> None:
        """Without permission nothing is sent, and nothing kept."""
        self.resolver = Resolver({"_dmarc.example.com": [b"v=DMARC1; p=reject"]})
        self.collect()
        self.to_midnight()
        self.clock.advance(MAX_DELAY)
        self.run_all()
        [message] = self.mail.messages
        self.assertEqual(1, len(message.envelope.recipients))

    def test_death_before_it_is_forgotten(self) -> None:
        """A report that a dead process had committed is not written again, under any name."""
        self.collect()
        self.to_midnight()
        self.clock.advance(MAX_DELAY)

        def dies(*args: object) -> None:
            raise OSError(5, "the process ends")

        patch = self.patch(self.store, "remove", dies)
        self.run_all()
        patch.restore()
        self.assertEqual(len(self.mail.messages), 1)
        self.assertEqual(self.store.waiting(TODAY + 9), [(TODAY, "example.com")])
        self.clock.advance(RETRY_PAUSE + MAX_DELAY)
        self.run_all(self.sender(host="another.receiver.example"))
        self.assertEqual(len(self.mail.messages), 1)
        self.assertEqual(self.store.waiting(TODAY + 9), [])

    def test_dns_that_is_down(self) -> None:
        """It is asked again, an hour later; after some days, who is known gets the report."""
        self.resolver.broken = ("example.com._report._dmarc.example.net",)
        self.collect()
        self.to_midnight()
        self.clock.advance(MAX_DELAY)
        self.run_all()
        asked = len(self.resolver.asked)
        self.run_all()
        self.assertEqual(asked, len(self.resolver.asked))
        self.clock.advance(RETRY_PAUSE + 1)
        self.run_all()
        self.assertGreater(len(self.resolver.asked), asked)
        self.assertEqual([], self.mail.messages)
        self.clock.advance(2 * DAY)
        self.run_all()
        [message] = self.mail.messages
        self.assertEqual(
            ["d@example.com"], [str(each.forward_path) for each in message.envelope.recipients]
        )

    def test_a_server_that_was_down(self) -> None:
        """What is older than some days is told no more."""
        self.collect()
        self.clock.advance(10 * DAY)
        self.run_all()
        self.assertEqual([], self.mail.messages)
        self.assertEqual([], self.store.waiting(TODAY + 20))

    def test_others_that_are_stuck(self) -> None:
        """Reports that wait for the DNS do not keep others waiting."""
        self.patch(sender_module, "MAX_AT_ONCE", 1)
        self.resolver.broken = ("example.com._report._dmarc.example.net",)
        self.collect()
        assert RECORD is not None
        record = replace(RECORD, rua=("mailto:d@z.example",))
        dmarc = replace(FAILED, policy_domain="z.example", domain="z.example", record=record)
        collector = self.collector()
        collector.judged(replace(JUDGED, dmarc=dmarc), JUNK)
        self.successResultOf(Deferred.fromCoroutine(collector.flush()))
        self.to_midnight()
        self.clock.advance(MAX_DELAY)
        for _ in range(2):
            self.run_all()
        self.assertEqual(["DMARC report on z.example"], self.mail.subjects)

    def test_spool_that_is_full(self) -> None:
        """The report stays, and is the same one later."""
        self.collect()
        self.to_midnight()
        self.clock.advance(MAX_DELAY)
        self.spool.failure = OSError(28, "No space left on device")
        self.run_all()
        self.assertEqual(1, len(self.store.waiting(TODAY + 1)))
        self.spool.failure = None
        self.clock.advance(RETRY_PAUSE + 1)
        self.run_all()
        self.assertEqual(1, len(self.mail.messages))


class NodesTests(DatabaseStores, ReportingCase):
    """Two nodes that share a database, each with a name of its own."""

    def test_one_of_them_sends(self) -> None:
        """What both have counted is one report, of whichever comes first."""
        stores = {
            host: ReportStore(DatabaseStores.store(self)) for host in (HOST, "b.receiver.example")
        }
        for store in stores.values():
            self.store = store
            self.collect(2)
        self.to_midnight()
        for _ in range(MAX_DELAY // 600):
            self.clock.advance(600)
            for host, store in stores.items():
                self.store = store
                self.run_all(self.sender(host=host))
        [message] = self.mail.messages
        mail = message_from_bytes(self.content(message))
        [attached] = [part for part in mail.walk() if part.get_content_type() == "application/gzip"]
        self.assertIn(b"<count>4</count>", gzip.decompress(attached.get_payload(decode=True)))

    def test_at_once(self) -> None:
        """They may look at the same moment: one has it."""
        stores = [ReportStore(DatabaseStores.store(self)) for _ in range(2)]
        self.store = stores[0]
        self.collect()
        with ThreadPoolExecutor(2) as pool:
            claims = [
                pool.submit(store.claim, TODAY, "example.com", NOON, RETRY_PAUSE)
                for store in stores
                for _ in range(5)
            ]
        self.assertEqual([each.result() for each in claims].count(True), 1)
