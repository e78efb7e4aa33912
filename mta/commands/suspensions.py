"""``mta user suspend`` and ``mta user resume``: users who may send nothing."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from mta.commands.console import Failed, add_command, has_spool, listing_of, settings_of
from mta.commands.known import is_known
from mta.privileges import owner_of_new_file
from mta.queued import Filter
from mta.spool.place import SpoolPlace

if TYPE_CHECKING:
    from mta.access.account_table import AccountTable
    from mta.commands.console import Subparsers
    from mta.settings import Settings
    from mta.users.file import UserFile
    from mta.users.roster import User

BY_HAND = "by hand"


def register(group: Subparsers) -> None:
    """Add the commands to those about users."""
    suspend = add_command(group, "suspend", _suspend, "take no mail from a user")
    resume = add_command(group, "resume", _resume, "take mail from a suspended user again")
    suspend.add_argument(
        "--hold", action="store_true", help="put on hold what waits of the user's mail, too"
    )
    for parser in (suspend, resume):
        is_known(parser.add_argument("name", metavar="NAME"), "users")


def of_user(settings: Settings, user: User) -> str:
    """Return the reason why a user is suspended; empty: it is not."""
    if user.account.is_suspended:
        return BY_HAND
    with suppress(OSError):
        for suspension in _table(settings).suspensions():
            if suspension.user == user.name.lower():
                return suspension.reason
    return ""


def _suspend(arguments: argparse.Namespace) -> None:
    settings = settings_of(arguments, keep_root=True)
    file = _file(settings)
    if file is None:
        _in_table(lambda: _table(settings).suspend(arguments.name, BY_HAND))
    else:
        _edit(file, arguments.name, suspended=True)
    print(f"{arguments.name} is suspended: no mail is taken, until mta user resume")
    _attend_to_queue(arguments)


def _attend_to_queue(arguments: argparse.Namespace) -> None:
    """Put on hold what the user has sent, or tell of it."""
    from mta.commands import queue

    settings, name = settings_of(arguments), arguments.name  # root is the server's user from now on
    if not has_spool(settings):
        return
    if arguments.hold:
        queue.hold_mail_of(arguments, name)
        return
    with listing_of(settings) as listing:
        count = sum(not each.on_hold for each in listing.find(Filter(user=name)))
    if count:
        words = "1 message" if count == 1 else f"{count} messages"
        print(f"{words} of {name} still to be sent; to keep: mta queue hold --user {quote(name)}")


def _resume(arguments: argparse.Namespace) -> None:
    settings = settings_of(arguments, keep_root=True)
    file = _file(settings)
    was_suspended = _in_table(lambda: _table(settings).resume(arguments.name))
    if file is not None:
        was_suspended |= _edit(file, arguments.name, suspended=False)
    if not was_suspended:
        raise Failed(f"{arguments.name} is not suspended")
    print(f"mail is taken from {arguments.name} again")


def _edit(file: UserFile, name: str, *, suspended: bool) -> bool:
    """Write into the users file; return whether it said something else."""
    import os

    from mta.config import REMOVED, ConfigurationError
    from mta.config.document import Source, parse
    from mta.config.edits import with_edits
    from mta.users.file import UserFault

    def change(text: str) -> str:
        value = True if suspended else REMOVED
        root = parse(text, Source(file.path, os.environ, secrets=False))
        return with_edits(text, root, {("users", user.name, "suspended"): value})

    try:
        user = file.existing(name)
        if user.account.is_suspended == suspended:
            return False
        file.edit(change)
    except UserFault as fault:
        raise Failed(str(fault)) from None
    except ConfigurationError as error:
        raise Failed(str(error.problems[0])) from None
    return True


def _in_table(action: Any) -> bool:
    try:
        return bool(action())
    except OSError as error:
        raise Failed(str(error)) from None


def _table(settings: Settings) -> AccountTable:
    from mta.access.account_table import AccountTable  # with Twisted, which takes a while

    return AccountTable(SpoolPlace.of(settings).shared_tables())


def _file(settings: Settings) -> UserFile | None:
    """The users file; None: the users are Dovecot's."""
    from mta.users.file import UserFile

    if settings.users.startswith("dovecot:"):
        return None
    path = Path(settings.users)
    return UserFile(path, owner_of_new_file(path, settings))
