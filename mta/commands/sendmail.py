"""``mta sendmail``: what cron, mail programs and scripts call to send mail, as sendmail(1) has it.

Also a script of its own, ``mta-sendmail``, to be linked to as ``sendmail``.  Messages go straight
into the spool, with the server up or down; those of users who may not write there go to the server
on this host, or into its maildrop while it does not take them.
"""

from __future__ import annotations

import argparse
import os
import pwd
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from mta.commands import handover
from mta.commands.addressees import addressees
from mta.commands.console import (
    Failed,
    add_config,
    home_domain,
    listing_of,
    printable,
    settings_of,
    spool_of,
)
from mta.commands.outgoing import Author, Outgoing, Unfit, lines
from mta.config import ConfigurationError
from mta.logs import note
from mta.mail import NULL_PATH, Body, Envelope, Mailbox, Recipient
from mta.maildrop import batch, drop, published
from mta.privileges import PrivilegeFault
from mta.queued import Filter, SpoolFull
from mta.session import LOCAL_ADDRESS, Origin
from mta.settings import Listener, Settings
from mta.smtp import grammar
from mta.smtp.errors import LocalFault, Refusal
from mta.spool.tools import SpoolTools

if TYPE_CHECKING:
    from mta.commands.console import Subparsers

_SUMMARY = "send the message on standard input, as sendmail(1) does"
_STATUS = """\
Exit status as in sysexits.h: 0 queued, 64 wrong usage, 65 not a message to be sent,
67 a user without a name, 69 refused by the server, 73 the spool can't be written to,
75 not now, 78 a bad configuration.
"""
_IGNORED = "ABLOXdehp"  # what other programs named sendmail know, and we have no use for
_FLAGS_IGNORED = "GUmnx"


class _Failed(Exception):
    """What was asked for could not be done; `status` is one of sysexits.h."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, and end the program as sysexits.h has it."""

    def error(self, message: str) -> NoReturn:
        raise _Failed(os.EX_USAGE, f"{message}; see mta sendmail --help")


