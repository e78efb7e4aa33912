"""Checks of what others judge our mail by: SPF, DKIM, DMARC."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence

from mta.authentication import spf
from mta.authentication.dmarc.record import is_record, parse_record
from mta.dns_answer import RecordType
from mta.doctor.examined import Examined
from mta.doctor.names import public_addresses, texts_of
from mta.doctor.result import Result, bad, ok, unknown, warn
from mta.interfaces import DomainNotFound, ResolutionFailed
from mta.mail import Agent, Mailbox
from mta.settings import Domain, KeyState
from mta.signing.keys import KeyFault, read
from mta.signing.presence import Presence, presence
from mta.signing.records import name_of

SPF_TIME = 4.0  # seconds: past them no more is asked for one address
_SPF_STATES = {
    spf.Result.FAIL: bad,
    spf.Result.PERMERROR: bad,
    spf.Result.TEMPERROR: unknown,
}


async def policies(examined: Examined) -> AsyncIterator[Result]:
    """Look for SPF and DMARC, and let SPF judge our addresses."""
    addresses = await outgoing_addresses(examined)
    for domain in examined.settings.domains:
        texts = await texts_of(examined, domain, "v=spf1")
        if len(texts) > 1:
            yield bad(f"{domain} has {len(texts)} SPF records", "keep one (RFC 7208 section 3.2)")
        elif not texts:
            yield warn(f"{domain} has no SPF record", f"publish it: mta dns {domain}")
        elif not addresses:
            yield ok(f"{domain} has SPF: {texts[0]}")
        else:
            for address in addresses:
                yield await spf_of(examined, domain, address)
        yield await _dmarc(examined, domain)
    for address in addresses if not examined.is_dialling else ():
        if result := await _hello(examined, address):
            yield result


async def outgoing_addresses(examined: Examined) -> Sequence[str]:
    """The addresses that our mail leaves from.

    They are those of this host, or of the host that takes all our mail, as far as the DNS tells.
    """
    settings = examined.settings
    route = settings.default_route
    peer = settings.peers.get(route.next_hop)
    host = ""
    if route.agent is Agent.HOLD and peer is not None and peer.connect is not None:
        host = peer.connect.next_hop
    elif route.agent is Agent.MX:
        return await public_addresses(examined)
    try:
        return await examined.resolver.addresses(host) if host else ()
    except DomainNotFound:
        return ()


async def spf_of(examined: Examined, domain: str, address: str) -> Result:
    """Evaluate SPF for mail of a domain from an address (RFC 7208)."""
    hostname = examined.settings.hostname
    found = await spf.check_host(
        examined.resolver,
        address=address,
        mail_from=Mailbox("postmaster", domain),
        hello=hostname,
        receiver=hostname,
        limits=_limits(),
    )
    what = f"mail of {domain} from {address}: SPF says {found.result.value}"
    return _judged(found, what, f"let the record of {domain} have {address}: mta dns {domain}")


async def _hello(examined: Examined, address: str) -> Result | None:
    """Evaluate SPF for notices, which have no domain but the host's.  None: it says nothing."""
    hostname = examined.settings.hostname
    found = await spf.check_hello(
        examined.resolver, address=address, hello=hostname, receiver=hostname, limits=_limits()
    )
    if found.result is spf.Result.NONE:
        return None
    what = f"notices of {hostname} from {address}: SPF says {found.result.value}"
    return _judged(found, what, f"publish `v=spf1 a -all` at {hostname}")


def _judged(found: spf.SPFResult, what: str, remedy: str) -> Result:
    text = f"{what} ({found.problem})" if found.problem else what
    if found.result is spf.Result.PASS:
        return ok(text)
    return _SPF_STATES.get(found.result, warn)(text, remedy)


def _limits() -> spf.Limits:
    return spf.Limits(time.time, time.time() + SPF_TIME)


async def _dmarc(examined: Examined, domain: str) -> Result:
    answer = await examined.resolver.query(f"_dmarc.{domain}", RecordType.TXT)
    texts = [text for text in answer.records if is_record(text)]
    if len(texts) > 1:
        return bad(f"{domain} has {len(texts)} DMARC records, so that none counts", "keep one")
    record = parse_record(texts[0]) if texts else None
    if record is None:
        return warn(f"{domain} has no DMARC record", f"publish it: mta dns {domain}")
    shown = texts[0].decode("utf-8", "replace")
    if not record.applies:
        return bad(f"{domain} has a DMARC record without a policy: {shown}", "p=none is the least")
    return ok(f"{domain} has DMARC: {shown}")


async def keys(examined: Examined) -> AsyncIterator[Result]:
    """Compare the keys that sign with those in the DNS (RFC 6376)."""
    for domain in examined.settings.domains.values():
        if not domain.dkim and domain.deliver.agent is not Agent.HOLD:
            yield warn(f"mail of {domain.name} is not signed (DKIM)", f"mta dkim add {domain.name}")
        async for result in _keys(examined, domain):
            yield result


async def _keys(examined: Examined, domain: Domain) -> AsyncIterator[Result]:
    for key in domain.dkim:
        try:
            private = await examined.in_thread(read, key.file)
        except KeyFault as fault:
            yield bad(f"{fault}: mail of {domain.name} waits", "mta check says the same")
            continue
        name = name_of(key.selector, domain.name)
        try:
            answer = await examined.resolver.query(name, RecordType.TXT)
        except ResolutionFailed as error:
            yield unknown(f"the name servers do not tell of {name}: {error}", "try again")
            continue
        found = presence(private, answer.records)
        remedy = f"publish it: mta dns {domain.name}"
        if found is Presence.PRESENT:
            yield ok(f"{name} is the public key of {key.file}")
        elif found is Presence.DIFFERENT:
            yield bad(f"{name} is not the public key of {key.file}", remedy)
        elif key.state is KeyState.ACTIVE:
            yield warn(f"{name} is not in the DNS, and mail is signed with its key", remedy)
        elif key.state is KeyState.NEXT:
            yield warn(f"{name}, of the next key, is not in the DNS yet", remedy)
