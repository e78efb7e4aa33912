"""Faults that the operator should know of before the server starts.

The start, a reload and ``mta check`` share one list.  A check tries what the server would open, in
the same way and with the rights of its caller, and makes and changes nothing.  Each module has the
checks of one subject; `finding` is their result, `paths` what several of them look at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from mta.config import ConfigurationError, Problem
from mta.config.places import Places
from mta.service.findings import (
    certificates,
    destinations,
    endpoints,
    files,
    filters,
    identity,
    signing,
)
from mta.service.findings.addresses import unusable_addresses
from mta.service.findings.finding import Check, Finding
from mta.service.findings.paths import FOR_OTHERS
from mta.settings import Settings

__all__ = ["Finding", "findings", "open_secrets", "placed", "unusable_addresses", "warnings"]

_CHECKS: tuple[Check, ...] = (
    identity.hostname,
    identity.run_as,
    certificates.certificates,
    certificates.self_signed,
    signing.keys,
    signing.reports,
    files.users,
    files.seals,
    destinations.postmasters,
    destinations.hops,
    files.spool,
    files.log,
    endpoints.sockets,
    endpoints.metrics,
    filters.milters,
)


def findings(settings: Settings) -> list[Finding]:
    """All findings of all checks.  Blocks."""
    return [finding for check in _CHECKS for finding in check(settings)]


def placed(path: Path, found: Iterable[Finding]) -> list[str]:
    """A line for each finding, with its place in the configuration file."""
    try:
        places = Places(path)
    except ConfigurationError:  # the file has changed, and can't be read any more
        return [finding.text for finding in found]
    return [str(places.problem(finding.keys, finding.text)) for finding in found]


def warnings(path: Path, found: Iterable[Finding]) -> list[str]:
    """A line for each finding that is not fatal, and open secret."""
    lines = placed(path, [finding for finding in found if not finding.is_fatal])
    with suppress(ConfigurationError):
        lines += map(str, open_secrets(path, Places(path)))
    return lines


def open_secrets(path: Path, places: Places) -> Iterator[Problem]:
    """Secrets that all users of this host may read.

    They are in the configuration file, or in files that it names.
    """
    for value, file in places.secrets():
        with suppress(OSError):
            if (file or path).stat().st_mode & FOR_OTHERS:
                yield Problem(
                    path,
                    *value.place,
                    f"{file or path}: has a secret, and is open to all users of this host:"
                    f" chmod o= {file or path}" + ("" if file else ", or write {file: PATH} here"),
                )