class _Flush(argparse.Action):
    """``-q``, and ``-q30m`` of those who start a daemon: the server is one."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        namespace.mode = "q"


def register(subparsers: Subparsers) -> None:
    """Add the command to those that are known; its command line is read by `main` alone."""
    subparsers.add_parser("sendmail", help=_SUMMARY, parents=[_parser()], add_help=False)


def main(words: Sequence[str] | None = None) -> int:
    """Do what sendmail(1) does; returns an exit status of sysexits.h."""
    try:
        arguments = _read(sys.argv[1:] if words is None else words)
        _MODES[arguments.mode](arguments)
        sys.stdout.flush()
    except _Failed as failed:
        status, reason = failed.status, str(failed)
    except ConfigurationError as error:
        status, reason = os.EX_CONFIG, str(error.problems[0])
    except Failed as failed:
        status, reason = os.EX_CANTCREAT, str(failed)
    except PrivilegeFault as fault:
        status, reason = os.EX_CONFIG, str(fault)
    except Unfit as unfit:
        status, reason = os.EX_DATAERR, str(unfit)
    except SpoolFull as error:
        status, reason = os.EX_TEMPFAIL, f"no room in the spool: {error}"
    except handover.NoServer as error:
        status, reason = os.EX_TEMPFAIL, str(error)
    except handover.Refused as refused:
        status = os.EX_TEMPFAIL if refused.is_transient else os.EX_UNAVAILABLE
        reason = str(refused)
    except BrokenPipeError:
        # Who read our output wants no more.  The interpreter must not try again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return os.EX_IOERR
    except OSError as error:
        status, reason = os.EX_CANTCREAT, f"the spool can't be written to: {error}"
    except KeyboardInterrupt:
        return 130  # as a shell has it: 128 and the number of SIGINT
    else:
        return os.EX_OK
    print(f"mta-sendmail: {printable(reason)}", file=sys.stderr)
    return status


def _read(words: Sequence[str]) -> argparse.Namespace:
    """The command line; options may follow addresses, as far as there is no ``--``."""
    end = words.index("--") if "--" in words else len(words)
    arguments = _parser().parse_intermixed_args(words[:end])
    arguments.words += words[end + 1 :]
    arguments.userid = os.getuid()  # of who calls, whoever root becomes for the work
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mta-sendmail",
        description=f"{_SUMMARY.capitalize()}.",
        epilog=_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,  # -h means something else
    )
    add = parser.add_argument
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
    add("-b", dest="mode", default="m", choices=tuple(_MODES), help="s: SMTP; p: list the queue")
    add("--help", action="help", help="show this, and end")
    add("-q", dest="mode", action=_Flush, nargs="?", help="try all waiting messages now")
    for letter in _IGNORED:
        add(f"-{letter}", action="append", help=argparse.SUPPRESS, dest="ignored")
    for letter in _FLAGS_IGNORED:
        add(f"-{letter}", action="store_true", help=argparse.SUPPRESS, dest="ignored_flag")
    add_config(parser, "-C")
    return parser


# --- what it does ----------------------------------------------------------------


def _submit(arguments: argparse.Namespace) -> None:
    """Take a message in."""
    settings = _settings(arguments)
    author = _author(arguments, settings)
    wishes = _wishes(arguments)
    named = [mailbox for word in arguments.words for mailbox in _addressees(word, settings)]
    if not (named or arguments.from_fields):
        raise _Failed(os.EX_USAGE, "to whom?  Name addresses, or use -t; see mta sendmail --help")
    dot_ends = not (arguments.dot_is_text or "i" in arguments.options)
    outgoing = Outgoing(lines(sys.stdin.buffer, dot_ends=dot_ends))
    if arguments.from_fields:
        named += outgoing.addressees(home_domain(settings))
        outgoing.remove_blind()
    if not named:
        raise Unfit("To:, Cc: and Bcc: name nobody")
    envelope = _envelope(_reverse_path(arguments, settings), named, wishes)
    content = _bounded(
        outgoing.complete(
            author, arguments.userid, settings.hostname, home_domain(settings), time.time()
        ),
        settings.limits.message_size,
    )
    tools = _spool(settings)
    if tools is None:
        said = _hand_over(settings, envelope, content)
    else:
        with closing(tools):
            origin = Origin(LOCAL_ADDRESS, user=str(arguments.userid), service="sendmail")
            queue_id = tools.enqueue(envelope, content, origin)
        said = f"queued as {queue_id}"
        note(
            settings.log,
            "{queue_id} accepted <{reverse_path}> from userid {userid}",
            queue_id=queue_id,
            reverse_path=str(envelope.reverse_path),
            userid=arguments.userid,
        )
    if arguments.verbose:
        print(printable(said))


def _hand_over(settings: Settings, envelope: Envelope, content: Iterator[bytes]) -> str:
    """Give a message to the server, or leave it where the server finds it; returns what to say.

    Raises NoServer, Refused or OSError.
    """
    octets = b"".join(content)
    try:
        return handover.send(settings, envelope, octets)
    except handover.NoServer as error:
        failure: Exception = error
    except handover.Refused as refused:
        if not refused.is_transient:
            raise
        envelope = replace(envelope, recipients=refused.recipients)
        failure = refused
    if len(envelope.recipients) > batch.MAX_RECIPIENTS:
        raise Unfit(f"more than {batch.MAX_RECIPIENTS} recipients")
    try:
        drop.leave(Path(settings.spool), envelope, [octets])
    except OSError as error:
        reason = error.strerror or error
        where = f"the maildrop of {settings.spool}"
        raise handover.NoServer(
            f"{failure}, and nothing can be left in {where}: {reason}"
        ) from None
    return f"left in the maildrop of {settings.spool} ({failure})"


def _settings(arguments: argparse.Namespace) -> Settings:
    """The configuration; where it is not for this user, what the server lets everybody know."""
    if _is_readable(arguments.config):
        return settings_of(arguments)
    usual = Settings(hostname=socket.getfqdn(), listen=(Listener("tcp:25"),))
    for spool in (Path(usual.spool), arguments.config.absolute().parent / "spool"):
        if settings := published.read(spool):
            return settings
    return usual


def _is_readable(path: Path) -> bool:
    """Whether this user may read a file; one that is missing is for others to complain about."""
    try:
        path.stat()
    except PermissionError:
        return False  # not even the folder is for this user
    except OSError:
        return True
    return os.access(path, os.R_OK)


def _spool(settings: Settings) -> SpoolTools | None:
    """The spool; None where this user may not write to it."""
    spool = Path(settings.spool)
    try:
        if spool.is_dir() and not os.access(spool, os.R_OK | os.W_OK | os.X_OK):
            return None
        return SpoolTools(spool, reserve=settings.limits.free_space)
    except PermissionError:
        return None


def _reverse_path(arguments: argparse.Namespace, settings: Settings) -> Mailbox:
    """Where notices go: what ``-f`` names, else the user of this process."""
    given = arguments.reverse_path
    if given is None:
        return Mailbox(_user(arguments).pw_name, home_domain(settings))
    if given in ("", "<>"):
        return NULL_PATH
    [mailbox, *rest] = _addressees(given, settings) or [NULL_PATH]
    if rest or mailbox.is_null:
        raise _Failed(os.EX_USAGE, f"-f takes one address, not {given!r}")
    return mailbox


def _author(arguments: argparse.Namespace, settings: Settings) -> Author:
    """Whom From: names where the message does not."""
    name = arguments.name
    if not name.isprintable():
        raise _Failed(os.EX_USAGE, f"-F takes a name, not {name!r}")
    address = _reverse_path(arguments, settings)
    if address.is_null:
        address = Mailbox("MAILER-DAEMON", settings.hostname)
    if not name and arguments.reverse_path is None:
        name = _user(arguments).pw_gecos.partition(",")[0]
    return Author(address, name if name.isprintable() else "")


def _user(arguments: argparse.Namespace) -> pwd.struct_passwd:
    """Who runs this."""
    try:
        return pwd.getpwuid(arguments.userid)
    except KeyError:
        reason = f"the user with id {arguments.userid} has no name here: use -f ADDRESS"
        raise _Failed(os.EX_NOUSER, reason) from None


def _addressees(word: str, settings: Settings) -> list[Mailbox]:
    try:
        return addressees(word, home_domain(settings))
    except ValueError as error:
        raise _Failed(os.EX_USAGE, str(error)) from None


def _wishes(arguments: argparse.Namespace) -> tuple[grammar.MailArgument, Recipient]:
    """What -N, -R and -V ask for, as MAIL and RCPT would (RFC 3461)."""
    mail = {
        "RET": arguments.ret,
        "ENVID": arguments.envid and grammar.encode_xtext(arguments.envid),
    }
    rcpt = {"NOTIFY": arguments.notify}
    try:
        return (
            grammar.parse_mail(b"FROM:<>" + _parameters(mail), frozenset(mail)),
            grammar.parse_rcpt(b"TO:<a@b>" + _parameters(rcpt), frozenset(rcpt), smtputf8=False),
        )
    except (Refusal, LocalFault):
        raise _Failed(os.EX_USAGE, "a bad value for -N, -R or -V") from None


def _parameters(values: Mapping[str, str | None]) -> bytes:
    given = (f" {name}={value}" for name, value in values.items() if value)
    return "".join(given).encode("utf-8", "replace")


def _envelope(
    reverse_path: Mailbox,
    forward_paths: Sequence[Mailbox],
    wishes: tuple[grammar.MailArgument, Recipient],
) -> Envelope:
    mail, rcpt = wishes
    return Envelope(
        reverse_path,
        tuple(replace(rcpt, forward_path=path) for path in dict.fromkeys(forward_paths)),
        Body.EIGHT_BIT,
        any(path.is_internationalised for path in (reverse_path, *forward_paths)),
        mail.ret,
        mail.envid,
    )


def _bounded(pieces: Iterator[bytes], most: int) -> Iterator[bytes]:
    """The pieces, as long as they are at most so many octets together.  Raises Unfit."""
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > most:
            raise Unfit(f"more than {most} octets, which is the limit here")
        yield piece


def _converse(arguments: argparse.Namespace) -> None:
    """Speak SMTP."""
    settings = _settings(arguments)
    ends = sys.stdin.fileno(), sys.stdout.fileno()
    tools = _spool(settings)
    if tools is None:
        handover.converse(settings, *ends)
        return
    from mta.commands import stdio

    with closing(tools), tools.sync_spool() as spool:
        stdio.converse(settings, spool, *ends)


def _nothing(arguments: argparse.Namespace) -> None:
    """Aliases are read with the configuration: there is nothing to rebuild."""


def _list(arguments: argparse.Namespace) -> None:
    from mta.commands.queue import print_list

    settings = settings_of(arguments)
    with listing_of(settings) as listing:
        print_list(settings, listing.find(Filter()))


def _flush(arguments: argparse.Namespace) -> None:
    with spool_of(settings_of(arguments)) as tools:
        tools.retry([listed.id for listed in tools.listed(Filter(state="waiting"))])


_MODES: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "m": _submit,
    "s": _converse,
    "p": _list,
    "q": _flush,
    "i": _nothing,
}
