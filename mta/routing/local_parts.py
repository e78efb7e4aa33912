"""The local parts of a domain of ours: aliases, mailboxes, forwards, catch-all.

They are compared in lower case.  The name of a subaddress (RFC 5233) counts where the whole local
part has no entry of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum

from mta.mail import Agent, Hop, Mailbox
from mta.settings import Domain, Forward
from mta.smtp.grammar import MAX_LOCAL_PART

_NAMED_BY_US = (Agent.MAILDIR, Agent.PIPE)  # agents to which a mailbox is what we say it is


class Kind(Enum):
    """The kind of entry that a local part has in its domain."""

    ALIAS = "alias"
    MAILBOX = "mailbox"
    ANY_MAILBOX = "any mailbox"
    CATCH_ALL = "catch_all"
    NONE = "none"


def lookup(local_part: str, domain: Domain) -> tuple[Kind, str]:
    """The entry of a local part: its kind and its name."""
    local_part = local_part.lower()
    for name in _names(local_part, domain):
        if name in domain.aliases:
            return Kind.ALIAS, name
        if name in (domain.mailboxes or ()):
            return Kind.MAILBOX, name
    if takes_any(domain) and not _is_too_long(local_part, domain):
        return Kind.ANY_MAILBOX, local_part
    return (Kind.CATCH_ALL if domain.catch_all else Kind.NONE), local_part


def main_address(address: Mailbox, domain: Domain) -> Mailbox:
    """The address in its main form, which has the same route."""
    if domain.alias_of:
        return replace(address, domain=domain.alias_of)
    kind, name = lookup(address.local_part, domain)
    if kind is Kind.ALIAS:
        return Mailbox(name, domain.name)
    if kind is Kind.CATCH_ALL and domain.catch_all:
        return domain.catch_all
    name, forward = forward_of(address, domain)
    if forward is not None and (not forward.keep or domain.deliver.agent in _NAMED_BY_US):
        return Mailbox(name, domain.name)
    return address


def forward_of(address: Mailbox, domain: Domain) -> tuple[str, Forward | None]:
    """The name of an address's mailbox, and its forward if any."""
    local_part = address.local_part.lower()
    for name in _names(local_part, domain):
        if name in domain.forward or name in (domain.mailboxes or ()):
            return name, domain.forward.get(name)
    return local_part, None


def final_delivery(address: Mailbox, domain: Domain) -> tuple[Mailbox, Hop]:
    """The mailbox of an address that stands for itself, and its hop."""
    hop, name = domain.deliver, address.local_part
    if hop.agent is Agent.MX:
        hop = replace(hop, next_hop=domain.name)
    elif hop.agent in _NAMED_BY_US:
        whole, *rest = _names(name.lower(), domain)
        name = rest[0] if rest and whole not in (domain.mailboxes or ()) else whole
    return Mailbox(name, domain.name), hop


def takes_any(domain: Domain) -> bool:
    """Tell whether every local part exists, as far as is known here.

    A domain that goes on elsewhere and says nothing of mailboxes leaves it to the next host.
    """
    says_nothing = not (domain.mailboxes or domain.aliases or domain.catch_all)
    return domain.mailboxes is None or (says_nothing and domain.deliver.agent is not Agent.MAILDIR)


def forwarding_domains(domains: Mapping[str, Domain]) -> frozenset[str]:
    """The domains of ours with addresses that lead elsewhere."""
    leads_to = {
        name: {target.domain for targets in _all_targets(domain) for target in targets}
        for name, domain in domains.items()
    }
    found = {name for name, targets in leads_to.items() if not targets <= domains.keys()}
    while more := {name for name in leads_to.keys() - found if leads_to[name] & found}:
        found |= more
    return frozenset(found)


def _all_targets(domain: Domain) -> Iterator[Sequence[Mailbox]]:
    """The targets of the aliases, forwards and the catch-all of a domain."""
    yield from domain.aliases.values()
    yield from (forward.to for forward in domain.forward.values())
    if domain.catch_all:
        yield (domain.catch_all,)
    if domain.alias_of:
        yield (Mailbox("", domain.alias_of),)


def _names(local_part: str, domain: Domain) -> Sequence[str]:
    """The local part as it is, and without its subaddress if any."""
    if not domain.subaddress:
        return (local_part,)
    name, separator, _ = local_part.partition(domain.subaddress)
    return (local_part, name) if separator and name else (local_part,)


def _is_too_long(local_part: str, domain: Domain) -> bool:
    """Tell whether a local part is over its limit (RFC 5321)."""
    is_final = domain.deliver.agent in _NAMED_BY_US
    return is_final and len(_names(local_part, domain)[-1].encode()) > MAX_LOCAL_PART
