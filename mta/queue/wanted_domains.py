"""The domains whose mail a turned connection is to get."""

from __future__ import annotations

from collections.abc import Collection

from mta.queued import EVERYWHERE


class WantedDomains:
    """Some domains.  A leading dot means those below, a dot alone all."""

    def __init__(self, domains: Collection[str]) -> None:
        self.names = frozenset(domains)
        self._suffixes = tuple(domain for domain in domains if domain.startswith("."))

    def __contains__(self, domain: str) -> bool:
        return (
            domain in self.names
            or EVERYWHERE in self.names
            or (bool(self._suffixes) and domain.endswith(self._suffixes))
        )
