"""Checks of the keys that mail is signed with."""

from __future__ import annotations

from collections.abc import Iterator

from mta.service.findings.finding import Finding
from mta.service.findings.paths import private
from mta.settings import Settings
from mta.signing.keys import RSA_BITS, KeyFault, read


def keys(settings: Settings) -> Iterator[Finding]:
    """`domains.NAME.dkim`: the server, and it alone, can read long enough keys."""
    for name, domain in settings.domains.items():
        for number, key in enumerate(domain.dkim):
            place = ("domains", name, "dkim", number, "key")
            try:
                is_short = read(key.file).is_short
            except KeyFault as fault:
                yield Finding(place, f"{fault}: mail from {name} waits, as it can't be signed")
                continue
            if is_short:
                yield Finding(
                    place, f"{key.file}: has fewer than {RSA_BITS} bits: mta dkim rotate {name}"
                )
            yield from private(key.file, place, "a private key")


def reports(settings: Settings) -> Iterator[Finding]:
    """`authentication.reports`: the messages are signed, to be believed."""
    authentication, hostname = settings.authentication, settings.hostname
    is_wanted = authentication is not None and authentication.has_reports
    if is_wanted and not settings.signing_domain(hostname):
        yield Finding(
            ("authentication", "reports"),
            f"no key signs what comes from {hostname}, so that reports are believed only where its"
            f" SPF record allows this host: mta dkim add {hostname}",
        )
