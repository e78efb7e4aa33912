"""``mta explain`` and ``mta trace``: where mail goes, and where it went."""

from __future__ import annotations

import gzip
import json
import os
import re
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.logger import ILogObserver, LogEvent, LogLevel

from mta.commands.console import router_of
from mta.config import load
from mta.logs.writer import observer
from mta.mail import Mailbox
from mta.settings import Log
from mta.spool.queue_id import arrival, decode
from mta.spool.tools import SpoolTools
from tests.commands.test_commands import CommandCase, Output
from tests.processes import Server, configuration

ID, OTHER = "1K10RN776CB0S", "1K10RN8BM4APP"

TEXT = f"""\
2026-11-24T14:00:00+0000 info  {ID} accepted <a@x.example> from 192.0.2.1 by ESMTP: 12 octets
2026-11-24T14:00:00+0000 info  {OTHER} accepted <a@x.example> from 192.0.2.1 by ESMTP: 13 octets
2026-11-24T14:00:02+0000 error {ID} can't be routed
\tTraceback (most recent call last):
\tKeyError: 'x\x1b'
2026-11-24T14:00:03+0000 info  listening on tcp:25 (smtp)
"""
JSON = "".join(
    json.dumps({"time": f"2026-11-24T14:00:0{second}+0000", "level": "info"} | fields) + "\n"
    for second, fields in (
        (1, {"message": f"{ID} deferred", "queue_id": ID, "hop": "mx:x.example"}),
        (2, {"message": f"{OTHER} deferred", "queue_id": OTHER}),
        (5, {"message": f"{ID} removed", "queue_id": ID}),
    )
)


def event(text: str, level: Any = LogLevel.info, namespace: str = "mta.service") -> LogEvent:
    """Something to log."""
    return {"log_time": 0.0, "log_level": level, "log_namespace": namespace, "log_format": text}


class ExplainTests(CommandCase):
    """``mta explain``."""

    def configure(self, **keys: object) -> None:
        """Some domains, aliases and routes."""
        domain = {
            "deliver": "maildir:/mail/{domain}/{local}",
            "mailboxes": ["alice", "bob"],
            "aliases": {"sales": ["bob", "team"], "team": ["alice", "carol@partner.example"]},
        }
        catching = {"deliver": "lmtp+unix:/run/lmtp", "catch_all": "all", "mailboxes": ["all"]}
        forward = {"bob": {"to": "b@partner.example", "keep": True}, "ann": "a@partner.example"}
        forwarding = domain | {"aliases": {}, "mailboxes": ["ann", "bob"], "forward": forward}
        super().configure(
            domains={
                "office.example": domain,
                "catching.example": catching,
                "forwarding.example": forwarding,
                "other.example": {"alias_of": "office.example"},
            },
            senders={"boss@office.example": "smtp://boss.example"},
            routes={
                "partner.example": "smtp://10.0.0.5:2525",
                ".inner.example": "lmtp://10.0.0.6",
                "default": "smtps://user:word@relay.example",
            },
            **keys,
        )

    def test_aliases(self) -> None:
        """Each alias with all that is behind it, and the hop of each address."""
        self.assertEqual(
            self.succeed("explain", "Sales@office.example"),
            "Sales@office.example: an alias for bob@office.example, team@office.example\n"
            "  bob@office.example: a mailbox, by maildir:/mail/{domain}/{local}\n"
            "  team@office.example: an alias for alice@office.example, carol@partner.example\n"
            "    alice@office.example: a mailbox, by maildir:/mail/{domain}/{local}\n"
            "    carol@partner.example: route partner.example, by smtp://10.0.0.5:2525\n",
        )

    def test_subaddress_catch_all_and_routes(self) -> None:
        """The setting that decides is named; a secret never is."""
        for address, expected in (
            ("bob+x@office.example", "a mailbox of bob@office.example, by maildir:"),
            ("x@catching.example", "no mailbox: catch_all, so all@catching.example"),
            ("x@a.b.inner.example", "route .inner.example, by lmtp://10.0.0.6:24"),
            ("x@inner.example", "route default, by smtps://relay.example:465\n"),
            ("alice", "alice@office.example: a mailbox"),
            ("bob@other.example", "alias_of another, so bob@office.example\n  bob@office.ex"),
            (
                "ann@forwarding.example",
                "forwarded to a@partner.example\n  a@partner.example: route",
            ),
            (
                "bob@forwarding.example",
                "forwarded, with a copy kept here, to b@partner.example, by maildir:",
            ),
            ("postmaster", "postmaster@office.example: somebody must read it"),
        ):
            with self.subTest(address):
                self.assertIn(expected, self.succeed("explain", address))

    def test_senders(self) -> None:
        """A sender may have a route of its own."""
        output = self.succeed("explain", "x@y.example", "--from", "boss@office.example")
        self.assertIn("sender boss@office.example, by smtp://boss.example:25", output)

    def test_srs(self) -> None:
        """An address that forwarding made is known by what it stands for."""
        SpoolTools(self.folder / "spool").close()
        settings = load(self.config.resolve())
        rewritten = router_of(settings).rewritten(
            Mailbox("ann", "x.example"), Mailbox("bob", "forwarding.example")
        )
        self.assertIn("back to ann@x.example", self.succeed("explain", str(rewritten)))

    def test_no_spool(self) -> None:
        """A look leaves nothing that a spool in use would have."""
        (self.folder / "spool").mkdir(exist_ok=True)
        self.succeed("explain", "x@y.example")
        self.assertEqual([], list((self.folder / "spool").iterdir()))

    def test_nobody(self) -> None:
        """What would be refused fails, with the reply."""
        status, output, errors = self.run_command("explain", "x@office.example")
        self.assertEqual(
            (status, output), (1, "x@office.example: refused: 550 5.1.1 No such user here\n")
        )
        self.assertEqual(errors, "mta: x@office.example: 550 5.1.1 No such user here\n")
        self.assertIn("not an address", self.fail_with("explain", "a b"))
        self.assertIn("not an address", self.fail_with("explain", "a, b"))

    def test_json(self) -> None:
        """One document, with a list of steps."""
        document = json.loads(self.succeed("explain", "bob+x@office.example", "--json"))
        self.assertEqual(
            document["steps"],
            [
                {
                    "address": "bob+x@office.example",
                    "why": "mailbox",
                    "targets": [],
                    "final": "bob@office.example",
                    "hop": "maildir:/mail/{domain}/{local}",
                    "reply": None,
                }
            ],
        )

    def test_once_on_a_terminal(self) -> None:
        """A refusal is not told twice where both streams are read by the same person."""
        refused = "nobody@office.example"
        for is_terminal, count in ((True, 1), (False, 2)):
            with patch.object(Output, "isatty", return_value=is_terminal):
                status, output, errors = self.run_command("explain", refused)
            self.assertEqual((status, (output + errors).count("550 5.1.1")), (1, count))


