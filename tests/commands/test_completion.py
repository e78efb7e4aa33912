"""``mta completion``, as the shells themselves find it."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from textwrap import dedent

from mta.mail import NULL_PATH, Envelope, Mailbox, Recipient
from mta.spool.tools import SpoolTools
from tests.commands.test_commands import CommandCase
from tests.processes import DEADLINE, need_program, source_environment


class ShellCase(CommandCase):
    """A shell that finds our program."""

    def setUp(self) -> None:
        super().setUp()
        program = self.folder.resolve() / "bin" / "mta"
        program.parent.mkdir()
        code = "from mta.commands import main; raise SystemExit(main())"
        program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -c '{code}' \"$@\"\n")
        program.chmod(0o755)
        self.environment = source_environment() | {
            "MTA_CONFIG": str(self.config.resolve()),
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "HOME": str(self.folder.resolve()),
            "TERM": "dumb",
        }

    def fill(self) -> str:
        """Put something of each kind there; returns a queue id."""
        office = {"deliver": "hold:office", "mailboxes": ["carol"]}
        self.configure(
            peers={"office": {"user": "office", "domains": ["held.example"]}},
            domains={"held.example": office},
            users=str(self.folder.resolve() / "users.yaml"),
        )
        self.succeed("user", "add", "dora", "--password-stdin", stdin="secret\n")
        with closing(SpoolTools(self.folder / "spool")) as tools:
            envelope = Envelope(NULL_PATH, (Recipient(Mailbox("carol", "held.example")),))
            return tools.enqueue(envelope, [b"Subject: x\r\n\r\n"])


class BashTests(ShellCase):
    """bash, asked for what follows a command line."""

    def complete(self, *words: str) -> list[str]:
        """What bash would offer for the last of these words."""
        script = self.succeed("completion", "bash")
        line = " ".join(f"'{word}'" for word in ("mta", *words))
        ask = f"{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(words)}; _shtab_mta\n"
        ask = f'compopt() {{ :; }}\n{ask}printf "%s\\n" "${{COMPREPLY[@]}}"\n'
        ended = subprocess.run(
            [need_program(self, "bash"), "--norc", "-u", "-c", ask],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        return ended.stdout.split()

    def test_commands(self) -> None:
        """The commands, and those that belong to one."""
        self.assertLessEqual({"queue", "check", "sendmail", "completion"}, set(self.complete("")))
        self.assertEqual(self.complete("qu"), ["queue"])
        self.assertEqual(self.complete("queue", "re"), ["release", "retry"])
        self.assertEqual(self.complete("completion", ""), ["bash", "zsh", "tcsh", "fish"])
        self.assertIn("--help", self.complete("completion", "-"))

    def test_options(self) -> None:
        """The options of a command, wherever on its line."""
        self.assertEqual(self.complete("queue", "list", "--st"), ["--state"])
        self.assertEqual(self.complete("queue", "list", "--from", "x", "--j"), ["--json"])
        self.assertEqual(self.complete("sendmail", "-t", "--conf"), ["--config"])

    def test_values(self) -> None:
        """The values of an option that has few, and files."""
        self.assertEqual(self.complete("queue", "list", "--state", "h"), ["held"])
        self.assertEqual(self.complete("check", "--config", "mt"), ["mta.yaml"])
        self.assertEqual(self.complete("trace", "--log", "mt"), ["mta.yaml"])
        self.assertEqual(self.complete("import", "aliases", "mt"), ["mta.yaml"])

    def test_what_there_is(self) -> None:
        """Queue ids, peers, users, domains, addresses and kinds of events."""
        queue_id = self.fill()
        self.assertEqual(self.complete("queue", "show", queue_id[:4]), [queue_id])
        self.assertEqual(self.complete("queue", "hold", ""), [queue_id])
        self.assertEqual(self.complete("trace", queue_id[:4]), [queue_id])
        self.assertEqual(self.complete("turn", ""), ["office"])
        self.assertEqual(self.complete("log", "--peer", "o"), ["office"])
        self.assertEqual(self.complete("user", "passwd", "d"), ["dora"])
        self.assertEqual(self.complete("queue", "flush", "h"), ["held.example"])
        self.assertEqual(self.complete("explain", "c"), ["carol@held.example"])
        self.assertEqual(self.complete("log", "--event", "de"), ["delivered", "deferred"])

    def test_nothing_to_complete_with(self) -> None:
        """No configuration, no spool: no words, and no complaint on the line that is edited."""
        self.config.unlink()
        self.assertEqual(self.complete("queue", "show", ""), [])


class ZshTests(ShellCase):
    """zsh, with its completion system, on a terminal of its own."""

    def complete(self, line: str, until: str) -> str:
        """What zsh shows once these keys were hit, up to a text that is awaited."""
        (self.folder / "_mta").write_text(self.succeed("completion", "zsh"))
        ask = f"""\
            zmodload zsh/zpty
            zpty shell zsh -f -i
            zpty -w shell "PS1='READY> '; autoload -U compinit; compinit -u -D; source ./_mta"
            zpty -r -m shell said '*READY> *READY> *'
            zpty -n -w shell $'{line}'
            zpty -r -m shell said '*{until}*'
            print -r -- $said
            zpty -d shell
        """
        ended = subprocess.run(
            [need_program(self, "zsh"), "-f", "-c", dedent(ask)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        return ended.stdout

    def test_commands(self) -> None:
        """The commands, each with what it does."""
        self.assertIn("release", self.complete(r"mta queue re\t\t", "retry"))

    def test_values(self) -> None:
        """The values of an option that has few, and files."""
        self.assertIn("--state on-hold", self.complete(r"mta queue list --state on\t", "on-hold"))
        self.assertIn("mta.yaml", self.complete(r"mta check --config mt\t", "mta.yaml"))

    def test_what_there_is(self) -> None:
        """A queue id, a peer, a user."""
        queue_id = self.fill()
        for line, whole in (
            (rf"mta queue show {queue_id[:4]}\t", f"show {queue_id}"),
            (r"mta turn o\t", "turn office"),
            (r"mta user del d\t", "del dora"),
            (r"mta queue list --domain h\t", "--domain held.example"),
        ):
            self.assertIn(whole, self.complete(line, whole))

    def test_it_is_found(self) -> None:
        """compinit finds it among its own, by its first line."""
        self.assertTrue(self.succeed("completion", "zsh").startswith("#compdef mta\n"))


class FishTests(ShellCase):
    """fish, asked as its own completion asks."""

    def complete(self, line: str) -> list[str]:
        """What fish would offer for this line, without the descriptions."""
        (self.folder / "mta.fish").write_text(self.succeed("completion", "fish"))
        ended = subprocess.run(
            [
                need_program(self, "fish"),
                "--no-config",
                "-c",
                f"source ./mta.fish; complete -C '{line}'",
            ],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        return [offered.partition("\t")[0] for offered in ended.stdout.splitlines()]

    def test_commands(self) -> None:
        """The commands, options and values."""
        self.assertEqual(self.complete("mta queue re"), ["release", "retry"])
        self.assertEqual(self.complete("mta queue list --state h"), ["held"])
        self.assertIn("mta.yaml", self.complete("mta check --config mt"))

    def test_what_there_is(self) -> None:
        """Queue ids, peers, users, domains, addresses and kinds of events."""
        queue_id = self.fill()
        self.assertEqual(self.complete(f"mta queue show {queue_id[:4]}"), [queue_id])
        self.assertEqual(self.complete("mta turn "), ["office"])
        self.assertEqual(self.complete("mta user passwd d"), ["dora"])
        self.assertEqual(self.complete("mta log --domain h"), ["held.example"])
        self.assertEqual(self.complete("mta explain c"), ["carol@held.example"])
        self.assertEqual(self.complete("mta log --event rem"), ["removed"])


class TcshTests(CommandCase):
    """tcsh, which has no functions."""

    def test_it_is_tcsh(self) -> None:
        """It takes the script, and has a rule for our commands."""
        (self.folder / "rules").write_text(self.succeed("completion", "tcsh"))
        tcsh = need_program(self, "tcsh")
        said = subprocess.run(
            [tcsh, "-f", "-c", "source ./rules; complete mta"],
            cwd=self.folder,
            text=True,
            capture_output=True,
            check=False,
        )
        self.assertEqual((said.returncode, said.stderr), (0, ""))
        self.assertIn("'n/--state/(active waiting held on-hold damaged)/'", said.stdout)


class StartTests(CommandCase):
    """What it costs the other commands."""

    def test_the_library_is_for_this_command(self) -> None:
        """Neither the help nor another command imports it."""
        code = "import sys; from mta.commands import main; main(['check']); print(*sys.modules)"
        said = subprocess.run(
            [sys.executable, "-c", code],
            env=source_environment() | {"MTA_CONFIG": str(self.config)},
            text=True,
            capture_output=True,
            check=True,
        )
        modules = set(said.stdout.split())
        self.assertIn("mta.commands.check", modules)
        self.assertEqual(modules & {"shtab", "ruamel.yaml"}, set())
