"""``mta dkim list``: the keys of our domains, and the DNS."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from mta.commands.console import duration, moment, print_json, printable, settings_of
from mta.commands.dkim_keys import domain_named
from mta.privileges import act_as_server
from mta.settings import DKIMKey, KeyState, Settings
from mta.signing.key_files import KeyFile
from mta.signing.keys import KeyFault, PrivateKey, read
from mta.signing.presence import Presence
from mta.signing.records import name_of
from mta.signing.rotation import RETIREMENT


def run(arguments: argparse.Namespace) -> None:
    """Print a line for each key.  Raises Failed."""
    settings = settings_of(arguments, keep_root=True)
    names = [arguments.domain] if arguments.domain else list(settings.domains)
    domains = [domain_named(settings, name) for name in names]
    listed = [_Listed(domain.name, key) for domain in domains for key in domain.dkim]
    if not arguments.offline:
        _look_up(settings, listed)
    if arguments.json:
        for each in listed:
            print_json(each.document())
        return
    rows = [each.row(datetime.now(UTC)) for each in listed]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True))
        print(printable(line.rstrip()))


def _look_up(settings: Settings, listed: Sequence[_Listed]) -> None:
    """Look for the records of listed keys that can be read."""
    keys: dict[str, dict[str, PrivateKey]] = {}
    for each in listed:
        if each.key is not None:
            keys.setdefault(each.domain, {})[each.record_name] = each.key
    if not keys:
        return
    from mta.commands.published_keys import presences  # with the resolver, which takes a while

    act_as_server(settings)
    found = presences(settings, keys)
    for each in listed:
        each.presence = found.get(each.record_name)


class _Listed:
    """A key, as the list shows it.

    `presence` None: the DNS was not asked.
    """

    def __init__(self, domain: str, configured: DKIMKey) -> None:
        self.domain = domain
        self.configured = configured
        self.record_name = name_of(configured.selector, domain)
        self.presence: Presence | None = None
        self.key: PrivateKey | None = None
        self._file: KeyFile | None = None
        self._fault = ""
        try:
            self.key = read(configured.file)
            self._file = KeyFile(configured.file)
        except KeyFault as fault:
            self._fault = str(fault)

    def row(self, now: datetime) -> Sequence[str]:
        """The words of a line for people."""
        configured = self.configured
        algorithm, age, end = "-", "-", self._fault
        if self.key is not None and self._file is not None:
            algorithm = self.key.algorithm
            age = duration((now - self._file.created).total_seconds())
            if self.presence is not None:
                end = f"in the DNS: {self.presence.value}"
            if retired := self._retired:
                end += f", until {moment((retired + RETIREMENT).timestamp())}"
        state = configured.state.value
        return self.domain, configured.selector, algorithm, state, age, end.removeprefix(", ")

    def document(self) -> dict[str, Any]:
        """The same for programs."""
        file, retired = self._file, self._retired
        return {
            "domain": self.domain,
            "selector": self.configured.selector,
            "algorithm": None if self.key is None else self.key.algorithm,
            "state": self.configured.state.value,
            "created": file and moment(file.created.timestamp()),
            "retired": retired and moment(retired.timestamp()),
            "dns": self.presence and self.presence.value,
            "file": str(self.configured.file),
            "fault": self._fault or None,
        }

    @property
    def _retired(self) -> datetime | None:
        """The time since which an old key signs no more, if known."""
        is_old = self.configured.state is KeyState.RETIRING
        return self._file.retired if is_old and self._file is not None else None
