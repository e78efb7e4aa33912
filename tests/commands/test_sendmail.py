"""``mta sendmail``, as the programs that call it know it."""

from __future__ import annotations

import errno
import io
import os
import pwd
import shutil
import smtplib
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

import yaml
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mta.commands import local_server, main, stdio
from mta.commands.addressees import addressees
from mta.commands.outgoing import MAX_HEADER, lines
from mta.interfaces import IAccessPolicy, IChannel, ISpool
from mta.mail import NULL_PATH, Body, Mailbox, Notify
from mta.maildrop import batch
from mta.queued import Filter, Message
from mta.session import LOCAL_ADDRESS, UNKNOWN_ORIGIN, Origin
from mta.settings import Listener, ListenerTLS, Service, Settings
from mta.spool.place import SpoolPlace
from mta.spool.tools import SpoolTools
from mta.testing import MemorySpool
from tests.commands.test_commands import CommandCase, Output
from tests.processes import (
    ROOT,
    Server,
    body_of,
    configuration,
    header_of,
    need_program,
    wait_for_mail,
)

ME = pwd.getpwuid(os.getuid()).pw_name
BOB = Mailbox("bob", "office.example")
SENDMAIL = "import sys; from mta.commands.sendmail import main; sys.exit(main())"


class SendmailCase(CommandCase):
    """A spool, and a way to call sendmail for it."""

    def sendmail(self, *words: str, stdin: bytes = b"", status: int = 0) -> tuple[str, str]:
        """Run ``mta sendmail``; returns what it said on standard output and standard error."""
        output, errors = Output(), Output()
        with (
            patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin))),
            patch.object(sys, "stdout", output),
            patch.object(sys, "stderr", errors),
        ):
            self.assertEqual(main(["sendmail", *words]), status, errors.text)
        return output.text, errors.text

    def refused(self, *words: str, stdin: bytes = b"", status: int) -> str:
        """Run it in vain; returns its one line, and sees that nothing was queued."""
        _, errors = self.sendmail(*words, stdin=stdin, status=status)
        self.assertRegex(errors, r"\Amta-sendmail: [^\n]+\n\Z")
        self.assertEqual(list(self.queued()), [])
        return errors

    def queued(self) -> Iterator[tuple[Message, bytes]]:
        """The messages in the spool, with their content."""
        with closing(SpoolTools(self.folder.resolve() / "spool")) as tools:
            for entry in tools.find(Filter()):
                yield entry.message, self.content(entry.message)

    def content(self, message: Message) -> bytes:
        """The octets of a message."""

        async def read() -> bytes:
            return b"".join([piece async for piece in message.content.pieces()])

        return self.successResultOf(read())

    def one(self, *words: str, stdin: bytes = b"Subject: x\n\nbody\n") -> tuple[Message, bytes]:
        """Send one message; returns what was queued."""
        self.sendmail(*words, stdin=stdin)
        [found] = self.queued()
        return found

    def forward_paths(self, message: Message) -> list[str]:
        """Whom it goes to."""
        return [str(recipient.forward_path) for recipient in message.envelope.recipients]


