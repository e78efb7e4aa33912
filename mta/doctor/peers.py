"""Checks of the peers that change roles with us."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

from mta.access.log_in_file import LogInFile
from mta.commands.peer_statuses import peer_statuses
from mta.doctor.certificates import expiry
from mta.doctor.examined import Examined, SessionSeen
from mta.doctor.result import Result, bad, ok, unknown, warn
from mta.peers.turned_receiver import DEAD
from mta.queued import HopFailure
from mta.settings import DAY, Peer

MAX_ROUND_TRIP = 2.0  # seconds: longer, and each command of a turn is felt


async def dialled(examined: Examined) -> AsyncIterator[Result]:
    """Log in at each peer that we dial."""
    for peer in examined.settings.peers.values():
        if peer.connect is None:
            continue
        try:
            seen = await examined.probe.session(peer.next_hop)
        except HopFailure as failure:
            yield bad(
                f"{peer.name}: {failure.outcome.reply.text}",
                f"mta turn {peer.name} says more; mta peers, when it was seen last",
            )
            continue
        yield _session(peer, seen)
        if seen.tls is not None and seen.tls.expires and not peer.pin:
            end = datetime.fromtimestamp(seen.tls.expires, UTC)
            shown = f"{peer.name}: the certificate of {seen.host} "
            for result in expiry(end, shown, "renew it there: certbot renew"):
                yield result.of(peer.name)


def _session(peer: Peer, seen: SessionSeen) -> Result:
    method = peer.method.upper()
    if method not in seen.keywords:
        offered = ", ".join(sorted(seen.keywords & {"ATRN", "TURN", "ETRN"})) or "none of these"
        return bad(
            f"{peer.name}: {seen.host} does not offer {method} to us, but {offered}",
            "it may on another port (366, 465), or with a `peers` entry for our user",
        )
    if seen.tls is None:
        return bad(f"{peer.name}: no TLS, so that all can be read", "set `tls: verify` or a `pin`")
    took = f"{seen.round_trip * 1000:.0f} ms"
    if seen.round_trip > MAX_ROUND_TRIP:
        return warn(f"{peer.name}: a reply takes {took}", "the line or the peer is overloaded")
    return ok(
        f"{peer.name}: {seen.host} takes our log-in and offers {method}; a reply takes {took}"
    )


async def exchanges(examined: Examined) -> AsyncIterator[Result]:
    """Look how the last exchange with each dialled peer went."""
    statuses = await examined.in_thread(peer_statuses, examined.settings)
    for peer in examined.settings.peers.values():
        if peer.connect is None:
            continue
        status = await examined.in_thread(statuses.read, peer.name)
        if await examined.in_thread(statuses.link_since, peer.name) is not None:
            yield ok(f"{peer.name}: the link stands")
        elif status.last_error:
            remedy = f"mta turn {peer.name} tries it now"
            if DEAD in status.last_error:
                remedy = f"set `keepalive` of {peer.name} to less than the router's memory, as 60s"
            yield warn(f"{peer.name}: the last exchange failed: {status.last_error}", remedy)
        elif status.last_exchange is None:
            yield unknown(f"{peer.name}: there was no exchange yet", f"mta turn {peer.name}")
        else:
            yield ok(f"{peer.name}: the last exchange went well")


async def called_back(examined: Examined) -> AsyncIterator[Result]:
    """Dial the peers that have their mail sent to them (ETRN)."""
    for peer in examined.settings.peers.values():
        if peer.connect is not None or peer.etrn is None:
            continue
        try:
            seen = await examined.probe.session(peer.etrn)
        except HopFailure as failure:
            yield bad(
                f"{peer.name} at {peer.etrn}: {failure.outcome.reply.text}",
                "its mail can't be sent there: look at its end, or at `etrn`",
            )
        else:
            yield ok(f"{peer.name} at {peer.etrn}: {seen.host} answers")


async def dialling_in(examined: Examined) -> AsyncIterator[Result]:
    """Look when each peer that dials in was here."""
    statuses = await examined.in_thread(peer_statuses, examined.settings)
    for peer in examined.settings.peers.values():
        if peer.connect is not None:
            continue
        status = await examined.in_thread(statuses.read, peer.name)
        if await examined.in_thread(statuses.link_since, peer.name) is not None:
            yield ok(f"{peer.name}: its link stands")
        elif status.last_error:
            yield warn(
                f"{peer.name}: the last exchange failed: {status.last_error}",
                f"mta peers {peer.name}",
            )
        elif status.last_exchange is None:
            yield unknown(f"{peer.name} was never here", "let it dial: mta turn, at its end")
        elif time.time() - status.last_exchange > DAY:
            days = (time.time() - status.last_exchange) / DAY
            yield warn(f"{peer.name} was not here for {days:.0f} days", "look at its end")
        else:
            yield ok(f"{peer.name} was here within the last day")


async def bans(examined: Examined) -> AsyncIterator[Result]:
    """Look whether the users of peers are banned."""
    users = {peer.user.lower(): peer for peer in examined.settings.peers.values() if peer.user}
    record = await examined.in_thread(LogInFile(Path(examined.settings.spool)).read)
    for ban in record.bans:
        for user in {ban.user.lower(), *map(str.lower, ban.users)} & set(users):
            if ban.is_in_force(time.time()):
                yield bad(
                    f"{users[user].name} can't log in from {ban.host}: too many wrong passwords",
                    f"mend its secret, then: mta user unban {ban.host}",
                )
