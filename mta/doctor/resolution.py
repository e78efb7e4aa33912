"""The check of the name servers: answers, truth, TCP, DNSSEC."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

from mta.dns_answer import RecordType
from mta.doctor.examined import Examined
from mta.doctor.result import Result, bad, ok, unknown, warn
from mta.interfaces import DomainNotFound, ResolutionFailed
from mta.mail import Agent

_WELL_KNOWN = "gmail.com"  # its MX records will be there as long as mail is
_SIGNED = "com"  # its name servers are vouched for where DNSSEC is validated
# No name is below the one (RFC 6761 section 6.4), and none is invented below the other, where there
# is no mail.
_NEVER, _RARELY = "invalid", "example.com"
_TRUTH = "bounces and block lists need the truth"


async def resolver(examined: Examined) -> AsyncIterator[Result]:
    """Ask for names that exist, and for some that can't.

    Then each server is asked alone.
    """
    try:
        fault = await _fault(examined)
    except ResolutionFailed as error:
        yield bad(
            f"the name servers do not answer: {error}",
            "look at `resolver`, or at /etc/resolv.conf: without names no mail leaves",
        )
        return
    if fault is None:
        yield ok("the name servers answer, and say so where a name does not exist")
    else:
        yield fault
    for server in await examined.probe.name_servers():
        if not (server.by_udp or server.by_tcp):
            yield warn(
                f"the name server {server.address} does not answer: what asks it first has to wait",
                "start it, or take it out of `resolver` or /etc/resolv.conf",
            )
        elif not server.by_tcp:
            yield warn(
                f"the name server {server.address} does not answer by TCP: records that are too"
                " long for a datagram, as DKIM keys may be, can't be read",
                "let port 53 of it be reached by TCP, or use another one (RFC 7766)",
            )
    async for result in _dnssec(examined):
        yield result


async def _fault(examined: Examined) -> Result | None:
    """The lie that the name servers tell; None: none that is known."""
    try:
        hosts = await examined.resolver.mx(_WELL_KNOWN)
    except DomainNotFound:
        hosts = ()
    if not hosts:
        return bad(f"the name servers know no MX of {_WELL_KNOWN}", "use other name servers")
    for parent in (_NEVER, _RARELY):
        answer = await examined.resolver.query(f"{secrets.token_hex(8)}.{parent}", RecordType.A)
        if answer.records:
            return bad(
                "the name servers invent addresses for names that do not exist"
                f" (below {parent}: {answer.records[0]})",
                f"use others, best one of your own on this host: {_TRUTH}",
            )
        if answer.exists and parent == _NEVER:
            return warn(
                "the name servers say that names exist which do not",
                f"use others, best one of your own on this host: {_TRUTH}",
            )
    return None


async def _dnssec(examined: Examined) -> AsyncIterator[Result]:
    """Look whether answers are vouched for, as DANE needs."""
    if examined.settings.default_route.agent is not Agent.MX:
        return
    try:
        answer = await examined.resolver.query(_SIGNED, RecordType.NS)
    except ResolutionFailed as error:
        yield unknown(f"whether DNSSEC is validated can't be seen: {error}", "try again")
        return
    if answer.is_authenticated:
        yield ok("a name server of this host validates DNSSEC, so that DANE protects mail")
    else:
        yield warn(
            "no name server of this host validates DNSSEC: DANE protects no mail that leaves",
            "apt install unbound, and name 127.0.0.1 alone in `resolver` or /etc/resolv.conf",
        )
