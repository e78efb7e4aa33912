"""Name servers, one asked after the other until one gives an answer."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from dns.name import Name
from dns.rcode import Rcode
from dns.rdatatype import RdataType

from mta.resolver.name_server import NameServer
from mta.resolver.query import ANSWERS
from mta.resolver.resolv_conf import ConfiguredServers, Server, Servers, SystemServers
from mta.resolver.response import MalformedResponse, Response
from mta.resolver.transport import Flooded, Transport, Unanswered

MAX_KNOWN = 100  # servers about which something is remembered: the file may change often

_REASONS: dict[int, str] = {  # RFC 1035 section 4.1.1
    Rcode.FORMERR: "format error",
    Rcode.SERVFAIL: "server failure",
    Rcode.NOTIMP: "not implemented",
    Rcode.REFUSED: "refused",
}
_NONSENSE = "an answer that makes no sense"


class NoAnswer(Exception):
    """No server gave an answer; the text says what came instead."""


class NameServers:
    """Asks the name servers of the configuration or of the system.

    `random` makes queries hard to guess.
    """

    def __init__(
        self,
        listed: ConfiguredServers | SystemServers,
        transport: Transport,
        clock: Any,
        random: Random,
    ) -> None:
        self._listed = listed
        self._transport = transport
        self._clock = clock
        self._random = random
        self._known: dict[Server, NameServer] = {}
        self._questions = 0

    async def ask(self, name: Name, kind: RdataType) -> Response:
        """The first answer of a server.  Raises NoAnswer.

        One that said something else is not asked again, one that said nothing is.
        """
        current = self._listed.current()
        servers = self._in_order(current)
        reason = "timed out"
        for seconds in current.timeouts:
            silent = []
            for server in servers:
                try:
                    response = await server.ask(name, kind, seconds)
                except (Unanswered, Flooded):
                    silent.append(server)
                    continue
                except MalformedResponse:
                    reason = _NONSENSE
                    continue
                if response.is_answer:
                    return response
                reason = _reason(response)
            servers = silent
        raise NoAnswer(reason)

    def _in_order(self, current: Servers) -> Sequence[NameServer]:
        """The servers, those last that said nothing a moment ago."""
        first = self._questions % len(current.servers) if current.rotated else 0
        self._questions += 1
        servers = [*current.servers[first:], *current.servers[:first]]
        return sorted(map(self._name_server, servers), key=lambda server: server.is_silent)

    def _name_server(self, server: Server) -> NameServer:
        if server not in self._known:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[server] = NameServer(server, self._transport, self._clock, self._random)
        return self._known[server]


def _reason(response: Response) -> str:
    """The reason of a server that gave no answer, in words."""
    if response.rcode in ANSWERS:
        return _NONSENSE
    return _REASONS.get(response.rcode, f"error {response.rcode}")
