"""Sealed mail at a relay and its office, as processes; age reads what the relay has lost."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import signal
import smtplib
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mta.sealing.keys import PrivateKey
from mta.spool import queue_id
from tests.interop.reversal import (
    BOB,
    BOBS,
    CAROL,
    CAROLS,
    Provider,
    office,
    run_mta,
)
from tests.processes import MTA, ROOT, Server, body_of, need_program, source_environment, wait_until

CANARY = b"canary-in-the-clear"
OUTSIDER = "x@client.example"
SEALED = {"seal": {"file": "office.age.pub"}, "linger": "1h"}  # of the office's entry
FROM_HERE = {"networks": ["127.0.0.1"]}  # may relay
LOST = {"lost.example": "smtp://127.0.0.1:1"}
SMALL, LARGE = 20 * 1024, 2**20  # octets: in a row, and in a file


def letter(size: int, subject: bytes = CANARY) -> bytes:
    """A message that has the canary in its header section, and in each line of its body."""
    line = CANARY + b" " + b"x" * 40 + b"\r\n"
    return (
        b"From: <x@client.example>\r\nSubject: "
        + subject
        + b"\r\n\r\n"
        + line * (size // len(line))
    )


class SealedCase(SynchronousTestCase):
    """A relay that seals what waits for its office."""

    def setUp(self) -> None:
        self.key = PrivateKey.new()

    def serve(
        self,
        peer: Mapping[str, Any] = SEALED,
        keys: Sequence[PrivateKey] = (),
        **settings: Any,
    ) -> None:
        """Begin to serve.

        `peer` is what the relay says of the office, which has `keys`, or else the one of the test.
        """
        self.relay = Provider(self, peer, **settings)
        text = "".join(f"{key.public}\n" for key in keys or [self.key])
        (self.relay.folder / "office.age.pub").write_text(text)
        self.relay.start()

    def office(self, *keys: PrivateKey, **peer: Any) -> Server:
        """The office with these keys, not started."""
        if keys:
            peer["seal"] = {"key": "office.age"}
        server = office(self, self.relay, every="1s", **peer)
        path = server.folder / "office.age"
        path.write_text("".join(f"{key.text}\n" for key in keys))
        path.chmod(0o600)
        return server

    @property
    def spool(self) -> Path:
        """The spool of the relay."""
        return self.relay.folder / "spool"

    def files(self) -> dict[str, bytes]:
        """All files of the relay's spool, as they are now."""
        found = {}
        for path in self.spool.rglob("*"):
            if path.is_file() and not path.is_symlink():
                try:
                    found[str(path.relative_to(self.spool))] = path.read_bytes()
                except FileNotFoundError:
                    continue  # it was removed meanwhile
        return found

    def assert_nothing_clear(self) -> None:
        """No file of the spool has the canary, nor its base64 or reverse."""
        for name, octets in self.files().items():
            self.assertNotIn(CANARY, octets, name)

    def lost(self) -> list[bytes]:
        """The messages of the relay's spool, opened by age with the key of the office."""
        found = []
        with closing(sqlite3.connect(self.spool / "queue.sqlite")) as database:
            rows = database.execute(
                "SELECT id, in_file, header, data FROM message JOIN content USING (id)"
                " WHERE body LIKE 'sealed %'"
            ).fetchall()
        for number, in_file, header, data in rows:
            file = self.spool / "content" / queue_id.encode(number)
            body = file.read_bytes() if in_file else data
            found.append(b"".join(map(self.opened, (header, body))))
        return found

    def opened(self, octets: bytes) -> bytes:
        """What age makes of them, with the key of the office."""
        identity = self.relay.folder / "backup.age"
        identity.write_text(self.key.text + "\n")
        ended = subprocess.run(
            [need_program(self, "age"), "--decrypt", "--identity", str(identity)],
            input=octets,
            capture_output=True,
            check=False,
            timeout=30,
        )
        self.assertEqual(ended.returncode, 0, ended.stderr.decode())
        return ended.stdout


