"""Which hosts take a domain's mail, the best first (RFC 5321 section 5.1, RFC 7505)."""

from __future__ import annotations

import random
from collections.abc import Callable

from mta.interfaces import HopFailure, IResolver
from mta.mail import Outcome, Reply, Status

NULL_MX = Reply(556, "5.1.10", ("The domain takes no mail (null MX)",))
LOOPS_BACK = Reply(554, "5.4.6", ("Mail for this domain loops back to this server",))


async def exchangers(
    resolver: IResolver,
    domain: str,
    hostname: str,
    shuffle: Callable[[list[tuple[int, str]]], None] = random.shuffle,
) -> list[str]:
    """The mail exchangers of a domain; itself where it names none.

    Hosts of equal preference come in random order.  Where `hostname`, our own name, is in the
    list, it and all that are no better are cut off: they would hand the mail back to us.
    Raises HopFailure, and what the resolver raises.
    """
    records = list(await resolver.mx(domain)) or [(0, domain)]
    if all(not host for _, host in records):
        raise HopFailure(Outcome(Status.FAILED, NULL_MX))
    own = hostname.lower()
    ours = min((preference for preference, host in records if host == own), default=None)
    usable = [record for record in records if record[1] and (ours is None or record[0] < ours)]
    if not usable:
        raise HopFailure(Outcome(Status.FAILED, LOOPS_BACK))
    shuffle(usable)
    usable.sort(key=lambda record: record[0])
    return [host for _, host in usable]
