"""Checks of references: names that another place of the file has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

from mta.config.document import Findings, Value, suggest
from mta.mail import Agent, Hop, Mailbox, is_among
from mta.settings import Domain, Peer

Domains = Mapping[str, Domain]


def check_peers(root: Value, peers: Mapping[str, Peer]) -> None:
    """Require that no two peers share a user or a certificate.

    Each has rights of its own.
    """
    findings = Findings()
    owners: dict[str, str] = {}
    for name, peer in peers.items():
        for key, proof in (("user", peer.user), ("certificate", peer.certificate)):
            owner = owners.setdefault(f"{key} {proof}", name)
            if proof and owner != name:
                with findings.collect():
                    _, item = root.member("peers", name, key)
                    raise item.wrong(
                        f"the {key} of the peer {owner!r} too, expected one of its own"
                    )
    findings.raise_if_any()


def check_holds(
    root: Value,
    domains: Domains,
    routes: Mapping[str, Hop],
    senders: Mapping[str, Hop],
    peers: Mapping[str, Peer],
) -> None:
    """Require that ``hold:PEER`` names a peer that may have this mail."""
    findings = Findings()
    for name, domain in domains.items():
        with findings.collect():
            _check_hold(root, ("domains", name, "deliver"), name, domain.deliver, peers)
    for name, hop in routes.items():
        with findings.collect():
            destination = "" if name == "default" else name
            _check_hold(root, ("routes", name), destination, hop, peers)
    for name, hop in senders.items():
        with findings.collect():
            _check_hold(root, ("senders", name), "", hop, peers)
    findings.raise_if_any()


def _check_hold(
    root: Value, place: tuple[str, ...], destination: str, hop: Hop, peers: Mapping[str, Peer]
) -> None:
    """`destination`: the domain, or .domain, whose mail takes the hop; empty: any."""
    if hop.agent is not Agent.HOLD:
        return
    _, item = root.member(*place)
    peer = peers.get(hop.next_hop)
    if peer is None:
        hint = suggest(hop.next_hop, peers, "the name of one of the 'peers'")
        raise item.wrong(f"no peer is called {hop.next_hop!r}, {hint}")
    # A peer that we dial gets whatever is routed to it; its `domains` are what it has for us.
    if peer.connect or is_among(destination, peer.domains):
        return
    if not destination:
        raise item.wrong(
            f"mail for any domain, of which the peer {peer.name!r} could fetch no more than its "
            "own 'domains', expected a route for each of those, and another next hop here"
        )
    raise item.wrong(
        f"{destination!r} is none of the domains of the peer {peer.name!r}, which could never "
        "fetch it, expected it there too"
    )


def check_routes(root: Value, domains: Domains, routes: Mapping[str, Hop]) -> None:
    """Require that routes are for other domains.

    Ours are delivered as they say themselves.
    """
    findings = Findings()
    for name in routes:
        with findings.collect():
            if name in domains:
                key, _ = root.member("routes", name)
                raise key.wrong(
                    f"{name!r} is one of our 'domains', whose mail goes where its 'deliver' says"
                )
    findings.raise_if_any()


def check_alias_domains(root: Value, domains: Domains) -> None:
    """Require that ``alias_of`` names a domain of ours that is no alias."""
    findings = Findings()
    real = [name for name, domain in domains.items() if not domain.alias_of]
    for name, domain in domains.items():
        if domain.alias_of and domain.alias_of not in real:
            with findings.collect():
                _, item = root.member("domains", name, "alias_of")
                hint = suggest(domain.alias_of, real, "one of the 'domains'")
                problem = "an alias itself" if domain.alias_of in domains else "none of our domains"
                raise item.wrong(f"{domain.alias_of!r} is {problem}, {hint}")
    findings.raise_if_any()


def check_aliases(root: Value, domains: Domains) -> None:
    """Require that aliases, forwards and catch-alls lead to an end that exists."""
    findings = Findings()
    for name, domain in domains.items():
        with findings.collect():
            if domain.catch_all and not _is_known(domains, domain.catch_all):
                raise _missing(root, ("domains", name, "catch_all"), domains, domain.catch_all)
        for mailbox in domain.forward:
            with findings.collect():
                if mailbox in domain.aliases or mailbox not in (domain.mailboxes or {mailbox}):
                    raise _no_mailbox(root, domain, mailbox)
        for key, targets in _expansions(domain):
            for target in targets:
                with findings.collect():
                    if not (_is_known(domains, target) or _catch_all(domains, target)):
                        raise _missing(root, ("domains", name, *key), domains, target)
    findings.raise_if_any()
    for cycle in _alias_loops(domains):
        with findings.collect():
            raise _loop(root, domains, cycle)
    findings.raise_if_any()


def _expansions(domain: Domain) -> Iterator[tuple[tuple[str, str], tuple[Mailbox, ...]]]:
    """The aliases and forwards of a domain, with their keys."""
    for alias, targets in domain.aliases.items():
        yield ("aliases", alias), targets
    for mailbox, forward in domain.forward.items():
        yield ("forward", mailbox), forward.to


def _real(domains: Domains, address: Mailbox) -> Mailbox:
    """The address in the domain that its domain is another name for."""
    domain = domains.get(address.domain)
    return Mailbox(address.local_part, domain.alias_of) if domain and domain.alias_of else address


def _catch_all(domains: Domains, address: Mailbox) -> Mailbox | None:
    domain = domains.get(_real(domains, address).domain)
    return domain.catch_all if domain else None


def _no_mailbox(root: Value, domain: Domain, mailbox: str) -> Exception:
    key, _ = root.member("domains", domain.name, "forward", mailbox)
    hint = suggest(mailbox, domain.mailboxes or (), "one of the 'mailboxes'")
    return key.wrong(f"{mailbox!r} is no mailbox that mail could be forwarded from, {hint}")


def _is_known(domains: Domains, address: Mailbox) -> bool:
    """Return whether an address is elsewhere, or one of our own."""
    address = _real(domains, address)
    domain = domains.get(address.domain)
    if domain is None or domain.mailboxes is None:
        return True
    local_part = _canonical(domains, address).local_part
    return local_part in domain.mailboxes or local_part in domain.aliases


def _canonical(domains: Domains, address: Mailbox) -> Mailbox:
    """An address in the form of our tables.

    It is in lower case, without a detail that they don't know.
    """
    address = _real(domains, address)
    domain = domains.get(address.domain)
    if domain is None:
        return address
    whole = address.local_part.lower()
    known = whole in domain.aliases or whole in (domain.mailboxes or ())
    if known or not domain.subaddress:
        return Mailbox(whole, domain.name)
    return Mailbox(whole.split(domain.subaddress)[0] or whole, domain.name)


def _missing(root: Value, place: tuple[str, ...], domains: Domains, address: Mailbox) -> Exception:
    domain = domains[_real(domains, address).domain]
    known = (domain.mailboxes or frozenset()) | domain.aliases.keys()
    hint = suggest(address.local_part, known, f"one of {domain.name}")
    _, item = root.member(*place)
    return item.wrong(f"no mailbox or alias is called {address}, {hint}")


def _alias_loops(domains: Domains) -> Iterator[list[Mailbox]]:
    """Each loop as the addresses that it goes through."""
    graph = {
        Mailbox(key[1], name): set(_steps(domains, targets))
        for name, domain in domains.items()
        for key, targets in _expansions(domain)
    }
    while True:
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            cycle: list[Mailbox] = error.args[1][:0:-1]
            yield cycle
            graph[cycle[-1]].remove(cycle[0])
        else:
            return


def _steps(domains: Domains, targets: tuple[Mailbox, ...]) -> Iterator[Mailbox]:
    """The next addresses of an alias.  What does not exist goes to the catch-all."""
    for target in targets:
        catch_all = _catch_all(domains, target)
        if catch_all and not _is_known(domains, target):
            target = catch_all
        yield _canonical(domains, target)


def _loop(root: Value, domains: Domains, cycle: list[Mailbox]) -> Exception:
    keys = [
        root.member("domains", address.domain, section, address.local_part)[0]
        for address in cycle
        for section in ("aliases", "forward")
        if address.local_part in getattr(domains[address.domain], section)
    ]
    first = min(range(len(keys)), key=lambda index: keys[index].line)
    path = [*cycle[first:], *cycle[:first], cycle[first]]
    return keys[first].wrong(
        f"alias loop: {' -> '.join(map(str, path))}, expected a mailbox or another host at the end"
    )
