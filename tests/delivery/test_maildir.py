"""Delivery to Maildirs."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mta.delivery import maildir_files, quota
from mta.delivery.filesystem import sync_file_system
from mta.delivery.maildir import (
    MAX_FILES,
    MAX_IN_MEMORY,
    PORTION,
    RESOURCE_WAIT,
    MaildirAgent,
    maildir_paths,
)
from mta.interfaces import IDeliveryAgent, IRoundRobin
from mta.mail import Agent, Hop, Mailbox, Outcome, Status
from mta.session import Origin
from mta.testing import ALICE, TEXT, FakeContent, FakeMailSource, ImmediateThreads, delivery
from tests.processes import temporary_folder

BOB = Mailbox("bob", "example.com")
NAME = "1700000000.QA1R0A"  # how the name of a letter in `delivery` begins


class MaildirTestCase(SynchronousTestCase):
    """What the tests share: a folder, an agent."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self)
        self.hop = Hop(Agent.MAILDIR, f"{self.folder}/{{domain}}/{{local}}")
        self.alice = self.folder / "example.com" / "alice"
        self.threads = ImmediateThreads()
        self.agent = MaildirAgent(self.threads, self.threads, "mx:1.example/x")

    def deliver(self, *deliveries: Any) -> FakeMailSource:
        """Deliver, and return what came of it."""
        mail = FakeMailSource(*deliveries)
        self.successResultOf(Deferred.fromCoroutine(self.agent.deliver(self.hop, mail)))
        return mail

    def new(self, maildir: Path | None = None) -> list[Path]:
        """The messages that no reader has looked at."""
        return sorted(((maildir or self.alice) / "new").iterdir())


