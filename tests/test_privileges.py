"""Whose rights the server and the tools work with, where root starts them."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench.tree import processes
from mta import privileges
from mta.settings import Settings
from tests.processes import (
    DEADLINE,
    MTA,
    ROOT,
    Process,
    Server,
    configuration,
    listener,
    local_domain,
    need_program,
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

    def test_log_file_by_another_name(self) -> None:
        """A file of root's to which the user has led the name stays root's."""
        kept, log = self.folder / "kept", self.folder / "mta.log"
        account = privileges.Account(NOBODY.pw_uid, NOBODY.pw_gid)
        for lead in (log.symlink_to, log.hardlink_to):
            kept.write_bytes(b"of root")
            lead(kept)
            with contextlib.suppress(OSError):
                privileges.give(log, account)
            self.assertEqual(kept.stat().st_uid, 0)
            log.unlink()

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
    """What is left to a server that root has started, with a worker, and a hop with a password."""

    PASSWORD = "not-to-be-seen-0815"

    def setUp(self) -> None:
        super().setUp()
        self.make_mail()
        secret = self.folder / "hop.secret"
        secret.write_text(self.PASSWORD)
        secret.chmod(0o600)
        shutil.chown(secret, NOBODY.pw_uid)
        hop = {"to": "smtps://smart.example", "user": "us", "secret": {"file": "hop.secret"}}
        config = configuration(
            run_as="nobody", routes={"default": hop}, queue={"retry": ["1s"], "workers": 2}
        )
        packages = sysconfig.get_path("purelib")  # for an interpreter without them
        environment = source_environment() | {
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": f"{ROOT}:{packages}",
        }
        self.running = Server(self, config, folder=self.folder, environment=environment)
        self.running.command[0] = python_of_all(self)
        self.before = {*owners(self.folder)}

    def start(self) -> list[int]:
        """Start it, and let mail through; returns the ids of its processes."""
        self.addCleanup(os.umask, os.umask(0))
        self.running.launch()
        self.running.wait_until_ready(2 * DEADLINE)  # strace takes its time
        self.running.process.wait_for("worker ready", 2 * DEADLINE)
        self.running.send(MESSAGE, "bob@office.example")
        self.running.wait_for_mail("office.example/bob")
        return [*processes(self.running.process.pid)]

    def test_whatever_it_does(self) -> None:
        """No process has a right of root, shows a secret, or keeps a file of others open."""
        found = self.start()
        self.assertEqual(len(found), 2)
        nobody = "\t".join([str(NOBODY.pw_uid)] * 4)
        group = "\t".join([str(NOBODY.pw_gid)] * 4)
        for pid in found:
            status = Path(f"/proc/{pid}/status").read_text()
            self.assertIn(f"Uid:\t{nobody}\n", status)
            self.assertIn(f"Gid:\t{group}\n", status)
            self.assertNotRegex(status, r"Groups:.*\b0\b")
            for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
                self.assertRegex(status, f"{name}:\t0+\n")
            for name in ("cmdline", "environ"):
                self.assertNotIn(self.PASSWORD.encode(), Path(f"/proc/{pid}/{name}").read_bytes())
            opened = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
            paths = {path for path in opened if path[0] == "/" and path != "/dev/null"}
            spool = f"{self.folder}/spool/"
            self.assertEqual({path for path in paths if not path.startswith(spool)}, set())
            self.assertLessEqual(sum(path.startswith("socket:") for path in opened), 2, opened)
        self.assert_for_itself_alone({*owners(self.folder)} - self.before)

    def assert_for_itself_alone(self, made: set[str]) -> None:
        """These are for its user alone, in spool and mailboxes."""
        self.assertEqual({path.partition("/")[0] for path in made} - {"spool", "mail"}, set())
        for path in made:
            with contextlib.suppress(FileNotFoundError):  # it had its time
                rights = (self.folder / path).lstat().st_mode & 0o066
                self.assertEqual(rights & ~PUBLIC.get(path, 0), 0, path)

    def test_where_it_writes(self) -> None:
        """Once it is its user, no call makes, changes or removes a file anywhere else."""
        strace = need_program(self, "strace")
        trace = self.folder / "trace"
        options = ("-f", "-qq", "-y", "--seccomp-bpf", "-s", "300", "-e", f"trace={WRITING}")
        self.running.command[:0] = [strace, *options, "-o", str(trace)]
        _, server, *_ = self.start()
        os.kill(server, signal.SIGTERM)
        self.running.process.wait()
        written = paths_written(trace.read_text(errors="replace"), self.folder)
        self.assertGreater(len(written), 10)
        ours = tuple(f"{self.folder}/{name}/" for name in ("spool", "mail"))
        self.assertEqual([path for path in written if not f"{path}/".startswith(ours)], [])


# The calls that change what is on the disk, and those by which it becomes its user.
WRITING = (
    "openat,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,"
    "unlinkat,rmdir,mknod,mknodat,chmod,fchmodat,chown,lchown,fchownat,truncate,bind,setresuid,setuid"
)
_CALL = re.compile(r"\d+ +(\w+)\((.*)\) += \d+(?:<(.*)>)?$", re.MULTILINE)
_NAME = re.compile(r'(?:\w+<([^>]*)>, |sun_path=)?"([^"]*)"')


def paths_written(trace: str, folder: Path) -> list[str]:
    """The paths of calls that succeeded after the first process had become another user.

    `folder`: where it runs.
    """
    found: list[str] = []
    is_user = False
    for call, arguments, result in _CALL.findall(trace):
        if call.startswith("set"):
            is_user = True
        elif not is_user:
            continue
        elif call != "openat":
            found += [str(folder / (of or "") / name) for of, name in _NAME.findall(arguments)]
        elif re.search("O_(WRONLY|RDWR|CREAT|TRUNC)", arguments) and result != "/dev/null":
            found.append(result)
    return found


def python_of_all(case: SynchronousTestCase) -> str:
    """An interpreter that each user may start, of the version of ours."""
    system = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (sys.executable, system):
        command = [path, "-c", ""]
        with contextlib.suppress(OSError):
            subprocess.run(command, user=NOBODY.pw_uid, group=NOBODY.pw_gid, check=True)
            return path
    return case.skipTest("no user but root may start this Python")


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
