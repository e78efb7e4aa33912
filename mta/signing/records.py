"""The records of keys in the DNS (RFC 6376 section 3.6.2)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from typing import NamedTuple

from mta.settings import DKIMKey, Settings
from mta.signing.keys import KeyFault, PrivateKey, read


class KeyText(NamedTuple):
    """A TXT record to publish: its name and its text."""

    name: str
    value: str


def name_of(selector: str, domain: str) -> str:
    """The name of a key's record."""
    return f"{selector}._domainkey.{domain}"


def text_of(key: PrivateKey) -> str:
    """The text of a key's record."""
    return f"v=DKIM1; k={key.kind}; p={b64encode(key.public).decode()}"


def record(domain: str, key: DKIMKey) -> KeyText:
    """The record of one key.  Raises KeyFault."""
    return KeyText(name_of(key.selector, domain), text_of(read(key.file)))


def records(settings: Settings, domain: str) -> Iterator[KeyText]:
    """The records that a domain's keys need, in all states.

    Keys that can't be read are left out: ``mta check`` tells of them.
    """
    entry = settings.domains.get(domain)
    for key in entry.dkim if entry is not None else ():
        try:
            yield record(domain, key)
        except KeyFault:
            continue
