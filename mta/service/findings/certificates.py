"""Checks of certificates."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mta.service.findings.finding import Finding
from mta.service.findings.paths import exists, private
from mta.settings import CertificatePair, ListenerTLS, Settings
from mta.tls import ClientTLS, ServerTLS, TLSFault
from mta.tls.context import pairs_of
from mta.tls.files import CertifiedKey, certificates_in
from mta.tls.selfsigned import FILE as SELF_SIGNED

RENEWAL_DUE = timedelta(days=14)  # certificates are renewed a month before their end, as a rule


def certificates(settings: Settings) -> Iterator[Finding]:
    """`tls`: the configured certificates, their keys, names and ends."""
    now = datetime.now(UTC)
    loaded = []
    for number, pair in enumerate(pairs_of(settings.tls)):
        nth = number - bool(settings.tls.pair)
        keys = ("tls", "certificate") if nth < 0 else ("tls", "certificates", nth, "certificate")
        try:
            certified = CertifiedKey.load(pair)
        except TLSFault as fault:
            yield Finding(keys, str(fault), True)
            continue
        loaded.append(certified)
        for shortcoming in certified.shortcomings(now, RENEWAL_DUE):
            yield Finding(keys, f"{pair.certificate}: {shortcoming}")
        yield from private(pair.key, keys, "a private key")
    if len(loaded) == len(pairs_of(settings.tls)):
        yield from _contexts(settings)
    if loaded and not any(each.is_for(settings.hostname) for each in loaded):
        names = ", ".join(name for each in loaded for name in each.names()) or "no host at all"
        yield Finding(
            ("tls",), f"no certificate is for {settings.hostname} (`hostname`), but for {names}"
        )


def _contexts(settings: Settings) -> Iterator[Finding]:
    """The faults of authorities, and of keys that OpenSSL finds too weak."""
    try:
        if pairs_of(settings.tls):
            ServerTLS(settings.tls, Path(settings.spool), settings.hostname)
        ClientTLS(settings.tls)
    except TLSFault as fault:
        yield Finding(("tls",), str(fault), True)


def self_signed(settings: Settings) -> Iterator[Finding]:
    """`tls`: the certificate that is used where none is configured."""
    if pairs_of(settings.tls):
        return
    path = Path(settings.spool) / SELF_SIGNED
    if any(listener.tls is not ListenerTLS.OFF for listener in settings.listen):
        yield Finding(
            ("tls",),
            f"no tls.certificate is configured: using self-signed {path},"
            " which mail programs do not trust",
        )
    try:
        certified = CertifiedKey.load(CertificatePair(path, path)) if exists(path) else None
        if settings.tls.client_ca is not None:
            certificates_in(settings.tls.client_ca)
    except TLSFault as fault:
        yield Finding(("tls",), str(fault), True)
        return
    if certified is not None and not certified.is_for(settings.hostname):
        names = ", ".join(certified.names())
        yield Finding(
            ("hostname",),
            f"{path} is for {names}, and not for {settings.hostname}: remove it, and another is"
            " made at the next start, with another pin",
        )