@implementer(IRoundRobin)
class Order:
    """An order in which each portion goes when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Deferred[None]] = []

    async def next(self, who: int, host: str) -> None:
        """See `IRoundRobin.next`."""

    async def next_message(self, host: str) -> None:
        """See `IRoundRobin.next_message`."""

    async def next_portion(self, cost: float = 0.0) -> None:
        """See `IRoundRobin.next_portion`."""
        waiting: Deferred[None] = Deferred()
        self.waiting.append(waiting)
        await waiting

    def other_came(self, host: str) -> None:
        """See `IRoundRobin.other_came`."""


class PortionTests(MaildirTestCase):
    """A message for many mailboxes, between other work."""

    def setUp(self) -> None:
        super().setUp()
        self.order = Order()
        self.agent = MaildirAgent(self.threads, self.threads, "mx.example", order=self.order)

    def test_many_mailboxes(self) -> None:
        """Its files are written in portions, and made durable for a batch."""
        to = [Mailbox(f"m{n}", "example.com") for n in range(MAX_FILES + 1)]
        mail = FakeMailSource(delivery(self.hop, to=to))
        delivering = Deferred.fromCoroutine(self.agent.deliver(self.hop, mail))
        portions = MAX_FILES // PORTION
        for number in range(portions):
            self.assertEqual(self.threads.calls, ["write"] * number)
            self.assertEqual(list(self.folder.glob("*/*/new/*")), [])
            self.order.waiting.pop().callback(None)
        for waiting in iter(lambda: self.order.waiting and self.order.waiting.pop(), []):
            waiting.callback(None)
        self.successResultOf(delivering)
        self.assertEqual(self.threads.calls, ["write"] * portions + ["finish", "write", "finish"])
        self.assertEqual(len(list(self.folder.glob("*/*/new/*"))), len(to))
        self.assertEqual({each.status for each in mail.outcomes["A1"]}, {Status.DELIVERED})

    def test_few_mailboxes(self) -> None:
        """All others wait for nothing, however many there are."""
        self.deliver(*(delivery(self.hop, f"A{n}", to=[ALICE, BOB]) for n in range(40)))
        self.assertEqual((self.threads.calls, self.order.waiting), (["store"], []))


class DeliveryTests(MaildirTestCase):
    """A message becomes a file."""

    def test_interface(self) -> None:
        """The agent is a delivery agent."""
        self.assertTrue(verifyObject(IDeliveryAgent, self.agent))

    def test_delivered_to_the_same_address_before(self) -> None:
        """It is no loop: a server in front of us may have said so already."""
        for size in (0, MAX_IN_MEMORY):
            content = FakeContent(b"Delivered-To: alice@example.com\r\n" + TEXT, b"x" * size)
            mail = self.deliver(delivery(self.hop, content=content))
            self.assertEqual([Status.DELIVERED], [each.status for each in mail.outcomes["A1"]])

    def test_letter(self) -> None:
        """It has Return-Path: and Delivered-To: on top, LF line ends, and only we may read it."""
        mail = self.deliver(delivery(self.hop))
        (letter,) = self.new()
        self.assertEqual(
            letter.read_bytes(),
            b"Return-Path: <carol@partner.example>\nDelivered-To: alice@example.com\n"
            b"Subject: test\n\nHello\n",
        )
        self.assertEqual(letter.stat().st_mode & 0o777, 0o600)
        self.assertEqual(mail.outcome.status, Status.DELIVERED)
        self.assertEqual(list((self.alice / "tmp").iterdir()), [])

    def test_name(self) -> None:
        """Arrival, queue id and host, with nothing in it that readers stumble on."""
        self.deliver(delivery(self.hop))
        (letter,) = self.new()
        self.assertRegex(letter.name, rf"^{NAME}[0-9a-f]{{8}}\.mx\\0721\.example\\057x$")

    def test_folders_are_made(self) -> None:
        """A Maildir comes into being with its first letter, and is private."""
        self.deliver(delivery(self.hop))
        for folder in (self.alice.parent, self.alice, *self.alice.iterdir()):
            self.assertEqual(folder.stat().st_mode & 0o777, 0o700, folder)
        self.assertEqual({"cur", "new", "tmp"}, {folder.name for folder in self.alice.iterdir()})

    def test_batch(self) -> None:
        """What waits is written in one go, whatever mailboxes it is for."""
        mail = self.deliver(
            *(delivery(self.hop, f"A{n}", to=[ALICE, BOB]) for n in range(MAX_FILES // 2))
        )
        self.assertEqual(self.threads.calls, ["store"])
        self.assertEqual(len(self.new()), MAX_FILES // 2)
        self.assertEqual(len(mail.outcomes), MAX_FILES // 2)

    def test_batch_is_bounded(self) -> None:
        """More than a batch holds is left to another visit."""
        mail = self.deliver(*(delivery(self.hop, f"A{n}") for n in range(MAX_FILES + 1)))
        self.assertEqual((self.threads.calls, len(mail.waiting)), (["store"], 1))

    def test_many_mailboxes(self) -> None:
        """A message for more mailboxes than may be open at once comes into each."""
        to = [Mailbox(f"m{n}", "example.com") for n in range(maildir_files.MAX_OPEN + 3)]
        self.deliver(delivery(self.hop, to=to))
        self.assertEqual(len(list(self.folder.glob("*/*/new/*"))), len(to))

    def test_two_addresses_in_one_folder(self) -> None:
        """Addresses that share a recipient and a Maildir get a letter each."""
        self.hop = Hop(Agent.MAILDIR, f"{self.folder}/{{domain}}")
        one = delivery(self.hop, to=[ALICE, BOB])
        same = [target.__class__(0, target.address, self.hop) for target in one.targets]
        self.deliver(one.__class__(one.message, tuple(same)))
        self.assertEqual(len(self.new(self.folder / "example.com")), 2)

    def test_large(self) -> None:
        """A large message is written while it is read; the small ones don't wait for it."""
        pieces = [b"A: b\r\n\r\n", *([b"x" * MAX_IN_MEMORY] * 3)]
        self.deliver(
            delivery(self.hop, "A1", FakeContent(*pieces), to=[ALICE, BOB]),
            delivery(self.hop, "A2"),
        )
        self.assertEqual(self.threads.calls[0], "store")
        large, _ = self.new()
        self.assertTrue(large.read_bytes().endswith(b"\nA: b\n\n" + b"x" * MAX_IN_MEMORY * 3))
        self.assertEqual(len(self.new(self.folder / "example.com" / "bob")), 1)