class EnvelopeTests(SendmailCase):
    """Who it is from, and to whom."""

    def test_from_the_caller(self) -> None:
        """Without ``-f`` the user of the process is the sender, in our domain."""
        message, _ = self.one("bob@office.example")
        self.assertEqual(message.envelope.reverse_path, Mailbox(ME, "office.example"))
        self.assertEqual(self.forward_paths(message), ["bob@office.example"])
        self.assertIs(message.envelope.body, Body.EIGHT_BIT)
        user = str(os.getuid())
        self.assertEqual(message.origin, Origin(LOCAL_ADDRESS, user=user, service="sendmail"))

    def test_f(self) -> None:
        """``-f`` is the reverse-path, attached or not, with or without angle brackets."""
        for words in (("-f", "a@b.example"), ("-fa@b.example",), ("-f", "<a@b.example>")):
            with self.subTest(words):
                self.assertEqual(
                    self.one(*words, "bob")[0].envelope.reverse_path.domain, "b.example"
                )
                self.succeed("queue", "delete", "--all")

    def test_localhost(self) -> None:
        """What is at localhost for a program is in our domain for everybody else."""
        message, content = self.one(
            *("-f", "root@localhost", "-t"),
            stdin=b'From: "root@localhost" <root@localhost>\nReply-To: bob@localhost (Bob)\n'
            b"To: root@localhost.localdomain,\n ann@localhost.example\n\nbody root@localhost\n",
        )
        self.assertEqual(message.envelope.reverse_path, Mailbox("root", "office.example"))
        self.assertEqual(
            self.forward_paths(message), ["root@office.example", "ann@localhost.example"]
        )
        self.assertEqual(
            [header_of(content, name) for name in ("From", "Reply-To", "To")],
            [
                ['"root@localhost" <root@office.example>'],
                ["bob@office.example (Bob)"],
                ["root@office.example, ann@localhost.example"],
            ],
        )
        self.assertIn(b"\r\nbody root@localhost\r\n", content)

    def test_f_null(self) -> None:
        """An empty one is the null reverse-path, of which no notice comes."""
        message, content = self.one("-f", "", "bob")
        self.assertEqual(message.envelope.reverse_path, NULL_PATH)
        [author] = header_of(content, "From")
        self.assertIn("MAILER-DAEMON@mail.office.example", author)

    def test_a_name_alone(self) -> None:
        """``root`` is in our domain that is nearest to the host: cron writes to it."""
        message, _ = self.one("root")
        self.assertEqual(self.forward_paths(message), ["root@office.example"])

    def test_recipients_once_each(self) -> None:
        """Several addresses, in one word or in more; none twice."""
        message, _ = self.one("bob, ann@x.example", "-i", "--", "bob")
        self.assertEqual(self.forward_paths(message), ["bob@office.example", "ann@x.example"])

    def test_t(self) -> None:
        """``-t`` takes To:, Cc: and Bcc:, and Bcc: is not passed on."""
        message, content = self.one(
            "-ti",
            stdin=b"To: B. Ob <bob@office.example>,\n ann@x.example (c, d)\n"
            b"cc: team: a@y.example;\nbCC: eve@x.example,\n\tadam@x.example\n"
            b"Subject: x\n\nBcc: text\n",
        )
        self.assertEqual(
            self.forward_paths(message),
            [
                *("bob@office.example", "ann@x.example", "a@y.example"),
                *("eve@x.example", "adam@x.example"),
            ],
        )
        self.assertNotIn(b"adam", content)
        self.assertNotIn(b"eve", content)
        self.assertTrue(content.endswith(b"\r\n\r\nBcc: text\r\n"), content)

    def test_t_with_names_in_latin_1(self) -> None:
        """Display names may be in any charset, and stay as they are; addresses may not."""
        text = b"From: J\xfcrgen <me@office.example>\nTo: J\xfcrg\n <bob@office.example>\n\nhi\n"
        message, content = self.one("-t", stdin=text)
        self.assertEqual(self.forward_paths(message), ["bob@office.example"])
        self.assertIn(b"From: J\xfcrgen <me@office.example>\r\n", content)

    def test_bcc_stays_without_t(self) -> None:
        """Who names recipients on the command line looks after the header section himself."""
        _, content = self.one("bob", stdin=b"Bcc: eve@x.example\n\nx\n")
        self.assertEqual(header_of(content, "Bcc"), ["eve@x.example"])

    def test_t_of_a_message_sent_again(self) -> None:
        """Where there are Resent- fields, only those count."""
        message, _ = self.one("-t", stdin=b"Resent-To: bob@office.example\nTo: ann@x.example\n\n")
        self.assertEqual(self.forward_paths(message), ["bob@office.example"])

    def test_notices(self) -> None:
        """``-N -R -V`` become NOTIFY, RET and ENVID."""
        message, _ = self.one("-N", "success,delay", "-R", "hdrs", "-V", "order 7", "bob")
        [recipient] = message.envelope.recipients
        self.assertEqual(recipient.notify, {Notify.SUCCESS, Notify.DELAY})
        self.assertEqual((message.envelope.ret, message.envelope.envid), ("HDRS", "order 7"))

    def test_internationalised(self) -> None:
        """Only an address can make SMTPUTF8 necessary: 8-bit text does not."""
        self.assertFalse(self.one("bob", stdin="Subject: ä\n\nä".encode())[0].envelope.smtputf8)
        self.succeed("queue", "delete", "--all")
        self.assertTrue(self.one("jörg@office.example")[0].envelope.smtputf8)


