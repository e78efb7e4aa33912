"""Whose rights the server and the tools work with, where root starts them."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench.tree import processes
from mta import privileges
from mta.settings import Settings
from tests.processes import (
    MTA,
    ROOT,
    Process,
    Server,
    configuration,
    listener,
    local_domain,
    source_environment,
    temporary_folder,
    wait_until,
)

NOBODY = pwd.getpwnam("nobody")
MESSAGE = b"Subject: x\r\n\r\nbody\r\n"
# What users may leave mail in, and where they read how.
PUBLIC = {"spool/maildrop": 0o022, "spool/public.json": 0o044}
PROVIDER = {"connect": "smtp://127.0.0.1:1", "domains": ["office.example"], "tls": "off"}


def run_mta(folder: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a tool with the configuration in a folder."""
    return subprocess.run(
        [*MTA, *words],
        input=stdin,
        capture_output=True,
        check=False,
        cwd=folder,
        env=source_environment() | {"MTA_CONFIG": str(folder / "mta.yaml")},
        text=True,
        timeout=60,
    )


def owners(folder: Path) -> dict[str, int]:
    """Whose everything below a folder is, by path."""
    paths: Iterator[Path] = folder.rglob("*")
    return {str(path.relative_to(folder)): path.lstat().st_uid for path in paths}


def forget_run_as(config: Path) -> None:
    """Take the line out of a configuration."""
    config.write_text(re.sub("(?m)^run_as.*\n", "", config.read_text()))


class RootCase(SynchronousTestCase):
    """Only root can show what it may not do."""

    def setUp(self) -> None:
        if os.geteuid() != 0:
            self.skipTest("only root can become somebody else")
        if not os.stat(ROOT).st_mode & 0o005:  # noqa: PTH116
            self.skipTest(f"others can't read {ROOT}")
        self.folder = temporary_folder(self)

    def server(self, **keys: object) -> Server:
        """A server in the folder, which is not started."""
        return Server(self, configuration(**keys), folder=self.folder)

    def make_spool(self) -> Path:
        """An empty spool that is nobody's."""
        spool = self.folder / "spool"
        spool.mkdir(0o700)
        shutil.chown(spool, NOBODY.pw_uid, NOBODY.pw_gid)
        return spool

    def make_mail(self) -> Path:
        """A folder where nobody may make Maildirs."""
        mail = self.folder / "mail"
        mail.mkdir()
        shutil.chown(mail, NOBODY.pw_uid)
        return mail


