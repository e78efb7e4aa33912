"""``mta dkim``: the keys that mail is signed with, and their records."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mta.commands.console import (
    Failed,
    add_command,
    add_group,
    add_json,
    print_json,
    seconds,
    settings_of,
)
from mta.commands.dkim_keys import (
    KINDS,
    domain_named,
    make,
    print_forms,
    records_of,
    tell,
    zone_line,
)
from mta.commands.known import is_known
from mta.mail import Agent, Hop, canonical_domain
from mta.settings import Domain, KeyState

# Keys and the reactor take a while: they are imported where they are used.
if TYPE_CHECKING:
    from mta.commands.console import Subparsers


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


# --- what there is


def _print_records(arguments: argparse.Namespace) -> None:
    settings = settings_of(arguments, keep_root=True)
    domain = domain_named(settings, arguments.domain)
    if not domain.dkim:
        raise Failed(f"{domain.name} has no keys: mta dkim add {domain.name}")
    if not arguments.json:
        print_forms(domain.name, domain.dkim)
        return
    for record in records_of(domain.name, domain.dkim):
        print_json(
            {"name": record.name, "type": "TXT", "value": record.value, "zone": zone_line(record)}
        )


def _list(arguments: argparse.Namespace) -> None:
    from mta.commands import dkim_list

    dkim_list.run(arguments)


def _rotate(arguments: argparse.Namespace) -> None:
    from mta.commands import dkim_rotation

    dkim_rotation.run(arguments)
