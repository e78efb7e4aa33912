"""``mta completion``: the script that makes a shell complete our command lines.

shtab makes it of the parsers of all commands.  When it runs, it asks ``mta completion --known`` for
the words of a kind: queue ids, peers, users.
"""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING

from mta.commands.console import add_config
from mta.commands.known import KINDS, words

if TYPE_CHECKING:
    from mta.commands.console import Subparsers

SHELLS = ("bash", "zsh", "tcsh", "fish")
_COMPDEF = "#compdef mta\n"  # zsh looks for it in the first line


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    summary = "print what makes a shell complete our command lines"
    parser = subparsers.add_parser("completion", help=summary, description=f"{summary}.")
    add_config(parser, "-c")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("shell", choices=SHELLS, nargs="?")
    what.add_argument("--known", choices=KINDS, help="print words of a kind, for these scripts")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    if arguments.known:
        for word in words(arguments.known, arguments):
            print(word)
        return
    from mta.commands import whole_parser

    print(script(whole_parser(), arguments.shell))


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
