"""``mta explain``: the way of a message, and the settings behind it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mta.commands.addressees import addressees
from mta.commands.console import (
    Failed,
    add_command,
    add_json,
    print_json,
    printable,
    router_of,
    settings_of,
)
from mta.commands.known import is_known
from mta.mail import NULL_PATH, Mailbox
from mta.pairing.mailboxes import live_domains, source_of
from mta.routing import Router, RoutingStep
from mta.settings import Settings

if TYPE_CHECKING:
    from mta.commands.console import Subparsers
    from mta.commands.live_answers import LiveAnswer

_WHY = {
    "alias": "an alias for",
    "alias_of": "its domain is an alias_of another, so",
    "catch_all": "no mailbox: catch_all, so",
    "forward": "forwarded to",
    "forward, keeping a copy": "forwarded, with a copy kept here, to",
    "SRS": "the reverse-path of mail forwarded here (SRS), back to",
    "postmaster": "somebody must read it (RFC 5321 section 4.5.1):",
    "mailbox": "a mailbox",
    "any mailbox": "any name is a mailbox here",
}


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    summary = "say where mail to an address goes, and why"
    parser = add_command(subparsers, "explain", _run, summary)
    is_known(parser.add_argument("address", metavar="ADDRESS"), "addresses")
    parser.add_argument(
        "--from",
        dest="reverse_path",
        default="",
        metavar="A",
        help="from this reverse-path: `senders` may have routes of their own (default: <>)",
    )
    add_json(parser)


def _run(arguments: argparse.Namespace) -> None:
    settings = settings_of(arguments)
    reverse_path = NULL_PATH
    if arguments.reverse_path not in ("", "<>"):
        reverse_path = _address(arguments.reverse_path, settings)
    address = _address(arguments.address, settings)
    router = router_of(settings)
    steps = router.explain(address, reverse_path)
    last = steps[-1]
    told_by = source_of(last.address, settings)
    asked = _asked(settings, router, steps, reverse_path)
    if arguments.json:
        document = {"address": arguments.address, "steps": [_document(step) for step in steps]}
        verified = {"answer": asked.answer.value, "by": asked.source} if asked else None
        print_json(document | {"mailboxes_told_by": told_by or None, "verified": verified})
    else:
        lines = list(_lines(steps))
        if asked is not None:
            lines.append(f"{last.final}: {asked.words}")
        elif told_by:
            lines.insert(0, f"{last.address.domain}: its mailboxes are as {told_by} told them")
        if last.reply is not None and sys.stdout.isatty() and sys.stderr.isatty():
            lines.pop()  # both go to the same person, who is told below
        for line in lines:
            print(printable(line))
    if last.reply is not None:
        raise Failed(f"{last.address}: {last.reply}")
    if asked is not None and asked.refusal is not None:
        raise Failed(f"{last.final}: {asked.refusal}")


def _address(text: str, settings: Settings) -> Mailbox:
    """The address that is meant.  A name alone is one in the home domain."""
    try:
        [address] = addressees(text, settings.home_domain)
    except ValueError:
        raise Failed(f"not an address: {text!r}") from None
    return address


def _lines(steps: Sequence[RoutingStep]) -> Iterator[str]:
    """A line for each step, with the targets below it."""
    depths = {steps[0].address: 0}
    for step in steps:
        depth = depths[step.address]
        for target in step.targets:
            depths.setdefault(target, depth + 1)
        yield f"{'  ' * depth}{step.address}: {_words(step)}"


def _words(step: RoutingStep) -> str:
    if step.reply is not None:
        return f"refused: {step.reply}"
    why = _WHY.get(step.why, step.why)
    targets = " " + ", ".join(map(str, step.targets)) if step.targets else ""
    if step.hop is None:
        return why + targets
    to = "" if step.final == step.address else f" of {step.final}"
    return f"{why}{targets}{to}, by {step.hop}"


def _document(step: RoutingStep) -> dict[str, Any]:
    return {
        "address": str(step.address),
        "why": step.why,
        "targets": [str(target) for target in step.targets],
        "final": str(step.final) if step.hop else None,
        "hop": str(step.hop) if step.hop else None,
        "reply": str(step.reply) if step.reply else None,
    }


def _asked(
    settings: Settings, router: Router, steps: Sequence[RoutingStep], reverse_path: Mailbox
) -> LiveAnswer | None:
    """The answer of the peer with the address, if one is asked."""
    last = steps[-1]
    is_one = len(steps) == len({step.final for step in steps}) == 1
    if last.hop is None or not is_one or not live_domains(settings):
        return None
    from mta.commands.live_answers import live_answer  # with Twisted, which takes a while

    return live_answer(settings, last.final, last.hop, reverse_path, router)