class ContentTests(SendmailCase):
    """What becomes of the message."""

    def test_what_is_missing_is_added(self) -> None:
        """Date:, Message-ID: and From:, and a trace field on top."""
        _, content = self.one("-F", 'Ann "x"', "-f", "ann@x.example", "bob")
        self.assertRegex(
            content, rb"\AReceived: by mail\.office\.example \(from userid \d+\);\r\n\t"
        )
        self.assertEqual(header_of(content, "From"), [r'"Ann \"x\"" <ann@x.example>'])
        for name in ("Date", "Message-ID"):
            self.assertEqual(len(header_of(content, name)), 1)
        self.assertTrue(content.endswith(b"\r\n\r\nbody\r\n"))

    def test_what_is_there_stays(self) -> None:
        """No field that the message has is added again."""
        fields = b"From: me@x.example\ndate: today\nMessage-Id: <1@x>\n"
        _, content = self.one("-F", "Ann", "bob", stdin=fields + b"\nx\n")
        self.assertTrue(content.endswith(fields.replace(b"\n", b"\r\n") + b"\r\nx\r\n"), content)

    def test_a_name_that_is_not_ascii(self) -> None:
        """It goes encoded into the header section (RFC 2047), however long it is."""
        _, content = self.one("-F", "Jörg " * 40, "bob")
        self.assertTrue(content.isascii())
        self.assertNotRegex(content, rb"(?<!\r)\n")

    def test_names_without_a_domain(self) -> None:
        """They get ours, wherever a field has them; nothing else is touched."""
        fields = (
            b'From: root (Cron Daemon)\nTo: bob, Ann <ann>,\n "a, b" <c@x.example>, d@x.example\n'
            b"Cc: team: eve, adam@x.example;\nReply-To: A B\nSubject: bob, ann\n"
        )
        _, content = self.one("-i", "bob", stdin=fields + b"\nbob\n")
        self.assertEqual(
            [header_of(content, name) for name in ("From", "To", "Cc", "Reply-To", "Subject")],
            [
                ["root@office.example (Cron Daemon)"],
                ['bob@office.example, Ann <ann@office.example>, "a, b" <c@x.example>, d@x.example'],
                ["team: eve, adam@x.example;"],
                ["A B"],
                ["bob, ann"],
            ],
        )

    def test_the_last_line_has_no_end(self) -> None:
        """It is a line, in the header section as well as after it."""
        for text, subject in ((b"Subject: x", "x"), (b"Subject: x\n\nbody", "x")):
            _, content = self.one("bob", stdin=text)
            self.assertEqual(header_of(content, "Subject"), [subject])
            self.assertTrue(content.endswith(b"\r\n"))
            self.succeed("queue", "delete", "--all")

    def test_no_header_section(self) -> None:
        """A cron job's output is a body, even where it looks a little like a header section."""
        for text in (b"hello\nTo: all\n", b" x\n", b"no field: x\n"):
            with self.subTest(text):
                _, content = self.one("bob", stdin=text)
                self.assertTrue(content.endswith(b"\r\n\r\n" + text.replace(b"\n", b"\r\n")))
                self.succeed("queue", "delete", "--all")

    def test_from_line_of_an_mbox(self) -> None:
        """It is no header field, and goes."""
        _, content = self.one("bob", stdin=b"From me Mon Jan 1\nSubject: x\n\nFrom you\n")
        self.assertNotIn(b"From me", content)
        self.assertTrue(content.endswith(b"\r\n\r\nFrom you\r\n"))

    def test_a_lone_dot(self) -> None:
        """It ends the message, but not with ``-i`` or ``-oi``."""
        text = b"Subject: x\n\none\n.\ntwo\n"
        self.assertTrue(self.one("bob", stdin=text)[1].endswith(b"\r\n\r\none\r\n"))
        for option in ("-i", "-oi"):
            self.succeed("queue", "delete", "--all")
            _, content = self.one(option, "bob", stdin=text)
            self.assertTrue(content.endswith(b"\r\none\r\n.\r\ntwo\r\n"), option)

    def test_line_ends_of_any_kind(self) -> None:
        """LF, CRLF and CR end lines; a NUL is left out."""
        _, content = self.one("bob", stdin=b"A: b\r\n\none\rtwo\r\nth\0ree")
        self.assertTrue(content.endswith(b"\r\n\r\none\r\ntwo\r\nthree\r\n"), content)

    @given(st.lists(st.sampled_from([b"a", b".", b"\r", b"\n", b"\0", b"long" * 10])))
    def test_lines_have_one_end(self, parts: list[bytes]) -> None:
        """Whatever comes in, lines end with CRLF, and no octet of text is lost."""
        text = b"".join(parts)
        with patch("mta.commands.outgoing.MAX_HEADER", 7):
            found = b"".join(lines(io.BytesIO(text), dot_ends=False))
        bare = found.replace(b"\r\n", b"")
        self.assertFalse({*b"\r\n\0"} & {*bare})
        self.assertEqual(bare, text.translate(None, b"\r\n\0"))
        self.assertEqual(found, b"" if not text else found.removesuffix(b"\r\n") + b"\r\n")

    def test_the_end_of_a_long_line_is_no_line(self) -> None:
        """A dot there does not end the message."""
        with patch("mta.commands.outgoing.MAX_HEADER", 4):
            found = b"".join(lines(io.BytesIO(b"long.\nmore\n.\nno\n"), dot_ends=True))
        self.assertEqual(found, b"long.\r\nmore\r\n")

    def test_large_content(self) -> None:
        """What is larger than memory should hold goes to a file as it comes."""
        body = b"0123456789abcdef" * 4 + b"\n"
        _, content = self.one("bob", stdin=b"Subject: x\n\n" + body * 20_000)
        self.assertEqual(content.count(body.replace(b"\n", b"\r\n")), 20_000)


