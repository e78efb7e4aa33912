"""The addresses that a report may be sent to (RFC 9990).

The address in a policy could be that of a victim.  So one in another organisation counts only
where that says in the DNS that it takes reports on this domain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from mta.authentication.dmarc import TreeWalk, parse_record
from mta.authentication.dmarc.record import SIZE_LIMIT, is_record
from mta.dns_answer import RecordType
from mta.interfaces import IResolver, ResolutionFailed
from mta.mail import Mailbox
from mta.smtp import grammar

MAX_NAME = 253  # octets of a name in the DNS, RFC 1035 section 2.3.4

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


@dataclass(frozen=True, slots=True)
class Destinations:
    """The addresses for a report.

    `max_sizes`: octets of a message, by address.  `is_complete`: the DNS has answered all that was
    asked.
    """

    max_sizes: Mapping[Mailbox, float]
    is_complete: bool

    def of(self, size: float) -> tuple[Mailbox, ...]:
        """Those that take a message of so many octets."""
        return tuple(address for address, most in self.max_sizes.items() if size <= most)


async def destinations(resolver: IResolver, domain: str, rua: Iterable[str]) -> Destinations:
    """Find the addresses that a policy domain may have reports at."""
    walk = TreeWalk(resolver)
    found: dict[Mailbox, float] = {}
    is_complete = True
    for address, max_size in _addresses(rua).items():
        try:
            allowed = await _allowed(resolver, walk, domain, address, max_size)
        except ResolutionFailed:
            is_complete = False
            continue
        found.update(allowed)
    return Destinations(found, is_complete)


def _addresses(rua: Iterable[str]) -> dict[Mailbox, float]:
    """The addresses of ``mailto:`` URIs, with their limits on the size.

    Those that not every host takes are left out.
    """
    found: dict[Mailbox, float] = {}
    for uri in rua:
        limit = SIZE_LIMIT.search(uri)
        max_size = int(limit[1]) * _UNITS[limit[2].lower()] if limit else float("inf")
        scheme, _, rest = SIZE_LIMIT.sub("", uri).partition(":")
        text = unquote(rest.partition("?")[0])
        if scheme.lower() != "mailto" or not text.isascii():
            continue
        try:
            found.setdefault(grammar.parse_mailbox(text), max_size)
        except ValueError:
            continue
    return found


async def _allowed(
    resolver: IResolver, walk: TreeWalk, domain: str, address: Mailbox, max_size: float
) -> Mapping[Mailbox, float]:
    """The addresses to use in place of one, with their limits.  Raises ResolutionFailed."""
    host, itself = address.domain, {address: max_size}
    if host == domain or await _is_same_organisation(walk, domain, host):
        return itself
    name = f"{domain}._report._dmarc.{host}"
    if len(name) > MAX_NAME:
        return {}
    answer = await resolver.query(name, RecordType.TXT)
    texts = [text for text in answer.records if is_record(text)]
    if not texts:
        return {}
    named: dict[Mailbox, float] = {}
    for text in texts:
        if (record := parse_record(text)) is not None:
            named |= _addresses(record.rua)
    # Another host could be a victim again, and an own wish for it is no permission for ours.
    if any(other.domain != host for other in named):
        return {}
    return named or itself


async def _is_same_organisation(walk: TreeWalk, domain: str, host: str) -> bool:
    organisation = await walk.organisational_domain(domain)
    return organisation == await walk.organisational_domain(host)
