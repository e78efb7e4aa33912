"""What the commands share: failing, finding the configuration, and words for people."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mta.config import load
from mta.settings import DAY, HOUR, KIB, MIB, MINUTE, Settings

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

DEFAULT_CONFIG = "/etc/mta/mta.yaml"

_DURATION = re.compile(r"([0-9]{1,9})([smhd]?)")
_UNITS = {"": 1.0, "s": 1.0, "m": MINUTE, "h": HOUR, "d": DAY}


class Failed(Exception):
    """What was asked for could not be done: one line for a person."""


def add_command(
    subparsers: Subparsers,
    name: str,
    run: Callable[[argparse.Namespace], None],
    summary: str,
) -> argparse.ArgumentParser:
    """Add the parser of a command that takes ``--config``."""
    parser = subparsers.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        type=Path,
        default=Path(os.environ.get("MTA_CONFIG") or DEFAULT_CONFIG),
        help=f"the configuration (default: $MTA_CONFIG, then {DEFAULT_CONFIG})",
    )
    parser.set_defaults(run=run)
    return parser


def add_group(subparsers: Subparsers, name: str, summary: str) -> Subparsers:
    """Add a command that only has commands of its own; returns where they go."""
    parser = subparsers.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Let a command print JSON."""
    parser.add_argument("--json", action="store_true", help="print JSON, an object a line")


def settings_of(arguments: argparse.Namespace) -> Settings:
    """The configuration that the arguments name.  Raises ConfigurationError."""
    return load(arguments.config)


def print_json(document: Mapping[str, Any]) -> None:
    """One object, on one line."""
    print(json.dumps(document))


# --- words for people ------------------------------------------------------------


def seconds(text: str) -> float:
    """A duration such as ``90s`` or ``2h``, as an argument.  Raises ArgumentTypeError."""
    match = _DURATION.fullmatch(text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 90s, 5m, 4h or 5d")
    return int(match[1]) * _UNITS[match[2]]


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
