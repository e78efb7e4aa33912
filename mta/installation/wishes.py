"""The wishes beside the answers: options of the command line."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Wishes:
    """The options of an installation.

    `users`: mailboxes that were named just now, and get a user in any case.  `dovecot`: None leaves
    it to what is there.  `completions`: a script for each shell.
    """

    users: Collection[str] = ()
    has_sendmail: bool = False
    dovecot: bool | None = None
    log_file: str = ""
    replaces: bool = False
    starts: bool = True
    is_offline: bool = False
    completions: Mapping[str, str] = field(default_factory=dict)