class RefusalTests(SendmailCase):
    """What can't be, with a status of sysexits.h and one line."""

    def test_usage(self) -> None:
        """64: no recipients, bad addresses, unknown options."""
        for words in (
            (),
            ("not an address",),
            ("bob", "-f", "a b"),
            ("bob", "-f", "a@x.example, b@x.example"),
            ("-Z", "bob"),
            ("bob", "-bd"),
            ("bob", "-N", "sometimes"),
            ("bob", "-V", "a\nb"),
            ("bob", "-F", "a\nBcc: b"),
        ):
            with self.subTest(words):
                self.refused(*words, status=os.EX_USAGE)

    def test_data(self) -> None:
        """65: header sections that name nobody, or what is no address, or never end."""
        for text in (
            b"Subject: x\n\n",
            b"To: undisclosed-recipients:;\n\n",
            b"To: a b c\n\n",
            b"To: \xff@x.example\n\n",
            b"X: " + b"x" * MAX_HEADER + b"\n\n",
            b"To: bob\n" + b"Received: x\n" * 101 + b"\n",
        ):
            with self.subTest(text[:40]):
                self.refused("-t", stdin=text, status=os.EX_DATAERR)

    def test_too_large(self) -> None:
        """65: more than ``limits.message_size``."""
        self.configure(limits={"message_size": "1KiB"})
        self.refused("bob", stdin=b"\n" + b"x\n" * 1024, status=os.EX_DATAERR)

    def test_a_bad_configuration(self) -> None:
        """78, with the first of its problems."""
        self.assertIn("nowhere.yaml", self.sendmail("-C", "nowhere.yaml", "bob", status=78)[1])

    def test_a_spool_that_is_not_ours(self) -> None:
        """73 where it can't be written to."""
        (self.folder / "spool").write_text("a file, not a folder")
        _, errors = self.sendmail("bob", stdin=b"x\n", status=os.EX_CANTCREAT)
        self.assertEqual(errors.count("\n"), 1)

    def test_what_may_be_over_soon(self) -> None:
        """75 where a call fails for want of something, or on the disk: who calls it tries again."""
        self.sendmail("bob", stdin=b"x\n")
        for error in (errno.EMFILE, errno.EIO, errno.ENOMEM, errno.ENOSPC):
            failing = OSError(error, os.strerror(error))
            for call in ("mta.config.document.Path.open", "mta.spool.folder.os.statvfs"):
                with patch(call, side_effect=failing):
                    _, errors = self.sendmail("bob", stdin=b"x\n", status=os.EX_TEMPFAIL)
                self.assertIn(os.strerror(error), errors)
                self.assertEqual(errors.count("\n"), 1)

    def test_a_user_without_a_name(self) -> None:
        """67, unless ``-f`` says who it is."""
        self.patch(pwd, "getpwuid", lambda number: {}[number])
        self.assertIn("use -f", self.refused("bob", stdin=b"x\n", status=os.EX_NOUSER))
        self.one("-f", "a@x.example", "bob")


