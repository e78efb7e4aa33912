"""The filters for fail2ban and CrowdSec, against lines that a server has logged."""

from __future__ import annotations

import base64
import re
import smtplib
import ssl
import subprocess
import textwrap
from typing import ClassVar

import yaml
from twisted.trial.unittest import SynchronousTestCase

from tests.interop.reversal import run_mta
from tests.processes import (
    DEADLINE,
    ROOT,
    Server,
    configuration,
    listener,
    need_program,
    temporary_folder,
)

ATTACKER, SHARED = "127.0.0.2", "127.0.0.1"  # the second is an address of many users
FILTER = ROOT / "etc/fail2ban/filter.d/mta.conf"
PARSER = ROOT / "etc/crowdsec/parsers/s01-parse/mta-logs.yaml"
SCENARIOS = ROOT / "etc/crowdsec/scenarios/mta-log-ins.yaml"
FAILED, BANNED = "mta_failed_log_in", "mta_ban"
# Of grok's own patterns those that ours are made of, as far as log lines go.
GROK = {
    "TIMESTAMP_ISO8601": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:?\d\d)",
    "IP": r"(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]*:[0-9A-Fa-f:.]+)",
    "INT": r"[+-]?\d+",
    "DATA": r".*?",
}


def expression(pattern: str) -> re.Pattern[str]:
    """The regular expression that a grok pattern stands for."""

    def expand(found: re.Match[str]) -> str:
        name, _, field = found[1].partition(":")
        return f"(?P<{field}>{GROK[name]})" if field else GROK[name]

    return re.compile(re.sub(r"%\{([\w:]+)\}", expand, pattern))


class FilterCase(SynchronousTestCase):
    """A server that attackers have been at."""

    _logs: ClassVar[dict[str, str]] = {}

    def lines(self, form: str) -> str:
        """Its log, after two failed log-ins from an attacker, two from a shared address."""
        if form not in self._logs:
            self._logs[form] = self._attacked(form)
        return self._logs[form]

    def _attacked(self, form: str) -> str:
        server = Server(
            self,
            configuration(
                users="users.yaml",
                listen=[listener("submission", "implicit")],
                limits={"auth_failures": 2},
                relay={"networks": [SHARED]},
                log={"format": form},
            ),
        )
        run_mta(server, "user", "add", "alice", "--password-stdin", stdin="right\n")
        server.start()
        for client, user in (
            *((ATTACKER, "alice"), (ATTACKER, "nobody")),
            *((SHARED, "alice"), (SHARED, f"x) from {SHARED}")),
        ):
            self.guess(server.ports["submission"], client, user)
        server.stop()
        return server.log

    def guess(self, port: int, client: str, user: str) -> None:
        """Try one wrong password."""
        plain = base64.b64encode(f"\0{user}\0wrong".encode()).decode()
        context = ssl._create_unverified_context()
        with smtplib.SMTP_SSL(
            *("127.0.0.1", port, "client.example"),
            context=context,
            timeout=DEADLINE,
            source_address=(client, 0),
        ) as connection:
            connection.ehlo()
            self.assertEqual(connection.docmd("AUTH", f"PLAIN {plain}")[0], 535)


class Fail2banTests(FilterCase):
    """What fail2ban finds with our filter."""

    def hosts(self, lines: str, options: str = "", *, is_journal: bool = False) -> list[str]:
        """The host of each line that counts."""
        log = temporary_folder(self) / "log"
        log.write_text(lines)
        program = need_program(self, "fail2ban-regex")
        # The journal tells fail2ban the time, which then looks for none.
        times = ("-d", "{NONE}") if is_journal else ()
        command = [program, "-o", "ip", *times, log, f"{FILTER}{options}"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(found.returncode, 0, found.stderr)
        return sorted(found.stdout.split())

    def test_lines(self) -> None:
        """Each failed log-in counts, or each ban of a host, in either form of the log."""
        need_program(self, "fail2ban-regex")
        for form in ("text", "json"):
            with self.subTest(form):
                lines = self.lines(form)
                self.assertEqual(self.hosts(lines), [SHARED] * 2 + [ATTACKER] * 2)
                self.assertEqual(self.hosts(lines, "[mode=bans]"), [ATTACKER])
                journal = textwrap.indent(lines, "mail twistd[4711]: ")
                found = self.hosts(journal, is_journal=True)
                self.assertEqual(found, [SHARED] * 2 + [ATTACKER] * 2)

    def test_no_forgery(self) -> None:
        """What a client can have put into the log, in a queue id's line, never counts."""
        said = "log-in failed from 192.0.2.1 as alice (1 of 2 in 10 minutes)"
        forged = (
            f"2026-11-27T21:17:17+0000 info  1K10RN776CB0S to <b@c.example>: deferred, 450 {said}",
            f"2026-11-27T21:17:17+0000 warn  1K10RN776CB0S to <b@c.example>: warn  {said}",
            '{"time": "2026-11-27T21:17:17+0000", "level": "info", "system": "mta", "message":'
            f' "\\", \\"level\\": \\"warn\\", \\"system\\": \\"\\", \\"message\\": \\"{said}"}}',
        )
        self.assertEqual(self.hosts("".join(f"{line}\n" for line in forged)), [])
        self.assertEqual(
            self.hosts("".join(f"m t[1]: {line}\n" for line in forged), is_journal=True), []
        )


class CrowdSecTests(FilterCase):
    """What CrowdSec finds with our parser."""

    def test_lines(self) -> None:
        """The lines become events, of the kinds that the scenarios count, by their host."""
        parser = yaml.safe_load(PARSER.read_text())
        kinds = [
            (expression(node["grok"]["pattern"]), node["statics"][0]["value"])
            for node in parser["nodes"]
        ]
        for form in ("text", "json"):
            events = [
                (kind, match["source_ip"])
                for line in self.lines(form).splitlines()
                for pattern, kind in kinds
                if (match := pattern.match(line))
            ]
            wanted = [(FAILED, SHARED)] * 2 + [(FAILED, ATTACKER)] * 2 + [(BANNED, ATTACKER)]
            self.assertEqual(sorted(events), sorted(wanted), form)

    def test_scenarios(self) -> None:
        """They have the keys that CrowdSec asks for, and count what the parser finds."""
        for scenario, kind in zip(
            yaml.safe_load_all(SCENARIOS.read_text()), (FAILED, BANNED), strict=True
        ):
            self.assertLessEqual(
                {"type", "name", "description", "filter", "groupby", "capacity", "leakspeed"},
                set(scenario),
            )
            self.assertIn(f"evt.Meta.log_type == '{kind}'", scenario["filter"])