class AtRestTests(SealedCase):
    """What lies on the disk of the relay."""

    def test_nothing_is_clear(self) -> None:
        """A small message and a large one wait, and no file has a word of them."""
        self.serve()
        for size in (SMALL, LARGE):
            self.relay.send(letter(size), BOB, reverse_path=OUTSIDER)
        self.assert_nothing_clear()
        names = set(self.files())
        self.assertIn("queue.sqlite-wal", names)
        self.assertEqual(sum(name.startswith("content/") for name in names), 1)

    def test_the_canary_would_be_seen(self) -> None:
        """The same messages for a mailbox here are there to be found: the look is a look."""
        self.serve()
        for size in (SMALL, LARGE):
            self.relay.send(letter(size), CAROL, reverse_path=OUTSIDER)
        self.relay.wait_for_mail(CAROLS, 2)
        self.assertTrue(any(CANARY in octets for octets in self.files().values()))

    def test_while_it_arrives(self) -> None:
        """Most of a large message has come, and not its end: nothing is clear, then or later."""
        self.serve()
        content = letter(LARGE)
        with socket.create_connection(("127.0.0.1", self.relay.ports["smtp"]), 10) as connection:
            reader = connection.makefile("rb")
            reader.readline()
            commands = b"HELO x\r\nMAIL FROM:<x@client.example>\r\nRCPT TO:<%s>\r\nDATA\r\n"
            for command in (commands % BOB.encode()).splitlines(keepends=True):
                connection.sendall(command)
                reader.readline()
            connection.sendall(content[: LARGE * 3 // 4])
            arriving = self.spool / "incoming"
            wait_until(
                lambda: sum(path.stat().st_size for path in arriving.iterdir()) > LARGE // 2,
                "it is written while it arrives",
            )
            self.assert_nothing_clear()
            assert self.relay.process is not None
            self.relay.process.signal(signal.SIGKILL)
        self.relay.kill()
        self.assert_nothing_clear()
        self.relay.start()
        self.assert_nothing_clear()

    def test_killed_while_mail_comes(self) -> None:
        """Killed at some moments: nothing is clear, and what had its 250 is there, whole."""
        self.serve()
        taken: list[bytes] = []
        for number in range(4):
            sender = threading.Thread(target=self.send_all, args=(taken, number), daemon=True)
            sender.start()
            wait_until(lambda goal=12 * (number + 1): len(taken) >= goal, "mail is taken")
            self.relay.kill()
            sender.join()
            self.assert_nothing_clear()
            self.relay.start()
        self.relay.kill()
        self.assert_nothing_clear()
        there = b"".join(self.lost())
        for subject in taken:
            self.assertIn(b"Subject: " + subject + b"\r\n", there)

    def send_all(self, taken: list[bytes], run: int) -> None:
        """Send one message after the other until the relay is gone."""
        for number in itertools.count():
            subject = b"%b %d.%d" % (CANARY, run, number)
            size = (SMALL, SMALL, LARGE // 2)[number % 3]
            try:
                self.relay.send(letter(size, subject), BOB, reverse_path=OUTSIDER)
            except (OSError, smtplib.SMTPException):
                return
            taken.append(subject)

    def test_age_opens_what_is_lost(self) -> None:
        """The relay is gone; its disk and the key of the office are enough."""
        self.serve()
        for size in (0, SMALL, LARGE):
            self.relay.send(letter(size), BOB, reverse_path=OUTSIDER)
        self.relay.kill()
        found = self.lost()
        self.assertEqual(len(found), 3)
        for message, size in zip(found, (0, SMALL, LARGE), strict=True):
            self.assertTrue(message.startswith(b"Received: from "), message[:40])
            self.assertTrue(message.endswith(letter(size)))

    def test_the_recovery_of_the_page(self) -> None:
        """The commands of the page, as they stand there, on a copy of the lost relay's disk."""
        need_program(self, "age")
        self.serve()
        self.relay.send(letter(LARGE), BOB, reverse_path=OUTSIDER)
        (listed,) = run_mta(self.relay, "queue", "list", "--json").splitlines()
        self.relay.kill()
        folder = self.relay.folder
        self.spool.rename(folder / "copied")
        text = self.relay.config.read_text()
        (folder / "copy.yaml").write_text(re.sub("(?m)^spool: .*", "spool: copied", text))
        (folder / "provider.age").write_text(f"{self.key.text}\n")
        page = (ROOT / "docs/turn/seal.rst").read_text("utf-8").partition("\nA lost relay\n")[2]
        commands = [line for line in re.findall(r"(?m)^    \$ (.*)", page) if "apt " not in line]
        self.assertEqual(len(commands), 3)
        script = "\n".join(commands).replace("1K19K2VW9M60Z", json.loads(listed)["id"])
        ended = subprocess.run(
            ["bash", "-ec", f'mta() {{ {shlex.join(MTA)} "$@"; }}\n{script}'],
            capture_output=True,
            check=False,
            cwd=folder,
            env=source_environment(),
            text=True,
            timeout=60,
        )
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertIn(str(BOB), ended.stdout)
        found = (folder / "lost.eml").read_bytes()
        self.assertTrue(found.startswith(b"Received: from "), found[:40])
        self.assertTrue(found.endswith(letter(LARGE)))

    def test_a_part_is_for_others(self) -> None:
        """A message for the office and for a mailbox here becomes two."""
        self.serve()
        for size in (SMALL, LARGE):
            self.relay.send(letter(size), BOB, CAROL, reverse_path=OUTSIDER)
        for message in self.relay.wait_for_mail(CAROLS, 2):
            self.assertIn(CANARY, message)
        self.relay.kill()
        self.assertEqual(len(self.lost()), 2)

    def test_a_notice_of_ours(self) -> None:
        """What bounces to the office quotes the mail, and is sealed."""
        queue = {"retry": ["1s"], "give_up_after": "1s"}
        self.serve(relay=FROM_HERE, routes=LOST, queue=queue)
        self.relay.send(letter(SMALL), "x@lost.example", reverse_path=BOB)
        assert self.relay.process is not None
        self.relay.process.wait_for("held bob@office.example")
        self.relay.kill()
        (notice,) = self.lost()
        self.assertIn(b"x@lost.example", notice)
        self.assertIn(CANARY, notice)

    def test_programs_of_the_relay(self) -> None:
        """`mta sendmail` hands mail to the server, so that it is sealed before it is written."""
        self.serve(relay=FROM_HERE)
        run_mta(self.relay, "sendmail", BOB, stdin=letter(SMALL).decode().replace("\r\n", "\n"))
        self.assert_nothing_clear()
        self.relay.kill()
        (message,) = self.lost()
        self.assertIn(CANARY, message)

    def test_bounced_by_hand(self) -> None:
        """The notice of `mta queue bounce` is sealed, too, where it is for the office."""
        self.serve(relay=FROM_HERE, routes=LOST)
        self.relay.send(letter(SMALL), "x@lost.example", reverse_path=BOB)
        run_mta(self.relay, "queue", "bounce", "--to", "x@lost.example")
        self.relay.kill()
        (notice,) = self.lost()
        self.assertIn(b"x@lost.example", notice)

    def test_exported(self) -> None:
        """`mta spool export` writes what age opens, part by part."""
        self.serve()
        self.relay.send(letter(LARGE), BOB, reverse_path=OUTSIDER)
        (listed,) = run_mta(self.relay, "queue", "list", "--json").splitlines()
        id = json.loads(listed)["id"]
        self.assertIn("--part", run_mta(self.relay, "spool", "export", id, status=1))
        found = b""
        for part in ("header", "body"):
            words = ["spool", "export", id, "--part", part, "--config", str(self.relay.config)]
            ended = subprocess.run(
                [*MTA, *words],
                capture_output=True,
                check=True,
                env=source_environment(),
                timeout=30,
            )
            found += self.opened(ended.stdout)
        self.assertTrue(found.endswith(letter(LARGE)))
        run_mta(self.relay, "spool", "check")

    def test_too_old(self) -> None:
        """What is given up goes back by its envelope alone."""
        self.serve(SEALED | {"hold_for": "1s"})
        self.relay.send(letter(SMALL), BOB, reverse_path=CAROL)
        (notice,) = self.relay.wait_for_mail(CAROLS)
        self.assertIn(b"bob@office.example", notice)
        self.assertNotIn(b"age-encryption", notice)
        self.assertNotIn(b"rfc822-headers", notice)
        self.assert_nothing_clear()

    def test_show(self) -> None:
        """`mta queue show --content` says that it can't be shown."""
        self.serve()
        self.relay.send(letter(SMALL), BOB, reverse_path=OUTSIDER)
        (line,) = [
            each for each in run_mta(self.relay, "queue", "list").splitlines() if OUTSIDER in each
        ]
        shown = run_mta(self.relay, "queue", "show", line.split()[0], "--content")
        self.assertIn("sealed", shown)


class OpeningTests(SealedCase):
    """What comes to the office."""

    def test_it_comes_as_it_was(self) -> None:
        """Small and large mail, and mail that came while the link stood."""
        self.serve()
        sizes = (0, SMALL, LARGE)
        for size in sizes:
            self.relay.send(letter(size), BOB, reverse_path=OUTSIDER)
        server = self.office(self.key)
        server.start()
        server.wait_for_mail(BOBS, 3)
        self.relay.send(letter(SMALL, b"later"), BOB, reverse_path=OUTSIDER)
        messages = server.wait_for_mail(BOBS, 4)
        self.assertEqual(
            sorted(len(body_of(message)) for message in messages),
            sorted(len(body_of(letter(size))) for size in (*sizes, SMALL)),
        )
        self.assertNotIn(b"age-encryption", b"".join(messages))

    def test_without_the_keyword(self) -> None:
        """An office without a key gets none of it, and its other mail; a line says so."""
        self.serve()
        self.relay.send(letter(SMALL), BOB, reverse_path=OUTSIDER)
        server = self.office()
        server.start()
        assert self.relay.process is not None
        self.relay.process.wait_for("sealed")
        shown = wait_until(
            lambda: "sealed" in (text := run_mta(self.relay, "peers")) and text, "a clear line"
        )
        self.assertIn("1", shown)
        server.stop()
        server = self.office(self.key)
        server.start()
        server.wait_for_mail(BOBS)

    def test_another_key(self) -> None:
        """What can't be opened stays at the relay; the office's postmaster is told."""
        self.serve()
        self.relay.send(letter(SMALL), BOB, reverse_path=OUTSIDER)
        server = self.office(PrivateKey.new())
        server.start()
        assert server.process is not None
        server.process.wait_for("can't be opened")
        self.assertIn("1", run_mta(self.relay, "peers"))
        server.stop()
        server = self.office(PrivateKey.new(), self.key)
        server.start()
        server.wait_for_mail(BOBS)

    def test_several_keys(self) -> None:
        """In a rotation mail is sealed to the old key and the new one: either opens it."""
        new = PrivateKey.new()
        self.serve(keys=[self.key, new])
        self.relay.send(letter(SMALL), BOB, reverse_path=OUTSIDER)
        server = self.office(new)
        server.start()
        server.wait_for_mail(BOBS)

    def test_passed_through(self) -> None:
        """While the link stands it crosses in the same form, and the office's answer counts."""
        self.serve(SEALED | {"pass_through": True})
        server = self.office(self.key)
        server.start()
        self.relay.wait_for_links()
        self.relay.send(letter(SMALL), BOB, reverse_path=OUTSIDER)
        (message,) = server.wait_for_mail(BOBS)
        self.assertIn(CANARY, message)
        self.assert_nothing_clear()
        server.stop()
        self.relay.send(letter(LARGE), BOB, reverse_path=OUTSIDER)
        self.assert_nothing_clear()
        server.start()
        server.wait_for_mail(BOBS, 2)

    def test_at_the_limit(self) -> None:
        """What the seal adds counts against no limit."""
        self.serve()
        limits = {"limits": {"message_size": "100KiB"}}
        for _ in range(2):
            size = 100 * 1024 - 1024
            self.relay.send(letter(size), BOB, reverse_path=OUTSIDER)
        server = self.office(self.key, keys=limits)
        server.start()
        server.wait_for_mail(BOBS, 2)


class CommandTests(SealedCase):
    """From the first key to the next one, by commands alone, with both servers up."""

    def test_by_commands(self) -> None:
        """What keygen and rotate print is what the relay needs, and mail comes all the while."""
        self.serve({"linger": "1h"})
        server = self.office()
        server.start()
        for count, word in enumerate(("keygen", "rotate"), 1):
            said = self.run_and_reload(server, "seal", word, "provider")
            line = next(each for each in said.splitlines() if each.startswith("mta seal accept"))
            self.run_and_reload(self.relay, *line.split()[1:])
            self.relay.send(letter(SMALL), BOB, reverse_path=OUTSIDER)
            server.wait_for_mail(BOBS, count)
            self.assert_nothing_clear()
        self.assertNotIn("AGE-SECRET-KEY", self.relay.log + server.log)

    def run_and_reload(self, server: Server, *words: str) -> str:
        """Run a command, and wait until the server has read its configuration again."""
        assert server.process is not None
        before = len(server.process.output)
        said = run_mta(server, *words)
        server.process.wait_for("read again", after=before)
        return said


class LargeTests(SealedCase):
    """A message of 50 MiB."""

    def test_memory(self) -> None:
        """Neither relay nor office needs much more for it than for a small one."""
        self.serve()
        server = self.office(self.key)
        server.start()
        self.relay.send(letter(LARGE), BOB, reverse_path=OUTSIDER)
        server.wait_for_mail(BOBS)
        servers = (self.relay, server)
        before = [each.most_memory for each in servers]
        self.relay.send(letter(49 * 2**20), BOB, reverse_path=OUTSIDER)
        server.wait_for_mail(BOBS, 2, timeout=120)
        growth = [each.most_memory - old for each, old in zip(servers, before, strict=True)]
        self.assertLess(max(growth), 12 * 2**20)
        self.assert_nothing_clear()
