"""``mta log``: what the server did, with filters."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from unittest.mock import patch

from mta.commands.log_sources import following
from tests.commands.test_commands import CommandCase, Output
from tests.processes import source_environment

ID, OTHER = "1K10RN776CB0S", "1K10RN8BM4APP"


def line(age: float, text: str, level: str = "info") -> str:
    """A line of the log, so many seconds old."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%S+0000", time.gmtime(time.time() - age))
    return f"{moment} {level:5} {text}\n"


class LogTests(CommandCase):
    """``mta log``."""

    def setUp(self) -> None:
        super().setUp()
        self.configure(log={"file": "log/mta.log"})
        self.log = self.folder / "log" / "mta.log"
        self.log.parent.mkdir()
        self.older = [line(7200, f"{ID} accepted <a@x.example> from 192.0.2.1 by ESMTP: 1 octets")]
        self.lines = [
            line(60, f"{OTHER} accepted <b@x.example> from 192.0.2.1 by ESMTP: 1 octets"),
            line(50, f"{ID} deferred bob@y.example by mx:y.example: 451 4.4.1 Later", "warn"),
            line(40, f"{OTHER} removed"),
            line(30, "ready"),
        ]
        (self.folder / "log" / "mta.log.1.gz").write_bytes(
            gzip.compress("".join(self.older).encode())
        )
        self.log.write_text("".join(self.lines))

    def test_all(self) -> None:
        """The log as it is, with what was rotated, for a program that reads it."""
        self.assertEqual(self.succeed("log"), "".join([*self.older, *self.lines]))

    def test_filters(self) -> None:
        """What fits every part."""
        self.assertEqual(self.succeed("log", "--since", "1h"), "".join(self.lines))
        self.assertEqual(self.succeed("log", "--id", ID.lower()), self.older[0] + self.lines[1])
        self.assertEqual(self.succeed("log", "--level", "warn"), self.lines[1])
        self.assertEqual(
            self.succeed("log", "--event", "deferred", "--domain", "y.example"), self.lines[1]
        )
        self.assertEqual(
            self.succeed("log", "--from", "a@x.example"), self.older[0] + self.lines[1]
        )
        [found] = map(json.loads, self.succeed("log", "--event", "ready", "--json").splitlines())
        self.assertEqual(found["message"], "ready")

    def test_by_message(self) -> None:
        """Each message's life in one piece; then the rest."""
        first, second, third, fourth = self.lines
        self.assertEqual(
            self.succeed("log", "--by-message"),
            "".join([*self.older, second, first, third, fourth]),
        )
        self.assertIn("--follow", self.fail_with("log", "--by-message", "-f", status=2))

    def test_nothing(self) -> None:
        """It says where it looked."""
        said = self.fail_with("log", "--event", "rejected")
        self.assertIn(str(self.log.resolve()), said)

    def test_terminal(self) -> None:
        """Columns and colours for a person; without colours where NO_COLOR is set."""
        environ = {"TERM": "xterm", "PAGER": ""}
        for extra, shown in ((environ, f"\x1b[1m{ID}\x1b[0m"), (environ | {"NO_COLOR": "1"}, ID)):
            with (
                patch.object(Output, "isatty", return_value=True),
                patch.dict(os.environ, extra),
            ):
                output = self.succeed("log", "--level", "warn")
            self.assertIn(f"  {shown}  deferred bob@y.example by mx:y.example: 451", output)

    def test_trace_on_a_terminal(self) -> None:
        """The same columns, but for the id, which is known."""
        with (
            patch.object(Output, "isatty", return_value=True),
            patch.dict(os.environ, {"NO_COLOR": "1"}),
        ):
            output = self.succeed("trace", ID)
        self.assertNotIn(ID, output)
        self.assertIn("warn      deferred bob@y.example", output)

    def test_the_journal_is_followed(self) -> None:
        """Without a log file, journalctl is asked to go on."""
        self.configure()
        script = self.folder.resolve() / "journalctl"
        entry = json.dumps({"MESSAGE": self.lines[3].rstrip("\n")})
        script.write_text(f"#!/bin/sh\necho \"$@\" > {script}.said\necho '{entry}'\n")
        script.chmod(0o755)
        self.patch(os, "environ", os.environ | {"PATH": f"{script.parent}:{os.environ['PATH']}"})
        self.assertEqual(self.succeed("log", "-f"), self.lines[3])
        self.assertIn("--follow", script.with_name("journalctl.said").read_text())

    def test_follow(self) -> None:
        """A real process shows what comes, at once."""
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from mta.commands import main; main()",
                "log",
                "-f",
                "--since",
                "1h",
            ],
            env=source_environment() | {"MTA_CONFIG": str(self.config.absolute())},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        self.assertEqual(process.stdout.readline(), self.lines[0])
        with self.log.open("a") as log:
            log.write(line(0, "new"))
        rest = iter(process.stdout.readline, "")
        self.assertTrue(any(each.endswith(" new\n") for each in rest))


class FollowingTests(CommandCase):
    """A file that is followed, with what happens while nothing comes."""

    def follow(self, *happenings: str) -> Iterator[str]:
        """The lines, with one thing that happens at each pause."""
        self.log = self.folder / "mta.log"
        self.log.write_text("one\n")
        waiting = iter(happenings)

        def wait() -> None:
            happening = next(waiting)
            if happening == "rotate":
                with self.log.open("a") as log:
                    log.write("last of the old\n")
                self.log.rename(self.folder / "mta.log.1")
            elif happening == "empty":
                self.log.write_text("")
            elif happening == "new":
                self.log.write_text("first of the new\n")
            else:
                with self.log.open("a") as log:
                    log.write(happening)

        return filter(None, following(str(self.log), wait))

    def test_half_lines(self) -> None:
        """A line is one when it has ended."""
        lines = self.follow("two, ", "whole\n")
        self.assertEqual([next(lines), next(lines)], ["one\n", "two, whole\n"])

    def test_rotation(self) -> None:
        """The end of the old file is shown, then the new one; also where that comes late."""
        lines = self.follow("rotate", "new")
        self.assertEqual(
            [next(lines) for _ in range(3)], ["one\n", "last of the old\n", "first of the new\n"]
        )

    def test_emptied(self) -> None:
        """A file that was copied and emptied begins again."""
        lines = self.follow("empty", "two\n")
        self.assertEqual([next(lines), next(lines)], ["one\n", "two\n"])
