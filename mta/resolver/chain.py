"""The way from a name along aliases to its records (RFC 1034).

Only what lies on that way is believed: no question was asked for what else is in a response.
"""

from __future__ import annotations

from collections.abc import Sequence

from dns.name import Name
from dns.rcode import Rcode
from dns.rdatatype import RdataType

from mta.dns_answer import Answer, RecordType
from mta.resolver.cache import Timed
from mta.resolver.names import to_text
from mta.resolver.records import WIRE_TYPES, value
from mta.resolver.response import Record, Response

MAX_ALIASES = 16  # from one name to the next; more is a loop, or an attack
MIN_TTL = 5.0  # seconds: a burst of mail for a domain asks once
MAX_TTL = 3600.0  # seconds: a mistake in a zone is over after an hour
MAX_NEGATIVE_TTL = 300.0  # seconds: a domain that is being set up soon gets its mail


class TooManyAliases(Exception):
    """The aliases lead in a circle, or nearly for ever."""


class Chain:
    """Follows the aliases of a name, over one response or several.

    `name` is the next one to ask for.
    """

    def __init__(self, name: Name, kind: RecordType) -> None:
        self.name = name
        self.wire_type = WIRE_TYPES[kind]
        self._kind = kind
        self._ttl = MAX_TTL
        self._passed = {name}
        self._is_authenticated = True
        self._size = 0

    def follow(self, response: Response) -> Timed | None:
        """The answer, if this response to a question for `name` leads there.

        Raises TooManyAliases.
        """
        asked = self.name
        self._size += response.size
        self._is_authenticated &= response.is_validated
        self._follow_aliases(response.answer)
        if response.rcode == Rcode.NXDOMAIN:
            return self._nothing(response.authority, exists=False)
        records = [
            record
            for record in response.answer
            if record.kind == self.wire_type and record.owner == self.name
        ]
        if records:
            self._ttl = max(MIN_TTL, min(self._ttl, *(record.ttl for record in records)))
            return self._timed(records)
        if self.name == asked or self._is_denied(response.authority):
            return self._nothing(response.authority, exists=True)
        return None

    def _follow_aliases(self, answer: Sequence[Record]) -> None:
        if self.wire_type == RdataType.CNAME:
            return
        aliases: dict[Name, Record] = {}
        for record in answer:
            if record.kind == RdataType.CNAME:
                aliases.setdefault(record.owner, record)
        while aliases and (alias := aliases.get(self.name)):
            self.name = alias.data.target
            self._ttl = min(self._ttl, alias.ttl)
            if self.name in self._passed or len(self._passed) > MAX_ALIASES:
                raise TooManyAliases
            self._passed.add(self.name)

    def _is_denied(self, authority: Record | None) -> bool:
        """Tell whether the zone of the name says that there is nothing."""
        return authority is not None and self.name.is_subdomain(authority.owner)

    def _nothing(self, authority: Record | None, exists: bool) -> Timed:
        """The answer without records; an SOA record limits its time."""
        own = min(authority.ttl, authority.data.minimum) if authority else 0
        self._ttl = min(self._ttl, own, MAX_NEGATIVE_TTL)
        return self._timed([], exists)

    def _timed(self, records: Sequence[Record], exists: bool = True) -> Timed:
        values = dict.fromkeys(value(self._kind, record.data) for record in records)
        answer = Answer(tuple(values), exists, to_text(self.name), self._is_authenticated)
        return Timed(answer, self._ttl, self._size)
