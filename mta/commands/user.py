"""``mta user``: who may log in."""

from __future__ import annotations

import argparse
import sys
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING

from mta.commands import bans, suspensions
from mta.commands.console import (
    Failed,
    add_command,
    add_group,
    add_json,
    print_json,
    printable,
    settings_of,
)
from mta.commands.known import is_known
from mta.privileges import owner_of_new_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from mta.commands.console import Subparsers
    from mta.users.file import UserFile


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    group = add_group(subparsers, "user", "add, change and list the users who may log in")
    add = _add(group, "add", _add_user, "add a user")
    add.add_argument(
        "--address",
        action="append",
        default=[],
        metavar="A",
        help="an address, or @domain, that the user may send as (default: its name)",
    )
    add.add_argument(
        "--cram-md5",
        action="store_true",
        help="keep the password itself too: CRAM-MD5 (RFC 2645 clients) can't do without",
    )
    passwd = _add(group, "passwd", _set_password, "change a user's password")
    check = _add(group, "check", _check, "check a user's password")
    for parser in (add, passwd, check):
        parser.add_argument(
            "--password-stdin",
            action="store_true",
            help="the password is the first line of standard input",
        )
    _add(group, "del", _delete, "remove a user")
    suspensions.register(group)
    add_json(add_command(group, "list", _list, "list the users"))
    bans.register(group)


def _add(
    group: Subparsers, name: str, run: Callable[[argparse.Namespace, UserFile], None], summary: str
) -> argparse.ArgumentParser:
    """Add a command about one user."""
    parser = add_command(group, name, lambda arguments: _with_file(run, arguments), summary)
    argument = parser.add_argument("name", metavar="NAME")
    if name != "add":
        is_known(argument, "users")
    return parser


def _with_file(
    run: Callable[[argparse.Namespace, UserFile], None], arguments: argparse.Namespace
) -> None:
    from mta.users.file import UserFault

    try:
        run(arguments, _file(arguments))
    except UserFault as fault:
        raise Failed(str(fault)) from None


def _file(arguments: argparse.Namespace) -> UserFile:
    from mta.users.file import UserFile

    settings = settings_of(arguments, keep_root=True)
    users = settings.users
    if users.startswith("dovecot:"):
        raise Failed(f"{arguments.config}: the users are Dovecot's ({users}): change them there")
    owner = owner_of_new_file(Path(users), settings)
    return UserFile(Path(users), owner, scram=settings.submission.scram)


def _add_user(arguments: argparse.Namespace, file: UserFile) -> None:
    password = _new_password(arguments)
    file.add(arguments.name, password, arguments.address, cram_md5=arguments.cram_md5)
    print(f"added {arguments.name}")


def _set_password(arguments: argparse.Namespace, file: UserFile) -> None:
    file.set_password(arguments.name, _new_password(arguments))
    print(f"changed {arguments.name}")


def _check(arguments: argparse.Namespace, file: UserFile) -> None:
    from mta.users.renewed import RenewedPasswords

    renewed = RenewedPasswords(Path(settings_of(arguments, keep_root=True).spool))
    if not file.check(arguments.name, _password(arguments), renewed):
        raise Failed(f"{arguments.name}: that is not the password")
    print(f"{arguments.name}: ok")


def _delete(arguments: argparse.Namespace, file: UserFile) -> None:
    file.delete(arguments.name)
    print(f"removed {arguments.name}")


def _list(arguments: argparse.Namespace) -> None:
    _with_file(_print_users, arguments)


def _print_users(arguments: argparse.Namespace, file: UserFile) -> None:
    users = file.list()
    settings = settings_of(arguments, keep_root=True)
    width = max((len(user.name) for user in users), default=0)
    for user in users:
        found = bans.of_user(settings, user.name)
        suspension = suspensions.of_user(settings, user)
        if arguments.json:
            print_json(
                {
                    "name": user.name,
                    "addresses": list(user.addresses),
                    "cram_md5": bool(user.cram_md5),
                    **({"suspended": suspension} if suspension else {}),
                    **bans.key(found),
                }
            )
        else:
            notes = ["CRAM-MD5"] if user.cram_md5 else []
            notes += [f"suspended: {suspension}"] if suspension else []
            notes += [bans.line(ban) for ban in found]
            line = f"{user.name:{width}}  {' '.join(user.addresses) or '-'}"
            print(printable(f"{line}  ({'; '.join(notes)})" if notes else line))


def _new_password(arguments: argparse.Namespace) -> str:
    password = _password(arguments)
    if not arguments.password_stdin and getpass("Once more: ") != password:
        raise Failed("these are two different passwords: nothing changed")
    return password


def _password(arguments: argparse.Namespace) -> str:
    if arguments.password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = getpass(f"Password of {arguments.name}: ")
    else:
        raise Failed("there is no terminal to ask for the password on: use --password-stdin")
    if not password:
        raise Failed("the password is empty: nothing changed")
    return password
