"""``mta import``: take the alias tables of another server into the configuration."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from difflib import unified_diff
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mta import config
from mta.commands import tables
from mta.commands.console import (
    Failed,
    add_command,
    add_group,
    is_file,
    printable,
    settings_of,
)
from mta.commands.tables import Entry
from mta.commands.terminal import Bar
from mta.config import EditRejected, Edits, Keys, Problem
from mta.mail import Mailbox
from mta.settings import Domain, Forward, Settings

if TYPE_CHECKING:
    from mta.commands.console import Subparsers

# What one line can mean in our configuration: an alias, a forward, a catch-all, another domain.
_Meaning = tuple[Mailbox, ...] | Forward | Mailbox | str

_SUMMARIES = {
    "aliases": "take in an aliases(5) file, such as /etc/aliases",
    "virtual": "take in a virtual(5) table, such as /etc/postfix/virtual",
}


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    group = add_group(subparsers, "import", "take in the alias tables of another server")
    for form, summary in _SUMMARIES.items():
        parser = add_command(group, form, _run, summary)
        is_file(parser.add_argument("table", metavar="FILE", type=Path))
        parser.add_argument(
            "--domain",
            metavar="D",
            type=str.lower,
            help="where names without a domain are (default: the domain of `hostname`)",
        )
        parser.add_argument(
            "--skip", action="store_true", help="leave out what can't be taken in, and say so"
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="only show what would change in the file"
        )
        parser.set_defaults(read=tables.READERS[form])


def _run(arguments: argparse.Namespace) -> None:
    settings = settings_of(arguments, keep_root=True)
    importer = _Importer(settings)
    findings = list(arguments.read(arguments.table, arguments.domain or settings.home_domain))
    with closing(Bar(len(findings))) as bar:
        for finding in findings:
            importer.take(finding)
            bar.advance(1)
    file = arguments.config.resolve()  # behind a link
    text = importer.extended(file)
    for problem in sorted(importer.problems):
        print(printable(str(problem)), file=sys.stderr)
    if importer.problems and not arguments.skip:
        raise Failed("nothing is changed; --skip leaves out what can't be taken in")
    if arguments.dry_run:
        _print_difference(file, text)
        return
    if importer.entries:
        config.save(file, text)
    _report(importer, file)


class _Importer:
    """The additions of a table to a configuration.

    `entries` are the lines by the keys that they add, `problems` what can't be taken in, `known`
    counts the lines that the configuration has in its own words already.
    """

    def __init__(self, settings: Settings) -> None:
        self.entries: dict[Keys, Entry] = {}
        self.problems: list[Problem] = []
        self.known = 0
        self._domains = settings.domains
        self._seen: dict[tuple[Mailbox, bool], Entry] = {}
        self._values: dict[Keys, Any] = {}

    def take(self, finding: Entry | Problem) -> None:
        """Take one line."""
        if isinstance(finding, Problem):
            self.problems.append(finding)
            return
        try:
            key = finding.address, bool(finding.targets)
            before = self._seen.setdefault(key, finding)
            if before is not finding:
                raise ValueError(f"line {before.line} has the same name")
            self._add(finding)
        except ValueError as error:
            self.problems.append(finding.problem(str(error)))

    def extended(self, file: Path) -> str:
        """The text of the configuration with all that fits.  Raises ConfigurationError.

        What does not fit becomes a problem, and so does what can't do without it.
        """
        while True:
            try:
                return config.edited(file, self._additions())
            except EditRejected as rejected:
                if not rejected.blamed:
                    raise
                for keys, problem in rejected.blamed.items():
                    del self._values[keys]
                    self.problems.append(self.entries.pop(keys).problem(problem.text))

    def _additions(self) -> Edits:
        """The values.  A domain that gets members needs none of its own."""
        filled = {keys[:2] for keys in self._values if len(keys) > 2}
        return {keys: value for keys, value in self._values.items() if keys not in filled}

    def _add(self, entry: Entry) -> None:
        """Raises ValueError where our configuration can't say what the line does."""
        name = entry.address.domain
        domain = self._domains.get(name)
        keys, meaning = _meaning(entry, domain)
        configured = _configured(domain, keys) if domain else None
        if configured == meaning:
            self.known += 1
        elif configured is not None:
            raise ValueError(f"the configuration says something else in {'.'.join(keys)}")
        else:
            path = ("domains", name, *keys)
            self.entries[path], self._values[path] = entry, _written(meaning, name)


def _meaning(entry: Entry, domain: Domain | None) -> tuple[Keys, _Meaning]:
    """The keys that a line is about, and its meaning there.  Raises ValueError."""
    address, targets = entry.address, entry.targets
    if not targets:
        return (), ""
    if not all(target.local_part for target in targets):
        if address.local_part or len(targets) > 1:
            raise ValueError("a name can't go to a domain, expected an address")
        return ("alias_of",), targets[0].domain
    if not address.local_part:
        if len(targets) > 1:
            raise ValueError("a catch-all is one address: make it an alias for all of these")
        return ("catch_all",), targets[0]
    name = address.local_part
    is_mailbox = domain is not None and name in (domain.mailboxes or ())
    others = tuple(dict.fromkeys(each for each in targets if not _is_same(each, address)))
    if not any(_is_same(each, address) for each in targets):
        return (("forward", name), Forward(others)) if is_mailbox else (("aliases", name), others)
    if others:
        return ("forward", name), Forward(others, keep=True)
    if not is_mailbox and not (domain and domain.mailboxes is None):
        raise ValueError(f"{name!r} stands for itself and is no mailbox: add it to `mailboxes`")
    return (), ""


def _is_same(one: Mailbox, other: Mailbox) -> bool:
    return str(one).lower() == str(other).lower()


def _configured(domain: Domain, keys: Keys) -> _Meaning | None:
    """The meaning of the configuration there; None: it has none."""
    match keys:
        case ("aliases", name):
            return domain.aliases.get(name)
        case ("forward", name):
            return domain.forward.get(name)
        case ("catch_all",):
            return domain.catch_all
        case ("alias_of",):
            return domain.alias_of or None
    return ""


def _written(meaning: _Meaning, domain: str) -> Any:
    """A meaning as the configuration writes it, in a domain."""
    match meaning:
        case Mailbox():
            address = str(meaning)
            return address if address.startswith('"') else address.removesuffix(f"@{domain}")
        case Forward(to, True):
            return {"to": _written(to, domain), "keep": True}
        case Forward(to):
            return _written(to, domain)
        case tuple():
            written = [_written(each, domain) for each in meaning]
            return written if len(written) > 1 else written[0]
        case str():
            return meaning or {}


def _print_difference(file: Path, text: str) -> None:
    before = file.read_text("utf-8-sig").splitlines(keepends=True)
    after = text.splitlines(keepends=True)
    sys.stdout.writelines(unified_diff(before, after, str(file), str(file)))


def _report(importer: _Importer, file: Path) -> None:
    count = len(importer.entries)
    words = [f"{count} line{'' if count == 1 else 's'} taken into {file}"]
    if importer.known:
        words.append(f"{importer.known} known already")
    if importer.problems:
        words.append(f"{len(importer.problems)} left out")
    print(", ".join(words))
