"""The words that shells complete: ids, peers, users, domains, addresses.

A script of `mta completion` asks ``mta completion --known KIND`` for them when a key is hit.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from mta.commands.console import listing_of, settings_of

if TYPE_CHECKING:
    from mta.settings import Settings

KINDS = ("ids", "peers", "users", "domains", "destinations", "addresses", "events")
EVENTS = ("accepted", "delivered", "relayed", "deferred", "failed", "removed", "log-in", "link")
MAX_IDS = 1000  # of a list to choose from: more take a while, and no person reads them
_ASK = "mta completion --known {} 2> /dev/null"


def is_known(argument: argparse.Action, kind: str) -> None:
    """Let shells complete an argument with words of a kind."""
    ask = _ASK.format(kind)
    argument.complete = {  # type: ignore[attr-defined]  # shtab looks for it
        "bash": f"_mta_known_{kind}",
        "zsh": f" _mta_known {kind}",  # the space: with this argument alone
        "tcsh": f"`mta completion --known {kind}`",
        "fish": f"({ask})",
        "preamble": {
            "bash": f'_mta_known_{kind}() {{ compgen -W "$({ask})" -- "$1"; }}',
            "zsh": f'_mta_known() {{ compadd -- ${{(f)"$({_ASK.format("$1")})"}} }}',
        },
    }


def words(kind: str, arguments: argparse.Namespace) -> Iterator[str]:
    """The words of a kind that this user may know.  Raises what commands do."""
    if kind == "events":
        yield from EVENTS
        return
    settings = settings_of(arguments)
    if kind in ("peers", "destinations"):
        yield from settings.peers
    if kind in ("domains", "destinations"):
        yield from settings.domains
    if kind == "addresses":
        for name, domain in settings.domains.items():
            yield from (f"{mailbox}@{name}" for mailbox in sorted(domain.mailboxes or ()))
    if kind == "users":
        yield from _users(settings)
    if kind == "ids":
        yield from _ids(settings)


def _users(settings: Settings) -> Iterator[str]:
    from mta.users.file import UserFile

    if not settings.users.startswith("dovecot:"):
        yield from (user.name for user in UserFile(Path(settings.users)).list())


def _ids(settings: Settings) -> Iterator[str]:
    from mta.queued import Filter

    with listing_of(settings) as listing:
        yield from (listed.id for listed in islice(listing.find(Filter()), MAX_IDS))
