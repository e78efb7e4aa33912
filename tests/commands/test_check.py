"""``mta check``: what it finds in the place where the server will run."""

from __future__ import annotations

import os
import pwd
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

from mta.sealing.keys import PrivateKey
from mta.settings import CertificatePair
from mta.spool.tools import SpoolTools
from mta.tls.selfsigned import self_signed
from mta.users.file import UserFile
from tests.certificates import Authority
from tests.commands.test_commands import CommandCase
from tests.processes import configuration, local_domain, source_environment, temporary_folder

NOBODY = pwd.getpwnam("nobody")
# All is loaded before: nobody may perhaps not read our own files.
_AS_NOBODY = (
    "import os, mta.commands.check, mta.service.findings, traceback, difflib, encodings.utf_8_sig;"
    f" os.setgroups([]); os.setgid({NOBODY.pw_gid}); os.setuid({NOBODY.pw_uid});"
)
TLS = {"endpoint": "tcp:0:interface=127.0.0.1", "service": "smtp", "tls": "opportunistic"}


class CheckCase(CommandCase):
    """A configuration with nothing wrong, in a folder that other users may enter."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = temporary_folder(self)
        self.config = self.folder / "mta.yaml"

    def check(self, *words: str, **keys: Any) -> tuple[int, str, list[str]]:
        """Status, output and errors of a check of this configuration."""
        self.config.write_text(yaml.safe_dump(configuration(**keys), sort_keys=False))
        status, output, errors = self.run_command("check", "-c", str(self.config), *words)
        return status, output, errors.splitlines()

    def assert_warned(self, words: str, *arguments: str, **keys: Any) -> None:
        """One line about the keys, and nothing that keeps the server from starting."""
        status, output, errors = self.check(*arguments, **keys)
        self.assertEqual((status, output), (0, f"{self.config}: ok\n"), errors)
        [line] = [line for line in errors if words in line] or [f"not in {errors}"]
        self.assertRegex(line, rf"^{self.config}:\d+:\d+: warning: ")

    def assert_refused(self, words: str, *arguments: str, **keys: Any) -> None:
        """One line that says why the server will not start."""
        status, output, errors = self.check(*arguments, **keys)
        self.assertEqual((status, output), (1, ""), errors)
        [line] = [line for line in errors if words in line] or [f"not in {errors}"]
        self.assertRegex(line, rf"^{self.config}:\d+:\d+: (?!warning)")

    def certificate(self, *names: str, **how: Any) -> CertificatePair:
        """A certificate and a key that is for the server alone."""
        pair = Authority(self.folder).issue(*names, **how)
        pair.key.chmod(0o600)
        return pair

    def tls(self, certificate: Path, key: Path, **keys: Any) -> Mapping[str, Any]:
        """Keys with this pair."""
        pair = {"certificate": str(certificate), "key": str(key)}
        return {"listen": [TLS], "tls": pair | keys}


class CheckTests(CheckCase):
    """Each thing that may be wrong."""

    def test_nothing(self) -> None:
        """Then there is one line."""
        self.assertEqual(self.check(), (0, f"{self.config}: ok\n", []))
        pair = self.certificate("mail.office.example")
        found = self.check(**self.tls(pair.certificate, pair.key))
        self.assertEqual(found, (0, f"{self.config}: ok\n", []))

    def test_certificates_that_can_not_be_used(self) -> None:
        """The server does not start with them."""
        one, other = self.certificate("mail.office.example"), self.certificate("b.example")
        text = self.folder / "text.pem"
        text.write_text("text")
        self.assert_refused("is not the key of", **self.tls(one.certificate, other.key))
        self.assert_refused("holds no PEM certificate", **self.tls(text, one.key))
        self.assert_refused("holds no PEM private key", **self.tls(one.certificate, text))
        self.assert_refused(
            "holds no PEM certificate", **self.tls(one.certificate, one.key, ca=str(text))
        )
        second = {"certificate": str(one.certificate), "key": str(other.key)}
        keys = self.tls(one.certificate, one.key, certificates=[second])
        self.assert_refused("is not the key of", **keys)

    def test_certificates_that_others_refuse(self) -> None:
        """The server starts; others would not trust it."""
        authority = Authority(self.folder)
        for words, pair in (
            ("has expired on", authority.issue("mail.office.example", days=-3, file="a")),
            ("expires on", authority.issue("mail.office.example", days=3, file="b")),
            (
                "is not valid before",
                authority.issue("mail.office.example", after=2, days=90, file="c"),
            ),
            ("no certificate is for mail.office.example", authority.issue("b.example")),
        ):
            with self.subTest(words):
                pair.key.chmod(0o600)
                self.assert_warned(words, **self.tls(pair.certificate, pair.key))

    def test_chain(self) -> None:
        """The leaf comes first, and each issuer behind what it issued."""
        pair = self.certificate("mail.office.example")
        authority, stranger = Authority(self.folder, "authority"), Authority(self.folder, "other")
        leaf = pair.certificate.read_text()
        pair.certificate.write_text(authority.path.read_text() + leaf)
        self.assert_refused("must come first", **self.tls(pair.certificate, pair.key))
        pair.certificate.write_text(leaf + stranger.path.read_text())
        self.assert_warned("out of order", **self.tls(pair.certificate, pair.key))

    def test_self_signed(self) -> None:
        """It is said, but only where there is TLS; the one that is there must be a good one."""
        self.assert_warned("using self-signed", listen=[TLS])
        spool = self.folder / "spool"
        spool.mkdir()
        self_signed(spool, "before.example")
        self.assert_warned("is for before.example, and not for", listen=[TLS])
        (spool / "self-signed.pem").write_text("text")
        self.assert_refused("holds no PEM certificate", listen=[TLS])

    def test_authorities_of_clients(self) -> None:
        """They are needed whichever certificate is ours."""
        (self.folder / "ca.pem").write_text("text")
        self.assert_refused("ca.pem: holds no PEM certificate", tls={"client_ca": "ca.pem"})

    def test_root(self) -> None:
        """Root is told that it can't start a server that is to become nobody else."""
        if os.geteuid():
            self.skipTest("only root is")
        self.config.write_text("hostname: m.example.com\nroutes: {}\nlisten: []\nspool: spool\n")
        status, _, errors = self.run_command("check", "-c", str(self.config))
        self.assertEqual(status, 0)
        self.assertIn("started by root, it ends: refusing to deliver mail as root", errors)

    def test_names(self) -> None:
        """Of this host, of peers' users, of whom it is to run as."""
        self.assert_warned("not fully qualified", hostname="mail")
        UserFile(self.folder / "users.yaml").add("branch", "secret")
        peers = {
            name: {"user": name, "domains": ["x.example"], "methods": ["atrn"]}
            for name in ("office", "branch")
        }
        self.assert_warned("no user is called 'office'", peers=peers)
        self.assert_refused("this host has no user 'nobdy'", run_as="nobdy")

    def test_postmaster(self) -> None:
        """Who gets that mail is said where nobody was named."""
        domain = local_domain(mailboxes=["alice"])
        self.assert_warned("no postmaster", domains={"office.example": domain})
        for more in (
            {"aliases": {"postmaster": "alice"}},
            {"mailboxes": ["alice", "postmaster"]},
            {"catch_all": "alice"},
            {"mailboxes": "any"},
        ):
            with self.subTest(more):
                found = self.check(domains={"office.example": domain | more})
                self.assertEqual(found, (0, f"{self.config}: ok\n", []))

    def test_packages(self) -> None:
        """What an extra needs, and how to install that and nothing else."""
        with patch.dict(sys.modules, {"prometheus_client": None}):
            self.assert_refused("pip install prometheus-client", metrics="tcp:0")

    def test_spool(self) -> None:
        """Damaged, of a newer version, or no folder at all."""
        (self.folder / "file").write_text("")
        self.assert_refused("Not a directory", spool="file")
        spool = self.folder / "spool"
        with closing(SpoolTools(spool)):
            pass
        with closing(sqlite3.connect(spool / "queue.sqlite")) as database:
            database.execute("PRAGMA user_version = 99")
        self.assert_refused("made by a newer version")
        for left in spool.glob("queue.sqlite*"):
            left.unlink()
        (spool / "queue.sqlite").write_text("no database" * 1000)
        self.assert_refused("restore it from a backup")
        (spool / "queue.sqlite").unlink()
        (spool / "content").mkdir(exist_ok=True)
        (spool / "content" / "1K18PT7R8XHSS").write_text("content")
        self.assert_refused("queue.sqlite is missing or empty")

    def test_nothing_is_made(self) -> None:
        """A look leaves no spool, no log and no Maildir."""
        self.check(log={"file": "mta.log"}, listen=[TLS])
        self.assertEqual([path.name for path in self.folder.iterdir()], ["mta.yaml"])

    def test_users(self) -> None:
        """Broken, or for everybody to read."""
        users = self.folder / "users.yaml"
        UserFile(users).add("alice", "secret")
        users.chmod(0o644)
        self.assert_warned("password hashes, and is open to all")
        users.write_text("{")
        self.assert_refused("this is not YAML")

    def test_open_secrets(self) -> None:
        """Keys, secrets in files of their own, and secrets in the configuration itself."""
        pair = self.certificate("mail.office.example")
        pair.key.chmod(0o644)
        self.assert_warned("has a private key, and is open", **self.tls(pair.certificate, pair.key))
        secret = self.folder / "relay.secret"
        secret.write_text("secret")
        for mode, words in ((0o644, "relay.secret: has a secret"), (0o640, "")):
            secret.chmod(mode)
            hop = {"to": "smtp://relay.example", "user": "u", "secret": {"file": "relay.secret"}}
            status, _, errors = self.check(routes={"default": hop})
            self.assertEqual((status, len(errors)), (0, bool(words)), errors)
            self.assertIn(words, "".join(errors))
        for hop in ("smtp://u:s@h", {"to": "smtp://h", "user": "u", "secret": "s"}):
            self.config.write_text("")
            self.config.chmod(0o644)
            self.assert_warned("mta.yaml: has a secret", routes={"default": hop})
            self.config.chmod(0o640)
            self.assertEqual(self.check(routes={"default": hop})[2], [])

    def test_places_that_are_not_there(self) -> None:
        """The folder of a log or a socket; sockets and programs that mail goes to."""
        self.assert_refused("there is no such folder", log={"file": "logs/mta.log"})
        listener = {"endpoint": "unix:run/x.sock", "service": "lmtp"}
        self.assert_refused("there is no such folder", listen=[listener])
        self.assert_warned("no such socket", routes={"a.example": "lmtp+unix:lmtp.sock"})
        self.assert_warned("no such socket", users="dovecot:auth.sock")
        self.assert_warned("no such program", routes={"a.example": "pipe:no-such-program x"})
        (self.folder / "file").write_text("")
        domain = local_domain(deliver="maildir:file/{domain}/{local}")
        self.assert_warned("can't be delivered", domains={"a.example": domain})

    def test_ports(self) -> None:
        """A port that another program has, unless that is a server on the same spool."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            listen = [{"endpoint": endpoint, "service": "smtp"}, TLS | {"tls": "off"}]
            self.assert_warned("another program has this port", listen=listen)

    def test_filters(self) -> None:
        """Each can be reached, by either kind of socket; else mail goes by what is configured."""
        path = self.folder / "filter"
        with (
            socket.create_server(("127.0.0.1", 0)) as taken,
            socket.create_server(str(path), family=socket.AF_UNIX),
        ):
            inet = f"inet:127.0.0.1:{taken.getsockname()[1]}"
            milters = [{"socket": inet, "name": "one"}, {"socket": "unix:filter", "name": "two"}]
            self.assertEqual(self.check(milters=milters), (0, f"{self.config}: ok\n", []))
        milters[0]["on_failure"] = "accept"
        words = "the filter one can't be reached: Connection refused; mail is treated by on_failure"
        self.assert_warned(f"{words}: accept", milters=milters)
        self.assert_warned("the filter two can't be reached", milters=milters)

    def test_equal_ports(self) -> None:
        """A port can be had once."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        listen = [{"endpoint": f"tcp:{port}:interface=127.0.0.1", "service": "smtp"}] * 2
        self.assert_refused("another listener here has it", listen=listen)

    def test_addresses(self) -> None:
        """An interface that this host does not have."""
        for host, words in (
            ("192.0.2.77", "no interface of this host"),
            ("no-such-host.invalid", "not known"),
        ):
            listen = [{"endpoint": f"tcp:0:interface={host}", "service": "smtp"}]
            self.assert_warned(words, listen=listen)

    def test_paths_of_sockets(self) -> None:
        """What is no socket, is too long, or another program has, or had."""
        (self.folder / "file").write_text("")

        def listen(path: str) -> list[dict[str, str]]:
            return [{"endpoint": f"unix:{path}", "service": "lmtp"}]

        self.assert_refused("is no socket", listen=listen("file"))
        self.assert_refused("is no socket", listen=listen("."))
        self.assert_refused("107 octets", listen=listen("x" * 108))
        with socket.socket(socket.AF_UNIX) as taken:
            taken.bind(os.fspath(self.folder / "taken.sock"))
            taken.listen()
            self.assert_warned("another program listens", listen=listen("taken.sock"))
        self.assert_warned("no program listens there any more", listen=listen("taken.sock"))
        (self.folder / "taken.sock.lock").symlink_to("1234567")
        self.assertEqual(self.check(listen=listen("taken.sock"))[2], [])


