"""Limits over a day, and suspensions, in one process and in several, and over nodes."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mta.access.account_table import AccountTable, Kind
from mta.access.accounts import Accounts
from mta.access.counters import Counters
from mta.access.policy import AccessPolicy
from mta.access.sending_limits import SendingLimits
from mta.access.shared_count import SharedCount
from mta.interfaces import IFailureWatch, ILimitMeter, IPostmaster
from mta.mail import Agent, Hop, Mailbox, Recipient
from mta.session import NOTICE_ORIGIN, Origin, Session
from mta.settings import DAY, HOUR, Account, Limits, Relay, Service, UserLimits
from mta.smtp.errors import Refusal
from mta.testing import FakeRouter, FakeUsers
from tests.shared_tables.stores import DatabaseStores, FolderStores

ALICE = Mailbox("alice", "example.com")
BOB = Recipient(Mailbox("bob", "elsewhere.example"))
NEIGHBOUR, STRANGER = "127.0.0.1", "192.0.2.1"


@implementer(IPostmaster)
class FakePostmaster:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    async def tell(self, subject: str, text: str) -> None:
        """Remember it."""
        self.told.append((subject, text))


@implementer(ILimitMeter)
class LimitMeter:
    """Remembers the limits that were reached."""

    def __init__(self) -> None:
        self.limits: list[str] = []

    def limited(self, limit: str) -> None:
        """Remember one."""
        self.limits.append(limit)


class Processes:
    """Processes with one store, and a clock that the test moves."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.table = AccountTable(self.store(), self.clock.seconds)
        self.users = FakeUsers(owns_all=True)
        self.postmaster, self.meter = FakePostmaster(), LimitMeter()

    def result(self, work: Any) -> Any:
        """The result of a coroutine, which may wait for a second."""
        running = Deferred.fromCoroutine(work)
        if not running.called:
            self.clock.advance(1)
        return self.successResultOf(running)

    def accounts(self) -> Accounts:
        """The accounts as another process sees them."""
        return Accounts(self.store(), self.clock, maybeDeferred, self.clock.seconds)


class LimitCase(Processes, FolderStores, SynchronousTestCase):
    """Those of a host."""


class NodesCase(Processes, DatabaseStores, SynchronousTestCase):
    """Those of nodes."""


