"""The entries that a pairing makes in both configurations.

These are edits by keys (`mta.config.edited`), as commands make them and ``--manual`` shows them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mta.config import REMOVED, Edits, Keys
from mta.mail import Agent, Hop
from mta.settings import Peer, Settings, home_domain

DEFAULT_RELAY = "relay"  # the name of the relay in the office's configuration
DEFAULT_MAILDIR = "/var/mail/{domain}/{local}"  # as `mta init` has it
_EXPECTED_ALIASES = ("postmaster", "abuse")  # RFC 5321 section 4.5.1, RFC 2142
_HOME_ALIASES = ("root",)  # for what programs of the office say


class EntryFault(Exception):
    """A configuration that a pairing does not fit: one line."""


def relay_edits(
    settings: Settings, peer: str, domains: Sequence[str], *, is_live: bool = True
) -> Edits:
    """The entries of an office on its relay.  Raises EntryFault.

    `is_live`: a new office is asked about mailboxes, and answers senders, while its link stands.
    """
    edits: dict[Keys, Any] = {}
    present = settings.peers.get(peer)
    if present is not None and present.connect is not None:
        raise EntryFault(f"the peer {peer!r} is one that this host dials: take another name")
    if present is None:
        edits |= {
            ("peers", peer, "user"): peer,
            ("peers", peer, "domains"): list(domains),
            ("peers", peer, "methods"): ["atrn"],
            ("peers", peer, "linger"): "1h",
        }
        if is_live:
            edits |= {("peers", peer, "verify"): "live", ("peers", peer, "pass_through"): True}
    elif wanted := [name for name in domains if name not in present.domains]:
        edits["peers", peer, "domains"] = [*present.domains, *wanted]
    for name in domains:
        entry = settings.domains.get(name)
        if entry is None:
            edits["domains", name, "deliver"] = f"hold:{peer}"
        elif entry.deliver != Hop(Agent.HOLD, peer):
            raise EntryFault(
                f"the mail of {name} goes by {entry.deliver} here, and not to {peer}:"
                " change its `deliver` first"
            )
    return edits


def removal_edits(settings: Settings, peer: str) -> Edits:
    """The edits that take a peer out of a configuration.  Raises EntryFault."""
    entry = settings.peers.get(peer)
    if entry is None:
        known = ", ".join(sorted(settings.peers)) or "none"
        raise EntryFault(f"no peer is called {peer!r}; those that there are: {known}")
    held = Hop(Agent.HOLD, peer)
    edits: dict[Keys, Any] = {("peers", peer): REMOVED}
    for name, domain in settings.domains.items():
        if domain.deliver == held:
            edits["domains", name] = REMOVED
    if settings.default_route == held:
        edits["routes", "default"] = "reject:this office has no relay"
    return edits


def office_edits(
    settings: Settings, relay: Peer, secret_file: str, mailboxes: Sequence[str], links: int = 2
) -> Edits:
    """The entries of a relay in its office.  Raises EntryFault.

    `relay` is the peer as it is to be.  `mailboxes` are those of domains that the office does not
    have yet, and `links` are to a new relay.  All other mail goes to the relay, but where a route
    for it was chosen.
    """
    connect = relay.connect
    assert connect is not None
    key = ("peers", relay.name)
    edits: dict[Keys, Any] = {
        (*key, "connect", "to"): _address(connect),
        (*key, "connect", "user"): connect.user,
        (*key, "connect", "secret"): {"file": secret_file},
    }
    present = settings.peers.get(relay.name)
    if present is not None and present.pin != relay.pin and not relay.pin:
        edits[(*key, "pin")] = REMOVED
    if relay.pin:
        edits[(*key, "pin")] = f"sha256:{relay.pin}"
    edits[(*key, "domains")] = list(relay.domains)
    if present is None:
        edits |= {(*key, "method"): "atrn", (*key, "every"): "1m", (*key, "origin"): "trust"}
        if links > 1:
            edits[(*key, "links")] = links
    edits |= _new_domains(settings, relay.domains, mailboxes)
    if settings.default_route.agent in (Agent.MX, Agent.REJECT):
        edits["routes", "default"] = f"hold:{relay.name}"
    return edits


def _new_domains(
    settings: Settings, domains: Sequence[str], mailboxes: Sequence[str]
) -> dict[Keys, Any]:
    edits: dict[Keys, Any] = {}
    for name in domains:
        if name not in settings.domains:
            if not mailboxes:
                raise EntryFault(
                    f"{name} is no domain of this host yet: say who has a mailbox there,"
                    " as --mailbox alice, and perhaps more of these"
                )
            edits["domains", name, "deliver"] = f"maildir:{_maildir(settings)}"
            edits["domains", name, "mailboxes"] = list(mailboxes)
            is_home = name == home_domain(settings.hostname, [*settings.domains, *domains])
            for alias in (*_EXPECTED_ALIASES, *(_HOME_ALIASES if is_home else ())):
                if alias not in mailboxes:
                    edits["domains", name, "aliases", alias] = mailboxes[0]
    return edits


def _maildir(settings: Settings) -> str:
    """The Maildirs of a new domain: where those of others are."""
    for domain in settings.domains.values():
        if domain.deliver.agent is Agent.MAILDIR and "{domain}" in domain.deliver.next_hop:
            return domain.deliver.next_hop
    return DEFAULT_MAILDIR


def relay_name(settings: Settings, host: str) -> str:
    """The name of a relay of that host in the office."""
    for name, peer in settings.peers.items():
        if peer.connect is not None and peer.connect.next_hop == host:
            return name
    return DEFAULT_RELAY


def snippet(edits: Edits) -> str:
    """Edits as YAML for a person to copy."""
    tree: dict[str, Any] = {}
    for (*way, last), value in edits.items():
        if value is REMOVED:
            continue
        node = tree
        for key in way:
            node = node.setdefault(key, {})
        node[last] = value
    return "\n".join(_lines(tree, ""))


def _lines(tree: dict[str, Any], margin: str) -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, list):
            yield f"{margin}{key}: [{', '.join(map(str, value))}]"
        elif isinstance(value, dict) and list(value) == ["file"]:
            yield f"{margin}{key}: {{file: {value['file']}}}"
        elif isinstance(value, dict):
            yield f"{margin}{key}:"
            yield from _lines(value, margin + "  ")
        else:
            text = str(value).lower() if isinstance(value, bool) else value
            yield f"{margin}{key}: {text}"


def _address(hop: Hop) -> str:
    """The address of a host as `connect` has it."""
    host = f"[{hop.next_hop}]" if ":" in hop.next_hop else hop.next_hop
    return f"{'smtps' if hop.implicit_tls else 'smtp'}://{host}:{hop.port}"