class OrderTests(MaildirTestCase):
    """Readers see only what is durable, and it is called delivered only when they will always."""

    def test_order(self) -> None:
        """fsync of the file, rename, fsync of the folder."""
        self.deliver(delivery(self.hop, "A0"))  # makes the Maildir
        steps: list[str] = []
        fsync, rename = os.fsync, os.rename

        def noted_fsync(descriptor: int) -> None:
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            steps.append(f"fsync {path.parent.name}/{path.name[:13]}")
            fsync(descriptor)

        def noted_rename(path: str, target: str) -> None:
            steps.append(f"rename {Path(path).parent.name} {Path(target).parent.name}")
            rename(path, target)

        with patch("os.fsync", noted_fsync), patch("os.rename", noted_rename):
            self.deliver(delivery(self.hop))
        self.assertEqual(steps, ["fsync tmp/1700000000.QA", "rename tmp new", "fsync alice/new"])

    def batch(self) -> list[Any]:
        """Deliveries to two Maildirs, which are there."""
        self.deliver(delivery(self.hop, "A0", to=[ALICE, BOB]))
        return [delivery(self.hop, "A1", to=[ALICE, BOB]), delivery(self.hop, "A2")]

    def test_order_of_a_batch(self) -> None:
        """One sync for all files, all renames, one sync for all folders."""
        batch = self.batch()
        steps: list[str] = []
        rename = os.rename

        def noted_rename(path: str, target: str) -> None:
            steps.append("rename")
            rename(path, target)

        def sync(descriptor: int) -> None:
            steps.append("sync")
            sync_file_system(descriptor)

        with (
            patch("mta.delivery.maildir_files.sync_file_system", sync),
            patch("os.rename", noted_rename),
            patch("os.fsync", steps.append),
        ):
            self.deliver(*batch)
        self.assertEqual(steps, ["sync", "rename", "rename", "rename", "sync"])
        self.assertEqual(len(self.new()), 3)

    def test_a_batch_where_errors_go_untold(self) -> None:
        """An old kernel does not say that such a sync failed: there, each file has its own."""
        batch = self.batch()
        synced: list[int] = []
        with patch("mta.delivery.maildir_files.CAN_SYNC", False), patch("os.fsync", synced.append):
            self.deliver(*batch)
        self.assertEqual((len(synced), len(self.new())), (3 + 2, 3))

    def test_a_batch_that_is_not_durable(self) -> None:
        """A failure may concern any of it: all of it is tried again, and nothing of it is seen."""
        batch = self.batch()
        broken = OSError(errno.EIO, "broken")
        with patch("mta.delivery.maildir_files.sync_file_system", side_effect=broken):
            mail = self.deliver(*batch)
        outcomes = [outcome for each in mail.outcomes.values() for outcome in each]
        self.assertEqual({outcome.status for outcome in outcomes}, {Status.DEFERRED})
        self.assertEqual(len(self.new()), 1)
        self.assertEqual(list((self.alice / "tmp").iterdir()), [])

    def test_the_system_call(self) -> None:
        """It works, and says what does not."""
        with (self.folder / "file").open("wb") as file:
            sync_file_system(file.fileno())
        with self.assertRaises(OSError) as raised:
            sync_file_system(-1)
        self.assertEqual(raised.exception.errno, errno.EBADF)

    def test_folder_that_is_not_durable(self) -> None:
        """A rename that may be lost is no delivery."""
        with patch("mta.delivery.maildir_files._sync", side_effect=OSError(errno.EIO, "broken")):
            (self.alice / "tmp").mkdir(parents=True)
            (self.alice / "new").mkdir()
            mail = self.deliver(delivery(self.hop))
        self.assertEqual(mail.outcome.status, Status.DEFERRED)

    def test_new_maildir_is_durable_before_it_is_used(self) -> None:
        """``tmp`` is made last: a half-made Maildir is finished by the next attempt."""
        safe: set[Path] = set()
        sync = maildir_files._sync

        def noted(folder: Path) -> None:
            sync(folder)
            if not (self.alice / "tmp").exists():
                safe.add(folder)

        self.alice.mkdir(parents=True)  # by an attempt that died at once
        with patch("mta.delivery.maildir_files._sync", noted):
            self.deliver(delivery(self.hop))
        self.assertLessEqual({self.folder, self.alice.parent, self.alice}, safe)
        self.assertEqual(len(self.new()), 1)


