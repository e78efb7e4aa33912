"""Checks of the ways that mail takes through this host."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

from mta.doctor.examined import Examined
from mta.doctor.result import Result, bad, ok, unknown, warn
from mta.mail import Mailbox
from mta.maildrop.drop import FOLDER
from mta.routing import Router
from mta.smtp.errors import Refusal

_ROLES = ("postmaster", "abuse")  # RFC 5321 section 4.5.1, RFC 2142


async def roles(examined: Examined) -> AsyncIterator[Result]:
    """Look whether the addresses that every domain must have lead anywhere."""
    settings = examined.settings
    router = Router.from_settings(settings, own=examined.own)
    for domain in settings.domains:
        for role in _ROLES:
            address = Mailbox(role, domain)
            try:
                router.route(address)
            except Refusal:
                yield warn(
                    f"{address} is refused: complaints about your mail reach no one",
                    f"add an alias `{role}` to the domain",
                )
            else:
                yield ok(f"{address} is taken")
    root = Mailbox("root", settings.home_domain)
    if not settings.domains:
        yield unknown(f"{root} leads nowhere: there is no domain of ours yet", "mta pair")
        return
    try:
        router.route(root)
    except Refusal:
        yield warn(
            f"{root} is refused: what programs of this host say to root reaches no one",
            "add an alias `root` to the domain",
        )
    else:
        yield ok(f"{root} is taken")


async def maildrop(examined: Examined) -> AsyncIterator[Result]:
    """Look whether programs of other users can send mail by ``mta sendmail``."""
    path = Path(examined.settings.spool) / FOLDER
    try:
        mode = path.stat().st_mode
        reachable = all(folder.stat().st_mode & stat.S_IXOTH for folder in path.parents)
    except PermissionError:
        yield unknown(f"{path} can't be seen by this user", "call mta doctor as root")
        return
    except OSError:
        yield unknown(f"{path} is not there yet", "it is made when the server starts")
        return
    if mode & stat.S_IWOTH and mode & stat.S_IXOTH and reachable:
        yield ok("programs of all users can send mail, while the server is down as well")
    else:
        yield bad(
            f"users other than {_owner(path)} can't write to {path}",
            f"chmod o+x {path.parent}; the server sets the rights of {path} at its start",
        )


def _owner(path: Path) -> str:
    number = path.stat().st_uid
    return "root" if number == 0 else f"user {number}" if number != os.geteuid() else "this one"
