"""``mta completion``: what makes a shell complete our command lines.

The script that is printed is made of the commands as they are: it needs nothing when it runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mta.commands.console import Subparsers

_BASH = """\
# Completion for bash; in ~/.bashrc:  source <(mta completion bash)
_mta() {
    local word path="" words="" here="${COMP_WORDS[COMP_CWORD]}"
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case "$path $word" in
@PATHS@) path="$path $word" ;;
        esac
    done
    case "$path" in
@WORDS@
    esac
    case "${COMP_WORDS[COMP_CWORD-1]}" in
@FILES@) compopt -o filenames; COMPREPLY=($(compgen -f -- "$here")); return ;;
@VALUES@
    esac
    COMPREPLY=($(compgen -W "$words" -- "$here"))
}
complete -F _mta mta
"""
_ZSH = """\
#compdef mta
# Completion for zsh; in ~/.zshrc, after compinit:  source <(mta completion zsh)
_mta() {
    local word line="" chosen=""
    for word in "${(@)words[2,CURRENT-1]}"; do
        case "$line $word" in
@PATHS@) line="$line $word" ;;
        esac
    done
    case "$line" in
@WORDS@
    esac
    case "${words[CURRENT-1]}" in
@FILES@) _files; return ;;
@VALUES@
    esac
    compadd -- ${=chosen}
}
compdef _mta mta
"""
_SHELLS = {"bash": (_BASH, "words"), "zsh": (_ZSH, "chosen")}


@dataclass(slots=True)
class _Table:
    """What can be completed: words by command, values by option, and the options with files."""

    words: dict[str, list[str]] = field(default_factory=dict)
    values: dict[str, list[str]] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    summary = "print what makes a shell complete our command lines"
    parser = subparsers.add_parser("completion", help=summary, description=f"{summary}.")
    parser.add_argument("shell", choices=tuple(_SHELLS))
    parser.set_defaults(run=lambda arguments: print(script(arguments.shell, subparsers), end=""))


def script(shell: str, subparsers: Subparsers) -> str:
    """The script for ``bash`` or ``zsh``."""
    table = _Table()
    _add_commands("", subparsers.choices, table)
    template, variable = _SHELLS[shell]
    parts = {
        "@PATHS@": "            " + "|".join(f'"{path}"' for path in table.words if path),
        "@WORDS@": "\n".join(_cases(table.words, variable)),
        "@VALUES@": "\n".join(_cases(table.values, variable)),
        "@FILES@": "        " + "|".join(sorted(table.files)),
    }
    for name, part in parts.items():
        template = template.replace(name, part)
    return template


def _cases(table: Mapping[str, list[str]], variable: str) -> Iterator[str]:
    for name, words in table.items():
        yield f'        "{name}") {variable}="{" ".join(words)}" ;;'


def _add_commands(
    path: str, commands: Mapping[str, argparse.ArgumentParser], table: _Table
) -> None:
    table.words[path] = list(commands)
    for name, parser in commands.items():
        _add_command(f"{path} {name}", parser, table)


def _add_command(path: str, parser: argparse.ArgumentParser, table: _Table) -> None:
    table.words[path] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            _add_commands(path, action.choices, table)
        elif not action.option_strings:
            table.words[path] += action.choices or ()
        elif action.help != argparse.SUPPRESS:
            table.words[path] += action.option_strings
            for option in action.option_strings:
                if action.choices:
                    table.values[option] = list(action.choices)
                elif action.metavar == "FILE":
                    table.files.add(option)