class RepeatTests(MaildirTestCase):
    """A delivery that may have happened before is not done twice."""

    def test_in_new(self) -> None:
        """A letter that is still unseen is left as it is."""
        self.deliver(delivery(self.hop))
        (letter,) = self.new()
        letter.write_bytes(b"untouched")
        mail = self.deliver(delivery(self.hop, recovered=True))
        self.assertEqual(mail.outcome.status, Status.DELIVERED)
        self.assertEqual([one.read_bytes() for one in self.new()], [b"untouched"])

    def test_in_cur(self) -> None:
        """A letter that was seen has flags behind its name."""
        self.deliver(delivery(self.hop))
        (letter,) = self.new()
        letter.rename(self.alice / "cur" / f"{letter.name}:2,S")
        mail = self.deliver(delivery(self.hop, attempts=1))
        self.assertEqual(mail.outcome.status, Status.DELIVERED)
        self.assertEqual(self.new(), [])

    def test_large(self) -> None:
        """A large one as well."""
        content = FakeContent(b"A: b\r\n\r\n", b"x" * (MAX_IN_MEMORY + 1))
        self.deliver(delivery(self.hop, content=content))
        (letter,) = self.new()
        letter.rename(self.alice / "cur" / letter.name)
        self.deliver(delivery(self.hop, content=content, recovered=True))
        self.assertEqual(self.new(), [])

    def test_not_there(self) -> None:
        """One that had not arrived is delivered, over what an attempt left in tmp."""
        self.deliver(delivery(self.hop))
        (letter,) = self.new()
        letter.rename(self.alice / "tmp" / letter.name)
        (self.alice / "tmp" / letter.name).write_bytes(b"half a lett")
        self.deliver(delivery(self.hop, recovered=True))
        self.assertTrue(self.new()[0].read_bytes().endswith(b"Hello\n"))
        self.assertEqual(list((self.alice / "tmp").iterdir()), [])

    def test_link_in_tmp(self) -> None:
        """A link that somebody laid in tmp is not followed."""
        self.deliver(delivery(self.hop))
        (letter,) = self.new()
        other = self.folder / "other"
        other.write_bytes(b"precious")
        (self.alice / "tmp" / letter.name).symlink_to(other)
        mail = self.deliver(delivery(self.hop))
        self.assertEqual(other.read_bytes(), b"precious")
        self.assertEqual(mail.outcome.status, Status.DELIVERED)


