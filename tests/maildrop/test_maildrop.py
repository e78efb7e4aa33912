"""The maildrop: what users of this host leave for the server, and what else they put there."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mta.interfaces import IInspector, IPickedUpMail
from mta.mail import NULL_PATH, Agent, Body, Envelope, Hop, Mailbox, Notify, Recipient, Reply
from mta.maildrop import batch, drop, pickup, published
from mta.maildrop.batch import Malformed, read_envelope
from mta.maildrop.pickup import KEEP_JUNK, MAX_OF_USER, Pickup
from mta.queued import Message, SpoolFull
from mta.session import LOCAL_ADDRESS, Origin
from mta.settings import Domain, Limits, Listener, Relay, Service, Settings
from mta.testing import FakeInspector, MemorySpool
from mta.verdict import AddField, Verdict
from tests.processes import (
    Server,
    configuration,
    header_of,
    local_domain,
    source_environment,
    temporary_folder,
    wait_until,
)

ALICE, BOB = Mailbox("alice", "office.example"), Mailbox("bob", "x.example")
LETTER = b"Subject: x\r\n\r\n.body\r\n"
DESCRIPTORS = Path("/proc/self/fd")
SETTINGS = Settings("mail.office.example", limits=Limits(message_size=1000))


def envelope(*recipients: Recipient, **keys: Any) -> Envelope:
    """An envelope from alice."""
    to = recipients or (Recipient(BOB),)
    return Envelope(ALICE, to, Body.EIGHT_BIT, **keys)


def at_once(function: Any, *arguments: Any) -> Deferred[Any]:
    """Call a function that blocks, here and now."""
    return maybeDeferred(function, *arguments)


def once(name: str, error: OSError) -> Any:
    """A function of the module `os` that fails at its first call."""
    real, errors = getattr(os, name.partition(".")[2]), [error]

    def call(*arguments: Any, **more: Any) -> Any:
        if errors:
            raise errors.pop()
        return real(*arguments, **more)

    return call


class BatchTests(SynchronousTestCase):
    """A message as a file."""

    def again(self, sent: Envelope) -> Envelope:
        """What is read of an envelope that was written."""
        path = Path(self.mktemp())
        path.write_bytes(batch.commands(sent) + LETTER)
        with path.open("rb") as file:
            found = read_envelope(file)
            self.assertEqual(file.read(), LETTER)
        return found

    def test_there_and_back(self) -> None:
        """What an envelope can have comes back."""
        wishes = frozenset({Notify.FAILURE, Notify.DELAY})
        full = envelope(
            Recipient(BOB, notify=wishes),
            Recipient(Mailbox("jürgen", "x.example")),
            smtputf8=True,
            ret="HDRS",
            envid="a b+c=",
        )
        self.assertEqual(self.again(full), full)
        null = Envelope(NULL_PATH, (Recipient(BOB),), Body.EIGHT_BIT)
        self.assertEqual(self.again(null), null)

    def malformed(self, octets: bytes) -> str:
        """Why that is no message."""
        path = Path(self.mktemp())
        path.write_bytes(octets)
        with path.open("rb") as file:
            return str(self.assertRaises(Malformed, read_envelope, file))

    def test_malformed(self) -> None:
        """Whatever else is there is no message."""
        rcpt = b"RCPT TO:<b@x.example>\r\n"
        mail = b"MAIL FROM:<a@x.example>\r\n"
        for octets, reason in (
            (b"", "without an end"),
            (b"x" * 9000 + b"\r\n", "without an end"),
            (b"MAIL FROM:<>\n", "without an end"),
            (rcpt, "no MAIL"),
            (mail + b"DATA\r\n", "no recipients"),
            (mail + mail, "no RCPT"),
            (mail + rcpt, "without an end"),
            (mail + rcpt * 10_001 + b"DATA\r\n", "more than 10000"),
            (b"MAIL FROM:<a@b@c>\r\n", "none"),
            (b"MAIL FROM:<a@b.example> SIZE=1\r\n", "none"),
            (mail + b"RCPT TO:<\xff@x.example>\r\n", "none"),
        ):
            with self.subTest(octets[:40]):
                self.assertIn(reason, self.malformed(octets))

    @given(st.binary(max_size=300))
    def test_anything(self, octets: bytes) -> None:
        """Nothing but `Malformed` comes of anything."""
        path = Path(self.mktemp())
        path.write_bytes(b"MAIL FROM:<a@x.example>\r\n" + octets)
        with path.open("rb") as file, contextlib.suppress(Malformed):
            read_envelope(file)


@implementer(IPickedUpMail)
class PickupTests(SynchronousTestCase):
    """Taking in what lies there."""

    def setUp(self) -> None:
        self.spool = Path(self.mktemp())
        self.spool.mkdir(parents=True, mode=0o700)
        self.folder = self.spool / "maildrop"
        self.inside = MemorySpool()
        self.taken: list[tuple[Message, int]] = []
        self.now = 1e9
        self.pickup = Pickup(
            self.spool,
            self.inside,
            self,
            at_once,
            lambda: self.now,
        )
        self.run_once()

    def picked_up(self, message: Message, userid: int) -> None:
        """See `IPickedUpMail.picked_up`."""
        self.taken.append((message, userid))

    def run_once(self, settings: Settings = SETTINGS, *inspectors: IInspector) -> None:
        """One pass, whenever the last one was."""
        self.pickup._rest_until = 0.0
        self.successResultOf(Deferred.fromCoroutine(self.pickup.run(settings, inspectors)))

    def put(self, octets: bytes, name: str = "0" * 32) -> Path:
        """A file in the folder."""
        path = self.folder / name
        path.write_bytes(octets)
        return path

    def names(self) -> list[str]:
        """What is in the folder."""
        return sorted(path.name for path in self.folder.iterdir())

    def content(self, message: Message) -> bytes:
        """The octets of a message."""

        async def read() -> bytes:
            return b"".join([piece async for piece in message.content.pieces()])

        return self.successResultOf(read())

    def test_a_message(self) -> None:
        """It is committed with a trace field, told of, and gone from the folder."""
        drop.leave(self.spool, envelope(ret="FULL"), [LETTER[:5], LETTER[5:]])
        [name] = self.names()
        self.assertRegex(name, r"\A[0-9a-f]{32}\Z")
        self.run_once()
        [(message, userid)] = self.taken
        self.assertEqual((message.envelope, userid), (envelope(ret="FULL"), os.getuid()))
        user = str(os.getuid())
        self.assertEqual(message.origin, Origin(LOCAL_ADDRESS, user=user, service="maildrop"))
        content = self.content(message)
        self.assertTrue(content.endswith(b"\r\n" + LETTER), content)
        [received] = header_of(content, "Received")
        self.assertRegex(
            received, rf"^by mail\.office\.example \(from userid {os.getuid()}\) id {message.id}; "
        )
        self.assertEqual(self.names(), [])

    def test_inspectors(self) -> None:
        """They see a session of this host with one message, and may change it."""
        verdict = Verdict((AddField(b"X-New", b"1"),), body=self.inside.draft())
        verdict.body.data = b"other\r\n"  # type: ignore[union-attr]
        inspector = FakeInspector(verdict)
        drop.leave(self.spool, envelope(Recipient(BOB), Recipient(ALICE)), [LETTER])
        self.run_once(SETTINGS, inspector)
        self.assertEqual(
            inspector.seen,
            [
                ("connected", "127.0.0.1"),
                ("hello", "mail.office.example"),
                ("message", str(ALICE)),
                ("recipient", str(BOB)),
                ("recipient", str(ALICE)),
                ("data", None),
                ("header", b"Subject: x\r\n\r\n"),
                ("body", b".body\r\n"),
                ("end", b"Subject: x\r\n\r\n"),
                ("close", None),
            ],
        )
        [(message, _)] = self.taken
        self.assertTrue(
            self.content(message).endswith(b"\r\nSubject: x\r\nX-New: 1\r\n\r\nother\r\n")
        )

    def test_refused_by_an_inspector(self) -> None:
        """Nobody could hear it: it is taken, and kept for the operator."""
        refusal = Reply(550, "5.7.1", ("Spam",))
        steps = ("connected", "hello", "message", "recipient", "header", "body", "end")
        for count, step in enumerate(steps, 1):
            drop.leave(self.spool, envelope(), [LETTER])
            inspector = FakeInspector(**{step: refusal})
            self.run_once(SETTINGS, FakeInspector(), inspector)
            self.assertEqual(len(self.taken), count, step)
            self.assertEqual(self.taken[-1][0].on_hold, "refused: 550 5.7.1 Spam")
            self.assertEqual(self.names(), [])
            self.assertEqual(inspector.asked[-1], "close")

    def test_refused_for_now(self) -> None:
        """It stays, and is tried again after a pause."""
        drop.leave(self.spool, envelope(), [LETTER])
        later = FakeInspector(end=Reply(451, "4.7.1", ("Later",)))
        self.run_once(SETTINGS, later)
        self.run_once(SETTINGS)
        self.assertEqual((self.taken, len(self.names())), ([], 1))
        self.assertTrue(all(draft.discarded for draft in self.inside.drafts))
        self.pickup._refused = dict.fromkeys(self.pickup._refused, 0.0)
        self.run_once(SETTINGS)
        self.assertEqual((len(self.taken), self.names()), (1, []))

    def test_discarded_by_an_inspector(self) -> None:
        """It is gone."""
        drop.leave(self.spool, envelope(), [LETTER])
        self.run_once(SETTINGS, FakeInspector(Verdict(discard=True)))
        self.assertEqual((self.taken, self.names(), self.inside.messages), ([], [], []))

    def test_modes(self) -> None:
        """Everybody may put files there, and list neither the folder nor the spool."""
        self.assertEqual(stat.S_IMODE(self.folder.stat().st_mode), 0o1733)
        self.assertEqual(stat.S_IMODE(self.spool.stat().st_mode), 0o711)

    def test_closed_where_programs_must_log_in(self) -> None:
        """Who may not send from this host without a log-in can't leave anything either."""
        self.run_once(Settings("mail.office.example", relay=Relay(networks=())))
        self.assertEqual(stat.S_IMODE(self.folder.stat().st_mode), 0o700)

    def test_no_room(self) -> None:
        """What the spool doesn't take now stays, and is told once."""
        drop.leave(self.spool, envelope(), [LETTER])
        self.inside.failure = SpoolFull(28, "less than 64 MiB are free")
        self.run_once()
        self.run_once()
        self.assertEqual(len(self.names()), 1)
        self.inside.failure = None
        self.run_once()
        self.assertEqual((len(self.taken), self.names()), (1, []))

    def test_no_message(self) -> None:
        """It is set aside, and does not come again; the others are taken."""
        good = batch.commands(envelope())
        bad = [b"junk", good + b"x\n", good + b"x" * 2000, good + b"a\0\r\n", good + b"a\r"]
        for number, octets in enumerate(bad):
            self.put(octets, f"{number:032x}")
        drop.leave(self.spool, envelope(), [LETTER])
        self.run_once()
        self.assertEqual(len(self.taken), 1)
        self.assertEqual(self.names(), [f"{number:032x}.bad" for number in range(len(bad))])
        self.assertEqual(len(self.inside.messages), 1)
        self.assertEqual([draft for draft in self.inside.drafts if draft in bad], [])

    def test_links_and_other_things(self) -> None:
        """No link is followed, nothing that is not a file is opened."""
        secret = self.spool / "secret"
        secret.write_bytes(batch.commands(envelope()) + LETTER)
        (self.folder / ("1" * 32)).symlink_to(secret)
        os.link(secret, self.folder / ("2" * 32))
        os.mkfifo(self.folder / ("3" * 32))
        (self.folder / ("4" * 32)).mkdir()
        (self.folder / ("5" * 32)).mkdir()
        (self.folder / ("5" * 32) / "x").touch()
        self.put(b"", "draft.tmp")
        self.run_once()
        self.assertEqual(self.taken, [])
        self.assertTrue(secret.exists())

    def test_what_becomes_a_link_after_we_looked(self) -> None:
        """It is set aside as it is: neither followed, nor waited for."""
        secret = self.spool / "secret"
        secret.write_bytes(batch.commands(envelope()) + LETTER)
        link, fifo = self.folder / ("1" * 32), self.folder / ("2" * 32)
        link.symlink_to(secret)
        os.mkfifo(fifo)
        found = [pickup._Waiting(path, os.getuid()) for path in (link, fifo)]
        with patch.object(pickup, "_look", return_value=found):
            self.run_once()
        self.assertEqual((self.taken, self.inside.messages), ([], []))
        self.assertEqual(self.names(), [f"{link.name}.bad", f"{fifo.name}.bad"])

    def test_junk_does_not_stay_for_ever(self) -> None:
        """After a week everything is removed that is no message; nobody can choose its age."""
        old = self.put(b"", "draft.tmp")
        (self.folder / ("1" * 32)).symlink_to("/nowhere")
        (self.folder / "folder").mkdir()
        self.now = old.stat().st_ctime + KEEP_JUNK - 60
        os.utime(old, (1, 1))
        self.run_once()
        self.assertEqual(len(self.names()), 3)
        self.now += 120
        self.run_once()
        self.assertEqual(self.names(), [])

    def test_many(self) -> None:
        """A pass takes so many of one user: the others come in between."""
        for number in range(MAX_OF_USER + 5):
            self.put(batch.commands(envelope()) + LETTER, f"{number:032x}")
        self.run_once()
        self.assertEqual(len(self.taken), MAX_OF_USER)
        self.run_once()
        self.assertEqual(self.names(), [])

    def test_what_cannot_be_removed(self) -> None:
        """It is not taken twice."""
        drop.leave(self.spool, envelope(), [LETTER])
        with patch.object(Path, "unlink", side_effect=OSError(30, "Read-only file system")):
            self.run_once()
            self.run_once()
        self.assertEqual(len(self.taken), 1)
        self.run_once()
        self.assertEqual(self.names(), [], "it is removed as soon as that can be")
        self.assertEqual(len(self.taken), 1)

    def test_what_cannot_be_read_now(self) -> None:
        """It stays, is no junk, keeps no other message, and is taken once it can be read."""
        for number, error in enumerate((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO)):
            for failing in ("os.open", "os.fstat", "os.fdopen"):
                with self.subTest(f"{failing} {errno.errorcode[error]}"):
                    self.later(failing, OSError(error, os.strerror(error)), number)

    def later(self, failing: str, error: OSError, number: int) -> None:
        """Let a call fail for the first of two messages."""
        taken, descriptors = len(self.taken), len(list(DESCRIPTORS.iterdir()))
        for name in (f"{number:032x}", "f" * 32):
            self.put(batch.commands(envelope()) + LETTER, name)
        found = pickup._look(self.folder, self.now)
        found.sort(key=lambda each: each.path)
        module = patch(f"mta.maildrop.pickup.{failing}", side_effect=once(failing, error))
        with module, patch.object(pickup, "_look", return_value=found), capturedLogs() as events:
            self.run_once()
        self.assertEqual(len(self.taken), taken + 1, "the other one is taken")
        self.assertEqual(self.names(), [found[0].path.name], "it stays as it is")
        [event] = events
        self.assertIn(os.strerror(error.errno), event["reason"])
        self.assertEqual(len(list(DESCRIPTORS.iterdir())), descriptors)
        with patch.object(pickup, "PAUSE", 0.0):
            self.pickup._refused.clear()
            self.run_once()
        self.assertEqual((len(self.taken), self.names()), (taken + 2, []))

    def test_a_link_in_its_place(self) -> None:
        """A folder that is a link is left alone."""
        self.folder.rmdir()
        elsewhere = self.spool / "elsewhere"
        elsewhere.mkdir(0o700)
        self.folder.symlink_to("elsewhere")
        self.run_once(Settings("mail.office.example"))
        self.assertEqual(stat.S_IMODE(elsewhere.stat().st_mode), 0o700)

    def test_nothing_is_left_of_a_failure(self) -> None:
        """A message whose source breaks is not left."""

        def broken() -> Any:
            yield b"x"
            raise OSError(5, "Input/output error")

        self.assertRaises(OSError, drop.leave, self.spool, envelope(), broken())
        self.assertEqual(self.names(), [])


