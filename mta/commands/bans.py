"""``mta user bans`` and ``mta user unban``: hosts and users without log-ins."""

from __future__ import annotations

import argparse
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mta.commands.console import (
    Failed,
    add_command,
    add_json,
    duration,
    moment,
    print_json,
    printable,
    settings_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mta.access.log_in_file import LogInFile
    from mta.commands.console import Subparsers
    from mta.session import Ban
    from mta.settings import Settings


def register(group: Subparsers) -> None:
    """Add the commands to those about users."""
    add_json(add_command(group, "bans", _list, "list who may not log in for a while"))
    unban = add_command(group, "unban", _lift, "let banned hosts or users log in again")
    unban.add_argument("name", nargs="*", metavar="NAME", help="an address, or a user")
    unban.add_argument("--all", action="store_true", help="all of them")


def of_user(settings: Settings, user: str) -> Sequence[Ban]:
    """The bans of a user, as far as they may be read."""
    name = user.lower()
    with suppress(PermissionError):
        return [
            ban
            for ban in _file(settings).read().bans
            if name in {ban.user.lower(), *map(str.lower, ban.users)}
        ]
    return ()


def _file(settings: Settings) -> LogInFile:
    from mta.access.log_in_file import LogInFile  # with Twisted, which takes a while

    return LogInFile(Path(settings.spool))


def key(found: Sequence[Ban]) -> dict[str, Any]:
    """The key of bans in JSON; none where there are no bans."""
    return {"bans": [_document(ban) for ban in found]} if found else {}


def _document(ban: Ban) -> dict[str, Any]:
    """A ban as JSON."""
    return {
        "host": ban.host,
        "user": ban.user,
        "since": moment(ban.since),
        "until": moment(ban.until),
        "seconds_left": round(ban.until - time.time()),
        "failures": ban.failures,
        "users": list(ban.users),
    }


def line(ban: Ban) -> str:
    """A ban in words."""
    who = f" of {ban.user}" if ban.user else ""
    left = duration(ban.until - time.time())
    tried = ", ".join(ban.users) or "unknown users"
    return printable(f"no log-ins{who} from {ban.host} for {left}: {ban.failures} failed ({tried})")


def _list(arguments: argparse.Namespace) -> None:
    bans = _file(settings_of(arguments)).read().bans
    for ban in bans:
        if arguments.json:
            print_json(_document(ban))
        else:
            print(line(ban))
    if not bans and not arguments.json:
        print("nobody is banned")


def _lift(arguments: argparse.Namespace) -> None:
    if bool(arguments.name) == arguments.all:
        raise Failed("which ban?  Name an address or a user, or --all")
    lifted = _file(settings_of(arguments)).lift(arguments.name)
    if not lifted and arguments.name:
        raise Failed(f"no ban of {' or '.join(arguments.name)}: see `mta user bans`")
    for ban in lifted:
        print(printable(f"{ban.user + ' from ' if ban.user else ''}{ban.host} may log in again"))
    if not lifted:
        print("nobody is banned")