class TroubleTests(MaildirTestCase):
    """What goes wrong with one letter spoils no other."""

    def deliver_with(self, error: int, **more: Any) -> FakeMailSource:
        """Deliver to alice, whose disk fails, and to bob."""
        write = os.write

        def failing(descriptor: int, data: bytes) -> int:
            if b"Delivered-To: alice@" in bytes(data):
                raise OSError(error, os.strerror(error))
            return write(descriptor, data)

        with patch("os.write", failing):
            return self.deliver(
                delivery(self.hop, "A1", **more), delivery(self.hop, "A2", to=[BOB])
            )

    def test_others_arrive(self) -> None:
        """The rest of the batch is delivered, and nothing of the failed letter stays."""
        mail = self.deliver_with(errno.ENOSPC)
        self.assertEqual(str(mail.outcomes["A1"][0].reply), "452 4.3.1 Insufficient storage")
        self.assertEqual(mail.outcomes["A1"][0].status, Status.DEFERRED)
        self.assertEqual(mail.outcomes["A2"][0].status, Status.DELIVERED)
        self.assertEqual([*self.new(), *(self.alice / "tmp").iterdir()], [])

    def test_too_little_of_something(self) -> None:
        """What found too little room, files or memory is tried again in seconds."""
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            (outcome,) = self.deliver_with(number).outcomes["A1"]
            self.assertGreaterEqual(outcome.wait, RESOURCE_WAIT)
            self.assertLess(outcome.wait, 2 * RESOURCE_WAIT)
        for number in (errno.EIO, errno.EROFS, errno.EACCES):
            (outcome,) = self.deliver_with(number).outcomes["A1"]
            self.assertEqual((outcome.status, outcome.wait), (Status.DEFERRED, 0.0))

    def test_large(self) -> None:
        """A large letter that can't be written is given up, too."""
        mail = self.deliver_with(
            errno.ENOSPC, content=FakeContent(TEXT, b"x" * (MAX_IN_MEMORY + 1))
        )
        self.assertEqual(mail.outcomes["A1"][0].reply.code, 452)
        self.assertEqual([*self.new(), *(self.alice / "tmp").iterdir()], [])

    def test_quota(self) -> None:
        """A full mailbox is not a full disk."""
        mail = self.deliver_with(errno.EDQUOT)
        self.assertEqual(str(mail.outcomes["A1"][0].reply), "452 4.2.2 Mailbox full")

    def test_permission(self) -> None:
        """The log says what to do about it, the sender is told nothing of our folders."""
        with capturedLogs() as events:
            mail = self.deliver_with(errno.EACCES)
        self.assertEqual(mail.outcomes["A1"][0].reply.enhanced, "4.3.0")
        self.assertNotIn(str(self.folder), str(mail.outcomes["A1"][0].reply))
        (event,) = [event for event in events if event.get("queue_id") == "A1"]
        self.assertEqual(event["path"], str(self.alice))
        self.assertIn("let the user", event["advice"])

    def test_file_in_the_way(self) -> None:
        """Where a file stands in the place of a folder, mail waits."""
        (self.folder / "example.com").write_bytes(b"")
        mail = self.deliver(delivery(self.hop))
        self.assertEqual(mail.outcome.status, Status.DEFERRED)

    def test_short_write(self) -> None:
        """A disk that takes a part gets the rest."""
        write = os.write
        with patch("os.write", lambda descriptor, data: write(descriptor, bytes(data)[:7])):
            self.deliver(delivery(self.hop))
        self.assertTrue(self.new()[0].read_bytes().endswith(b"\n\nHello\n"))

    def test_too_long(self) -> None:
        """An address that no file can be named after fails for good."""
        mail = self.deliver(delivery(self.hop, to=[Mailbox("x" * 256, "example.com")]))
        self.assertEqual(mail.outcome.status, Status.FAILED)
        self.assertEqual(mail.outcome.reply.enhanced, "5.1.3")

    def test_unreadable_spool(self) -> None:
        """A message that can't be read waits; the others are delivered."""
        broken = FakeContent(TEXT, failure=OSError(errno.EIO, "broken"))
        large = FakeContent(TEXT, size=MAX_IN_MEMORY + 1, failure=OSError(errno.EIO, "broken"))
        mail = self.deliver(
            delivery(self.hop, "A1", broken),
            delivery(self.hop, "A2"),
            delivery(self.hop, "A3", large),
        )
        statuses = [mail.outcomes[name][0].status for name in ("A1", "A2", "A3")]
        self.assertEqual(statuses, [Status.DEFERRED, Status.DELIVERED, Status.DEFERRED])
        self.assertEqual(len(self.new()), 1)
        self.assertEqual(list((self.alice / "tmp").iterdir()), [])


class PlaceTests(SynchronousTestCase):
    """Where the Maildir of an address is."""

    TEMPLATE = "/mail/{domain}/u-{local}/{address}"

    def test_placeholders(self) -> None:
        """Domain, local part and address are filled in, once."""
        self.assertEqual(
            maildir_paths(self.TEMPLATE, Mailbox("{domain}", "b.c")),
            (Path("/mail"), Path("/mail/b.c/u-%7Bdomain%7D/%7Bdomain%7D@b.c")),
        )

    def test_fixed_part(self) -> None:
        """A template without placeholders is one Maildir for all."""
        self.assertEqual(maildir_paths("/mail/all", ALICE), (Path("/mail"), Path("/mail/all")))

    def test_dots(self) -> None:
        """No folder is hidden, and none is the one above."""
        for local, name in ((".", "%2E"), ("..", "%2E."), (".a", "%2Ea"), ("a.b", "a.b")):
            self.assertEqual(maildir_paths("/m/{local}", Mailbox(local, "x"))[1], Path("/m") / name)

    @given(st.lists(st.text(), min_size=2, max_size=2, unique=True))
    def test_no_way_out(self, local_parts: list[str]) -> None:
        """Every address has a folder of its own, right below the fixed part."""
        found = [maildir_paths("/m/{local}", Mailbox(local, "x"))[1] for local in local_parts]
        self.assertNotEqual(*found)
        for path in found:
            self.assertEqual(path.parts[:2], ("/", "m"))
            self.assertEqual(len(path.parts), 3)
            self.assertFalse(path.name.startswith("."))
            self.assertTrue(path.name.isprintable())

    def test_other_scripts(self) -> None:
        """Letters stay, as Dovecot has them; what nobody sees, and octets, become %XX."""
        for local, name in (
            ("jürgen", "jürgen"),
            ("ユーザー", "ユーザー"),
            ("a%b/c", "a%25b%2Fc"),
            ("a\u202eb", "a%E2%80%AEb"),
            ("a\u3000b", "a%E3%80%80b"),
            ("\ud800", "%ED%A0%80"),
        ):
            self.assertEqual(maildir_paths("/m/{local}", Mailbox(local, "x"))[1], Path("/m") / name)


