"""``mta sendmail``: sending mail as sendmail(1) does, for cron and other programs.

Also a script of its own, ``mta-sendmail``, to be linked to as ``sendmail``.  Messages go straight
into the spool, with the server up or down; those of users who may not write there go to the server
on this host, or into its maildrop while it does not take them.
"""

from __future__ import annotations

import argparse
import errno
import os
import pwd
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mta.commands import local_server
from mta.commands.addressees import addressees
from mta.commands.console import (
    Failed,
    listing_of,
    printable,
    settings_of,
    spool_of,
)
from mta.commands.outgoing import Author, Outgoing, UnsendableMessage, lines
from mta.commands.sendmail_options import SUMMARY, SendmailError, parser, read
from mta.config import ConfigurationError
from mta.logs.file import note
from mta.mail import NULL_PATH, Body, Envelope, MailArgument, Mailbox, Recipient
from mta.maildrop import batch, drop, published
from mta.privileges import PrivilegeFault
from mta.queued import Filter, SpoolFull
from mta.session import LOCAL_ADDRESS, Origin
from mta.settings import Listener, Settings, Source
from mta.smtp import grammar
from mta.smtp.errors import LocalFault, Refusal
from mta.spool.database import SpoolAway
from mta.spool.place import SpoolPlace

if TYPE_CHECKING:
    from mta.commands.console import Subparsers
    from mta.spool.interfaces import ITools


