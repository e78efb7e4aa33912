"""The configured block lists and allow lists, asked about one client."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, TimeoutError, gatherResults
from twisted.internet.interfaces import IReactorTime

from mta.inspection_settings import AllowList, BlockList, ListAction
from mta.inspectors.list_zone import ListZone
from mta.interfaces import IResolver, ResolutionFailed

MAX_SECONDS = 5.0  # for the answers of all lists, and for a reason: a client waits for a reply

T = TypeVar("T")
Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Standing:
    """The lists that a client is on, by their use.

    A use without one is empty.  `reason` is the text of the one that rejects it.
    """

    allowed: str = ""
    rejected: str = ""
    junk: str = ""
    greylisted: str = ""
    reason: str = ""


class Lists:
    """All lists.  They are asked at once; no answer in time is as good as none."""

    def __init__(
        self,
        block: Sequence[BlockList],
        allow: Sequence[AllowList],
        resolver: IResolver,
        clock: IReactorTime,
    ) -> None:
        self._clock = clock
        self._allow = [ListZone(each.zone, each.codes, resolver, clock) for each in allow]
        self._block = [
            (ListZone(each.zone, each.codes, resolver, clock), each.action) for each in block
        ]
        self._zones = [*self._allow, *(zone for zone, _ in self._block)]

    async def probe(self) -> None:
        """Find out which of them are of use."""
        await gatherResults([Deferred.fromCoroutine(self._probe(zone)) for zone in self._zones])

    async def _probe(self, zone: ListZone) -> None:
        try:
            if await self._bounded(zone.probe()) is None:
                zone.has_failed(f"no answer within {MAX_SECONDS:.0f} seconds")
        except ResolutionFailed as error:
            zone.has_failed(str(error))

    async def standing(self, client: str) -> Standing:
        """Return the standing of a client, by its address."""
        address = _address(client)
        if address is None:
            return Standing()
        answers = await gatherResults(
            [Deferred.fromCoroutine(self._ask(zone, address)) for zone in self._zones],
            consumeErrors=True,
        )
        allowed, blocked = answers[: len(self._allow)], answers[len(self._allow) :]
        for zone, is_listed in zip(self._allow, allowed, strict=True):
            if is_listed:
                return Standing(allowed=zone.zone)
        found: dict[ListAction, ListZone] = {}
        for (zone, action), is_listed in zip(self._block, blocked, strict=True):
            if is_listed:
                found.setdefault(action, zone)
        return await self._blocked(address, found)

    async def _blocked(self, address: Address, found: dict[ListAction, ListZone]) -> Standing:
        rejecting = found.get(ListAction.REJECT)
        reason = ""
        if rejecting is not None:
            reason = await self._bounded(rejecting.reason(address)) or ""
        names = {action: zone.zone for action, zone in found.items()}
        return Standing(
            rejected=names.get(ListAction.REJECT, ""),
            junk=names.get(ListAction.JUNK, ""),
            greylisted=names.get(ListAction.GREYLIST, ""),
            reason=reason,
        )

    async def _ask(self, zone: ListZone, address: Address) -> bool:
        try:
            is_listed = await self._bounded(zone.has(address))
        except ResolutionFailed:
            return False
        if is_listed is None:
            zone.was_silent()
        return bool(is_listed)

    async def _bounded(self, asking: Coroutine[Any, Any, T]) -> T | None:
        """Return an answer; None where it takes too long."""
        asked = Deferred.fromCoroutine(asking)
        try:
            return await asked.addTimeout(MAX_SECONDS, self._clock)
        except TimeoutError:
            return None


def _address(client: str) -> Address | None:
    """The address of a client; None where no list can know it."""
    try:
        found = ip_address(client.partition("%")[0])
    except ValueError:
        return None
    found = getattr(found, "ipv4_mapped", None) or found
    return None if found.is_loopback or found.is_link_local else found
