"""The steps that the commands of ``mta dkim`` share."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mta import config
from mta.commands.console import Failed, printable
from mta.privileges import ROOT, act_as_server, server_account
from mta.settings import DKIMKey, Domain, KeyState, Settings

# Keys and the reactor take a while: they are imported where they are used.
if TYPE_CHECKING:
    from mta.config import Edits
    from mta.signing.making import KeyMaker
    from mta.signing.records import KeyText

KINDS = ("rsa", "ed25519")


def make(
    arguments: argparse.Namespace,
    settings: Settings,
    domain: Domain,
    kinds: Sequence[str],
    state: KeyState,
) -> Sequence[DKIMKey]:
    """Make keys, and add them to the configuration."""
    from mta.signing.rotation import additions

    file: Path = arguments.config.resolve()
    entry: Edits = {}
    if domain.name not in settings.domains:
        entry = {("domains", domain.name, "mailboxes"): []}
    # Before there are keys that it could not be given.
    config.edited(file, {**entry, **additions(domain, [DKIMKey("x", Path("x"))], file.parent)})
    maker = _maker(settings, domain, file.parent)
    keys = maker.make(kinds, {key.selector for key in domain.dkim}, state, datetime.now(UTC))
    edit(arguments, {**entry, **additions(domain, keys, file.parent)})
    for key in keys:
        print(printable(f"made {key.file}: {key.state.value} in {file}"))
    return keys


def _maker(settings: Settings, domain: Domain, folder: Path) -> KeyMaker:
    from mta.signing.making import KeyMaker

    owner = None
    if os.geteuid() == ROOT and (account := server_account(settings)).uid != ROOT:
        owner = (account.uid, account.gid)
    return KeyMaker(domain.name, folder, owner)


def edit(arguments: argparse.Namespace, edits: Edits) -> None:
    """Edit the configuration.  Raises ConfigurationError or OSError."""
    file: Path = arguments.config.resolve()
    config.save(file, config.edited(file, edits))


def tell(settings: Settings) -> None:
    """Have the server read its keys.  Root is its user from now on."""
    from mta.commands.running_server import tell_server

    act_as_server(settings)
    if not tell_server(settings):
        print("the server does not run: it reads the keys when it starts", file=sys.stderr)


def domain_named(settings: Settings, name: str) -> Domain:
    """The entry of a domain.  Raises Failed."""
    domain = settings.domains.get(name)
    if domain is None:
        known = ", ".join(settings.domains) or "there are none"
        raise Failed(f"{name} is none of the `domains` in the configuration: {known}")
    return domain


def print_forms(domain: str, keys: Iterable[DKIMKey]) -> None:
    """Print records in both forms: of zone files, and of the web."""
    records = records_of(domain, keys)
    print("\nin a zone file:")
    for record in records:
        print(printable(zone_line(record)))
    print("\nin a form on the web, of type TXT:")
    for record in records:
        print(printable(f"name   {record.name}"))
        print(printable(f"value  {record.value}"))


def records_of(domain: str, keys: Iterable[DKIMKey]) -> Sequence[KeyText]:
    """The records of some keys.  Raises Failed."""
    from mta.signing.keys import KeyFault
    from mta.signing.records import record

    try:
        return [record(domain, key) for key in keys]
    except KeyFault as fault:
        raise Failed(str(fault)) from None


def zone_line(record: KeyText) -> str:
    """The line of a record in a zone file."""
    from mta.dns_answer import RecordType
    from mta.doctor.records import Record

    return Record(record.name, RecordType.TXT, record.value).zone_line
