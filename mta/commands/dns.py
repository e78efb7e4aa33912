"""``mta dns``: the DNS records that a domain needs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mta.commands.console import Failed, add_command, add_json, print_json, printable, settings_of
from mta.commands.terminal import painter
from mta.doctor.records import Presence, Published
from mta.mail import canonical_domain

# The reactor takes a while: it is imported where names are looked up.
if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from mta.commands.console import Subparsers
    from mta.settings import Settings

_COLOURS = {
    Presence.PRESENT: "green",
    Presence.UNKNOWN: "blue",
    Presence.MISSING: "red",
    Presence.DIFFERENT: "yellow",
}


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    summary = "print the DNS records that a domain needs, and which of them are there"
    parser = add_command(subparsers, "dns", _run, summary)
    parser.add_argument("domain", metavar="DOMAIN", type=canonical_domain)
    parser.add_argument("--web", action="store_true", help="as the form of a provider wants them")
    parser.add_argument(
        "--host", metavar="NAME", help="the host that takes the mail (default: hostname)"
    )
    parser.add_argument(
        "--address",
        action="append",
        default=[],
        metavar="IP",
        help="an address of that host (default: what the DNS has)",
    )
    add_json(parser)


def _run(arguments: argparse.Namespace) -> None:
    settings = settings_of(arguments)
    host = canonical_domain(arguments.host or _host(settings))
    found = _looked_up(settings, arguments.domain, host, arguments.address)
    if arguments.json:
        for published in found:
            print_json(_document(published))
        return
    paint = painter()
    width = max((len(each.value) for each in Presence), default=0)
    for published in found:
        state = paint(f"{published.presence.value:{width}}", _COLOURS[published.presence])
        for line in _lines(published, web=arguments.web):
            print(f"{state}  {printable(line)}")
            state = " " * width


def _host(settings: Settings) -> str:
    """The host that takes our mail: this or a dialled one."""
    for peer in settings.peers.values():
        if peer.connect is not None:
            return peer.connect.next_hop
    return settings.hostname


def _lines(published: Published, *, web: bool) -> Sequence[str]:
    record = published.record
    lines = [record.zone_line]
    if web:
        preference = f"  priority {record.preference}" if record.preference else ""
        lines = [f"{record.kind.name}  name {record.name}  value {record.value}{preference}"]
    if published.presence is Presence.DIFFERENT:
        lines.append(f"  there is: {'; '.join(published.found)}")
    return lines


def _document(published: Published) -> dict[str, Any]:
    record = published.record
    return {
        "name": record.name,
        "type": record.kind.name,
        "value": record.value,
        "preference": record.preference or None,
        "zone": record.zone_line,
        "state": published.presence.value,
        "found": list(published.found),
    }


def _looked_up(
    settings: Settings, domain: str, host: str, addresses: Sequence[str]
) -> Sequence[Published]:
    """Run the reactor until all records were looked up.  Raises Failed."""
    from twisted.internet.task import react

    found: list[Published] = []
    failures: list[Failure] = []

    def look(reactor: Any) -> Deferred[None]:
        from twisted.internet.defer import Deferred

        from mta.doctor.records import looked_up
        from mta.resolver import Resolver
        from mta.signing.records import records

        resolver = Resolver(reactor, settings.resolver)
        keys = list(records(settings, domain))
        looking = Deferred.fromCoroutine(looked_up(domain, host, addresses, resolver, keys))
        return looking.addCallbacks(found.extend, failures.append)

    with suppress(SystemExit):  # react ends with it, always
        react(look)
    for failure in failures:
        failure.raiseException()
    if not any(published.record.name == host for published in found):
        raise Failed(f"{host} has no address in the DNS: name one by --address")
    return found
