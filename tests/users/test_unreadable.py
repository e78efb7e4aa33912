"""The users file can't be read while the server runs: nobody is kept out, and nothing is missed."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from mta.session import Session
from mta.settings import Service
from mta.smtp import sasl
from mta.smtp.sasl import AuthenticationFailed
from mta.users import file as file_module
from mta.users.local import Users
from mta.users.renewed import RenewedPasswords
from tests.users.test_users import ROUTER, TLS, FakeReactor, FakeThreads, FileTestCase, _silent

ERRORS = (errno.EACCES, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE)
HALF_WRITTEN = (
    b"",
    b"decoy: eHg=\n",
    b"decoy: eHg=\nusers:\n",
    b"decoy: eHg=\nusers:\n  alice:\n    pass",
    b"decoy: eHg=\nusers:\n  alice: {password: '$scr",
    b"\x00" * 4096,
    b"\xff\xfe",
)


class UnreadableTests(FileTestCase):
    """A server with a user, in front of files that fail."""

    def setUp(self) -> None:
        super().setUp()
        self.file.add("alice", "wonderland")
        self.users = Users(
            self.file,
            ROUTER,
            FakeReactor(),  # type: ignore[arg-type]
            FakeThreads(),  # type: ignore[arg-type]
            renewed=RenewedPasswords(self.folder),
        )

    def log_in(self, name: str, password: str) -> str:
        """Log in by PLAIN; returns the name, empty where that fails."""
        session = Session(Service.SUBMISSION, "192.0.2.1", TLS)
        response = f"\0{name}\0{password}".encode()
        attempt = self.users.authenticate(session, sasl.PLAIN, response, _silent)
        done = Deferred.fromCoroutine(attempt)
        done.addErrback(lambda failure: failure.trap(AuthenticationFailed) and "")
        return str(self.successResultOf(done))

    def assert_told_once(self, events: list[Any]) -> None:
        """One line in the log names the file."""
        problems = [event for event in events if event["log_level"].name == "error"]
        self.assertEqual(len(problems), 1, problems)
        self.assertIn("users.yaml", problems[0]["fault"])

    def failing(self, call: str, error: int) -> Any:
        """Let one kind of call on the users file fail."""

        def fail(path: Path, *arguments: Any, **named: Any) -> Any:
            if path == self.path:
                raise OSError(error, os.strerror(error), str(path))
            return real(path, *arguments, **named)

        owner, name = (file_module, "open_regular") if call == "open" else (Path, "stat")
        real = getattr(owner, name)
        return patch.object(owner, name, fail)

    def test_calls_that_fail(self) -> None:
        """Users log in all the same, one line says why, and a later log-in finds the new ones."""
        for number, error in enumerate(ERRORS):
            for call in ("open", "stat"):
                name = f"{call}-{number}"
                self.file.add(name, "builder")
                with capturedLogs() as events:
                    with self.failing(call, error):
                        for _ in range(3):
                            self.assertEqual(self.log_in("alice", "wonderland"), "alice")
                            self.assertEqual(self.log_in(name, "builder"), "")
                    self.assertEqual(self.log_in(name, "builder"), name)
                self.assert_told_once(events)
                self.users._limited._next.clear()

    def test_half_written(self) -> None:
        """A file that an editor has not written to its end keeps nobody out."""
        for text in HALF_WRITTEN:
            whole = self.path.read_bytes()
            with capturedLogs() as events:
                self.path.write_bytes(text)
                for _ in range(3):
                    self.assertEqual(self.log_in("alice", "wonderland"), "alice")
                self.path.write_bytes(whole)
                self.file.set_password("alice", "wonderland")
                self.assertEqual(self.log_in("alice", "wonderland"), "alice")
            self.assert_told_once(events)
            self.users._limited._next.clear()

    def test_gone_after_that(self) -> None:
        """A file that could not be read, and is removed then, has no users."""
        self.file.add("bob", "builder")
        with self.failing("open", errno.EIO):
            self.assertEqual(self.log_in("alice", "wonderland"), "alice")
        self.path.unlink()
        self.assertEqual(self.log_in("alice", "wonderland"), "")
