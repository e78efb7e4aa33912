"""``mta check``: is this configuration one that the server starts with?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mta.commands.console import add_command, settings_of

if TYPE_CHECKING:
    from mta.commands.console import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    add_command(subparsers, "check", _run, "check a configuration file")


def _run(arguments: argparse.Namespace) -> None:
    settings_of(arguments, secrets=True, keep_root=True)
    print(f"{arguments.config}: ok")