class PublishedTests(SynchronousTestCase):
    """What everybody may know."""

    def setUp(self) -> None:
        self.spool = Path(self.mktemp())
        self.spool.mkdir(parents=True)

    def test_there_and_back(self) -> None:
        """Names, limits and where to connect; no more."""
        listeners = (Listener("tcp:25"), Listener("tcp:587", Service.SUBMISSION))
        domains = {"office.example": Domain("office.example", Hop(Agent.PIPE, "/secret"))}
        settings = Settings("mail.office.example", listen=listeners, domains=domains)
        published.publish(self.spool, settings)
        self.assertNotIn("secret", (self.spool / published.FILE).read_text())
        found = published.read(self.spool)
        assert found is not None
        self.assertEqual((found.hostname, [*found.domains]), ("mail.office.example", [*domains]))
        self.assertEqual(found.listen, listeners[:1])
        self.assertEqual(found.spool, str(self.spool))

    def test_damage(self) -> None:
        """What can't be read is as if it was not there."""
        self.assertIsNone(published.read(self.spool))
        for text in ("", "[]", "{}", json.dumps({"hostname": 1, "domains": 2})):
            (self.spool / published.FILE).write_text(text)
            self.assertIsNone(published.read(self.spool))


# Whoever has loaded the program can run it, wherever it may lie.
AS_A_USER = """
import os, sys
from mta.commands import sendmail
from mta.privileges import account_named
account_named(os.environ["AS_USER"]).become()
sys.exit(sendmail.main(sys.argv[1:]))
"""


