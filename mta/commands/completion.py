"""``mta completion``: the script that makes a shell complete our command lines.

shtab makes it of the parsers of all commands; it needs nothing of ours when it runs.
"""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mta.commands.console import Subparsers

SHELLS = ("bash", "zsh", "tcsh", "fish")
_COMPDEF = "#compdef mta\n"  # zsh looks for it in the first line


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    summary = "print what makes a shell complete our command lines"
    parser = subparsers.add_parser("completion", help=summary, description=f"{summary}.")
    parser.add_argument("shell", choices=SHELLS)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    print(script(arguments.parser, arguments.shell))


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script for one of `SHELLS`, to be sourced."""
    import shtab  # for this command alone

    made: str = shtab.complete(parser, shell)
    if shell == "zsh":
        # Within `eval` it registers itself; sourced, it would complete at once, and fail.
        return f"{_COMPDEF}eval {shlex.quote(made)}"
    return made


def installed_scripts(parser: argparse.ArgumentParser) -> dict[str, str]:
    """The scripts for folders where shells look for completions, by shell.

    There, zsh calls a script as a function, and needs no registration.
    """
    import shtab

    known = (shell for shell in ("bash", "zsh", "fish") if shell in shtab.SUPPORTED_SHELLS)
    return {shell: shtab.complete(parser, shell) for shell in known}
