"""Checks of certificates: in files, on listeners, in the DNS."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from mta.dns_answer import TLSA, RecordType
from mta.doctor.examined import Examined, SessionSeen
from mta.doctor.ports import SMTP_PORT, own_hop
from mta.doctor.result import Result, bad, ok, warn
from mta.queued import HopFailure
from mta.settings import CertificatePair, ListenerTLS, Settings
from mta.tls.context import pairs_of
from mta.tls.files import CertifiedKey, TLSFault
from mta.tls.names import is_for, name_of
from mta.tls.selfsigned import FILE as SELF_SIGNED
from mta.tls.verify import fingerprint

RENEWAL_DUE = timedelta(days=14)  # certificates are renewed a month before their end, as a rule
_END_ENTITIES = (1, 3)  # usages of TLSA that name the host's own certificate (RFC 6698)
_REMEDY = "renew it: certbot renew; mta log shows whether the server has read it"


async def files(examined: Examined) -> AsyncIterator[Result]:
    """Look at the certificates that the server reads."""
    settings = examined.settings
    for pair in await examined.in_thread(_pairs, settings):
        try:
            certified = await examined.in_thread(CertifiedKey.load, pair)
        except TLSFault as fault:
            yield bad(str(fault), "mta check says the same until it is mended")
            continue
        found = list(_of_file(certified, pair, settings.hostname))
        if not found:
            found = [await examined.in_thread(_issued, certified, pair, settings.tls.ca)]
        for result in found:
            yield result


def _pairs(settings: Settings) -> Sequence[CertificatePair]:
    """The certificates of the server.

    Where none is configured, it is the one that it made.  Blocks.
    """
    own = Path(settings.spool) / SELF_SIGNED
    pairs = pairs_of(settings.tls)
    return pairs or ([CertificatePair(own, own)] if own.exists() else [])


def _of_file(certified: CertifiedKey, pair: CertificatePair, hostname: str) -> Iterator[Result]:
    """Say what is wrong with a certificate, if anything is."""
    leaf, shown = certified.chain[0], f"{pair.certificate}: "
    yield from expiry(leaf.not_valid_after_utc, shown)
    if datetime.now(UTC) < leaf.not_valid_before_utc:
        yield bad(f"{shown}is not valid before {leaf.not_valid_before_utc:%Y-%m-%d}")
    for shortcoming in certified.shortcomings(datetime.now(UTC), timedelta()):
        if "chain" in shortcoming:
            yield bad(f"{shown}{shortcoming}", "put the chain in order")
    names = ", ".join(certified.names()) or "no host at all"
    if not certified.is_for(hostname):
        yield warn(f"{shown}is for {names}, and not for {hostname}")


def _issued(certified: CertifiedKey, pair: CertificatePair, ca: Path | None) -> Result:
    """Say who issued a sound certificate.  Blocks."""
    leaf = certified.chain[0]
    text = f"{pair.certificate}: for {', '.join(certified.names())}"
    text += f", until {leaf.not_valid_after_utc:%Y-%m-%d}"
    if leaf.issuer == leaf.subject:
        return ok(f"{text}; it is self-signed: other servers take it, offices by its pin")
    objection = certified.objection_to_issuer(ca)
    if objection:
        return warn(
            f"{text}; mail programs will not trust it: {objection}",
            "put the issuer's certificate behind it in the file, or let a known authority issue it",
        )
    return ok(f"{text}; a known authority has issued it")


def expiry(end: datetime, shown: str, remedy: str = _REMEDY) -> Iterator[Result]:
    """Say that a certificate has ended, or will soon."""
    now = datetime.now(UTC)
    if now > end:
        yield bad(f"{shown}has expired on {end:%Y-%m-%d}", remedy)
    elif now + RENEWAL_DUE > end:
        yield warn(f"{shown}expires on {end:%Y-%m-%d}", remedy)


async def shown(examined: Examined) -> AsyncIterator[Result]:
    """Look at the certificate that each listener shows."""
    leaves = await examined.in_thread(_leaves, examined.settings)
    known = {fingerprint(leaf) for leaf in leaves}
    for listener in examined.settings.listen:
        hop = own_hop(listener)
        if hop is None or listener.tls is ListenerTLS.OFF:
            continue
        with suppress(HopFailure):  # ports.listeners says it
            seen = await examined.probe.session(hop)
            yield _of_listener(listener.endpoint, seen, known)


def _of_listener(endpoint: str, seen: SessionSeen, known: set[str]) -> Result:
    if seen.tls is None:
        return bad(f"{endpoint} offers no TLS", "look at its `tls`, and at the log")
    if known and seen.tls.shown not in known:
        return bad(
            f"{endpoint} shows another certificate than the files have",
            "let the server read its files: systemctl reload mta",
        )
    end = datetime.fromtimestamp(seen.tls.expires, UTC)
    for result in expiry(end, f"{endpoint}: its certificate "):
        return result
    return ok(f"{endpoint} shows a certificate that holds until {end:%Y-%m-%d}")


def _leaves(settings: Settings) -> Sequence[x509.Certificate]:
    """The certificates of the host itself.

    Those that can't be read are left out.  Blocks.
    """
    found = []
    for pair in _pairs(settings):
        with suppress(TLSFault):
            found.append(CertifiedKey.load(pair).chain[0])
    return found


async def associations(examined: Examined) -> AsyncIterator[Result]:
    """Compare TLSA records of this host with its certificate (RFC 7672).

    Where there are none, nothing need be said.
    """
    host = examined.settings.hostname
    answer = await examined.resolver.query(f"_{SMTP_PORT}._tcp.{host}", RecordType.TLSA)
    if not answer.records or examined.is_dialling:
        return
    leaves = await examined.in_thread(_leaves, examined.settings)
    ours = [leaf for leaf in leaves if is_for(leaf, name_of(host))] or leaves
    usable = [each for each in answer.records if each.usage in _END_ENTITIES]
    if not usable:
        return  # it names authorities, of which the files need have none
    if any(matches(record, leaf) for record in usable for leaf in ours):
        yield ok(f"a TLSA record of {host} is that of its certificate")
    else:
        yield bad(
            f"no TLSA record of {host} is that of its certificate: servers that go by DANE send"
            " no mail",
            f"publish the record of the new certificate at _{SMTP_PORT}._tcp.{host}",
        )


def matches(record: TLSA, certificate: x509.Certificate) -> bool:
    """Tell whether a record is that of a certificate, RFC 6698."""
    if record.selector == 1:
        octets = certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    else:
        octets = certificate.public_bytes(serialization.Encoding.DER)
    if record.matching_type == 2:
        return record.data == hashlib.sha512(octets).digest()
    if record.matching_type == 1:
        return record.data == hashlib.sha256(octets).digest()
    return record.data == octets
