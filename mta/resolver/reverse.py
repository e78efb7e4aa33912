"""The names of addresses, confirmed by the addresses of the names.

Anyone may put any name into the PTR record of an address; only the owner of the name can give it
that address.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from zope.interface import implementer

from mta.dns_answer import RecordType, ReverseName
from mta.interfaces import IResolver, IReverseNames, ResolutionFailed
from mta.resolver.names import MAX_NAME

MAX_SECONDS = 5.0  # for all look-ups: a client waits for its greeting
MAX_NAMES = 10  # of one address: its owner chooses how many there are (RFC 7208 section 4.6.4)
LOCALHOST = "localhost"

_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")


@implementer(IReverseNames)
class ReverseNames:
    """Looks up names; the resolver remembers what it has found."""

    def __init__(self, resolver: IResolver, clock: Any) -> None:
        self._resolver = resolver
        self._clock = clock

    async def of(self, address: str) -> ReverseName:
        """See `IReverseNames.of`."""
        try:
            parsed = ip_address(address.partition("%")[0])
        except ValueError:
            return ReverseName()
        if parsed.is_loopback:  # RFC 6761 section 6.3, as hosts(5) has it everywhere
            return ReverseName(LOCALHOST, LOCALHOST)
        looking = Deferred.fromCoroutine(self._look_up(str(parsed), parsed.reverse_pointer))
        looking.addTimeout(MAX_SECONDS, self._clock)
        try:
            return await looking
        except (ResolutionFailed, TimeoutError):
            return ReverseName()

    async def _look_up(self, address: str, pointer: str) -> ReverseName:
        kind = RecordType.AAAA if ":" in address else RecordType.A
        names = (await self._resolver.query(pointer, RecordType.PTR)).records[:MAX_NAMES]
        hosts = [name for name in names if _HOST.fullmatch(name) and len(name) <= MAX_NAME]
        for host in hosts:
            try:
                answer = await self._resolver.query(host, kind)
            except ResolutionFailed:
                continue
            if address in answer.records:
                return ReverseName(hosts[0], host)
        return ReverseName(hosts[0] if hosts else "")