class FormerNameTests(MaildirTestCase):
    """Maildirs that bear the name of an earlier version."""

    JURGEN = Mailbox("jürgen", "example.com")

    def delivered(self) -> list[str]:
        """Where a letter to jürgen is."""
        self.deliver(delivery(self.hop, to=[self.JURGEN]))
        return [path.parts[-3] for path in self.folder.glob("*/*/new/*")]

    def test_a_new_one(self) -> None:
        """It has the name as it is written."""
        self.assertEqual(self.delivered(), ["jürgen"])

    def test_one_that_is_there(self) -> None:
        """It goes on to be used, until somebody gives it the new name."""
        former = self.folder / "example.com" / "j%C3%BCrgen"
        former.mkdir(parents=True)
        self.assertEqual(self.delivered(), ["j%C3%BCrgen"])
        former.rename(former.with_name("jürgen"))
        self.deliver(delivery(self.hop, "A2", to=[self.JURGEN]))
        self.assertEqual(len(list(self.folder.glob("*/jürgen/new/*"))), 2)


class LinkTests(MaildirTestCase):
    """Where a mailbox is its user's, he leads us nowhere."""

    def setUp(self) -> None:
        super().setUp()
        self.agent = MaildirAgent(
            self.threads, self.threads, "mx.example", quotas={"example.com": 1000}
        )
        self.deliver(delivery(self.hop, "A0"))
        self.elsewhere = self.folder / "elsewhere"
        self.elsewhere.mkdir()

    def test_folders(self) -> None:
        """A link in the place of `new`, `tmp` or `cur`: mail waits, and the log says what to do."""
        for name in ("new", "tmp", "cur"):
            kept = (self.alice / name).rename(self.folder / "kept")
            (self.alice / name).symlink_to(self.elsewhere)
            with capturedLogs() as events:
                mail = self.deliver(delivery(self.hop, "A1"))
            self.assertEqual(mail.outcome.status, Status.DEFERRED, name)
            self.assertEqual(list(self.elsewhere.iterdir()), [], name)
            [event] = [event for event in events if event.get("queue_id") == "A1"]
            self.assertIn(f"`{name}` is a symbolic link", event["reason"])
            self.assertIn("put a folder in its place", event["advice"])
            (self.alice / name).unlink()
            kept.rename(self.alice / name)

    def test_size_file(self) -> None:
        """A link or a FIFO with its name is neither written to nor waited for."""
        size, target = self.alice / "maildirsize", self.elsewhere / "target"
        target.write_text("1000S\n")
        for make in (lambda: size.symlink_to(target), lambda: os.mkfifo(size)):
            size.unlink()
            make()
            mail = self.deliver(delivery(self.hop, "A1"))
            self.assertEqual(mail.outcome.status, Status.DELIVERED)
            self.assertEqual(target.read_text(), "1000S\n")
            self.assertTrue(size.is_file() and not size.is_symlink())

    def test_size_file_that_becomes_a_link(self) -> None:
        """Nor when it comes after we looked."""
        size, target = self.alice / "maildirsize", self.elsewhere / "target"
        target.touch()
        size.unlink()
        size.symlink_to(target)
        self.assertRaises(OSError, quota.add, self.alice, 5)
        self.assertEqual(target.read_text(), "")


