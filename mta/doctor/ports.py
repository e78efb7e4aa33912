"""Checks of ports: our listeners from here, and port 25 of others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from mta.config.endpoints import tcp_address
from mta.doctor.examined import Examined
from mta.doctor.names import public_addresses
from mta.doctor.result import Result, bad, ok, unknown, warn
from mta.interfaces import DomainNotFound, ResolutionFailed
from mta.mail import Agent, Hop, Reply, Security, is_address
from mta.queued import HopFailure
from mta.settings import Listener, ListenerTLS, Service

SMTP_PORT = 25
_WELL_KNOWN = ("gmail.com", "outlook.com", "yahoo.com")  # MX hosts that answer from everywhere
_FOREIGN = "doctor@elsewhere.example"  # RFC 2606: in no network, and of no domain of ours
RELAYING = (f"MAIL FROM:<{_FOREIGN}>", f"RCPT TO:<{_FOREIGN}>")  # what an open relay takes
_EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


async def listeners(examined: Examined) -> AsyncIterator[Result]:
    """Talk to each of our own TCP listeners."""
    for listener in examined.settings.listen:
        hop = own_hop(listener)
        if hop is None:
            continue
        name = f"{listener.endpoint} ({listener.service.value})"
        try:
            seen = await examined.probe.session(hop)
        except HopFailure as failure:
            reason = failure.outcome.reply.text
            yield bad(f"{name}: {reason}", "is the server running?  systemctl status mta")
            continue
        if seen.host.lower() == examined.settings.hostname.lower():
            yield ok(f"{name} answers")
        else:
            yield bad(
                f"{name}: another server has the port, which calls itself {seen.host}",
                "ss -ltnp shows which: stop it, or take another port",
            )


async def outgoing(examined: Examined) -> AsyncIterator[Result]:
    """Connect to port 25 of another server, which many providers block."""
    if examined.awaits_pairing:
        yield unknown("no mail leaves before this office has a relay", "mta pair")
        return
    if examined.settings.default_route.agent is not Agent.MX:
        yield ok(f"mail leaves by {examined.settings.default_route}, so port 25 need not be open")
        return
    looking = [
        Deferred.fromCoroutine(examined.probe.session(Hop(Agent.MX, domain)))
        for domain in _WELL_KNOWN
    ]
    answers: Sequence[tuple[bool, Any]] = await DeferredList(looking, consumeErrors=True)
    if seen := next((result for is_there, result in answers if is_there), None):
        yield ok(f"outgoing port {SMTP_PORT} is open: {seen.host} answers")
        return
    for _, failure in answers:
        failure.trap(HopFailure)
    yield warn(
        f"port {SMTP_PORT} of the servers of {', '.join(_WELL_KNOWN)}:"
        f" {answers[0][1].value.outcome.reply.text}",
        "many providers open outgoing port 25 on request; else use a smart host (`routes`)",
    )


async def relaying(examined: Examined) -> AsyncIterator[Result]:
    """Try to relay through port 25 of our own public addresses."""
    if not any(_is_for_strangers(listener) for listener in examined.settings.listen):
        yield ok(f"nothing listens on port {SMTP_PORT} for other hosts")
        return
    for address in await public_addresses(examined):
        hop = Hop(Agent.SMTP, address, SMTP_PORT, security=Security.OFF)
        try:
            seen = await examined.probe.session(hop, RELAYING)
        except (HopFailure, ResolutionFailed, DomainNotFound):
            yield unknown(
                f"{address} port {SMTP_PORT} can't be reached from this host",
                "try from elsewhere: swaks --quit-after RCPT --to a@example.org --server"
                f" {examined.settings.hostname}",
            )
            continue
        refusal = first_refusal(seen.replies)
        if refusal is None and len(seen.replies) < len(RELAYING):
            yield unknown(f"{address} port {SMTP_PORT} does not answer in time", "try again")
        elif refusal is None:
            yield bad(
                f"{address} takes mail from anywhere to anywhere: an open relay",
                "look at `relay.networks`: this host's public address must not be there",
            )
        else:
            yield ok(f"{address} refuses to relay (it replies {refusal.code})")


def _is_for_strangers(listener: Listener) -> bool:
    """Tell whether other hosts reach port 25 by a listener."""
    tcp = tcp_address(listener.endpoint)
    if listener.service is not Service.SMTP or tcp is None or tcp.port != SMTP_PORT:
        return False
    return not (is_address(tcp.host) and ip_address(tcp.host).is_loopback)


def first_refusal(replies: Sequence[Reply]) -> Reply | None:
    """The first reply that refuses something; None: all was taken."""
    return next((reply for reply in replies if not reply.is_positive), None)


def own_hop(listener: Listener) -> Hop | None:
    """The way to a listener from this host; None: no TCP port.

    Where it offers TLS, that is taken.
    """
    tcp = tcp_address(listener.endpoint)
    if tcp is None or not tcp.port:
        return None
    address = tcp.host or ("::" if tcp.is_ipv6 else "")
    is_implicit = listener.tls is ListenerTLS.IMPLICIT
    return Hop(
        Agent.LMTP if listener.service is Service.LMTP else Agent.SMTP,
        _EVERYWHERE.get(address, address),
        tcp.port,
        implicit_tls=is_implicit,
        security=Security.OFF if listener.tls is ListenerTLS.OFF else Security.OPPORTUNISTIC,
    )