# Errors that last until a person does something about them.
_LASTING = {
    *(errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    *(errno.ELOOP, errno.ENAMETOOLONG),
}


def register(subparsers: Subparsers) -> None:
    """Add the command for the help.  Its command line is read by `main` alone."""
    subparsers.add_parser("sendmail", help=SUMMARY, parents=[parser()], add_help=False)


def _is_passing(error: BaseException | None) -> bool:
    """Tell whether an error may be over soon by itself."""
    return isinstance(error, OSError) and error.errno not in {None, *_LASTING}


def main(words: Sequence[str] | None = None) -> int:
    """Do what sendmail(1) does; returns an exit status of sysexits.h."""
    try:
        arguments = read(sys.argv[1:] if words is None else words)
        _MODES[arguments.mode](arguments)
        sys.stdout.flush()
    except SendmailError as failed:
        status, reason = failed.status, str(failed)
    except ConfigurationError as error:
        status = os.EX_TEMPFAIL if _is_passing(error.__cause__) else os.EX_CONFIG
        reason = str(error.problems[0])
    except Failed as failed:
        status, reason = os.EX_CANTCREAT, str(failed)
    except PrivilegeFault as fault:
        status, reason = os.EX_CONFIG, str(fault)
    except UnsendableMessage as error:
        status, reason = os.EX_DATAERR, str(error)
    except SpoolFull as error:
        status, reason = os.EX_TEMPFAIL, f"no room in the spool: {error}"
    except local_server.NoServer as error:
        status, reason = os.EX_TEMPFAIL, str(error)
    except local_server.Refused as refused:
        status = os.EX_TEMPFAIL if refused.is_transient else os.EX_UNAVAILABLE
        reason = str(refused)
    except BrokenPipeError:
        # Who read our output wants no more.  The interpreter must not try again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return os.EX_IOERR
    except OSError as error:
        status = os.EX_TEMPFAIL if _is_passing(error) else os.EX_CANTCREAT
        reason = f"the spool can't be written to: {error}"
    except KeyboardInterrupt:
        return 130  # as a shell has it: 128 and the number of SIGINT
    else:
        return os.EX_OK
    print(f"mta-sendmail: {printable(reason)}", file=sys.stderr)
    return status


def _submit(arguments: argparse.Namespace) -> None:
    """Take a message in."""
    settings = _settings(arguments)
    author = _author(arguments, settings)
    wishes = _wishes(arguments)
    named = [mailbox for word in arguments.words for mailbox in _addressees(word, settings)]
    if not (named or arguments.from_fields):
        raise SendmailError(
            os.EX_USAGE, "to whom?  Name addresses, or use -t; see mta sendmail --help"
        )
    dot_ends = not (arguments.dot_is_text or "i" in arguments.options)
    outgoing = Outgoing(lines(sys.stdin.buffer, dot_ends=dot_ends))
    if arguments.from_fields:
        named += outgoing.addressees(settings.home_domain)
        outgoing.remove_blind()
    if not named:
        raise UnsendableMessage("To:, Cc: and Bcc: name nobody")
    envelope = _envelope(_reverse_path(arguments, settings), named, wishes)
    content = _bounded(
        outgoing.complete(
            author, arguments.userid, settings.hostname, settings.home_domain, time.time()
        ),
        settings.limits.message_size,
    )
    tools = _spool(settings)
    if tools is None or _is_sealed(settings):
        if tools is not None:
            tools.close()
        result = _send_or_leave(settings, envelope, content)
    elif _is_filtered(settings):
        tools.close()
        result = _leave(settings, envelope, b"".join(content), "for the filters")
    else:
        with closing(tools):
            result = _enqueue(tools, settings, envelope, content, arguments.userid)
    if arguments.verbose:
        print(printable(result))


def _enqueue(
    tools: ITools,
    settings: Settings,
    envelope: Envelope,
    content: Iterator[bytes],
    userid: int,
) -> str:
    """Put a message into the spool.  Returns what to tell the user."""
    origin = Origin(LOCAL_ADDRESS, user=str(userid), service="sendmail")
    queue_id = tools.enqueue(envelope, content, origin)
    note(
        settings.log,
        "{queue_id} accepted <{reverse_path}> from userid {userid}",
        queue_id=queue_id,
        reverse_path=str(envelope.reverse_path),
        userid=userid,
    )
    return f"queued as {queue_id}"


def _send_or_leave(settings: Settings, envelope: Envelope, content: Iterator[bytes]) -> str:
    """Give a message to the server, or leave it in its maildrop.

    Returns what to tell the user.

    Raises NoServer, Refused or OSError.
    """
    from mta.commands import local_smtp  # and smtplib, which takes a while

    octets = b"".join(content)
    try:
        return local_smtp.send(settings, envelope, octets)
    except local_server.NoServer as error:
        failure: Exception = error
    except local_server.Refused as refused:
        if not refused.is_transient:
            raise
        envelope = replace(envelope, recipients=refused.recipients)
        failure = refused
    return _leave(settings, envelope, octets, str(failure))


def _leave(settings: Settings, envelope: Envelope, octets: bytes, why: str) -> str:
    """Leave a message in the maildrop of the server.  Returns what to tell the user.

    Raises NoServer.
    """
    if len(envelope.recipients) > batch.MAX_RECIPIENTS:
        raise UnsendableMessage(f"more than {batch.MAX_RECIPIENTS} recipients")
    try:
        drop.leave(Path(settings.spool), envelope, [octets])
    except OSError as error:
        reason = error.strerror or error
        where = f"the maildrop of {settings.spool}"
        text = f"{why}, and nothing can be left in {where}: {reason}"
        raise local_server.NoServer(text) from None
    return f"left in the maildrop of {settings.spool} ({why})"


def _is_filtered(settings: Settings) -> bool:
    """Tell whether filters look at mail of programs.

    Only the server can ask them.
    """
    return any(Source.SENDMAIL in milter.services for milter in settings.milters)


def _is_sealed(settings: Settings) -> bool:
    """Tell whether some mail is sealed as it comes.  Only the server does that."""
    return any(peer.mail_is_sealed for peer in settings.peers.values())


def _settings(arguments: argparse.Namespace) -> Settings:
    """The configuration, or what is published of it for all users."""
    if _is_readable(arguments.config):
        return settings_of(arguments)
    usual = Settings(hostname=socket.getfqdn(), listen=(Listener("tcp:25"),))
    for spool in (Path(usual.spool), arguments.config.absolute().parent / "spool"):
        if settings := published.read(spool):
            return settings
    return usual


def _is_readable(path: Path) -> bool:
    """Return whether this user may read a file, or it is missing."""
    try:
        path.stat()
    except PermissionError:
        return False  # not even the folder is for this user
    except OSError:
        return True
    return os.access(path, os.R_OK)


def _spool(settings: Settings) -> ITools | None:
    """The spool; None where this user can't write to it now."""
    spool = Path(settings.spool)
    try:
        if spool.is_dir() and not os.access(spool, os.R_OK | os.W_OK | os.X_OK):
            return None
        return SpoolPlace.of(settings).tools()
    except (PermissionError, SpoolAway):
        return None


def _reverse_path(arguments: argparse.Namespace, settings: Settings) -> Mailbox:
    """The reverse-path: what ``-f`` names, else the user of this process."""
    given = arguments.reverse_path
    if given is None:
        return Mailbox(_user(arguments).pw_name, settings.home_domain)
    if given in ("", "<>"):
        return NULL_PATH
    [mailbox, *rest] = _addressees(given, settings) or [NULL_PATH]
    if rest or mailbox.is_null:
        raise SendmailError(os.EX_USAGE, f"-f takes one address, not {given!r}")
    return mailbox


def _author(arguments: argparse.Namespace, settings: Settings) -> Author:
    """The author, for a message without From:."""
    name = arguments.name
    if not name.isprintable():
        raise SendmailError(os.EX_USAGE, f"-F takes a name, not {name!r}")
    address = _reverse_path(arguments, settings)
    if address.is_null:
        address = Mailbox("MAILER-DAEMON", settings.hostname)
    if not name and arguments.reverse_path is None:
        name = _user(arguments).pw_gecos.partition(",")[0]
    return Author(address, name if name.isprintable() else "")


def _user(arguments: argparse.Namespace) -> pwd.struct_passwd:
    """The user who runs this."""
    try:
        return pwd.getpwuid(arguments.userid)
    except KeyError:
        reason = f"the user with id {arguments.userid} has no name here: use -f ADDRESS"
        raise SendmailError(os.EX_NOUSER, reason) from None


def _addressees(word: str, settings: Settings) -> list[Mailbox]:
    try:
        return addressees(word, settings.home_domain)
    except ValueError as error:
        raise SendmailError(os.EX_USAGE, str(error)) from None


def _wishes(arguments: argparse.Namespace) -> tuple[MailArgument, Recipient]:
    """The arguments of MAIL and RCPT for -N, -R and -V."""
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
        raise SendmailError(os.EX_USAGE, "a bad value for -N, -R or -V") from None


def _parameters(values: Mapping[str, str | None]) -> bytes:
    given = (f" {name}={value}" for name, value in values.items() if value)
    return "".join(given).encode("utf-8", "replace")


def _envelope(
    reverse_path: Mailbox,
    forward_paths: Sequence[Mailbox],
    wishes: tuple[MailArgument, Recipient],
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


def _bounded(pieces: Iterator[bytes], maximum: int) -> Iterator[bytes]:
    """The pieces, up to so many octets together.  Raises UnsendableMessage."""
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > maximum:
            raise UnsendableMessage(f"more than {maximum} octets, which is the limit here")
        yield piece


def _converse(arguments: argparse.Namespace) -> None:
    """Speak SMTP."""
    settings = _settings(arguments)
    ends = sys.stdin.fileno(), sys.stdout.fileno()
    tools = _spool(settings)
    if tools is None or _is_filtered(settings):
        local_server.converse(settings, *ends)
        return
    from mta.commands import stdio

    with closing(tools), tools.sync_spool() as spool:
        stdio.converse(settings, spool, *ends)


def _nothing(arguments: argparse.Namespace) -> None:
    """Aliases are read with the configuration: there is nothing to rebuild."""


def _try_out(arguments: argparse.Namespace) -> None:
    """Say which way a message would take, and send none.

    Raises NoServer where there is none.
    """
    settings = _settings(arguments)
    if tools := _spool(settings):
        tools.close()
        print(printable(f"messages go into the spool {SpoolPlace.of(settings).name}"))
        return
    from mta.commands import local_smtp

    ways = []
    try:
        local_smtp.try_out(settings)
        ways.append("to the server")
    except (local_server.NoServer, local_server.Refused) as error:
        failure = error
    try:
        drop.try_out(Path(settings.spool))
        ways.append(f"into the maildrop of {settings.spool}")
    except OSError as error:
        if not ways:
            raise local_server.NoServer(f"{failure}, and the maildrop: {error}") from None
    print(printable(f"messages go {', or '.join(ways)}"))


def _list(arguments: argparse.Namespace) -> None:
    from mta.commands.queue import print_list

    settings = settings_of(arguments)
    with listing_of(settings) as listing:
        print_list(settings, listing.find(Filter()), listing.now())


def _flush(arguments: argparse.Namespace) -> None:
    with spool_of(settings_of(arguments)) as tools:
        tools.retry([listed.id for listed in tools.listed(Filter(state="waiting"))])


_MODES: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "m": _submit,
    "s": _converse,
    "p": _list,
    "q": _flush,
    "i": _nothing,
    "v": _try_out,
}
