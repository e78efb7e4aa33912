"""The check of block lists and allow lists."""

from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import IPv4Address

from mta.dns_answer import RecordType
from mta.doctor.examined import Examined
from mta.doctor.result import Result, bad, ok, unknown, warn
from mta.inspectors.list_answers import Answered, meaning, question
from mta.interfaces import ResolutionFailed

_ALWAYS_LISTED, _NEVER_LISTED = IPv4Address("127.0.0.2"), IPv4Address("127.0.0.1")  # RFC 5782 5

_OF_NO_USE = "the server leaves it out until then"


async def lists(examined: Examined) -> AsyncIterator[Result]:
    """Ask each list about the addresses that are there to try it."""
    settings = examined.settings
    zones = [each.zone for each in settings.block_lists]
    zones += [each.zone for each in settings.allow_lists]
    for zone in dict.fromkeys(zones):
        try:
            listed = await _answer(examined, zone, _ALWAYS_LISTED)
            unlisted = await _answer(examined, zone, _NEVER_LISTED)
        except ResolutionFailed as error:
            yield unknown(f"{zone} gives no answer: {error}", "such a list has no client")
            continue
        yield _result(zone, listed, unlisted)


async def _answer(examined: Examined, zone: str, address: IPv4Address) -> Answered:
    answer = await examined.resolver.query(question(address, zone), RecordType.A)
    return meaning(answer.records, ())


def _result(zone: str, listed: Answered, unlisted: Answered) -> Result:
    if Answered.REFUSED in {listed, unlisted}:
        return warn(
            f"{zone} refuses our questions, as it does those of name servers that many share",
            f"use a name server of your own, on this host; {_OF_NO_USE}",
        )
    if Answered.FOREIGN in {listed, unlisted}:
        return warn(
            f"something else answers in the place of {zone}",
            f"use other name servers, or leave the list out; {_OF_NO_USE}",
        )
    if unlisted is not Answered.NOT_LISTED:
        return bad(f"{zone} lists every address", f"leave it out; {_OF_NO_USE}")
    if listed is Answered.NOT_LISTED:
        return warn(
            f"{zone} does not list {_ALWAYS_LISTED}, as each list should",
            "look whether the list still exists",
        )
    return ok(f"{zone} answers, and lists what it should")
