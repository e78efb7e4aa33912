"""The parts of the server that all filters share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mta.interfaces import IFilterMeter, IRouter, ISpool

# For the ends of a message at all filters: a client waits for ten minutes, and sends the message
# once more where they take longer (RFC 5321 section 4.5.3.2.6).
CHAIN_SECONDS = 540.0
# The same where mail is passed through: with a minute for the peer, and the other checks, a sender
# waits for five minutes at most.
PASSING_CHAIN_SECONDS = 210.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The parts of the server that filters need.

    `max_body`: octets of a body that a filter may put in the place of another one.  `max_end`:
    seconds that the end of a message may take with one filter, whatever progress it makes.
    """

    reactor: Any
    hostname: str
    spool: ISpool
    router: IRouter
    meter: IFilterMeter
    max_body: int
    max_end: float