class ModeTests(SendmailCase):
    """What else sendmail is called for."""

    def test_v(self) -> None:
        """``-v`` says the queue id; otherwise it is silent."""
        output, _ = self.sendmail("-v", "bob", stdin=b"x\n")
        [(message, _)] = self.queued()
        self.assertEqual(output, f"queued as {message.id}\n")
        self.assertEqual(self.sendmail("bob", stdin=b"x\n"), ("", ""))

    def test_options_that_mean_nothing(self) -> None:
        """What mutt, s-nail and others give is taken."""
        self.one("-oem", "-odb", "-om", "-B8BITMIME", "-U", "-n", "-oi", "-h", "3", "bob")
        self.assertEqual(self.sendmail("-bi"), ("", ""))
        self.assertIn("messages go into the spool", self.sendmail("-bv")[0])

    def test_bp(self) -> None:
        """``-bp`` lists the queue."""
        self.one("bob")
        self.succeed("queue", "delete", "--all")
        self.assertEqual(self.sendmail("-bp")[0], "no messages\n")
        message, _ = self.one("bob")
        self.assertIn(message.id, self.sendmail("-bp")[0])

    def test_q(self) -> None:
        """``-q`` makes what waits due, and leaves what is held."""
        held, _ = self.one("bob")
        self.succeed("queue", "hold", "--all")
        for words in (["-q"], ["-q30m"]):
            self.sendmail(*words)
        self.assertIn(" held ", self.succeed("queue", "list", held.id))

    def test_help(self) -> None:
        """``--help`` explains it."""
        with self.assertRaises(SystemExit) as ended:
            self.sendmail("--help")
        self.assertEqual(ended.exception.code, 0)


class SMTPTests(SendmailCase):
    """``-bs``: SMTP on standard input and output."""

    def converse(self, *said: str) -> str:
        """Say some lines; returns the replies."""
        incoming, theirs = os.pipe()
        ours, outgoing = os.pipe()
        os.write(theirs, "".join(f"{line}\r\n" for line in said).encode())
        os.close(theirs)
        self.patch(sys, "stdin", os.fdopen(incoming))
        self.patch(sys, "stdout", os.fdopen(outgoing, "w"))
        self.addCleanup(sys.stdin.close)
        self.assertEqual(main(["sendmail", "-bs"]), 0)
        sys.stdout.close()
        with os.fdopen(ours) as replies:
            return replies.read()

    def test_a_message(self) -> None:
        """It is spooled, with the id that the reply names."""
        replies = self.converse(
            *("EHLO here", "MAIL FROM:<a@x.example>", "RCPT TO:<bob@office.example>"),
            *("RCPT TO:<ann@elsewhere.example>", "DATA", "Subject: x", "", "..", ".", "QUIT"),
        )
        [(message, content)] = self.queued()
        self.assertIn(f"250 2.0.0 OK queued as {message.id}\n", replies)
        self.assertTrue(content.endswith(b"Subject: x\r\n\r\n.\r\n"), content)
        self.assertIn(b"from here (localhost)", content)

    def test_unknown_recipients(self) -> None:
        """They are refused as on the net."""
        self.configure(domains={"office.example": {"mailboxes": ["bob"]}})
        replies = self.converse("HELO here", "MAIL FROM:<>", "RCPT TO:<x@office.example>")
        self.assertIn("550 5.1.1", replies)

    def test_the_end_of_input(self) -> None:
        """It is an end like any other: nothing is queued."""
        self.converse("HELO here", "MAIL FROM:<>", "RCPT TO:<bob@office.example>", "DATA", "x")
        self.assertEqual(list(self.queued()), [])

    def test_interfaces(self) -> None:
        """Channel, access and spool promise what they should."""
        verifyObject(IChannel, stdio.Pipes(0, 1))
        verifyObject(IAccessPolicy, stdio.LocalAccessPolicy(None))  # type: ignore[arg-type]
        with closing(SpoolTools(Path(self.mktemp()))) as tools, tools.sync_spool() as spool:
            verifyObject(ISpool, spool)