class CountContract:
    """Counts in one process and in several."""

    def count(self, kind: Kind = Kind.RECIPIENTS) -> SharedCount:
        """The count of another process."""
        return SharedCount(kind, self.table, self.clock, maybeDeferred)

    def taken(self, count: SharedCount, limit: int, account: str = "user alice") -> bool:
        """Take one."""
        found: bool = self.result(count.take(account, limit))
        return found

    def test_limit(self) -> None:
        """So many may be taken, of each account."""
        count = self.count()
        self.assertEqual([self.taken(count, 3) for _ in range(5)], [True] * 3 + [False] * 2)
        self.assertTrue(self.taken(count, 3, "user bob"))
        self.clock.advance(1)

    def test_window(self) -> None:
        """An event counts for a day, and an hour at most after it."""
        count = self.count()
        self.assertTrue(self.taken(count, 1))
        self.clock.pump([1, DAY - 2])
        self.assertFalse(self.taken(count, 1))
        self.clock.advance(HOUR + 1)
        self.assertTrue(self.taken(count, 1))
        self.clock.advance(1)

    def test_processes(self) -> None:
        """Processes count together: what one has written, the other knows in a second."""
        first, second = self.count(), self.count()
        self.assertTrue(all(self.taken(first, 3) for _ in range(2)))
        self.assertTrue(self.taken(second, 3))
        self.clock.pump([1, 1])
        self.assertFalse(self.taken(first, 3))
        self.assertFalse(self.taken(second, 3))

    def test_restart(self) -> None:
        """What was counted before the end counts after a start."""
        count = self.count()
        self.taken(count, 3)
        self.taken(count, 3)
        self.successResultOf(Deferred.fromCoroutine(count.flush()))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        count = self.count()
        self.assertEqual([self.taken(count, 3) for _ in range(2)], [True, False])
        self.clock.advance(1)

    def test_grouped(self) -> None:
        """The file is written once a second, however many events there are."""
        writes = []
        count = SharedCount(
            Kind.RECIPIENTS,
            self.table,
            self.clock,
            lambda *words: writes.append(words[-1]) or maybeDeferred(*words),
        )
        for number in range(100):
            self.taken(count, 1000, f"user {number % 2}")
        self.assertEqual(writes, [{"user 0": 0}, {"user 1": 0, "user 0": 1}])
        self.clock.advance(1)
        self.assertEqual(writes[2:], [{"user 0": 49, "user 1": 50}])

    def test_clock_set_back(self) -> None:
        """What was counted in a future that is gone does not count."""
        self.table.count(Kind.RECIPIENTS, {"user alice": 5})
        self.patch(self.table, "_now", lambda: self.clock.seconds() - 30 * DAY)
        self.assertEqual(self.table.count(Kind.RECIPIENTS, {"user alice": 0}), {"user alice": 0})

    def test_clock_set_forward_and_back(self) -> None:
        """Whoever had the full number can send a window later, at the latest, by any clock."""
        shift = 0.0
        with patch.object(self.table, "_now", lambda: self.clock.seconds() + shift):
            for kind in Kind:
                for jump in (DAY, -DAY, -DAY, DAY):
                    self.table.count(kind, {"user alice": 5})
                    shift += jump
                    self.table.count(kind, {"user alice": 0})
                    self.clock.advance(kind.window + 2 * kind.slot)
                    found = self.table.count(kind, {"user alice": 0})
                    self.assertEqual(found, {"user alice": 0})

    def test_suspended_at_any_time(self) -> None:
        """A suspension lasts until it is ended, and its end counts, whatever the clock says."""
        self.table.suspend("alice", "reasons")
        accounts, shift = self.accounts(), 0.0
        with patch.object(self.table, "_now", lambda: self.clock.seconds() + shift):
            for jump in (DAY, -DAY, -DAY, DAY):
                shift += jump
                self.clock.advance(1)
                self.assertTrue(self.result(accounts.is_suspended("alice")))
            shift -= DAY
            self.assertTrue(self.table.resume("alice"))
        self.clock.advance(1)
        self.assertFalse(self.result(accounts.is_suspended("alice")))

    def test_clocks(self) -> None:
        """What a node counts whose clock is a little ahead counts on others."""
        self.clock.advance(HOUR - self.clock.seconds() % HOUR - 1)
        ahead = AccountTable(self.store(), lambda: self.clock.seconds() + 2)
        ahead.count(Kind.RECIPIENTS, {"user alice": 5})
        expected = {"user alice": 6}
        self.assertEqual(self.table.count(Kind.RECIPIENTS, {"user alice": 1}), expected)


class CountTests(CountContract, LimitCase):
    """On one host."""

    def test_no_file(self) -> None:
        """Where the file can't be used nothing is refused, and the log says so."""
        (self.folder / "accounts.sqlite").mkdir()
        with capturedLogs() as events:
            self.assertEqual([self.taken(self.count(), 1) for _ in range(2)], [True, True])
        self.clock.advance(1)
        self.assertIn("limits do not count", formatEvent(events[0]))


class NodesCountTests(CountContract, NodesCase):
    """On nodes that share a database."""

    def test_suspensions(self) -> None:
        """A user whom one node suspends is suspended on others, until any ends that."""
        other = self.accounts()
        self.assertFalse(self.result(other.is_suspended("alice")))
        self.assertTrue(self.result(self.accounts().suspend("Alice", "reasons")))
        self.assertFalse(self.result(self.accounts().suspend("alice", "others")))
        self.clock.advance(1)
        self.assertTrue(self.result(other.is_suspended("alice")))
        self.assertEqual([each.reason for each in self.table.suspensions()], ["reasons"])
        self.assertTrue(self.table.resume("alice"))
        self.assertFalse(self.table.resume("alice"))
        self.clock.advance(1)
        self.assertFalse(self.result(other.is_suspended("alice")))

    def test_told_once(self) -> None:
        """The postmaster hears of a subject from one node."""
        told = [self.result(self.accounts().is_to_be_told("x", DAY)) for _ in range(2)]
        self.assertEqual(told, [True, False])

    def test_told_before_the_clock_was_set_back(self) -> None:
        """The postmaster waits for no subject longer than without that."""
        for seconds in (HOUR, DAY):
            subject = f"{seconds}"
            self.assertTrue(self.table.tell(subject, seconds))
            with patch.object(self.table, "_now", lambda: self.clock.seconds() - DAY):
                self.assertTrue(self.table.tell(subject, seconds))
                self.assertFalse(self.table.tell(subject, seconds))