class UnprivilegedTests(SynchronousTestCase):
    """``mta sendmail`` of a user who may read no secret, on a real server."""

    def setUp(self) -> None:
        if os.geteuid() != 0:
            self.skipTest("only root can become somebody else")
        self.folder = temporary_folder(self)
        secret = self.folder / "relay.secret"
        secret.write_text("secret\n")
        secret.chmod(0o600)
        relay = {"to": "smtp://127.0.0.1:1", "user": "us", "secret": {"file": "relay.secret"}}
        self.server = Server(
            self,
            configuration(
                domains={"office.example": local_domain()},
                routes={"default": relay},
            ),
            folder=self.folder,
        )
        self.server.start()

    def sendmail(self, *words: str, user: str = "nobody") -> subprocess.CompletedProcess[str]:
        """Run it as a user."""
        return subprocess.run(
            [sys.executable, "-c", AS_A_USER, *words],
            input="Subject: x\n\nbody\n",
            capture_output=True,
            check=False,
            cwd=self.folder,
            env=source_environment() | {"MTA_CONFIG": str(self.server.config), "AS_USER": user},
            text=True,
            timeout=60,
        )

    def test_server_up(self) -> None:
        """The server takes it at once, through a port that the system chose: by the maildrop."""
        sent = self.sendmail("-v", "bob")
        self.assertEqual((sent.returncode, sent.stderr), (0, ""))
        [found] = self.server.wait_for_mail("office.example/bob")
        self.assertEqual(header_of(found, "Return-Path"), ["<nobody@office.example>"])
        userid = pwd.getpwnam("nobody").pw_uid
        self.assertIn(f"(from userid {userid})", header_of(found, "Received")[0])

    def test_server_down(self) -> None:
        """It waits, and is taken when the server is there."""
        self.server.stop()
        sent = self.sendmail("-v", "bob@office.example")
        self.assertEqual((sent.returncode, sent.stderr), (0, ""))
        self.assertIn("left in the maildrop", sent.stdout)
        self.server.start()
        self.server.wait_for_mail("office.example/bob")
        wait_until(lambda: not any((self.folder / "spool/maildrop").iterdir()), "it is removed")

    def test_the_server_of_another_user(self) -> None:
        """Who is not root takes what others left, and removes it or sets it aside."""
        self.server.stop()
        shutil.rmtree(self.folder / "spool")
        (self.folder / "mail").mkdir()
        shutil.chown(self.folder / "mail", "nobody")
        text = self.server.config.read_text()
        self.server.config.write_text(text.replace("run_as: root", "run_as: nobody"))
        self.server.start()
        self.server.stop()
        drop_folder = self.folder / "spool" / "maildrop"
        sent = self.sendmail("bob", user="daemon")
        self.assertEqual((sent.returncode, sent.stderr), (0, ""))
        junk = drop_folder / ("1" * 32)
        junk.write_text("junk")
        shutil.chown(junk, "daemon")
        self.server.start()
        self.server.wait_for_mail("office.example/bob")
        wait_until(
            lambda: [path.name for path in drop_folder.iterdir()] == [f"{junk.name}.bad"],
            "all is taken or set aside",
        )
        self.assertIn("are no messages", self.server.log)

    def test_a_configuration_that_may_not_be_read(self) -> None:
        """What the server lets everybody know is enough, and it finds what is left."""
        self.server.config.chmod(0o640)
        self.server.stop()
        sent = self.sendmail("-v", "bob")
        self.assertEqual((sent.returncode, sent.stderr), (0, ""))
        self.server.start()
        [found] = self.server.wait_for_mail("office.example/bob")
        self.assertEqual(header_of(found, "From"), ['"nobody" <nobody@office.example>'])

    def test_tools(self) -> None:
        """What is not for this user is refused in a line that says for whom it is."""
        for mode in ("-bp", "-q"):
            sent = self.sendmail(mode)
            self.assertIn("spool: only root and the user root may look there", sent.stderr)
            self.assertEqual(sent.stderr.count("\n"), 1)

    def test_no_place_at_all(self) -> None:
        """75, and one line."""
        self.server.stop()
        shutil.rmtree(self.folder / "spool" / "maildrop")
        sent = self.sendmail("bob")
        self.assertEqual(sent.returncode, os.EX_TEMPFAIL, sent.stderr)
        self.assertEqual(sent.stderr.count("\n"), 1, sent.stderr)

    def test_nothing_else_can_be_read(self) -> None:
        """A user of this host lists neither the spool nor the maildrop, and reads nothing there."""
        looks = """
import os, pwd, sys
paths = [os.path.join(*each) for each in ((base, name) for base, folders, names in
         os.walk(sys.argv[1]) for name in folders + names)]
nobody = pwd.getpwnam("nobody")
os.setgroups([]); os.setgid(nobody.pw_gid); os.setuid(nobody.pw_uid)
for path in [sys.argv[1], *paths]:
    if os.access(path, os.R_OK):
        print(os.path.relpath(path, sys.argv[1]))
"""
        self.server.send(b"Subject: x\r\n\r\n" + b"x" * 400_000, "bob@far.example")
        spool = str(self.folder / "spool")
        found = subprocess.run(
            [sys.executable, "-c", looks, spool], capture_output=True, check=True, text=True
        )
        self.assertEqual(found.stdout.split(), [published.FILE])
