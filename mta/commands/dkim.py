"""``mta dkim``: the keys that mail is signed with, and their records."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mta import config
from mta.commands.console import (
    Failed,
    add_command,
    add_group,
    add_json,
    print_json,
    printable,
    seconds,
    settings_of,
)
from mta.commands.known import is_known
from mta.mail import Agent, Hop, canonical_domain
from mta.privileges import ROOT, act_as_server, server_account
from mta.settings import DKIMKey, Domain, KeyState, Settings

# Keys and the reactor take a while: they are imported where they are used.
if TYPE_CHECKING:
    from mta.commands.console import Subparsers
    from mta.config import Edits
    from mta.signing.making import KeyMaker
    from mta.signing.records import KeyText

KINDS = ("rsa", "ed25519")


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    group = add_group(subparsers, "dkim", "make, show and change the keys that mail is signed with")
    add = _add(group, "add", _add_keys, "make the first keys of a domain, and print their records")
    add.add_argument(
        "--algorithm",
        action="append",
        choices=KINDS,
        help="make a key of this kind alone (default: one of each)",
    )
    listing = add_command(group, "list", _list, "list the keys, and whether the DNS has them")
    is_known(
        listing.add_argument("domain", metavar="DOMAIN", nargs="?", type=canonical_domain),
        "domains",
    )
    listing.add_argument("--offline", action="store_true", help="do not ask the DNS")
    records = _add(group, "records", _print_records, "print the DNS records of a domain's keys")
    rotate = _add(group, "rotate", _rotate, "take the next step to new keys of a domain")
    rotate.add_argument(
        "--wait",
        metavar="TIME",
        type=seconds,
        nargs="?",
        const=3600.0,
        default=0.0,
        help="look for new records so long, and go on when they are there (default: 1h)",
    )
    for parser in (listing, records):
        add_json(parser)


def _add(group: Subparsers, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    """Add a command about one domain."""
    parser = add_command(group, name, run, summary)
    is_known(parser.add_argument("domain", metavar="DOMAIN", type=canonical_domain), "domains")
    return parser


# --- new keys


def _add_keys(arguments: argparse.Namespace) -> None:
    settings = settings_of(arguments, keep_root=True)
    name = arguments.domain
    if name == settings.hostname and name not in settings.domains:
        domain = Domain(name, Hop(Agent.DISCARD))  # a name that our notices come from
    else:
        domain = domain_named(settings, name)
    if domain.dkim:
        raise Failed(f"{domain.name} has keys: `mta dkim rotate {domain.name}` makes the next ones")
    kinds = [kind for kind in KINDS if kind in (arguments.algorithm or KINDS)]
    keys = make(arguments, settings, domain, kinds, KeyState.ACTIVE)
    tell(settings)
    print(f"\nPublish these records, and see by `mta dkim list {domain.name}` that they are there:")
    print_forms(domain.name, keys)


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


# --- what there is


def _print_records(arguments: argparse.Namespace) -> None:
    settings = settings_of(arguments, keep_root=True)
    domain = domain_named(settings, arguments.domain)
    if not domain.dkim:
        raise Failed(f"{domain.name} has no keys: mta dkim add {domain.name}")
    if not arguments.json:
        print_forms(domain.name, domain.dkim)
        return
    for record in _records(domain.name, domain.dkim):
        print_json(
            {"name": record.name, "type": "TXT", "value": record.value, "zone": _zone(record)}
        )


def print_forms(domain: str, keys: Iterable[DKIMKey]) -> None:
    """Print records in both forms: of zone files, and of the web."""
    records = _records(domain, keys)
    print("\nin a zone file:")
    for record in records:
        print(printable(_zone(record)))
    print("\nin a form on the web, of type TXT:")
    for record in records:
        print(printable(f"name   {record.name}"))
        print(printable(f"value  {record.value}"))


def _records(domain: str, keys: Iterable[DKIMKey]) -> Sequence[KeyText]:
    """The records of some keys.  Raises Failed."""
    from mta.signing.keys import KeyFault
    from mta.signing.records import record

    try:
        return [record(domain, key) for key in keys]
    except KeyFault as fault:
        raise Failed(str(fault)) from None


def _zone(record: KeyText) -> str:
    from mta.dns_answer import RecordType
    from mta.doctor.records import Record

    return Record(record.name, RecordType.TXT, record.value).zone_line


def _list(arguments: argparse.Namespace) -> None:
    from mta.commands import dkim_list

    dkim_list.run(arguments)


def _rotate(arguments: argparse.Namespace) -> None:
    from mta.commands import dkim_rotation

    dkim_rotation.run(arguments)
