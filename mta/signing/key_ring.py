"""The keys that are signed with, by domain."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mta.authentication.dkim import SigningKey
from mta.interfaces import SigningFailed
from mta.limited_log import LimitedLog
from mta.mail import Reply
from mta.settings import DKIMKey
from mta.signing.keys import KeyFault, read
from mta.signing.shared_results import SharedResults


class KeyRing:
    """Reads the keys of a domain when first needed, and keeps them.

    `keys` are those of each domain that sign now.  `in_thread` runs what blocks.
    """

    log = Logger()

    def __init__(
        self,
        keys: Mapping[str, Sequence[DKIMKey]],
        in_thread: Callable[..., Deferred[Any]],
        clock: IReactorTime,
    ) -> None:
        self._keys = keys
        self._in_thread = in_thread
        self._read: SharedResults[str, Sequence[SigningKey]] = SharedResults(
            clock, max(len(keys), 1), math.inf
        )
        self._limited = LimitedLog(self.log, clock.seconds)

    def covering(self, name: str) -> str:
        """The domain that signs for a name.

        It is the name itself, or the nearest domain above it that has keys; empty where none has.
        """
        while name and name not in self._keys:
            name = name.partition(".")[2]
        return name

    async def of(self, domain: str) -> Sequence[SigningKey]:
        """Return all keys of a domain.

        Raises SigningFailed where one can't be read; the next time that is tried anew.
        """
        return await self._read.get(domain, partial(self._load, domain))

    async def _load(self, domain: str) -> Sequence[SigningKey]:
        found = []
        for key in self._keys[domain]:
            try:
                private = await self._in_thread(read, key.file)
            except KeyFault as fault:
                text = f"The DKIM key {key.selector} of {domain} can't be used"
                self._limited.error(
                    domain,
                    "mail of {domain} is not signed, and waits: {fault}",
                    domain=domain,
                    fault=str(fault),
                )
                raise SigningFailed(Reply(451, "4.7.5", (text,))) from fault
            found.append(SigningKey(domain, key.selector, private.key))
        return found