class QuotaTests(MaildirTestCase):
    """Maildir++ quotas."""

    def setUp(self) -> None:
        super().setUp()
        self.agent = self.make(1000)

    def make(self, quota: int) -> MaildirAgent:
        return MaildirAgent(self.threads, self.threads, "mx.example", quotas={"example.com": quota})

    def send(self, name: str, size: int = 100) -> Outcome:
        """Deliver a message with so many octets of text."""
        text = FakeContent(TEXT + b"x" * size)
        return self.deliver(delivery(self.hop, name, text)).outcome

    def keep(self, folder: str, name: str, size: int) -> Path:
        """A message that is there already."""
        path = self.alice / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
        return path

    def test_full(self) -> None:
        """What does not fit waits: 452 4.2.2; what still fits is delivered."""
        self.assertEqual(Status.DELIVERED, self.send("A1").status)
        outcome = self.send("A2", 900)
        self.assertEqual(Status.DEFERRED, outcome.status)
        self.assertEqual("452 4.2.2", str(outcome.reply)[:9])
        self.assertEqual(Status.DELIVERED, self.send("A3").status)
        self.assertEqual(2, len(self.new()))
        self.assertEqual([], [*(self.alice / "tmp").iterdir()])

    def test_file(self) -> None:
        """The quota and each message are in `maildirsize`, as other programs expect them."""
        self.send("A1")
        self.send("A2", 200)
        first, counted, *added = (self.alice / "maildirsize").read_text().splitlines()
        self.assertEqual(("1000S", "0 0"), (first, counted))
        sizes = [int(line.split()[0]) for line in added]
        self.assertEqual(2, len(sizes))
        for size, letter in zip(sizes, self.new(), strict=True):
            self.assertLessEqual(abs(size - letter.stat().st_size), 5, "line ends")

    def test_what_is_there(self) -> None:
        """All messages count, read or not, in all folders; a name may say how large one is."""
        self.keep("cur", "1:2,S", 300)
        self.keep(".Sent/cur", "2,S=300:2,S", 10)
        self.assertEqual(Status.DEFERRED, self.send("A1", 350).status)
        self.assertEqual(Status.DELIVERED, self.send("A2", 200).status)

    def test_freed(self) -> None:
        """Once messages were removed there is room again, though the file does not know."""
        self.send("A1", 700)
        for letter in self.new():
            letter.unlink()
        self.assertEqual(Status.DELIVERED, self.send("A2", 700).status)

    def test_raised(self) -> None:
        """A new quota holds at once."""
        self.send("A1", 700)
        self.assertEqual(Status.DEFERRED, self.send("A2", 700).status)
        self.agent = self.make(3000)
        self.assertEqual(Status.DELIVERED, self.send("A2", 700).status)

    def test_damaged_file(self) -> None:
        """A file that makes no sense is written anew."""
        self.keep("new", "1", 100)
        for text in ("rubbish", "1000S\nx y\n", "1000S\n" + "1 1\n" * 2000):
            (self.alice / "maildirsize").write_text(text)
            self.assertEqual(Status.DEFERRED, self.send("A1", 850).status)
            counted = (self.alice / "maildirsize").read_text()
            self.assertEqual("1000S\n100 1\n", counted)

    def test_one_batch(self) -> None:
        """Messages that come together count together."""
        text = FakeContent(TEXT + b"x" * 500)
        mail = self.deliver(delivery(self.hop, "A1", text), delivery(self.hop, "A2", text))
        statuses = [outcome.status for (outcome,) in mail.outcomes.values()]
        self.assertEqual([Status.DELIVERED, Status.DEFERRED], statuses)

    def test_large(self) -> None:
        """A message that is written in pieces counts as well."""
        self.assertEqual(Status.DEFERRED, self.send("A1", MAX_IN_MEMORY).status)
        self.assertEqual([], self.new())

    def test_others(self) -> None:
        """Where no quota is set, nothing is counted."""
        self.agent = self.make(0)
        self.assertEqual(Status.DELIVERED, self.send("A1", 5000).status)
        self.assertFalse((self.alice / "maildirsize").exists())


