"""The ``mta`` command line.

Each command has a module with a function `register`, which adds its parser and says there what
runs it: a function that takes the parsed arguments, prints, and raises `Failed` or OSError.
"""

from __future__ import annotations

import argparse
import difflib
import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from mta import __version__

# Each command by its group, with its module, which is imported for its own command alone, as the
# others take a while, and with the line that says what it does.
GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "the mail": {
        "queue": ("queue", "look at queued messages and change them"),
        "log": ("log", "show what the server logged, with filters"),
        "trace": ("trace", "follow one message through the log"),
        "explain": ("explain", "say where mail to an address goes, and why"),
        "sendmail": ("sendmail", "send the message on standard input, as sendmail(1) does"),
        "spool": ("spool", "check the spool, copy it, and get mail out of it"),
        "nodes": ("nodes", "list the hosts that share the spool"),
    },
    "people": {
        "user": ("user", "add, change and list the users who may log in"),
    },
    "peers": {
        "peers": ("peers", "list the hosts that we change roles with"),
        "turn": ("turn", "exchange mail with a peer that we dial, now"),
        "pair": ("pair", "connect an office and its relay"),
        "seal": ("seal", "keys to the mail that a relay keeps sealed for us"),
    },
    "set-up": {
        "init": ("init", "make this machine a mail server: users, folders, configuration, unit"),
        "doctor": (
            "doctor",
            "look at files, names, ports, peers and machine, and say what to mend",
        ),
        "dkim": ("dkim", "make, show and change the keys that mail is signed with"),
        "dns": ("dns", "print the DNS records that a domain needs, and which of them are there"),
        "check": ("check", "check a configuration file, and open what the server will open"),
        "import": ("importing", "take in the alias tables of another server"),
        "completion": ("completion", "print what makes a shell complete our command lines"),
    },
}
# Objects made between two searches for garbage: what a command imports is none, and the usual 700
# of Python cost it a twentieth of its time.
GARBAGE_THRESHOLD = 50_000

_COMMANDS = {name: entry for group in GROUPS.values() for name, entry in group.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    0: done.  1: it failed, and one line on standard error says why.  Wrong usage ends the
    process with 2, as argparse does.
    """
    gc.set_threshold(GARBAGE_THRESHOLD)
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if not words or words[0] in ("-h", "--help"):
            print(overview(), flush=True)
            return 0
        if words[0] == "--version":
            print(f"mta {__version__}", flush=True)
            return 0
    except BrokenPipeError:
        return _close_output()
    if words[0] not in _COMMANDS:
        return _no_command(words[0])
    if words[0] == "sendmail":
        from mta.commands import sendmail

        return sendmail.main(words[1:])  # whose command line others have laid down
    return _run(_parser([words[0]]).parse_args(words))


def overview() -> str:
    """All commands, by group, with what each does."""
    width = max(map(len, _COMMANDS))
    lines = [
        "usage: mta COMMAND ...",
        "",
        "Tools of the mail transfer agent.  They work with the server up or down.",
    ]
    for group, entries in GROUPS.items():
        lines += ["", f"{group}:"]
        lines += [f"  {name:{width}}  {summary}" for name, (_, summary) in entries.items()]
    lines += [
        "",
        "`mta COMMAND --help` explains each, `mta --version` says which version this is.",
        "The server itself is started by: twistd mta --config FILE",
    ]
    return "\n".join(lines)


def whole_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    return _parser(_COMMANDS)


def _run(arguments: argparse.Namespace) -> int:
    from mta.commands.console import Failed
    from mta.config import ConfigurationError
    from mta.privileges import PrivilegeFault

    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        return _close_output()
    except ConfigurationError as error:
        return _complain(str(error))
    except (Failed, PrivilegeFault) as error:
        return _complain(f"mta: {error}")
    except OSError as error:
        from mta.files import in_words

        return _complain(f"mta: {in_words(error)}")
    except KeyboardInterrupt:
        return 130  # as a shell has it: 128 and the number of SIGINT
    return 0


def _close_output() -> int:
    """Give up output whose reader has gone; returns the exit status.

    The interpreter must not try again at its end.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _no_command(word: str) -> int:
    """Say that there is no such command; returns the exit status."""
    nearest = difflib.get_close_matches(word, _COMMANDS, 1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else "`mta` alone lists them"
    _complain(f"mta: there is no command {word!r}: {hint}")
    return 2


def _complain(text: str) -> int:
    """Say what went wrong; returns the exit status."""
    from mta.commands.console import printable

    for line in text.split("\n"):
        print(printable(line), file=sys.stderr)
    return 1


def _parser(names: Sequence[str] | dict[str, tuple[str, str]]) -> argparse.ArgumentParser:
    """The parser of these commands."""
    parser = argparse.ArgumentParser(prog="mta")
    parser.add_argument("--version", action="version", version=f"mta {__version__}")
    parser.set_defaults(parser=parser)
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in names:
        import_module(f"mta.commands.{_COMMANDS[name][0]}").register(subparsers)
    return parser
