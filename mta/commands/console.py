"""The common part of commands: failures, configuration, words for people."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mta.config import load
from mta.privileges import act_as_server, server_account
from mta.settings import DAY, HOUR, KIB, MIB, MINUTE, Settings

# What takes a while, and few commands need, is imported where it is used.
if TYPE_CHECKING:
    from mta.routing import Router
    from mta.spool.interfaces import IListing, ITools

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

DEFAULT_CONFIG = "/etc/mta/mta.yaml"

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd]?)")
_UNITS = {"": 1.0, "s": 1.0, "m": MINUTE, "h": HOUR, "d": DAY}


class Failed(Exception):
    """A command that could not be done: one line for a person."""


def add_command(
    subparsers: Subparsers,
    name: str,
    run: Callable[[argparse.Namespace], None],
    summary: str,
) -> argparse.ArgumentParser:
    """Add the parser of a command that takes ``--config``."""
    parser = subparsers.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
    add_config(parser, "-c")
    parser.set_defaults(run=run)
    return parser


def add_config(parser: argparse.ArgumentParser, letter: str) -> None:
    """Let a command name its configuration, by ``--config`` or a letter."""
    is_file(
        parser.add_argument(
            letter,
            "--config",
            metavar="FILE",
            type=Path,
            default=Path(os.environ.get("MTA_CONFIG") or DEFAULT_CONFIG),
            help=f"the configuration (default: $MTA_CONFIG, then {DEFAULT_CONFIG})",
        )
    )


def is_file(argument: argparse.Action) -> None:
    """Let shells complete an argument with the names of files."""
    argument.complete = "file"  # type: ignore[attr-defined]  # shtab looks for it


def add_group(subparsers: Subparsers, name: str, summary: str) -> Subparsers:
    """Add a command that has commands of its own.  Returns what these are added to."""
    parser = subparsers.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Let a command print JSON."""
    parser.add_argument("--json", action="store_true", help="print JSON, an object a line")


def settings_of(
    arguments: argparse.Namespace, *, secrets: bool = False, keep_root: bool = False
) -> Settings:
    """The configuration that the arguments name, maybe with its secrets.

    Root is the server's user from now on, but with `keep_root`: for commands that touch nothing of
    this user's.  The file is read once, as the server's user may not be able to read it.  Raises
    ConfigurationError, PrivilegeFault or OSError.
    """
    read: dict[bool, Settings] = vars(arguments).setdefault("settings", {})
    if secrets not in read:
        read[secrets] = load(arguments.config, secrets=secrets)
    settings = read[secrets]
    if not keep_root:
        act_as_server(settings)
    return settings


def spool_of(settings: Settings) -> closing[ITools]:
    """The spool of the server.  Raises Failed where there is none, or OSError."""
    from mta.spool.place import SpoolPlace

    _require_spool(settings)
    return closing(SpoolPlace.of(settings).tools())


def listing_of(settings: Settings) -> closing[IListing]:
    """The spool of the server, to be looked at.  Raises Failed where there is none, or OSError."""
    from mta.spool.place import SpoolPlace

    _require_spool(settings)
    return closing(SpoolPlace.of(settings).listing())


def _require_spool(settings: Settings) -> None:
    from mta.spool.place import SpoolPlace

    if not has_spool(settings):
        name = SpoolPlace.of(settings).name
        raise Failed(f"no spool in {name}: the server has not run yet, or `spool` is another")


def has_spool(settings: Settings) -> bool:
    """Return whether the server has made its spool.

    Raises OSError, or Failed where it is not for us.
    """
    from mta.spool.place import SpoolPlace

    spool = Path(settings.spool)
    if spool.is_dir() and not os.access(spool, os.R_OK | os.W_OK | os.X_OK):
        raise Failed(f"{spool}: only root and the user {server_account(settings)} may look there")
    return SpoolPlace.of(settings).exists()


def router_of(settings: Settings) -> Router:
    """The router that the server would have with this configuration.

    A user who may not read the spool's key sees the addresses of SRS as any other.
    """
    from mta.delivery.own_host import OwnHost
    from mta.pairing.mailboxes import domains_with_mailboxes
    from mta.routing import Router
    from mta.smtp.srs import SenderRewriting
    from mta.spool.place import SpoolPlace
    from mta.srs_key import srs_key

    spool = Path(settings.spool)
    srs = None
    with suppress(OSError):
        # Else the key would look like a spool that lost its database.
        if settings.database or SpoolPlace.of(settings).exists():
            srs = SenderRewriting(srs_key(spool))
    return Router.from_settings(
        replace(settings, domains=domains_with_mailboxes(settings)),
        srs,
        OwnHost(settings.hostname, settings.own_addresses),
    )


def print_json(document: Mapping[str, Any]) -> None:
    """One object, on one line."""
    print(json.dumps(document))


# --- words for people ------------------------------------------------------------


def seconds(text: str) -> float:
    """A duration such as ``90s`` or ``2h``, as an argument.  Raises ArgumentTypeError."""
    match = _DURATION.fullmatch(text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 90s, 5m, 4h or 5d")
    return float(match[1]) * _UNITS[match[2]]


def nonempty(text: str) -> str:
    """An argument that is not empty, as variables of scripts may be.

    Raises ArgumentTypeError.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("there is nothing in it")
    return text


def duration(length: float) -> str:
    """Seconds in the unit that tells most: ``90s``, ``15m``, ``30h``, ``5d``."""
    for unit, size in (("d", DAY), ("h", HOUR), ("m", MINUTE)):
        if length >= 2 * size:
            return f"{length / size:.0f}{unit}"
    return f"{max(length, 0):.0f}s"


def size(octets: int) -> str:
    """A size: ``812 B``, ``12 KiB``, ``3.4 MiB``."""
    if octets < KIB:
        return f"{octets} B"
    return f"{octets / KIB:.0f} KiB" if octets < MIB else f"{octets / MIB:.1f} MiB"


def moment(at: float) -> str:
    """Seconds since the epoch as ISO 8601, in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def printable(text: str) -> str:
    """Text from elsewhere without what a terminal would obey."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def columns(rows: Iterable[tuple[str, str]]) -> str:
    """Names and values, aligned; nothing where a value is empty."""
    filled = [(name, value) for name, value in rows if value]
    width = max((len(name) for name, _ in filled), default=0)
    return "\n".join(f"{name:{width}}  {value}" for name, value in filled)