class JunkTests(MaildirTestCase):
    """Mail that was taken for junk comes into a folder of its own."""

    def junk(self, id: str = "A1") -> Any:
        """A delivery of such mail."""
        found = delivery(self.hop, id)
        return replace(found, message=replace(found.message, origin=Origin(is_junk=True)))

    def test_folder(self) -> None:
        """It is made, marked and subscribed to; the Maildir itself stays empty."""
        self.deliver(self.junk())
        junk = self.alice / ".Junk"
        self.assertEqual((len(self.new()), len(self.new(junk))), (0, 1))
        names = {each.name for each in junk.iterdir()}
        self.assertEqual(names, {"cur", "new", "tmp", "maildirfolder"})
        self.assertEqual((self.alice / "subscriptions").read_bytes(), b"Junk\n")
        for folder in (junk, junk / "new"):
            self.assertEqual(folder.stat().st_mode & 0o777, 0o700)

    def test_batch(self) -> None:
        """Both kinds are written in one go, and each has its place."""
        self.deliver(self.junk("A1"), delivery(self.hop, "A2"), self.junk("A3"))
        self.assertEqual(self.threads.calls, ["store"])
        self.assertEqual((len(self.new()), len(self.new(self.alice / ".Junk"))), (1, 2))

    def test_large(self) -> None:
        """So is one that is written in pieces."""
        found = self.junk()
        content = FakeContent(TEXT, b"x" * MAX_IN_MEMORY)
        self.deliver(replace(found, message=replace(found.message, content=content)))
        (letter,) = self.new(self.alice / ".Junk")
        self.assertGreater(letter.stat().st_size, MAX_IN_MEMORY)

    def test_repeated(self) -> None:
        """A second delivery after a crash finds the first one there."""
        self.deliver(self.junk())
        found = self.junk()
        self.deliver(replace(found, message=replace(found.message, recovered=True)))
        self.assertEqual(len(self.new(self.alice / ".Junk")), 1)

    def test_subscriptions(self) -> None:
        """The list of a reader is added to, in either form of it, and once."""
        for text, expected in (
            (b"Sent", b"Sent\nJunk\n"),
            (b"V\t2\n\nSent\n", b"V\t2\n\nSent\nJunk\n"),
            (b"Junk\nSent\n", b"Junk\nSent\n"),
        ):
            shutil.rmtree(self.alice, ignore_errors=True)
            self.alice.mkdir(parents=True)
            (self.alice / "subscriptions").write_bytes(text)
            self.deliver(self.junk())
            self.assertEqual((self.alice / "subscriptions").read_bytes(), expected)

    def test_the_owner_unsubscribes(self) -> None:
        """A folder that is there is left as it is."""
        self.deliver(self.junk("A1"))
        (self.alice / "subscriptions").write_bytes(b"")
        self.deliver(self.junk("A2"))
        self.assertEqual((self.alice / "subscriptions").read_bytes(), b"")

    def test_traps(self) -> None:
        """A link in place of the folder defers the mail; one in place of the list is left."""
        self.alice.mkdir(parents=True)
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()
        (self.alice / "subscriptions").symlink_to(self.folder / "secret")
        self.deliver(self.junk("A1"))
        self.assertFalse((self.folder / "secret").exists())
        shutil.rmtree(self.alice / ".Junk")
        (self.alice / ".Junk").symlink_to(elsewhere)
        mail = self.deliver(self.junk("A2"))
        self.assertIs(mail.outcome.status, Status.DEFERRED)
        self.assertEqual(list(elsewhere.iterdir()), [])

    def test_quota(self) -> None:
        """It counts for the quota of the mailbox, which is that of all its folders."""
        agent = MaildirAgent(self.threads, self.threads, "mx.example", {"example.com": 1_000})
        self.agent = agent
        mail = self.deliver(*(self.junk(f"A{n}") for n in range(20)))
        statuses = {outcomes[0].status for outcomes in mail.outcomes.values()}
        self.assertEqual(statuses, {Status.DELIVERED, Status.DEFERRED})
        self.assertTrue((self.alice / "maildirsize").exists())
        self.assertFalse((self.alice / ".Junk" / "maildirsize").exists())
