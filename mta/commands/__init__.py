"""The ``mta`` command line.

Each command has a module with a function `register`, which adds its parser and says there what
runs it: a function that takes the parsed arguments, prints, and raises `Failed` or OSError.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from mta import __version__
from mta.commands.console import Failed, printable
from mta.config import ConfigurationError
from mta.privileges import PrivilegeFault

# Each with its module, which is imported for its own command alone: the others take a while.
_COMMANDS = {
    "init": "init",
    "check": "check",
    "doctor": "doctor",
    "dns": "dns",
    "user": "user",
    "queue": "queue",
    "spool": "spool",
    "explain": "explain",
    "trace": "trace",
    "turn": "turn",
    "pair": "pair",
    "peers": "peers",
    "import": "importing",
    "sendmail": "sendmail",
    "completion": "completion",
}
_NEEDS_ALL = "completion"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    0: done.  1: it failed, and one line on standard error says why.  Wrong usage ends the
    process with 2, as argparse does.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["sendmail"]:
        from mta.commands import sendmail

        return sendmail.main(words[1:])  # whose command line others have laid down
    arguments = _parser(words[0] if words else "").parse_args(words)
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who read our output wants no more.  The interpreter must not try again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ConfigurationError as error:
        return _complain(str(error))
    except (Failed, PrivilegeFault) as error:
        return _complain(f"mta: {error}")
    except OSError as error:
        named = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return _complain(f"mta: {named}")
    except KeyboardInterrupt:
        return 130  # as a shell has it: 128 and the number of SIGINT
    return 0


def _complain(text: str) -> int:
    """Say what went wrong; returns the exit status."""
    for line in text.split("\n"):
        print(printable(line), file=sys.stderr)
    return 1


def whole_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    return _parser("")


def _parser(wanted: str) -> argparse.ArgumentParser:
    """The parser of a command, or of all commands.

    It is of all where `wanted` is none, or is about all.
    """
    parser = argparse.ArgumentParser(
        prog="mta",
        description="Tools of the mail transfer agent.  They work with the server up or down.",
        epilog="The server itself is started by: twistd mta --config FILE",
    )
    parser.add_argument("--version", action="version", version=f"mta {__version__}")
    parser.set_defaults(parser=parser)
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    is_one = wanted in _COMMANDS and wanted != _NEEDS_ALL
    for name in [wanted] if is_one else _COMMANDS:
        import_module(f"mta.commands.{_COMMANDS[name]}").register(subparsers)
    return parser
