"""The command line of sendmail(1), as other programs know it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import NoReturn

from mta.commands.console import add_config

SUMMARY = "send the message on standard input, as sendmail(1) does"
_STATUS = """\
Exit status as in sysexits.h: 0 queued, 64 wrong usage, 65 not a message to be sent,
67 a user without a name, 69 refused by the server, 73 the spool can't be written to,
75 not now, 78 a bad configuration.
"""
MODES = ("m", "s", "p", "q", "i", "v")
_IGNORED = "ABLOXdehp"  # what other programs named sendmail know, and we have no use for
_FLAGS_IGNORED = "GUmnx"


class SendmailError(Exception):
    """A command that could not be done.  `status` is one of sysexits.h."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line, with a status of sysexits.h."""

    def error(self, message: str) -> NoReturn:
        raise SendmailError(os.EX_USAGE, f"{message}; see mta sendmail --help")


class _Flush(argparse.Action):
    """The option ``-q``, and ``-q30m``, by which others start a daemon."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        namespace.mode = "q"


def read(words: Sequence[str]) -> argparse.Namespace:
    """The command line.  Options may follow addresses, up to ``--``."""
    end = words.index("--") if "--" in words else len(words)
    arguments = parser().parse_intermixed_args(words[:end])
    arguments.words += words[end + 1 :]
    arguments.userid = os.getuid()  # of the caller, whichever user root becomes
    return arguments


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    made = _Parser(
        prog="mta-sendmail",
        description=f"{SUMMARY.capitalize()}.",
        epilog=_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,  # -h means something else
    )
    add = made.add_argument
    add("words", metavar="ADDRESS", nargs="*", help="whom to send to")
    add("-t", dest="from_fields", action="store_true", help="to whom To:, Cc: and Bcc: name, too")
    add("-f", "-r", dest="reverse_path", metavar="A", help="reverse-path; '' for the null one")
    add("-F", dest="name", default="", metavar="NAME", help="the author, where From: is missing")
    add("-i", dest="dot_is_text", action="store_true", help="a line of one dot is text, no end")
    add("-o", dest="options", action="append", default=[], metavar="OPTION", help="-oi is -i")
    add("-N", dest="notify", metavar="WHEN", help="notices: never, or success,failure,delay")
    add("-R", dest="ret", metavar="full|hdrs", help="how much of the message a notice returns")
    add("-V", dest="envid", metavar="ENVID", help="what notices call the message")
    add("-v", dest="verbose", action="store_true", help="say the queue id")
    add(
        "-b",
        dest="mode",
        default="m",
        choices=MODES,
        help="s: SMTP; p: list the queue; v: send nothing",
    )
    add("--help", action="help", help="show this, and end")
    add("-q", dest="mode", action=_Flush, nargs="?", help="try all waiting messages now")
    for letter in _IGNORED:
        add(f"-{letter}", action="append", help=argparse.SUPPRESS, dest="ignored")
    for letter in _FLAGS_IGNORED:
        add(f"-{letter}", action="store_true", help=argparse.SUPPRESS, dest="ignored_flag")
    add_config(made, "-C")
    return made