class ServerTests(RootCase):
    """The server never delivers as root unless it is told to."""

    def refused(self, **keys: object) -> str:
        """Start it in vain; returns its one line."""
        server = self.server(**keys)
        if "run_as" not in keys:
            forget_run_as(server.config)
        process = Process(server.command, self.folder, source_environment())
        self.addCleanup(process.kill)
        self.assertEqual(process.wait(), 1)
        self.assertEqual(process.output.count("\n"), 1, process.output)
        self.assertFalse((self.folder / "mail").exists())
        return process.output

    def test_root_is_refused(self) -> None:
        """One line says what to set; nothing was made."""
        self.assertIn("refusing to deliver mail as root: set `run_as: mta`", self.refused())
        self.assertFalse((self.folder / "spool").exists())

    def test_the_owner_of_the_spool_is_named(self) -> None:
        """He is who the server was before."""
        self.make_spool()
        self.assertIn("set `run_as: nobody`", self.refused())

    def test_root_on_the_spool_of_another(self) -> None:
        """``run_as: root`` is no leave to mix owners."""
        self.make_spool()
        self.assertIn("belongs to nobody: set `run_as: nobody`", self.refused(run_as="root"))

    def test_an_unknown_user(self) -> None:
        """It is named."""
        self.assertIn("this host has no user 'nobdy'", self.refused(run_as="nobdy"))

    def test_run_as(self) -> None:
        """Root binds, and all that is made belongs to the user, whose groups it has as well."""
        self.make_mail()
        script = self.folder / "whoami"
        script.write_text(f"#!/bin/sh\nid > {self.folder}/mail/id\n")
        script.chmod(0o755)
        socket = self.folder / "lmtp.sock"
        server = self.server(
            run_as="nobody",
            listen=[listener("smtp"), {"endpoint": f"unix:{socket}", "service": "lmtp"}],
            domains={
                "office.example": local_domain(),
                "pipe.example": {"deliver": f"pipe:{script}", "mailboxes": "any"},
            },
        )
        server.start()
        server.send(MESSAGE, "bob@office.example", "bob@pipe.example")
        server.wait_for_mail("office.example/bob")
        self.assertEqual(socket.stat().st_uid, NOBODY.pw_uid)
        server.stop()
        for folder in ("spool", "mail"):
            found = owners(self.folder / folder)
            self.assertEqual(set(found.values()), {NOBODY.pw_uid}, found)
        self.assertEqual((self.folder / "spool").stat().st_uid, NOBODY.pw_uid)
        self.assertNotIn("root", (self.folder / "mail" / "id").read_text())

    def test_log_file(self) -> None:
        """Root opens it, and gives it to the user, who will open it anew."""
        log = self.folder / "mta.log"
        server = self.server(run_as="nobody", log={"file": str(log)}, domains={"a.example": {}})
        process = Process(server.command, self.folder, source_environment())
        self.addCleanup(process.kill)
        wait_until(lambda: log.exists() and " ready\n" in log.read_text(), "it is ready")
        self.assertEqual(log.stat().st_uid, NOBODY.pw_uid)

    def test_uid_of_twistd(self) -> None:
        """``--uid`` does as well."""
        self.make_spool()
        self.make_mail()
        server = self.server()
        forget_run_as(server.config)
        server.command.insert(server.command.index("mta"), "--uid=nobody")
        server.start()
        server.send(MESSAGE, "bob@office.example")
        server.wait_for_mail("office.example/bob")
        self.assertEqual(set(owners(self.folder / "mail").values()), {NOBODY.pw_uid})


class ConfinementTests(RootCase):
    """What is left to a server that root has started, with a hop that takes a password."""

    PASSWORD = "not-to-be-seen-0815"

    def setUp(self) -> None:
        super().setUp()
        self.make_mail()
        secret = self.folder / "hop.secret"
        secret.write_text(self.PASSWORD)
        secret.chmod(0o600)
        shutil.chown(secret, NOBODY.pw_uid)
        hop = {"to": "smtps://smart.example", "user": "us", "secret": {"file": "hop.secret"}}
        server = self.server(run_as="nobody", routes={"default": hop})
        before = {*owners(self.folder)}
        self.addCleanup(os.umask, os.umask(0))
        server.start()
        server.send(MESSAGE, "bob@office.example")
        server.wait_for_mail("office.example/bob")
        self.made = {*owners(self.folder)} - before
        self.processes = [*processes(server.process.pid)]

    def seen(self, name: str) -> list[str]:
        """A file of /proc for each process of the server."""
        return [Path(f"/proc/{pid}/{name}").read_text("utf-8", "replace") for pid in self.processes]

    def test_whatever_it_does(self) -> None:
        """It has no right of root, shows no secret, and writes for itself alone in two places."""
        nobody = "\t".join([str(NOBODY.pw_uid)] * 4)
        for status in self.seen("status"):
            self.assertIn(f"Uid:\t{nobody}\n", status)
            for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
                self.assertRegex(status, f"{name}:\t0+\n")
        for name in ("cmdline", "environ"):
            self.assertNotIn(self.PASSWORD, "".join(self.seen(name)))
        places = {path.partition("/")[0] for path in self.made}
        self.assertEqual(places - {"spool", "mail"}, set())
        for path in self.made:
            found = self.folder / path
            rights = found.lstat().st_mode & 0o066
            self.assertEqual(rights & ~PUBLIC.get(path, 0), 0, path)


