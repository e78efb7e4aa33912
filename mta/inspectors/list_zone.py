"""One list in the DNS, and the trust that it deserves."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mta.dns_answer import RecordType
from mta.inspection_settings import CodeRange
from mta.inspectors.list_answers import Answered, clean, meaning, question
from mta.interfaces import IResolver, ResolutionFailed
from mta.limited_log import LimitedLog

PROBE_INTERVAL = 3600.0  # seconds between probes: a list that has died does not harm much longer
RETRY_INTERVAL = 60.0  # seconds: the same where the DNS did not answer
MAX_SILENCES = 3  # answers in a row that took too long

_NEVER_LISTED = IPv4Address("127.0.0.1")  # RFC 5782 section 5
_ALWAYS_LISTED = IPv4Address("127.0.0.2")  # the same


class ListZone:
    """A list, which is left out while it is of no use.

    It lists everything then, or does not answer as a list does.  That is found out when the server
    starts, and each hour after it.
    """

    log = Logger()

    def __init__(
        self, zone: str, codes: Sequence[CodeRange], resolver: IResolver, clock: IReactorTime
    ) -> None:
        self.zone = zone
        self._codes = codes
        self._resolver = resolver
        self._clock = clock
        self._next_probe = float("-inf")
        self._silences = 0  # in a row
        self._silent_until = float("-inf")
        self._limited = LimitedLog(self.log)
        self._probed: Answered | None = None  # the meaning of the answer about what is never listed
        self._is_empty = False  # it does not even have what is always listed

    async def has(self, address: IPv4Address | IPv6Address) -> bool:
        """Return whether an address is listed, by a code that counts.

        Raises ResolutionFailed.
        """
        if self._clock.seconds() < self._silent_until:
            return False
        if self._clock.seconds() >= self._next_probe:
            await self._probe()
        if self._probed is not Answered.NOT_LISTED:
            return False
        answered = await self._ask(address)
        self._silences = 0
        if answered in {Answered.REFUSED, Answered.FOREIGN}:
            self._learn(answered)
        return answered is Answered.LISTED

    def was_silent(self) -> None:
        """Note that an answer took too long.

        Clients wait for it: after a few such answers in a row none is asked for, for a while.
        """
        self._silences += 1
        if self._silences >= MAX_SILENCES:
            self._silent_until = self._clock.seconds() + RETRY_INTERVAL
            self._limited.warn(
                "silent", "the list {zone} is left out for a minute: it is silent", zone=self.zone
            )

    async def reason(self, address: IPv4Address | IPv6Address) -> str:
        """Return the list's own words about an address, or nothing."""
        try:
            answer = await self._resolver.query(question(address, self.zone), RecordType.TXT)
        except ResolutionFailed:
            return ""
        return clean(answer.records[0]) if answer.records else ""

    async def _ask(self, address: IPv4Address | IPv6Address) -> Answered:
        answer = await self._resolver.query(question(address, self.zone), RecordType.A)
        return meaning(answer.records, self._codes)

    async def probe(self) -> bool:
        """Ask about addresses that no list has, and that all have.

        Returns true.  Raises ResolutionFailed.
        """
        if await self._probe() is Answered.NOT_LISTED:
            self._learn_whether_empty(await self._ask(_ALWAYS_LISTED))
        return True

    async def _probe(self) -> Answered:
        self._next_probe = self._clock.seconds() + RETRY_INTERVAL
        answered = await self._ask(_NEVER_LISTED)
        self._next_probe = self._clock.seconds() + PROBE_INTERVAL
        self._learn(answered)
        return answered

    def has_failed(self, reason: str) -> None:
        """Note that it could not be probed."""
        self._limited.warn(
            "silence", "the list {zone} does not answer: {reason}", zone=self.zone, reason=reason
        )

    def _learn_whether_empty(self, answered: Answered) -> None:
        """Tell the operator of a list that may be no more.  It does no harm."""
        was_empty, self._is_empty = self._is_empty, answered is Answered.NOT_LISTED
        if self._is_empty and not was_empty:
            self.log.warn(
                "the list {zone} does not have 127.0.0.2, as all lists do: does it still exist?",
                zone=self.zone,
            )

    def _learn(self, answered: Answered) -> None:
        """Go by an answer from now on."""
        before, self._probed = self._probed, answered
        if before is answered:
            return
        match answered:
            case Answered.NOT_LISTED if before is not None:
                self.log.info("the list {zone} is in use again", zone=self.zone)
            case Answered.NOT_LISTED:
                pass
            case Answered.REFUSED:
                self.log.warn(
                    "the list {zone} is left out: it refuses our questions, as it does those of"
                    " name servers that many share; use one of your own",
                    zone=self.zone,
                )
            case Answered.FOREIGN:
                self.log.warn(
                    "the list {zone} is left out: something else answers in its place",
                    zone=self.zone,
                )
            case _:
                self.log.warn("the list {zone} is left out: it lists every address", zone=self.zone)
