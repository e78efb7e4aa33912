"""``mta dkim rotate``: new keys of a domain, step by step."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from mta import config
from mta.commands.console import Failed, duration, moment, printable, settings_of
from mta.commands.dkim_keys import KINDS, domain_named, edit, make, print_forms, tell
from mta.settings import DKIMKey, Domain, KeyState, Settings
from mta.signing import rotation
from mta.signing.keys import KeyFault, read
from mta.signing.presence import Presence
from mta.signing.records import name_of
from mta.signing.rotation import Step


def run(arguments: argparse.Namespace) -> None:
    """Take the next step, and those behind it that need not wait.  Raises Failed."""
    settings = settings_of(arguments, keep_root=True)
    domain = domain_named(settings, arguments.domain)
    if not domain.dkim:
        raise Failed(f"{domain.name} has no keys: mta dkim add {domain.name}")
    try:
        step = rotation.next_step(domain, datetime.now(UTC))
        if step is Step.BEGIN:
            _begin(arguments, settings, domain)
        elif step is Step.SWITCH:
            _switch(arguments, settings, domain)
        elif step is Step.KEEP:
            _keep(settings, domain)
        else:
            _drop(arguments, settings, domain)
    except KeyFault as fault:
        raise Failed(str(fault)) from None


def _begin(arguments: argparse.Namespace, settings: Settings, domain: Domain) -> None:
    """Make keys of the kinds that sign now."""
    kinds = {read(key.file).kind for key in domain.signing_keys} or KINDS
    wanted = [kind for kind in KINDS if kind in kinds]
    keys = make(arguments, settings, domain, wanted, KeyState.NEXT)
    print("\nPublish these records; nothing is signed with the keys before the DNS has them:")
    print_forms(domain.name, keys)
    if arguments.wait:
        settings = config.load(arguments.config, secrets=False)
        _switch(arguments, settings, settings.domains[domain.name])
        return
    print(f"\nAnd then again: mta dkim rotate {domain.name}")
    tell(settings)


def _switch(arguments: argparse.Namespace, settings: Settings, domain: Domain) -> None:
    """Sign with the next keys, if the DNS has them.  Raises Failed."""
    from mta.commands.published_keys import presences

    coming = _in_state(domain, KeyState.NEXT)
    keys = {name_of(key.selector, domain.name): read(key.file) for key in coming}
    if arguments.wait:
        print(f"\nlooking for the records, for {duration(arguments.wait)} at most", flush=True)
    found = presences(settings, {domain.name: keys}, arguments.wait)
    lacking = [f"{n}: {each.value}" for n, each in found.items() if each is not Presence.PRESENT]
    if lacking:
        raise Failed(
            f"the DNS does not have all records yet ({', '.join(lacking)}): the present keys go on"
            f" signing; `mta dkim records {domain.name}` prints what to publish"
        )
    now = datetime.now(UTC)
    edit(arguments, rotation.switch(domain, now))
    print(f"{domain.name} signs with {_selectors(coming)} as of now")
    _remind(domain.name, domain.signing_keys, now + rotation.RETIREMENT)
    tell(settings)


def _keep(settings: Settings, domain: Domain) -> None:
    """Say until when the old records must stay."""
    old = _in_state(domain, KeyState.RETIRING)
    _remind(domain.name, old, rotation.end_of_retirement(domain, datetime.now(UTC)))
    tell(settings)


def _remind(domain: str, keys: Sequence[DKIMKey], end: datetime) -> None:
    if keys:
        print(
            f"keep the record of {_selectors(keys)} until {moment(end.timestamp())}, for mail that"
            f" is on its way; then again: mta dkim rotate {domain}"
        )


def _drop(arguments: argparse.Namespace, settings: Settings, domain: Domain) -> None:
    """Take the old keys away: their mail has arrived."""
    old = _in_state(domain, KeyState.RETIRING)
    file = arguments.config.resolve()
    text = config.edited(file, rotation.removals(domain))
    # The files first: a key that is configured, and has none, is taken out by the next call.
    kept = {
        key.file
        for each in settings.domains.values()
        for key in each.dkim
        if each is not domain or key.state is not KeyState.RETIRING
    }
    for key in old:
        if key.file not in kept:
            _remove(key.file)
    config.save(file, text)
    print("no mail needs these records any more, take them out of the DNS:")
    for key in old:
        print(printable(name_of(key.selector, domain.name)))
    tell(settings)


def _remove(file: Path) -> None:
    with suppress(FileNotFoundError):
        file.unlink()
        print(printable(f"removed {file}"))


def _in_state(domain: Domain, state: KeyState) -> Sequence[DKIMKey]:
    return [key for key in domain.dkim if key.state is state]


def _selectors(keys: Iterable[DKIMKey]) -> str:
    return ", ".join(key.selector for key in keys)
