"""Mail that ends in others' hands: a real Dovecot by LMTP and in a Maildir, and procmail."""

from __future__ import annotations

import grp
import imaplib
import os
import pwd
import shutil
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from bench.servers import answers, free_port
from tests.interop.bodies import BODIES, message
from tests.processes import (
    DEADLINE,
    Process,
    Server,
    body_of,
    configuration,
    header_of,
    local_domain,
    mail_in,
    need_program,
    temporary_folder,
    wait_for_mail,
    wait_until,
)

SECRET = "wonderland"
SOME = b"Subject: hello\r\n\r\nText\r\n"

_CONFIGURATION = """\
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
default_internal_user = {us}
default_internal_group = {group}
default_login_user = {reader}
protocols = imap lmtp
ssl = no
disable_plaintext_auth = no
first_valid_uid = 1
first_valid_gid = 0
mail_location = maildir:{mail}/%d/%n
mail_plugins = quota
quota_full_tempfail = yes
plugin {{
  quota = maildir:User quota
  quota_rule = *:storage=100M
}}
passdb {{
  driver = passwd-file
  args = {folder}/passwd
}}
userdb {{
  driver = passwd-file
  args = {folder}/passwd
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    address = 127.0.0.1
    port = {imap}
  }}
}}
service lmtp {{
  unix_listener {folder}/lmtp {{
    mode = 0666
  }}
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {lmtp}
  }}
}}
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  chroot =
}}
"""


class Dovecot:
    """Has the mailboxes alice and bob of office.example in a Maildir each; bob's is full.

    It reads no mail as root: `own` gives it what we wrote as such.
    """

    def __init__(self, case: SynchronousTestCase, mail: Path | None = None) -> None:
        program = need_program(case, "dovecot")
        self.folder = folder = temporary_folder(case)
        self.mail = mail or folder / "mail"
        self.mail.mkdir(exist_ok=True)
        us = pwd.getpwuid(os.getuid())
        self._reader = us if us.pw_uid else pwd.getpwnam("nobody")
        owner = f"{self._reader.pw_uid}:{self._reader.pw_gid}"
        home = folder / "home"
        home.mkdir()
        (folder / "passwd").write_text(
            f"alice@office.example:{{PLAIN}}{SECRET}:{owner}::{home}\n"
            f"bob@office.example:{{PLAIN}}{SECRET}:{owner}::{home}"
            "::userdb_quota_rule=*:bytes=1\n"
        )
        self.imap, self.lmtp, self.socket = free_port(), free_port(), folder / "lmtp"
        (folder / "dovecot.conf").write_text(
            _CONFIGURATION.format(
                folder=folder,
                mail=self.mail,
                us=us.pw_name,
                reader=self._reader.pw_name,
                group=grp.getgrgid(us.pw_gid).gr_name,
                imap=self.imap,
                lmtp=self.lmtp,
            )
        )
        self.own(self.mail)
        self.own(home)
        process = Process([program, "-F", "-c", str(folder / "dovecot.conf")], folder)
        case.addCleanup(process.kill)
        wait_until(self.socket.exists, "Dovecot's socket")
        wait_until(lambda: answers(self.imap) and answers(self.lmtp), "Dovecot's ports")

    def own(self, folder: Path) -> None:
        """Let it read, and write to, a folder and all in it."""
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, self._reader.pw_uid, self._reader.pw_gid)

    def wait_for_mail(self, name: str, count: int = 1) -> list[bytes]:
        """What it has put into a mailbox."""
        return wait_for_mail(self.mail / "office.example" / name, count)

    def log(self) -> str:
        """What it said."""
        return (self.folder / "log").read_text()


class LMTPTests(SynchronousTestCase):
    """We hand Dovecot our mail by LMTP (RFC 2033)."""

    def setUp(self) -> None:
        self.dovecot = Dovecot(self)

    def server(self, deliver: str) -> Server:
        """A server of ours whose own domain is Dovecot's."""
        domains = {"office.example": {"deliver": deliver}, "client.example": local_domain()}
        server = Server(self, configuration(domains=domains, queue={"retry": ["1h"]}))
        server.start()
        return server

    def check_bodies(self, server: Server) -> None:
        for body in BODIES.values():
            server.send(message(body), "alice@office.example")
        arrived = self.dovecot.wait_for_mail("alice", len(BODIES))
        self.assertEqual(
            sorted(map(body_of, arrived)),
            sorted(body.replace(b"\r\n", b"\n") for body in BODIES.values()),
        )

    def test_tcp(self) -> None:
        """Dots, 8-bit octets, long lines and large content come through by TCP."""
        self.check_bodies(self.server(f"lmtp://127.0.0.1:{self.dovecot.lmtp}"))

    def test_unix_socket(self) -> None:
        """And by a UNIX socket."""
        self.check_bodies(self.server(f"lmtp+unix:{self.dovecot.socket}"))

    def test_each_recipient_has_a_reply(self) -> None:
        """One gets the message, one has no room and waits, one does not exist and is reported."""
        server = self.server(f"lmtp+unix:{self.dovecot.socket}")
        recipients = [f"{name}@office.example" for name in ("alice", "bob", "nobody-here")]
        server.send(SOME, *recipients)
        (arrived,) = self.dovecot.wait_for_mail("alice")
        self.assertEqual(b"Text\n", body_of(arrived))
        (notice,) = server.wait_for_mail("client.example/sender")
        self.assertIn(b"rfc822; nobody-here@office.example", notice)
        self.assertNotIn(b"rfc822; alice@office.example", notice)
        fates = {name: self.fate(server, name) for name in recipients}
        self.assertEqual("delivered", fates["alice@office.example"])
        self.assertEqual("failed", fates["nobody-here@office.example"])
        self.assertEqual("deferred", fates["bob@office.example"])
        self.assertEqual([], mail_in(self.dovecot.mail / "office.example" / "bob"))

    def fate(self, server: Server, address: str) -> str:
        """What our log says became of a recipient."""
        assert server.process is not None
        return server.process.wait_for(rf" (\w+) {address} by lmtp")[1]