class SendingTests(LimitCase):
    """The rules in a policy."""

    def setUp(self) -> None:
        super().setUp()
        self.counters = Counters(self.clock)

    def sending(self, **limits: int) -> SendingLimits:
        """The rules of another process."""
        return SendingLimits(
            Limits(**limits),
            self.users,
            self.accounts(),
            self.postmaster,
            self.meter,
            self.counters.told,
        )

    def policy(self, **limits: int) -> AccessPolicy:
        """A policy that goes by them."""
        self.counters.use(Limits(**limits))
        return AccessPolicy(
            Relay(),
            Limits(**limits),
            [],
            FakeRouter({"elsewhere.example": Hop(Agent.MX, "elsewhere.example")}),
            self.users,
            self.counters,
            self.sending(**limits),
        )

    def session(self, identity: str = "alice", client: str = STRANGER) -> Session:
        """A session on the submission port, or of a host of ours."""
        service = Service.SUBMISSION if identity else Service.SMTP
        return Session(service, client, None, hello="x", identity=identity)

    def reply(self, work: Any) -> str:
        """The code that refuses; empty: it is not refused."""
        running = Deferred.fromCoroutine(work)
        if not running.called:
            self.clock.advance(1)
        running.addErrback(lambda failure: failure.trap(Refusal) and failure.value.reply)
        found = self.successResultOf(running)
        return f"{found.code} {found.enhanced} {found.text[:16]}" if found else ""

    def mail(self, policy: AccessPolicy, session: Session) -> str:
        """The refusal of MAIL."""
        return self.reply(policy.mail(session, ALICE))

    def rcpt(self, policy: AccessPolicy, session: Session) -> str:
        """The refusal of RCPT."""
        return self.reply(policy.rcpt(session, ALICE, BOB))

    def test_interfaces(self) -> None:
        """All are what they say."""
        verifyObject(IFailureWatch, self.sending())
        verifyObject(IPostmaster, self.postmaster)
        verifyObject(ILimitMeter, self.meter)

    def test_recipients(self) -> None:
        """A user has so many recipients in a day, and the postmaster hears of it once."""
        policy, session = self.policy(recipients_per_day=2), self.session()
        self.assertEqual([self.rcpt(policy, session) for _ in range(2)], ["", ""])
        with capturedLogs() as events:
            for _ in range(3):
                self.assertEqual(self.rcpt(policy, session), "450 4.7.1 Too many recipie")
        [(subject, text)] = self.postmaster.told
        self.assertEqual(subject, "alice has reached the limit of recipients")
        self.assertIn("2 recipients in 24 hours", text)
        self.assertEqual(self.meter.limits, ["recipients"])
        expected = "user alice has had 2 recipients in 24 hours, and gets no more for now"
        self.assertEqual([formatEvent(event) for event in events], [expected])
        self.assertEqual(self.rcpt(policy, self.session("bob")), "")
        self.clock.advance(1)
        self.counters = Counters(self.clock)  # another process tells nothing again
        self.assertNotEqual(self.rcpt(self.policy(recipients_per_day=2), session), "")
        self.assertEqual(len(self.postmaster.told), 1)

    def test_hosts(self) -> None:
        """Hosts of ours have the limit as well, strangers and turned connections have not."""
        policy = self.policy(recipients_per_day=1)
        neighbour = self.session("", NEIGHBOUR)
        self.assertEqual([self.rcpt(policy, neighbour)[:3] for _ in range(2)], ["", "450"])
        self.patch(FakeRouter, "is_ours", lambda router, domain: True)
        for _ in range(3):
            self.assertEqual(self.rcpt(policy, self.session("", STRANGER)), "")
        self.clock.advance(1)

    def test_limits_of_a_user(self) -> None:
        """A user may have limits of its own, greater and smaller ones."""
        self.users.accounts = {
            "alice": Account(limits=UserLimits(recipients_per_day=3, messages_per_minute=1)),
            "bob": Account(limits=UserLimits(recipients_per_day=0, recipients_per_hour=2)),
        }
        policy = self.policy(recipients_per_day=1, messages_per_minute=5, recipients_per_hour=9)
        alice, bob = self.session(), self.session("bob")
        self.assertEqual([self.rcpt(policy, alice)[:3] for _ in range(4)], ["", "", "", "450"])
        self.assertEqual([self.mail(policy, alice)[:3] for _ in range(2)], ["", "450"])
        self.assertEqual([self.rcpt(policy, bob)[:3] for _ in range(3)], ["", "", "450"])
        self.clock.advance(1)

    def test_nothing_configured(self) -> None:
        """Without a limit nothing is counted, and no file is made."""
        policy, session = self.policy(), self.session()
        for _ in range(3):
            self.assertEqual(self.mail(policy, session) + self.rcpt(policy, session), "")
        self.assertFalse((self.folder / "accounts.sqlite").exists())

    def test_suspended_by_hand(self) -> None:
        """A suspended user begins no message."""
        policy, session = self.policy(), self.session()
        self.users.accounts["alice"] = Account(is_suspended=True)
        self.assertEqual(self.mail(policy, session), "450 4.7.1 Sending is suspe")
        self.users.accounts.clear()
        self.assertEqual(self.mail(policy, session), "")

    def refuse(self, sending: SendingLimits, number: int, user: str = "alice") -> None:
        """Recipients that other hosts refuse."""
        sending.failed(Origin(user=user, service="submission"), number)

    def test_failures(self) -> None:
        """Too many failures suspend a user, in all processes; the postmaster hears of it once."""
        policy, other = self.policy(), self.policy()
        sending = self.sending(failures_per_hour=10)
        self.refuse(sending, 4)
        self.refuse(sending, 5)
        self.clock.advance(1)
        self.assertEqual(self.mail(policy, self.session()), "")
        with capturedLogs() as events:
            self.refuse(sending, 1)
            self.refuse(self.sending(failures_per_hour=10), 7)
            self.clock.advance(1)
        self.assertEqual(len(events), 1)
        self.assertRegex(formatEvent(events[0]), "^alice is suspended: 1[07] recipients were refu")
        [(subject, text)] = self.postmaster.told
        self.assertEqual(subject, "alice is suspended")
        self.assertIn("mta user resume alice", text)
        self.assertIn("mta queue hold --user alice", text)
        self.clock.advance(1)
        for each in (policy, other):
            self.assertEqual(self.mail(each, self.session("Alice")), "450 4.7.1 Sending is suspe")
            self.assertEqual(self.mail(each, self.session("bob")), "")
        self.assertEqual(self.meter.limits, ["failures"])

    def test_resumed(self) -> None:
        """The postmaster ends it; failures are counted anew."""
        policy, sending = self.policy(), self.sending(failures_per_hour=10)
        self.refuse(sending, 12)
        self.clock.advance(1)
        [suspension] = self.table.suspensions()
        self.assertEqual((suspension.user, suspension.since), ("alice", self.clock.seconds()))
        self.assertTrue(self.table.resume("Alice"))
        self.assertFalse(self.table.resume("alice"))
        self.clock.advance(1)
        self.assertEqual(self.mail(policy, self.session()), "")
        self.refuse(sending, 9)
        self.clock.advance(1)
        self.assertEqual(self.table.suspensions(), [])

    def test_old_failures(self) -> None:
        """Failures of more than an hour ago do not count."""
        sending = self.sending(failures_per_hour=10)
        self.refuse(sending, 9)
        self.clock.pump([1, HOUR + 300])
        self.refuse(sending, 9)
        self.clock.advance(1)
        self.assertEqual(self.table.suspensions(), [])

    def test_others(self) -> None:
        """Mail of programs of this host, of strangers, and notices suspend no user."""
        sending = self.sending(failures_per_hour=1)
        for origin in (
            NOTICE_ORIGIN,
            Origin(address=STRANGER, service="smtp"),
            Origin(user="1000", service="sendmail"),
            Origin(user="1000", service="maildrop"),
        ):
            sending.failed(origin, 50)
        self.users.accounts["alice"] = Account(limits=UserLimits(failures_per_hour=0))
        self.refuse(sending, 50)
        self.clock.advance(1)
        self.assertFalse((self.folder / "accounts.sqlite").exists())