class AddresseesTests(SynchronousTestCase):
    """Addresses as people and programs write them."""

    def test_forms(self) -> None:
        """Names, comments, groups, quotes, literals."""
        for text, expected in (
            ("bob", ["bob@h.example"]),
            ("a@x, b@x;c@x", ["a@x", "b@x", "c@x"]),
            ('"Ob, Bob" <bob@x> , (no, body) ann@x', ["bob@x", "ann@x"]),
            ("Bob J. Ob (the \\) one) <bob@x>", ["bob@x"]),
            ("friends: a@x, Bo <b@x>;, c@x", ["a@x", "b@x", "c@x"]),
            ("undisclosed-recipients:;", []),
            ('"a b"@x', ['"a b"@x']),
            ("a@[IPv6:::1], <b@[192.0.2.1]>", ["a@[IPv6:::1]", "b@[192.0.2.1]"]),
            (" , ,", []),
            ("root@localhost, Bo <bo@LOCALHOST.localdomain>", ["root@h.example", "bo@h.example"]),
            ("a@localhost.example, b@xlocalhost", ["a@localhost.example", "b@xlocalhost"]),
        ):
            with self.subTest(text):
                self.assertEqual([str(each) for each in addressees(text, "h.example")], expected)

    @given(st.text(alphabet='ab@x.<>()",;:\\ []'))
    def test_nothing_else_is_raised(self, text: str) -> None:
        """What is no address is a ValueError, whatever it is."""
        try:
            found = addressees(text, "h.example")
        except ValueError:
            return
        self.assertTrue(all(mailbox.domain for mailbox in found))


