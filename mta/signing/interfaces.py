"""The seam of this room: the name servers of others."""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import Interface

from mta.interfaces import IResolver


class IResolvers(Interface):
    """Resolvers that ask given name servers, and not ours."""

    def asking(addresses: Sequence[str]) -> IResolver:
        """A resolver that asks the name server at these addresses."""
