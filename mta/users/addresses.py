"""The addresses that a user may write as."""

from __future__ import annotations

from collections.abc import Sequence

from mta.interfaces import IRouter
from mta.mail import Mailbox, canonical_domain

ANY = "*"


def is_own(address: Mailbox, name: str, addresses: Sequence[str], router: IRouter) -> bool:
    """Tell whether a user may write as `address`.

    `addresses` are as `normalised` leaves them: ``local@domain``, ``@domain``, or ``*`` for any
    (a smaller server that relays through us).  A user without addresses has one: the name itself
    where it is an address, else the name in each domain of ours, which `router` knows.
    """
    local_part, domain = address.local_part.lower(), address.domain
    if addresses:
        return any(entry in addresses for entry in (f"{local_part}@{domain}", f"@{domain}", ANY))
    if "@" in name:
        return f"{local_part}@{domain}" == normalised(name)
    return local_part == name.lower() and router.is_ours(domain)


def normalised(address: str) -> str:
    """An entry for `is_own` from what a person wrote.  Raises ValueError."""
    local_part, at, domain = address.rpartition("@")
    is_whole = address == ANY or bool(at and domain)
    if not is_whole or any(character.isspace() for character in address):
        raise ValueError(f"{address!r} is not an address, @domain or {ANY}")
    return f"{local_part.lower()}{at}{canonical_domain(domain)}"