class MaildirTests(SynchronousTestCase):
    """Dovecot reads, by IMAP, the Maildirs that we deliver to."""

    def setUp(self) -> None:
        domains = {"office.example": local_domain(quota="1MiB")}
        self.server = Server(self, configuration(domains=domains))
        self.server.start()
        self.addCleanup(self.server.kill)

    def imap(self) -> imaplib.IMAP4:
        """A connection of alice to a Dovecot on our mail."""
        self.server.folder.chmod(0o711)
        dovecot = Dovecot(self, self.server.folder / "mail")
        client = imaplib.IMAP4("127.0.0.1", dovecot.imap, DEADLINE)
        self.addCleanup(client.shutdown)
        client.login("alice@office.example", SECRET)
        self.dovecot = dovecot
        return client

    def texts(self, client: imaplib.IMAP4) -> list[tuple[bytes, bytes]]:
        """Flags and octets of each message."""
        client.select(readonly=True)
        _, answers = client.fetch("1:*", "(FLAGS BODY.PEEK[])")
        return [answer for answer in answers if isinstance(answer, tuple)]

    def test_read_back(self) -> None:
        """All content is there, octet for octet, new and unread."""
        bodies = [body for body in BODIES.values() if len(body) < 500_000]
        for body in bodies:
            self.server.send(message(body), "alice@office.example")
        self.server.wait_for_mail("office.example/alice", len(bodies))
        found = self.texts(self.imap())
        self.assertEqual(
            sorted(body_of(octets) for _, octets in found),
            sorted(body.replace(b"\r\n", b"\n") for body in bodies),
        )
        for flags, octets in found:
            self.assertNotIn(b"\\Seen", flags)
            self.assertEqual(["alice@office.example"], header_of(octets, "Delivered-To"))

    def test_flags_stay(self) -> None:
        """Flags that a reader set are untouched by what we deliver after."""
        self.server.send(SOME, "alice@office.example")
        self.server.wait_for_mail("office.example/alice")
        client = self.imap()
        client.select()
        client.store("1", "+FLAGS", "(\\Seen \\Flagged)")
        self.server.send(SOME, "alice@office.example")
        self.server.wait_for_mail("office.example/alice", 2)
        self.dovecot.own(self.dovecot.mail)
        client.noop()
        seen = [b"\\Flagged" in flags for flags, _ in self.texts(client)]
        self.assertEqual([True, False], seen)

    def test_quota_file(self) -> None:
        """The quota and what is there are in `maildirsize`, where Dovecot looks for it too."""
        self.server.send(SOME, "alice@office.example")
        self.server.wait_for_mail("office.example/alice")
        path = self.server.folder / "mail/office.example/alice/maildirsize"
        wait_until(lambda: path.read_text().count("\n") == 3, "a line for the message")
        self.assertEqual(f"{2**20}S", path.read_text().split()[0])


class PipeTests(SynchronousTestCase):
    """We hand messages to programs."""

    def server(self, command: str, **keys: Any) -> Server:
        """A server of ours that pipes its own mail into a command."""
        domains = {
            "office.example": {"deliver": f"pipe:{command}"},
            "client.example": local_domain(),
        }
        server = Server(self, configuration(domains=domains, **keys))
        server.start()
        return server

    def test_procmail(self) -> None:
        """procmail files a message by its subject."""
        procmail = need_program(self, "procmail")
        folder = temporary_folder(self)
        recipe = folder / "procmailrc"
        recipe.write_text(
            f"MAILDIR={folder}\nDEFAULT={folder}/other/\nSHELL=/bin/sh\n"
            ":0\n* ^Subject: hello\nhello/\n"
        )
        server = self.server(f"{procmail} -m {recipe}")
        server.send(SOME, "alice@office.example")
        server.send(SOME.replace(b"hello", b"bye"), "alice@office.example")
        (hello,) = wait_for_mail(folder / "hello")
        self.assertEqual(b"Text\n", body_of(hello))
        self.assertEqual(["alice@office.example"], header_of(hello, "Delivered-To"))
        self.assertEqual(1, len(wait_for_mail(folder / "other")))

    def test_refusal(self) -> None:
        """What a program says as it refuses goes to the sender."""
        server = self.server("sh -c 'cat >/dev/null; echo not today; exit 77'")
        server.send(SOME, "alice@office.example")
        (notice,) = server.wait_for_mail("client.example/sender")
        self.assertIn(b"not today", notice)
        self.assertIn(b"5.7.0", notice)

    def test_client(self) -> None:
        """A program hears who handed us the message."""
        folder = temporary_folder(self)
        server = self.server(
            f"sh -c 'cat >/dev/null; env >{folder}/env.new; mv {folder}/env.new {folder}/env'"
        )
        server.send(SOME, "alice+news@office.example")
        wait_until((folder / "env").exists, "the environment")
        lines = (folder / "env").read_text().splitlines()
        for line in (
            "EXTENSION=news",
            "CLIENT_ADDRESS=127.0.0.1",
            "CLIENT_HELO=client.example",
            "CLIENT_PROTOCOL=ESMTP",
            "SENDER=sender@client.example",
        ):
            self.assertIn(line, lines)
