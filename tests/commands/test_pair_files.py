"""The files that ``mta pair`` makes in the office."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mta.commands.pair_files import LinkFiles, prepare_folders
from mta.mail import Agent, Hop
from mta.settings import Domain, Settings

CONFIG = """\
hostname: office.example.com
routes:
  partner.example: {to: "smtp://other.example", user: us, secret: {file: relay.secret}}
peers:
  relay:
    connect: {to: "smtps://mail.example.com", user: office, secret: {file: %s}}
    domains: [example.com]
"""


class SecretTests(SynchronousTestCase):
    """The file of a link's secret is the link's alone."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.config = Path(folder.name) / "mta.yaml"
        self.config.write_text(CONFIG % "relay.secret")

    def name(self, relay: str = "relay") -> str:
        """The name of the file."""
        return LinkFiles(self.config, relay).secret().name

    def test_a_new_one(self) -> None:
        """It has the name of no other kind of secret."""
        self.assertEqual(self.name("vps"), "peer-vps.secret")

    def test_an_older_one(self) -> None:
        """It goes on, where no other host has its secret there."""
        self.assertEqual(self.name(), "peer-relay.secret")
        self.config.write_text(CONFIG % "vps.secret")
        self.assertEqual(self.name(), "vps.secret")
        text = self.config.read_text().replace("{file: vps.secret}", "hush")
        self.config.write_text(text)
        self.assertEqual(self.name(), "peer-relay.secret")

    def test_removal(self) -> None:
        """A file that another entry names stays."""
        shared, own = (self.config.parent / name for name in ("relay.secret", "peer-x.secret"))
        for path in (shared, own):
            path.write_text("secret")
            LinkFiles(self.config, "relay").remove(path)
        self.assertTrue(shared.exists())
        self.assertFalse(own.exists())


class FolderTests(SynchronousTestCase):
    """The folders of mailboxes, which only root can make below /var/mail."""

    def setUp(self) -> None:
        if os.geteuid() != 0:
            self.skipTest("only root gives folders away")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.mail = Path(folder.name) / "mail"
        self.mail.mkdir()
        domain = Domain("example.com", Hop(Agent.MAILDIR, f"{self.mail}/{{domain}}/{{local}}"))
        second = replace(domain, name="second.example")
        self.settings = Settings(
            "office.example",
            str(Path(folder.name) / "spool"),
            run_as="nobody",
            domains={each.name: each for each in (domain, second)},
        )

    def prepared(self) -> list[tuple[str, str]]:
        """The folders that are not there, or not the server's."""
        return list(prepare_folders(self.settings, ["example.com", "second.example", "x.example"]))

    def test_made(self) -> None:
        """Each has a folder of the server's then."""
        folders = [self.mail / name for name in ("example.com", "second.example")]
        self.assertEqual(self.prepared(), [(str(folder), "") for folder in folders])
        for folder in folders:
            status = folder.stat()
            self.assertEqual((folder.owner(), status.st_mode & 0o777), ("nobody", 0o750))
        self.assertEqual(self.prepared(), [])

    def test_somebody_else_s(self) -> None:
        """What is there stays as it is, and the command that mends it is named."""
        folder = self.mail / "example.com"
        folder.mkdir(0o755)
        self.assertIn((str(folder), f"chown nobody {folder}"), self.prepared())
        self.assertEqual(folder.owner(), "root")

    def test_without_root(self) -> None:
        """The command to run is named."""
        self.patch(os, "geteuid", lambda: 1000)
        folder = self.mail / "example.com"
        self.assertIn(
            (str(folder), f"install -d -o nobody -m 750 {folder}"),
            self.prepared(),
        )

    def test_where_the_server_may_write(self) -> None:
        """Nothing is made: the server does that."""
        shutil.chown(self.mail, "nobody")
        self.assertEqual(self.prepared(), [])