class ProgramTests(SendmailCase):
    """Programs that others wrote call it."""

    def setUp(self) -> None:
        super().setUp()
        self.program = self.folder.resolve() / "sendmail"
        self.program.write_text(
            f"#!/bin/sh\nPYTHONPATH={ROOT} MTA_CONFIG={self.config.resolve()}"
            f" exec {sys.executable} -c '{SENDMAIL}' \"$@\"\n"
        )
        self.program.chmod(0o755)

    def run_program(self, *command: str, stdin: bytes = b"Gr\xc3\xbc\xc3\x9fe\n") -> None:
        """Run it to its end, as a user who has no settings."""
        ended = subprocess.run(
            command,
            input=stdin,
            env=os.environ | {"HOME": str(self.folder.resolve())},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        self.assertEqual(ended.returncode, 0, ended.stdout)

    def assert_queued(self, *forward_paths: str) -> None:
        """One message to these is queued."""
        [(message, content)] = self.queued()
        self.assertEqual(sorted(self.forward_paths(message)), sorted(forward_paths))
        self.assertNotIn(b"eve@x.example", content)
        self.assertEqual(len(header_of(content, "From")), 1)

    def test_a_pipe(self) -> None:
        """As cron does it."""
        self.run_program(str(self.program), "-i", "-FCronDaemon", "-B8BITMIME", "-oem", "root")
        self.assert_queued("root@office.example")

    def test_mutt(self) -> None:
        """mutt, with a blind copy."""
        self.run_program(
            *(need_program(self, "mutt"), "-n", "-F", "/dev/null"),
            *("-e", f"set sendmail='{self.program} -oem -oi' copy=no", "-s", "hello"),
            *("-b", "eve@x.example", "bob@office.example"),
        )
        self.assert_queued("bob@office.example", "eve@x.example")

    def test_s_nail(self) -> None:
        """s-nail, with a blind copy."""
        self.run_program(
            *(need_program(self, "s-nail"), "-n", "-S", "v15-compat", "-S", f"mta={self.program}"),
            *("-s", "hello", "-b", "eve@x.example", "bob@office.example"),
        )
        self.assert_queued("bob@office.example", "eve@x.example")

    def test_procmail(self) -> None:
        """procmail forwards what it is given."""
        rc = self.folder.resolve() / "rc"
        rc.write_text(f"SENDMAIL={self.program}\nSENDMAILFLAGS=-oi\n:0\n! bob@office.example\n")
        self.run_program(
            *(need_program(self, "procmail"), "-m", str(rc)),
            stdin=b"From: ann@x.example\nSubject: x\n\nbody\n",
        )
        self.assert_queued("bob@office.example")


class LocalSMTPTests(SendmailCase):
    """Who may not write to the spool hands the message to the server."""

    def setUp(self) -> None:
        super().setUp()
        domains = {"office.example": {"mailboxes": ["bob"], "deliver": "maildir:mail/{local}"}}
        self.server = Server(self, configuration(domains=domains))
        self.server.start()
        self.settings = configuration(domains=domains, spool=str(self.server.folder / "spool"))
        self.listen_on(f"tcp:{self.server.ports['smtp']}:interface=127.0.0.1")
        self.patch(SpoolPlace, "tools", self.forbid)

    def listen_on(self, *endpoints: str) -> None:
        """What our own configuration says of the server."""
        listen = [{"endpoint": each, "service": "smtp", "tls": "off"} for each in endpoints]
        self.config.write_text(yaml.safe_dump(self.settings | {"listen": listen}))

    def forbid(self, *arguments: object, **keywords: object) -> None:
        """In the place of `SpoolPlace.tools`."""
        raise PermissionError

    def test_a_message(self) -> None:
        """It arrives, whoever sent it, with what was asked for it."""
        words = ("-v", "-f", "a@x.example", "-N", "never", "-R", "hdrs", "-V", "e", "bob")
        said, _ = self.sendmail(*words, stdin=b"Subject: x\n\n.body \xc3\xa9\n")
        self.assertIn("OK queued as", said)
        [found] = wait_for_mail(self.server.folder / "mail" / "bob")
        self.assertEqual(header_of(found, "Return-Path"), ["<a@x.example>"])
        self.assertIn(f"from userid {os.getuid()}", header_of(found, "Received")[1])
        self.assertEqual(body_of(found), b".body \xc3\xa9\n")

    def test_refused(self) -> None:
        """69: one line says who is not there, and the others get it."""
        _, errors = self.sendmail("nobody", stdin=b"x\n", status=os.EX_UNAVAILABLE)
        self.assertRegex(errors, r"\Amta-sendmail: 550 nobody@office.example: .*\n\Z")
        _, errors = self.sendmail("nobody,bob", stdin=b"x\n", status=os.EX_UNAVAILABLE)
        self.assertIn("nobody@office.example", errors)
        wait_for_mail(self.server.folder / "mail" / "bob")

    def test_smtp(self) -> None:
        """``-bs`` talks with the server."""
        ours, theirs = socket.socketpair()
        with ours, theirs, theirs.makefile("r") as stdin, theirs.makefile("w") as stdout:
            ours.sendall(b"EHLO me.example\r\nQUIT\r\n")
            ours.shutdown(socket.SHUT_WR)
            self.patch(sys, "stdin", stdin)
            self.patch(sys, "stdout", stdout)
            self.assertEqual(main(["sendmail", "-bs"]), 0)
            said = ours.recv(65536)
        self.assertTrue(said.startswith(b"220 mail.office.example"), said)
        self.assertIn(b"\r\n221 ", said)

    def test_trial(self) -> None:
        """``-bv`` says which way a message would take, and none takes it."""
        maildrop = self.server.folder / "spool" / "maildrop"
        said, _ = self.sendmail("-bv")
        self.assertIn(f"messages go to the server, or into the maildrop of {maildrop.parent}", said)
        with patch.object(smtplib.SMTP, "mail", lambda *_: (450, b"later")):
            self.assertIn("messages go into the maildrop", self.sendmail("-bv")[0])
        self.server.stop()
        self.assertIn("messages go into the maildrop", self.sendmail("-bv")[0])
        self.assertEqual(list(maildrop.iterdir()), [])
        shutil.rmtree(maildrop)
        _, errors = self.sendmail("-bv", status=os.EX_TEMPFAIL)
        self.assertIn("no server answers", errors)
        self.assertIn("and the maildrop: ", errors)

    def test_no_server(self) -> None:
        """The message waits in the maildrop; where there is none, 75: it may be there later."""
        self.server.stop()
        said, _ = self.sendmail("-v", "bob", stdin=b"x\n")
        port = self.server.ports["smtp"]
        self.assertIn(f"no server answers on 127.0.0.1:{port}", said)
        shutil.rmtree(self.server.folder / "spool" / "maildrop")
        _, errors = self.sendmail("bob", stdin=b"x\n", status=os.EX_TEMPFAIL)
        self.assertIn(f"no server answers on 127.0.0.1:{port}", errors)
        self.assertIn("nothing can be left in the maildrop of", errors)
        self.listen_on()
        self.assertIn("no listener", self.sendmail("bob", stdin=b"x\n", status=75)[1])

    def test_a_server_that_stands_still(self) -> None:
        """Connections that nobody greets are given up soon; the message waits in the maildrop."""
        self.server.stop()
        self.patch(local_server, "GREETING_TIMEOUT", 0.1)
        with socket.create_server(("127.0.0.1", self.server.ports["smtp"])):
            said, _ = self.sendmail("-v", "bob", stdin=b"x\n")
        self.assertIn("timed out", said)
        self.assertEqual(len([*(self.server.folder / "spool" / "maildrop").iterdir()]), 1)

    def test_too_many(self) -> None:
        """65: what one file can't hold is not left half."""
        self.server.stop()
        self.patch(batch, "MAX_RECIPIENTS", 2)
        _, errors = self.sendmail("a,b,c", stdin=b"x\n", status=os.EX_DATAERR)
        self.assertIn("more than 2 recipients", errors)
        self.sendmail("a,b", stdin=b"x\n")

    def test_not_now(self) -> None:
        """What the server puts off waits in the maildrop, for those alone whom it put off."""
        answers = {"a": (250, b""), "b": (450, b"later"), "c": (450, b"later")}
        with (
            patch.object(smtplib.SMTP, "rcpt", lambda _, to, options=(): answers[to[0]]),
            patch.object(smtplib.SMTP, "data", lambda _, content: (250, b"")),
        ):
            said, _ = self.sendmail("-v", "a@x.example,b@x.example,c@x.example", stdin=b"x\n")
            self.assertIn("450 b@x.example: later", said)
        [left] = (self.server.folder / "spool" / "maildrop").iterdir()
        self.assertEqual(left.read_bytes().count(b"RCPT TO:"), 2)
        self.assertIn(b"RCPT TO:<c@x.example>\r\n", left.read_bytes())

    def test_places(self) -> None:
        """What can be connected to from this host, without TLS."""
        listeners = [
            Listener("tcp:25"),
            Listener("tcp6:26:interface=\\:\\:"),
            Listener("tcp:port=27:interface=0.0.0.0"),
            Listener("unix:/run/x\\:y"),
            Listener("tcp:465", tls=ListenerTLS.IMPLICIT),
            Listener("tcp:28", tls=ListenerTLS.REQUIRED),
            Listener("tcp:587", Service.SUBMISSION),
            Listener("haproxy:tcp:29"),
        ]
        found = local_server._places(Settings("mail.example.com", listen=tuple(listeners)))
        self.assertEqual(
            [address for _, address in found],
            [("127.0.0.1", 25), ("::1", 26), ("127.0.0.1", 27), "/run/x:y"],
        )

    def test_a_configuration_with_secrets(self) -> None:
        """Who may not read it sends to port 25 of this host."""
        self.patch(os, "access", lambda path, mode: False)
        _, errors = self.sendmail("bob@office.example", stdin=b"x\n", status=os.EX_TEMPFAIL)
        self.assertIn("127.0.0.1:25", errors)


class SyncSpoolTests(SynchronousTestCase):
    """The spool without a reactor."""

    def test_a_failed_commit_leaves_nothing(self) -> None:
        """Large content whose commit fails is removed."""
        folder = Path(self.mktemp())
        with closing(SpoolTools(folder)) as tools, tools.sync_spool() as spool:
            draft = spool.draft()
            self.successResultOf(draft.write(b"x" * 300_000))
            with self.assertRaises(AssertionError):
                self.successResultOf(
                    spool.commit(MemorySpool().draft(), None, b"", UNKNOWN_ORIGIN)  # type: ignore[arg-type]
                )
            failing = spool.commit(draft, None, b"", UNKNOWN_ORIGIN)  # type: ignore[arg-type]
            self.failureResultOf(failing, AttributeError)
            self.assertEqual(list((folder / "content").iterdir()), [])
