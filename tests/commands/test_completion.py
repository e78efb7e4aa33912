"""``mta completion``, as the shells themselves find it."""

from __future__ import annotations

import subprocess

from tests.commands.test_commands import CommandCase
from tests.processes import need_program


class BashTests(CommandCase):
    """bash, asked for what follows a command line."""

    def complete(self, *words: str) -> list[str]:
        """What bash would offer for the last of these words."""
        script = self.succeed("completion", "bash")
        line = " ".join(f"'{word}'" for word in ("mta", *words))
        ask = f"{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(words)}; _mta\n"
        ask = f'compopt() {{ :; }}\n{ask}printf "%s\\n" "${{COMPREPLY[@]}}"\n'
        ended = subprocess.run(
            [need_program(self, "bash"), "--norc", "-u", "-c", ask],
            cwd=self.folder,
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
        self.assertEqual(self.complete("completion", ""), ["-h", "--help", "bash", "zsh"])

    def test_options(self) -> None:
        """The options of a command, wherever on its line."""
        self.assertEqual(self.complete("queue", "list", "--st"), ["--state"])
        self.assertEqual(self.complete("queue", "list", "--from", "x", "--j"), ["--json"])
        self.assertEqual(self.complete("sendmail", "-t", "--conf"), ["--config"])

    def test_values(self) -> None:
        """The values of an option that has few, and files."""
        self.assertEqual(self.complete("queue", "list", "--state", "h"), ["held"])
        self.assertEqual(self.complete("check", "--config", "mt"), ["mta.yaml"])


class ZshTests(CommandCase):
    """zsh."""

    def test_it_is_zsh(self) -> None:
        """zsh offers what fits, and reads the script without complaint."""
        script = self.succeed("completion", "zsh")
        self.assertTrue(script.startswith("#compdef mta\n"))
        zsh = need_program(self, "zsh")
        # What the completion system gives, and takes, stands here for itself.
        ask = f"compdef() {{ :; }}; compadd() {{ shift; print -l -- $@; }}\n{script}\n"
        ask += "words=(mta queue list --state ''); CURRENT=5; _mta\n"
        ask += "words=(mta completion ''); CURRENT=3; _mta\n"
        said = subprocess.run([zsh, "-f", "-c", ask], text=True, capture_output=True, check=False)
        self.assertEqual(said.stderr, "")
        self.assertEqual(
            said.stdout.split(),
            ["active", "waiting", "held", "on-hold", "damaged", "-h", "--help", "bash", "zsh"],
        )
        ended = subprocess.run(
            [zsh, "-n"], input=script, text=True, capture_output=True, check=False
        )
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
