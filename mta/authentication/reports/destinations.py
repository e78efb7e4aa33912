"""The addresses that a report may be sent to (RFC 9990).

The address in a policy could be that of a victim.  So one in another organisation counts only
where that says in the DNS that it takes reports on this domain.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from mta.authentication.dmarc import TreeWalk, parse_record
from mta.authentication.dmarc.record import is_record
from mta.dns_answer import RecordType
from mta.interfaces import IResolver, ResolutionFailed
from mta.mail import Mailbox
from mta.smtp import grammar

MAX_NAME = 253  # octets of a name in the DNS, RFC 1035 section 2.3.4


@dataclass(frozen=True, slots=True)
class Destinations:
    """The addresses for a report.  `is_complete`: the DNS has answered all that was asked."""

    addresses: tuple[Mailbox, ...]
    is_complete: bool


async def destinations(resolver: IResolver, domain: str, rua: Iterable[str]) -> Destinations:
    """Find the addresses that a policy domain may have reports at."""
    walk = TreeWalk(resolver)
    found: dict[Mailbox, None] = {}
    is_complete = True
    for address in _addresses(rua):
        try:
            allowed = await _allowed(resolver, walk, domain, address)
        except ResolutionFailed:
            is_complete = False
            continue
        found.update(dict.fromkeys(allowed))
    return Destinations(tuple(found), is_complete)


def _addresses(rua: Iterable[str]) -> list[Mailbox]:
    """The addresses of ``mailto:`` URIs.  Those that not every host takes are left out."""
    found: dict[Mailbox, None] = {}
    for uri in rua:
        scheme, _, rest = uri.partition(":")
        text = unquote(rest.partition("?")[0])
        if scheme.lower() != "mailto" or not text.isascii():
            continue
        try:
            found[grammar.parse_mailbox(text)] = None
        except ValueError:
            continue
    return list(found)


async def _allowed(
    resolver: IResolver, walk: TreeWalk, domain: str, address: Mailbox
) -> Iterable[Mailbox]:
    """The addresses to use in place of one.  Raises ResolutionFailed."""
    host = address.domain
    if host == domain or await _is_same_organisation(walk, domain, host):
        return [address]
    name = f"{domain}._report._dmarc.{host}"
    if len(name) > MAX_NAME:
        return []
    answer = await resolver.query(name, RecordType.TXT)
    texts = [text for text in answer.records if is_record(text)]
    if not texts:
        return []
    named = [
        other
        for text in texts
        if (record := parse_record(text)) is not None
        for other in _addresses(record.rua)
    ]
    # Another host could be a victim again, and an own wish for it is no permission for ours.
    if any(other.domain != host for other in named):
        return []
    return named or [address]


async def _is_same_organisation(walk: TreeWalk, domain: str, host: str) -> bool:
    organisation = await walk.organisational_domain(domain)
    return organisation == await walk.organisational_domain(host)
