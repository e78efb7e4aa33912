"""The mail exchangers of a domain (RFC 5321 section 5.1, RFC 7505)."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import groupby

from mta.interfaces import IResolver
from mta.mail import Outcome, Reply, Status
from mta.queued import HopFailure

MAX_EXCHANGERS = 20  # hosts: of one domain, as strangers choose how many are in its zone
NULL_MX = Reply(556, "5.1.10", ("The domain takes no mail (null MX)",))


async def exchangers(
    resolver: IResolver,
    domain: str,
    shuffle: Callable[[list[tuple[int, str]]], None] = random.shuffle,
) -> list[list[str]]:
    """The mail exchangers of a domain, in groups of equal preference.

    It is the domain itself where that has no MX record.  Hosts of equal preference come in random
    order, each once.  Raises HopFailure for a null MX, and what the resolver raises.
    """
    records = list(await resolver.mx(domain)) or [(0, domain)]
    if all(not host for _, host in records):
        raise HopFailure(Outcome(Status.FAILED, NULL_MX))
    shuffle(records)
    records.sort(key=lambda record: record[0])
    best: dict[str, int] = {}
    for preference, host in records:
        if host:
            best.setdefault(host, preference)
    groups = groupby(list(best)[:MAX_EXCHANGERS], key=lambda host: best[host])
    return [list(hosts) for _, hosts in groups]