class RightsTests(CheckCase):
    """Root looks with the rights of the server."""

    def setUp(self) -> None:
        super().setUp()
        if os.geteuid():
            self.skipTest("only root can")
        self.folder.chmod(0o755)

    def test_the_owner_of_the_spool(self) -> None:
        """What root can read and he can't is found; nothing is root's afterwards."""
        spool = self.folder / "spool"
        spool.mkdir()
        os.chown(spool, NOBODY.pw_uid, NOBODY.pw_gid)
        users = self.folder / "users.yaml"
        UserFile(users).add("alice", "secret")
        os.chown(users, 0, 0)
        self.assert_refused("users.yaml: Permission denied for the user nobody")
        os.chown(users, NOBODY.pw_uid, NOBODY.pw_gid)
        (self.folder / "logs").mkdir(0o755)
        self.assert_refused(
            "logs: Permission denied for the user nobody", log={"file": "logs/mta.log"}
        )
        (self.folder / "mail").mkdir(0o755)
        self.assert_warned("mail: Permission denied for the user nobody")
        os.chown(self.folder / "mail", NOBODY.pw_uid, NOBODY.pw_gid)
        self.assertEqual(self.check(), (0, f"{self.config}: ok\n", []))
        self.assertEqual(os.geteuid(), 0)

    def test_run_as_and_user(self) -> None:
        """Who it is says the configuration, or the command line."""
        (self.folder / "spool").mkdir()
        self.assert_refused("spool: Permission denied for the user nobody", run_as="nobody")
        self.assert_refused("spool: Permission denied for the user nobody", "--user", "nobody")
        self.assertEqual(self.check("--user", "root")[0], 0)
        (self.folder / "spool").rmdir()
        self.assert_warned("only root can make it", run_as="nobody")
        status, _, errors = self.check("--user", "nobdy")
        self.assertEqual((status, errors), (1, ["mta: this host has no user 'nobdy'"]))

    def test_somebody_else(self) -> None:
        """Who is not root looks with his own rights, and can't know those of ``run_as``."""
        (self.folder / "spool").mkdir(0o700)
        for run_as, status in (("", 1), ("daemon", 0)):
            keys = {"run_as": run_as} if run_as else {}
            text = yaml.safe_dump(
                {"hostname": "m.example.com", "routes": {}, "listen": [], "spool": "spool"} | keys
            )
            self.config.write_text(text)
            program = "import sys; from mta.commands import main; sys.exit(main())"
            ran = subprocess.run(
                [sys.executable, "-c", _AS_NOBODY + program, "check", "-c", str(self.config)],
                env=source_environment(),
                capture_output=True,
                text=True,
            )
            self.assertEqual(ran.returncode, status, ran.stderr)
            words = "what daemon may do is not checked" if run_as else "spool: Permission denied"
            self.assertIn(words, ran.stderr)

    def test_keys_and_secrets(self) -> None:
        """Of the files that the configuration names as well."""
        pair = self.certificate("mail.office.example")
        keys = self.tls(pair.certificate, pair.key)
        self.assert_refused(
            f"{pair.key}: Permission denied for the user nobody", run_as="nobody", **keys
        )
        self.config.chmod(0o600)
        self.assert_refused("Permission denied for the user nobody", run_as="nobody")


class SealTests(CheckCase):
    """The keys to sealed mail."""

    def test_keys(self) -> None:
        """They are of the right kind, and private ones for the server alone."""
        key, path = PrivateKey.new(), self.folder / "keys"
        office = {"peers": {"office": {"user": "office", "seal": {"file": "keys"}}}}
        dialled = {"connect": "smtps://relay.example", "domains": ["office.example"]}
        provider = {"peers": {"provider": {**dialled, "seal": {"key": "keys"}}}}
        self.assert_refused("No such file", **office)
        path.write_text(f"{key.public}\n")
        path.chmod(0o644)
        self.assertEqual(self.check(**office)[0], 0)
        self.assert_refused("expected a private key", **provider)
        path.write_text(f"{key.text}\n")
        self.assert_refused("expected a public key", **office)
        self.assert_warned("the key to sealed mail", **provider)
        path.chmod(0o600)
        self.assertEqual(self.check(**provider)[0], 0)