class ToolTests(RootCase):
    """Root's tools act as the owner of the spool."""

    def setUp(self) -> None:
        super().setUp()
        self.spool = self.make_spool()
        self.server(run_as="root", peers={"provider": PROVIDER}, users="users.yaml")

    def test_what_they_leave(self) -> None:
        """Nothing in the spool is root's, whichever comes first."""
        self.assertEqual(run_mta(self.folder, "explain", "bob@office.example").returncode, 0)
        sent = run_mta(self.folder, "sendmail", "-v", "bob", stdin="Subject: x\n\nbody\n")
        self.assertEqual(sent.returncode, 0, sent.stderr)
        (self.folder / "mta.yaml").chmod(0o600)
        for words in (["queue", "list"], ["queue", "hold", "--all"], ["peers"]):
            run = run_mta(self.folder, *words)
            self.assertEqual(run.returncode, 0, run.stderr)
        found = owners(self.spool)
        self.assertEqual(set(found.values()), {NOBODY.pw_uid}, found)

    def test_the_author_is_who_calls(self) -> None:
        """It is root who writes, whoever keeps it."""
        run_mta(self.folder, "sendmail", "bob", stdin="Subject: x\n\nbody\n")
        listed = run_mta(self.folder, "queue", "list").stdout
        self.assertIn("root@office.example", listed)
        queue_id = re.findall(r"\b[0-9A-Z]{12,}\b", listed)[0]
        shown = run_mta(self.folder, "queue", "show", queue_id, "--content").stdout
        self.assertIn("(from userid 0)", shown)

    def test_links_are_not_followed(self) -> None:
        """What the spool's owner points elsewhere is not written to with the rights of root."""
        target = self.folder / "target"
        target.write_text("precious")
        target.chmod(0o600)
        for name in ("srs.key", "commit.lock", "queue.sqlite"):
            (self.spool / name).symlink_to(target)
        for words in (["explain", "bob@office.example"], ["queue", "list"], ["turn", "provider"]):
            run_mta(self.folder, *words)
        self.assertEqual(target.read_text(), "precious")
        self.assertEqual(target.stat().st_uid, 0)

    def test_turn(self) -> None:
        """``mta turn`` works as the owner: it fails here for want of a provider, and not before."""
        run = run_mta(self.folder, "turn", "provider")
        self.assertIn("127.0.0.1", run.stderr)
        found = owners(self.spool)
        self.assertEqual(set(found.values()), {NOBODY.pw_uid}, found)

    def test_users_in_a_folder_of_root(self) -> None:
        """The users file is written there all the same, for the server's user to read."""
        for _ in range(2):
            run = run_mta(self.folder, "user", "add", "--password-stdin", "al", stdin="secret\n")
            status = (self.folder / "users.yaml").stat()
            self.assertEqual((status.st_uid, status.st_mode & 0o777), (NOBODY.pw_uid, 0o600))
            run_mta(self.folder, "user", "del", "al")
        self.assertEqual(run.returncode, 0, run.stderr)

    def test_turn_on_a_spool_of_root(self) -> None:
        """Nobody to become: refused, unless that is said to be meant."""
        shutil.chown(self.spool, 0)
        forget_run_as(self.folder / "mta.yaml")
        run = run_mta(self.folder, "turn", "provider")
        self.assertRegex(run.stderr, r"\Amta: refusing to deliver mail as root[^\n]*\n\Z")


class EarlyTests(SynchronousTestCase):
    """What root imports before it becomes a user who may not read the program."""

    def test_all_but_stand_ins(self) -> None:
        """All modules of the program, and nothing that is for tests."""
        code = (
            "import sys; from mta import privileges;"
            " privileges._is_open_to_all = lambda path: False;"
            " privileges._load_early(); print(*sys.modules)"
        )
        ended = subprocess.run(
            [sys.executable, "-c", code],
            env=source_environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        modules = set(ended.stdout.split())
        self.assertLessEqual({"mta", "mta.service", "mta.service.exchange"}, modules)
        self.assertEqual(modules & {"mta.testing", "twisted.trial", "mta.__init__"}, set())


class AccountTests(SynchronousTestCase):
    """Who the server is."""

    def test_the_nearest_folder(self) -> None:
        """A spool that is not there yet will be its folder's owner's."""
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        account = privileges.server_account(Settings("mta", spool=str(folder / "a" / "b")))
        self.assertEqual(account.uid, folder.stat().st_uid)

    def test_a_number_without_a_name(self) -> None:
        """A number is enough."""
        self.assertEqual(str(privileges.Account(4711, 4711)), "4711")
