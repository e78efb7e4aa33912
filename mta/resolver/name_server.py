"""One name server, and what was found out about it."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from dns.name import Name
from dns.rdatatype import RdataType

from mta.resolver.query import Query, make_query
from mta.resolver.resolv_conf import Server
from mta.resolver.response import Response, parse
from mta.resolver.transport import Flooded, Transport, Unanswered

TRAIT_LIFETIME = 300.0  # seconds for which a server is taken for what it was found to be
SILENCE = 60.0  # seconds for which a server that said nothing is asked last


class NameServer:
    """Asks one name server, in the manner that it understands.

    What was found out about it holds until a time of the clock.  It is asked for the verdict of
    DNSSEC where it is trusted, and only there: signatures make many a response too long for a
    datagram.
    """

    def __init__(self, server: Server, transport: Transport, clock: Any, random: Random) -> None:
        self._server = server
        self._transport = transport
        self._clock = clock
        self._random = random
        self._changes_case = 0.0
        self._rejects_edns = 0.0
        self._silent = 0.0

    @property
    def is_silent(self) -> bool:
        """The server said nothing a moment ago."""
        return self._is_now(self._silent)

    async def ask(self, name: Name, kind: RdataType, seconds: float) -> Response:
        """The response to a question.  Raises Unanswered, Flooded or MalformedResponse."""
        try:
            response = await self._ask(name, kind, seconds)
        except (Unanswered, Flooded):
            self._silent = self._clock.seconds() + SILENCE
            raise
        self._silent = 0.0
        return response if self._server.is_trusted else replace(response, is_validated=False)

    async def _ask(self, name: Name, kind: RdataType, seconds: float) -> Response:
        """The response, without EDNS where the server does not know it."""
        edns = not self._is_now(self._rejects_edns)
        response = await self._exchange(self._query(name, kind, edns), seconds)
        if edns and response.rejects_edns:
            response = await self._exchange(self._query(name, kind, edns=False), seconds)
            if response.is_answer:
                self._rejects_edns = self._clock.seconds() + TRAIT_LIFETIME
        return response

    async def _exchange(self, query: Query, seconds: float) -> Response:
        """The response to one query, by TCP where it takes that."""
        try:
            octets = await self._transport.by_udp(self._server, query, seconds)
        except Flooded:
            octets = await self._transport.by_tcp(self._server, query)
        if not query.keeps_case(octets):
            octets = await self._in_changed_case(query, seconds)
        response = parse(octets, query.kind)
        if response.is_truncated:
            octets = await self._transport.by_tcp(self._server, query)
            response = parse(octets, query.kind)
        return response

    async def _in_changed_case(self, query: Query, seconds: float) -> bytes:
        """The answer to a question that came back in another case.

        The server may be made so, or a forger has guessed the rest.  A connection tells them apart:
        no forger can answer there.  Where there is none, the query goes out again in lower case,
        and the forger has to guess anew.
        """
        try:
            octets = await self._transport.by_tcp(self._server, query)
        except (Unanswered, Flooded):
            self._changes_case = self._clock.seconds() + TRAIT_LIFETIME
            query = self._query(query.name, query.kind, query.has_edns)
            return await self._transport.by_udp(self._server, query, seconds)
        if not query.keeps_case(octets):
            self._changes_case = self._clock.seconds() + TRAIT_LIFETIME
        return octets

    def _query(self, name: Name, kind: RdataType, edns: bool) -> Query:
        return make_query(
            name,
            kind,
            self._random,
            edns=edns,
            validated=self._server.is_trusted,
            any_case=not self._is_now(self._changes_case),
        )

    def _is_now(self, until: float) -> bool:
        return bool(self._clock.seconds() < until)
