"""``mta queue hold --new``: standing holds, for new mail."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from mta.commands.console import Failed, duration, printable
from mta.mail import canonical_domain
from mta.queued import Filter
from mta.settings import Settings
from mta.spool.holds import StandingHold
from mta.spool.interfaces import IStandingHolds
from mta.spool.place import SpoolPlace

VERBS = {
    "hold": "put new mail that fits on hold, too, until `release --new` (--from, --to, --domain)",
    "release": "end what `hold --new` began with the same filter",
}


def add_option(parser: argparse.ArgumentParser, verb: str) -> None:
    """Let a command be about new mail as well."""
    parser.add_argument("--new", action="store_true", help=VERBS[verb])


def change(arguments: argparse.Namespace, settings: Settings, wanted: Filter) -> None:
    """Begin or end a standing hold.  Raises Failed or OSError."""
    rest = replace(wanted, reverse_path="", forward_path="", domain="")
    if rest != Filter() or wanted == Filter() or arguments.all:
        arguments.usage_error("--new is for mail --from, --to or of a --domain, and nothing else")
    if arguments.dry_run:
        return
    holds = _holds(settings)
    for each in names_of(settings, wanted):
        hold = _standing(each)
        if arguments.action == "hold":
            holds.add(hold)
        elif not holds.lift(hold) and each == wanted:
            known = "; ".join(map(str, holds.current())) or "none"
            raise Failed(f"no new mail is on hold by {hold}; what is: {known}")


def names_of(settings: Settings, wanted: Filter) -> Sequence[Filter]:
    """The filter, and the same for other names of its domain (`alias_of`)."""
    domain = canonical_domain(wanted.domain)
    others = [each.name for each in settings.domains.values() if each.alias_of == domain != ""]
    return [wanted, *(replace(wanted, domain=name) for name in others)]


def explain(arguments: argparse.Namespace, settings: Settings, wanted: Filter) -> None:
    """Explain what becomes of later mail, where a person may be wrong."""
    hold = _standing(wanted)
    if arguments.action not in VERBS or arguments.json or arguments.dry_run or not any(hold.parts):
        return
    stands = any(each.parts == hold.parts for each in _holds(settings).current())
    if arguments.action == "hold" and stands:
        print(f"mail that comes from now on is put on hold, until: mta queue release {hold} --new")
    elif arguments.action == "hold":
        print("mail that comes from now on is not: that takes --new")
    elif stands:
        print(f"mail that comes from now on is put on hold as before: {hold} --new ends that")


def lines(settings: Settings, now: float) -> Iterator[str]:
    """The standing holds, a line each."""
    for hold in _holds(settings).current():
        yield f"new mail is on hold: {printable(str(hold))} (for {duration(now - hold.since)})"


def _standing(wanted: Filter) -> StandingHold:
    parts = wanted.reverse_path, wanted.forward_path, wanted.domain
    return StandingHold(*parts, since=time.time())


def _holds(settings: Settings) -> IStandingHolds:
    return SpoolPlace.of(settings).holds()
