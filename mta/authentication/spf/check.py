"""The check of a client: check_host() of RFC 7208 section 4."""

from __future__ import annotations

import re
from ipaddress import ip_address

from mta.authentication.spf.evaluation import Evaluation, Limits, is_domain
from mta.authentication.spf.record import Address
from mta.authentication.spf.result import Identity, PermError, Result, SPFResult, TempError
from mta.interfaces import IResolver
from mta.mail import Mailbox, canonical_domain

MAX_EXPLANATION = 300  # characters: it may become part of a reply

__all__ = ["Limits", "check_hello", "check_host"]


async def check_host(
    resolver: IResolver,
    *,
    address: str,
    mail_from: Mailbox,
    hello: str,
    receiver: str,
    limits: Limits,
) -> SPFResult:
    """Check the client's reverse-path, or for the null reverse-path its HELO name.

    `hello` is the name as HELO or EHLO gave it, `receiver` that of this host.  It never raises
    anything of its own.
    """
    if mail_from.is_null:
        return await check_hello(
            resolver, address=address, hello=hello, receiver=receiver, limits=limits
        )
    sender = mail_from.local_part or "postmaster", mail_from.domain.removesuffix(".")
    return await _check(resolver, Identity.MAIL_FROM, address, sender, hello, receiver, limits)


async def check_hello(
    resolver: IResolver, *, address: str, hello: str, receiver: str, limits: Limits
) -> SPFResult:
    """Check the name that HELO or EHLO gave (RFC 7208 section 2.3)."""
    sender = "postmaster", canonical_domain(hello).removesuffix(".")
    return await _check(resolver, Identity.HELO, address, sender, hello, receiver, limits)


async def _check(
    resolver: IResolver,
    identity: Identity,
    address: str,
    sender: tuple[str, str],
    hello: str,
    receiver: str,
    limits: Limits,
) -> SPFResult:
    client, domain = _client(address), sender[1]
    if client is None or not is_domain(domain):
        return SPFResult(Result.NONE, domain, identity)
    values = _values(client, sender, hello, receiver, limits)
    evaluation = Evaluation(resolver, client, values, limits)
    try:
        decision = await evaluation.decide(domain)
    except TempError as error:
        return SPFResult(Result.TEMPERROR, domain, identity, problem=_clean(str(error)))
    except PermError as error:
        return SPFResult(Result.PERMERROR, domain, identity, problem=_clean(str(error)))
    if decision is None:
        return SPFResult(Result.NONE, domain, identity)
    text = await evaluation.explanation(decision) if decision.result is Result.FAIL else ""
    return SPFResult(decision.result, domain, identity, _clean(text))


def _client(address: str) -> Address | None:
    """The address of the client.  IPv4 that is mapped to IPv6 counts as IPv4 (section 5)."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _values(
    client: Address, sender: tuple[str, str], hello: str, receiver: str, limits: Limits
) -> dict[str, str]:
    """The values of macros but ``d`` and ``p`` (RFC 7208 section 7.2)."""
    dotted = str(client) if client.version == 4 else ".".join(f"{int(client):032X}")
    return {
        "s": "@".join(sender),
        "l": sender[0],
        "o": sender[1],
        "i": dotted,
        "h": canonical_domain(hello).removesuffix("."),
        "v": "in-addr" if client.version == 4 else "ip6",
        "c": str(client),
        "r": receiver or "unknown",
        "t": str(int(limits.now())),
    }


def _clean(text: str) -> str:
    return re.sub(r"[^\x20-\x7e]", "?", text)[:MAX_EXPLANATION]
