"""Questions to each name server alone, by UDP and by TCP."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from random import SystemRandom
from typing import Any

from dns.rdatatype import RdataType
from twisted.internet.defer import Deferred, TimeoutError, gatherResults

from mta.doctor.examined import NameServerSeen
from mta.resolver.names import to_name
from mta.resolver.query import make_query
from mta.resolver.resolv_conf import ConfiguredServers, Server, SystemServers
from mta.resolver.resolver import RESOLV_CONF
from mta.resolver.response import MalformedResponse, parse
from mta.resolver.transport import Flooded, Transport, Unanswered

SERVER_TIMEOUT = 3.0  # seconds: for one server; the check that asks has five
_ASKED = b"com"  # it has name servers, as long as there is a domain name system


class NameServers:
    """The name servers of the configuration, or those of the system."""

    def __init__(self, reactor: Any, servers: Sequence[tuple[str, int]]) -> None:
        self._listed = ConfiguredServers(servers) if servers else SystemServers(RESOLV_CONF)
        self._transport = Transport(reactor)
        self._clock = reactor

    async def seen(self) -> Sequence[NameServerSeen]:
        """Ask each of them at the same time, in both ways."""
        looking = [
            Deferred.fromCoroutine(self._look(server)) for server in self._listed.current().servers
        ]
        found: Sequence[NameServerSeen] = await gatherResults(looking, consumeErrors=True)
        return found

    async def _look(self, server: Server) -> NameServerSeen:
        query = make_query(
            to_name(_ASKED),
            RdataType.NS,
            SystemRandom(),
            edns=True,
            validated=False,
            any_case=False,
        )
        ways = (
            self._transport.by_udp(server, query, SERVER_TIMEOUT),
            self._transport.by_tcp(server, query),
        )
        asking = [Deferred.fromCoroutine(self._answers(way)) for way in ways]
        by_udp, by_tcp = await gatherResults(asking, consumeErrors=True)
        return NameServerSeen(server.address, by_udp, by_tcp)

    async def _answers(self, way: Coroutine[Any, Any, bytes]) -> bool:
        """Tell whether an answer comes in time."""
        answered = Deferred.fromCoroutine(way).addTimeout(SERVER_TIMEOUT, self._clock)
        try:
            return parse(await answered, RdataType.NS).is_answer
        except (Unanswered, Flooded, TimeoutError, MalformedResponse):
            return False
