"""Domains of ours: their mailboxes, subaddresses and forwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from mta.mail import Agent, Hop, Mailbox
from mta.settings import Domain, Forward
from mta.smtp.grammar import MAX_LOCAL_PART


def forward_of(address: Mailbox, domain: Domain) -> Forward | None:
    """Return the forward of a mailbox, if it has one.

    It may be named in full, or without its subaddress.
    """
    for name in names(address.local_part.lower(), domain):
        if name in domain.forward or name in (domain.mailboxes or ()):
            return domain.forward.get(name)
    return None


def drops_subaddress(domain: Domain, forward: Forward) -> bool:
    """Return whether all subaddresses of a forwarded mailbox have the same ends."""
    return not forward.keep or domain.deliver.agent in (Agent.MAILDIR, Agent.PIPE)


def final_address(address: Mailbox, domain: Domain) -> tuple[Mailbox, Hop]:
    """Return the mailbox and hop of an address that stands for itself."""
    hop, name = domain.deliver, address.local_part
    if hop.agent is Agent.MX:
        hop = replace(hop, next_hop=domain.name)
    elif hop.agent in (Agent.MAILDIR, Agent.PIPE):
        whole, *rest = names(name.lower(), domain)
        name = rest[0] if rest and whole not in (domain.mailboxes or ()) else whole
    return Mailbox(name, domain.name), hop


def forwarding_domains(domains: Mapping[str, Domain]) -> frozenset[str]:
    """Return our domains that forward to elsewhere, through however many aliases."""
    leads_to = {
        name: {target.domain for targets in _all_targets(domain) for target in targets}
        for name, domain in domains.items()
    }
    found = {name for name, targets in leads_to.items() if not targets <= domains.keys()}
    while more := {name for name in leads_to.keys() - found if leads_to[name] & found}:
        found |= more
    return frozenset(found)


def _all_targets(domain: Domain) -> Iterator[Sequence[Mailbox]]:
    """Yield the targets of a domain's aliases, forwards and catch-all."""
    yield from domain.aliases.values()
    yield from (forward.to for forward in domain.forward.values())
    if domain.catch_all:
        yield (domain.catch_all,)
    if domain.alias_of:
        yield (Mailbox("", domain.alias_of),)


def names(local_part: str, domain: Domain) -> Sequence[str]:
    """Return the local part, with and without its subaddress."""
    if not domain.subaddress:
        return (local_part,)
    name, separator, _ = local_part.partition(domain.subaddress)
    return (local_part, name) if separator and name else (local_part,)


def is_too_long(local_part: str, domain: Domain) -> bool:
    """Return whether a local part is too long for a mailbox here.

    See RFC 5321 section 4.5.3.1.1.
    """
    is_final = domain.deliver.agent in (Agent.MAILDIR, Agent.PIPE)
    return is_final and len(names(local_part, domain)[-1].encode()) > MAX_LOCAL_PART


def takes_any(domain: Domain) -> bool:
    """Return whether every local part exists, as far as we know.

    A domain that goes on elsewhere and says nothing of mailboxes leaves it to the next host.
    """
    says_nothing = not (domain.mailboxes or domain.aliases or domain.catch_all)
    return domain.mailboxes is None or (says_nothing and domain.deliver.agent is not Agent.MAILDIR)
