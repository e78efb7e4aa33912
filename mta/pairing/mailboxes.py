"""The mailboxes of an office: one list, which its relay knows.

The office makes the document (`document_of`) of its configuration.  The relay keeps it in its spool
(`MailboxFiles`), and where its own configuration says nothing, it goes by it
(`domains_with_mailboxes`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from zope.interface import implementer

from mta.files import atomic_write, make_folder
from mta.mail import Agent, Mailbox, is_among
from mta.peer_settings import KnownDomain, Peer, Verify
from mta.settings import Domain, Settings
from mta.shared_tables.interfaces import IDocuments
from mta.smtp.grammar import MAX_LOCAL_PART
from mta.smtp.mailbox_list import digest_of

FOLDER = "mailboxes"  # in the spool
SUFFIX = ".json"
MAX_DOCUMENT = 4 * 2**20  # octets: of one list, 100,000 long addresses
MAX_NAMES = 100_000  # local parts, the postmaster's apart: of all domains of a peer, for the memory
POSTMASTER = "postmaster"


class ListFault(ValueError):
    """A list that can't be used: the reason."""


def lists_for_relays(settings: Settings) -> Mapping[str, bytes]:
    """Our lists of mailboxes, by the peer that we dial.

    It takes tens of milliseconds for 100,000 mailboxes: for threads.
    """
    return {
        name: document_of(settings.domains, peer.domains)
        for name, peer in settings.peers.items()
        if peer.connect is not None
    }


def document_of(domains: Mapping[str, Domain], wanted: Collection[str]) -> bytes:
    """The list of our mailboxes in these domains, or nothing."""
    told = {name: _told(domains, each) for name, each in domains.items() if is_among(name, wanted)}
    return json.dumps(told, sort_keys=True).encode() if told else b""


def _told(domains: Mapping[str, Domain], domain: Domain) -> dict[str, Any]:
    if domain.alias_of in domains:
        domain = domains[domain.alias_of]
    names: list[str] | None = None
    says_nothing = not (domain.mailboxes or domain.aliases or domain.forward)
    leaves_it_open = says_nothing and domain.deliver.agent is not Agent.MAILDIR
    if domain.mailboxes is not None and not (leaves_it_open or domain.catch_all or domain.alias_of):
        known = {*(domain.mailboxes or ()), *domain.aliases, *domain.forward, POSTMASTER}
        names = sorted(known)
    return {"names": names, "subaddress": domain.subaddress}


def read(document: bytes, allowed: Collection[str]) -> Mapping[str, KnownDomain]:
    """Return what a list says of the domains that are allowed.  Raises ListFault."""
    try:
        told = json.loads(document)
        known = {name: _known(**entry) for name, entry in told.items() if is_among(name, allowed)}
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise ListFault("it is no list of mailboxes") from None
    if sum(len((each.names or set()) - {POSTMASTER}) for each in known.values()) > MAX_NAMES:
        raise ListFault(f"it has more than {MAX_NAMES} names")
    return known


def _known(names: Any, subaddress: Any, **_: Any) -> KnownDomain:
    """One entry of a list.  Raises ValueError or TypeError."""
    if not isinstance(subaddress, str) or len(subaddress) > 1:
        raise ValueError("a subaddress is one sign or none")
    if names is None:
        return KnownDomain(None, subaddress)
    if not isinstance(names, list) or not all(map(_is_name, names)):
        raise ValueError("names are local parts")
    return KnownDomain(frozenset(names), subaddress)


def _is_name(name: Any) -> bool:
    if not isinstance(name, str) or not name or not name.isprintable():
        return False
    return name == name.lower() and len(name.encode("utf-8", "replace")) <= MAX_LOCAL_PART


@implementer(IDocuments)
class MailboxFiles:
    """The lists in a spool folder, a file for each peer.

    All methods block, and those that read or write raise OSError.
    """

    def __init__(self, spool: Path) -> None:
        self._folder = spool / FOLDER

    def digest(self, peer: str) -> str:
        """The name of a peer's list that we have, or nothing."""
        document = self.read(peer)
        return digest_of(document) if document else ""

    def known(self, peer: str, domains: Collection[str]) -> Mapping[str, KnownDomain]:
        """The mailboxes in these domains, as far as a peer told them."""
        document = self.read(peer)
        try:
            return read(document, domains) if document else {}
        except ListFault:
            return {}

    def stamp(self) -> int:
        """A value that differs when a list was replaced."""
        try:
            return self._folder.stat().st_mtime_ns
        except OSError:
            return 0

    def stamps(self) -> Mapping[str, object]:
        """See `IDocuments.stamps`."""
        try:
            with os.scandir(self._folder) as found:
                files = [(Path(each.path), each.stat()) for each in found]
        except FileNotFoundError:
            return {}
        return {
            path.stem: (status.st_mtime_ns, status.st_ino)
            for path, status in files
            if path.suffix == SUFFIX
        }

    def read(self, name: str) -> bytes:
        """See `IDocuments.read`."""
        try:
            descriptor = os.open(self._path(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        with os.fdopen(descriptor, "rb") as file:
            return file.read(MAX_DOCUMENT)

    def take(self, documents: Mapping[str, bytes]) -> None:
        """See `IDocuments.take`."""
        for name, document in documents.items():
            if document:
                self.keep(name, document)
            else:
                self.forget(name)

    def keep(self, peer: str, document: bytes) -> None:
        """Keep a list."""
        make_folder(self._folder, 0o700)
        atomic_write(self._path(peer), document)

    def forget(self, peer: str) -> None:
        """Remove the list of a peer."""
        self._path(peer).unlink(missing_ok=True)

    def _path(self, peer: str) -> Path:
        return self._folder / f"{peer}{SUFFIX}"


def domains_with_mailboxes(settings: Settings) -> Mapping[str, Domain]:
    """Our domains, with the mailboxes that peers told.  Blocks.  Raises OSError.

    What the configuration says of the mailboxes of a domain stands instead.  Where a peer is asked,
    its list is only at hand: `Domain.told`.
    """
    files = MailboxFiles(Path(settings.spool))
    domains = dict(settings.domains)
    told = told_domains(settings)
    lists = {peer: files.known(peer, told) for peer in set(told.values())}
    for name, peer in told.items():
        known = lists[peer].get(name)
        if known is None:
            continue
        if settings.peers[peer].verify is Verify.LIVE:
            domains[name] = replace(domains[name], told=known)
        elif known.names is not None:
            domains[name] = replace(
                domains[name], mailboxes=known.names, subaddress=known.subaddress
            )
    return domains


def told_domains(settings: Settings) -> Mapping[str, str]:
    """The domains whose mailboxes a peer may tell, each with the peer."""
    found = {}
    for name, domain in settings.domains.items():
        peer = settings.peers.get(domain.deliver.next_hop)
        if peer is None or peer.connect is not None or not is_among(name, peer.domains):
            continue
        if domain.mailboxes_elsewhere and peer.verify is not Verify.OFF:
            found[name] = peer.name
    return found


def live_domains(settings: Settings) -> Mapping[str, Peer]:
    """The domains whose mailboxes a peer is asked about, by domain."""
    peers = {name: settings.peers[peer] for name, peer in told_domains(settings).items()}
    return {name: peer for name, peer in peers.items() if peer.verify is Verify.LIVE}


def source_of(address: Mailbox, settings: Settings) -> str:
    """The peer that told the mailboxes of a domain, or nothing.  Raises OSError."""
    peer = told_domains(settings).get(address.domain, "")
    known = MailboxFiles(Path(settings.spool)).known(peer, [address.domain]) if peer else {}
    return peer if address.domain in known else ""