class TraceTests(CommandCase):
    """``mta trace``."""

    def test_text(self) -> None:
        """The lines of that message, with what belongs to them, and no control characters."""
        (self.folder / "log").write_text(TEXT)
        self.assertEqual(
            self.succeed("trace", ID.lower(), "--log", str(self.folder / "log")),
            f"2026-11-24T14:00:00+0000 info  {ID} accepted <a@x.example> from 192.0.2.1 by ESMTP:"
            " 12 octets\n"
            f"2026-11-24T14:00:02+0000 error {ID} can't be routed\n"
            "    Traceback (most recent call last):\n"
            "    KeyError: 'x\ufffd'\n",
        )

    def test_several_logs(self) -> None:
        """Text and JSON, compressed or not, in the order of time."""
        (self.folder / "a").write_text(JSON)
        (self.folder / "b.gz").write_bytes(gzip.compress(TEXT.encode()))
        logs = ("--log", str(self.folder / "a"), "--log", str(self.folder / "b.gz"))
        output = self.succeed("trace", ID, *logs)
        self.assertEqual(
            [line.split()[3] for line in output.splitlines() if not line.startswith(" ")],
            ["accepted", "deferred", "can't", "removed"],
        )
        events = [
            json.loads(line) for line in self.succeed("trace", ID, *logs, "--json").splitlines()
        ]
        self.assertEqual([event["level"] for event in events], ["info", "info", "error", "info"])
        self.assertEqual(events[1]["hop"], "mx:x.example")

    def test_standard_input_from_a_system_log(self) -> None:
        """What journalctl prints before each line does no harm."""
        journal = f"Nov 24 host twistd[1]: {TEXT.splitlines()[0]}\nNov 24 host x: {ID} {{odd\n"
        output = self.succeed("trace", ID, "--log", "-", stdin=journal)
        self.assertIn(f"T14:00:00+0000 info  {ID} accepted", output)
        self.assertIn(f"Nov 24 host x: {ID} {{odd\n", output)

    def test_the_configured_log(self) -> None:
        """``log.file``, with the rotated ones beside it."""
        self.configure(log={"file": "log/mta.log"})
        (self.folder / "log").mkdir()
        (self.folder / "log" / "mta.log").write_text(JSON)
        (self.folder / "log" / "mta.log.1").write_text(TEXT)
        self.assertEqual(self.succeed("trace", ID).count(ID), 4)

    def test_nothing_found(self) -> None:
        """An unknown id, a missing log, no log at all."""
        (self.folder / "log").write_text(TEXT)
        log = str(self.folder / "log")
        self.assertIn("not in the log", self.fail_with("trace", "1K10RN776CB0T", "--log", log))
        self.assertIn("No such file", self.fail_with("trace", ID, "--log", f"{log}.not"))
        self.assertIn("which log?", self.fail_with("trace", ID))

    def test_a_real_log(self) -> None:
        """What the server writes is what this reads, in both formats."""
        for form in ("text", "json"):
            server = Server(self, configuration(log={"format": form}))
            server.start()
            server.send(b"Subject: x\r\n\r\nbody\r\n", "bob@office.example")
            server.wait_for_mail("office.example/bob")
            server.stop()
            (self.folder / "log").write_text(server.log)
            [queue_id] = re.findall(r"\b([0-9A-Z]{13}) accepted", server.log)[:1]
            output = self.succeed("trace", queue_id, "--log", str(self.folder / "log"))
            words = [line.split()[3] for line in output.splitlines()]
            self.assertEqual(words, ["accepted", "delivered", "removed"])

    def test_the_journal(self) -> None:
        """Where no file is configured it is asked for what is ours since the message came."""
        entries = [
            {"MESSAGE": TEXT.splitlines()[0]},
            {"MESSAGE": f"{ID} was seen by a tool", "PRIORITY": "4"},
            {"MESSAGE": list(f"{ID} \xe9 \x1b".encode()), "PRIORITY": "3"},
            {"MESSAGE": None},
        ]
        stamped = [
            json.dumps(each | {"__REALTIME_TIMESTAMP": "1764000000000000"}) for each in entries
        ]
        script = self.folder.resolve() / "journalctl"
        lines = "\n".join([*stamped, "no JSON"])
        script.write_text(f"#!/bin/sh\necho \"$@\" > {script}.said\ncat <<'E'\n{lines}\nE\n")
        script.chmod(0o755)
        self.patch(os, "environ", os.environ | {"PATH": f"{script.parent}:{os.environ['PATH']}"})
        output = self.succeed("trace", ID).splitlines()
        self.assertEqual(len(output), 3, output)
        self.assertIn(f"2025-11-24T16:00:00+0000 warn  {ID} was seen by a tool", output)
        self.assertIn(f"2025-11-24T16:00:00+0000 error {ID} é \ufffd", output)
        said = Path(f"{script}.said").read_text()
        self.assertIn("_SYSTEMD_UNIT=mta.service + SYSLOG_IDENTIFIER=mta", said)
        self.assertIn(f"--since=@{int(arrival(decode(ID)) - 3600)} ", said)

    def test_no_journal(self) -> None:
        """It says what to do."""
        self.patch(os, "environ", os.environ | {"PATH": "/nowhere"})
        self.assertIn("which log?", self.fail_with("trace", ID))

    def test_what_changes_how_others_look(self) -> None:
        """Directions and the like are escaped in both formats; letters stay."""
        for form in ("text", "json"):
            write, file = self.observer(format=form)
            write(event("to <jürgen\u202egro.evil\u2066@x.example>\U000e0041"))
            line = file.read_text().splitlines()[-1]
            self.assertTrue(line.isprintable(), line)
            self.assertIn("<jürgen\\u202egro.evil\\u2066@x.example>\\udb40\\udc41", line)
        message = json.loads(line)["message"]
        self.assertEqual(message, "to <jürgen\u202egro.evil\u2066@x.example>\U000e0041")

    def observer(self, **settings: Any) -> tuple[ILogObserver, Path]:
        """What the server logs with, and the file that it writes."""
        file = self.folder.resolve() / "mta.log"
        options = {"logfile": None, "nodaemon": True}
        writer = observer(options, Log(file=str(file), **settings))
        assert writer is not None
        return writer, file

    def test_the_server_logs_there(self) -> None:
        """``log.file`` is where the server writes where twistd's options say nothing."""
        write, file = self.observer()
        write(event("ready"))
        self.assertEqual(file.read_text(), "1970-01-01T00:00:00+0000 info  ready\n")

    def test_levels(self) -> None:
        """What is below ``log.level`` is left out, and what Twisted says without need."""
        write, file = self.observer(level="info")
        for level in LogLevel.iterconstants():
            write(event("ours", level))
            write(event("Twisted's", level, "twisted.internet.tcp.Port"))
        lines = [line.split(maxsplit=1)[1] for line in file.read_text().splitlines()]
        serious = [
            f"{name:5} {whose}"
            for name in ("warn", "error", "critical")
            for whose in ("ours", "Twisted's")
        ]
        self.assertEqual(lines, ["info  ours", *serious])

    def test_errors_alone(self) -> None:
        """A higher level is meant for Twisted as well."""
        write, file = self.observer(level="error")
        write(event("ours", LogLevel.warn))
        write(event("Twisted's", LogLevel.warn, "twisted.internet.tcp.Port"))
        write(event("ours", LogLevel.error))
        self.assertEqual(file.read_text(), "1970-01-01T00:00:00+0000 error ours\n")
