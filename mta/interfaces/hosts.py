"""The domain name system, and this host."""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import Interface

from mta.dns_answer import Answer, RecordType, ReverseName


class IResolver(Interface):
    """The domain name system, as far as mail needs it."""

    async def mx(domain: str) -> Sequence[tuple[int, str]]:
        """The MX records as (preference, host), empty where there are none.

        Raises DomainNotFound (NXDOMAIN) or ResolutionFailed (try again).
        """

    async def addresses(host: str) -> Sequence[str]:
        """The A and AAAA records, in the order to try them.

        An IP address is its own.
        """

    async def query(name: str, kind: RecordType) -> Answer:
        """The answer to any question; that there is nothing is one, too.

        Raises ResolutionFailed (try again).
        """


class IReverseNames(Interface):
    """The names of addresses."""

    async def of(address: str) -> ReverseName:
        """Return the names of an address, within some seconds."""


class ResolutionFailed(Exception):
    """The name servers did not answer: try again later."""


class DomainNotFound(Exception):
    """The name does not exist: trying again won't help."""


class IOwnHost(Interface):
    """This host, as others may know it.

    Mail for elsewhere must not go there.
    """

    def is_named(host: str) -> bool:
        """Return whether that is a name of this host."""

    def is_at(address: str) -> bool:
        """Return whether that is an address of this host."""
