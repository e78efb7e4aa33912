"""The ``mta`` command line.

Each command has a module with a function `register`, which adds its parser and says there what
runs it: a function that takes the parsed arguments, prints, and raises `Failed` or OSError.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from mta import __version__
from mta.commands import (
    check,
    completion,
    explain,
    importing,
    peers,
    queue,
    sendmail,
    trace,
    turn,
    user,
)
from mta.commands.console import Failed
from mta.config import ConfigurationError
from mta.privileges import PrivilegeFault

_COMMANDS = (
    check,
    user,
    queue,
    explain,
    trace,
    turn,
    peers,
    importing,
    sendmail,
    completion,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    0: done.  1: it failed, and one line on standard error says why.  Wrong usage ends the
    process with 2, as argparse does.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["sendmail"]:
        return sendmail.main(words[1:])  # whose command line others have laid down
    arguments = _parser().parse_args(words)
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who read our output wants no more.  The interpreter must not try again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 1
    except (Failed, PrivilegeFault) as error:
        print(f"mta: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        named = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"mta: {named}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130  # as a shell has it: 128 and the number of SIGINT
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mta",
        description="Tools of the mail transfer agent.  They work with the server up or down.",
        epilog="The server itself is started by: twistd mta --config FILE",
    )
    parser.add_argument("--version", action="version", version=f"mta {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.register(subparsers)
    return parser
