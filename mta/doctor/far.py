"""Checks from both ends of the links with peers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from twisted.internet.defer import Deferred, gatherResults

from mta import __version__
from mta.delivery.dialler import NO_SERVER
from mta.doctor.examined import Examined
from mta.doctor.look_files import LookFiles
from mta.doctor.ports import RELAYING, SMTP_PORT, first_refusal
from mta.doctor.result import Result, State, bad, ok, unknown
from mta.mail import Agent, Hop, Reply, Security
from mta.pairing.mailboxes import document_of
from mta.queued import HopFailure
from mta.session import Observation
from mta.settings import DAY, HOUR, Peer, Settings
from mta.smtp.far_look import KEYWORD, MAX_ARGUMENT, Question, answer_in, tell_command
from mta.smtp.mailbox_list import digest_of

OLD_LOOK = 7 * DAY  # seconds after which a look of the other end says little
MAX_DOMAINS = 20  # that are asked about or tried, each for a second perhaps
PORTS = (SMTP_PORT, 465, 587)

_REMEDIES = {
    "clock": "let both clocks be synchronised: timedatectl",
    "domains": "compare `domains` of the peer at both ends: mta pair --list",
    "exchanger": "publish the MX record: mta dns DOMAIN",
    "link": "mta turn PEER says more",
    "mailboxes": "mta turn PEER brings it the list at once",
    "spf": "publish the SPF record: mta dns DOMAIN",
    "version": "update the older one",
}


async def answers(examined: Examined) -> AsyncIterator[Result]:
    """Ask the peers that we dial what they see of us."""
    for peer in _dialled(examined.settings):
        questions = list(_questions(examined.settings, peer))
        commands = [question.command for question in questions]
        try:
            seen = await examined.probe.session(peer.next_hop, commands, KEYWORD)
        except HopFailure as failure:
            yield unknown(f"{peer.name} can't be asked: {failure.outcome.reply.text}")
            continue
        if KEYWORD not in seen.keywords:
            yield unknown(f"{peer.name} can't be asked: it is another program, or an older version")
        elif len(seen.replies) < len(questions):
            missing = len(questions) - len(seen.replies)
            yield unknown(f"{peer.name} did not answer {missing} questions in time", "try again")
        for question, reply in zip(questions, seen.replies, strict=False):
            for each in answer_in(reply):
                remedy = _REMEDIES[question.name].replace("PEER", peer.name)
                remedy = remedy.replace("DOMAIN", question.argument)
                yield Result(State(each.state), f"{peer.name} says: {each.text}", remedy)


def _questions(settings: Settings, peer: Peer) -> Iterator[Question]:
    yield Question("version", __version__)
    yield Question("clock", f"{time.time():.0f}")
    yield Question("link")
    domains = ",".join(peer.domains)
    if domains and len(domains) <= MAX_ARGUMENT:
        yield Question("domains", domains)
    if document := document_of(settings.domains, peer.domains):
        yield Question("mailboxes", digest_of(document))
    for domain in peer.domains[:MAX_DOMAINS]:
        if not domain.startswith("."):
            yield Question("exchanger", domain)
            yield Question("spf", domain)


async def ports(examined: Examined) -> AsyncIterator[Result]:
    """Look whether the world can reach the hosts of peers."""
    looking = [
        Deferred.fromCoroutine(_port(examined, peer, port))
        for peer in _dialled(examined.settings)
        for port in PORTS
    ]
    for result in await gatherResults(looking, consumeErrors=True):
        if result is not None:
            yield result


async def _port(examined: Examined, peer: Peer, port: int) -> Result | None:
    """Dial one port of a peer's host; None: nothing need be there."""
    host = peer.next_hop.next_hop
    try:
        await examined.probe.session(_stranger(peer, port))
    except HopFailure as failure:
        text = f"{host} port {port}, from here: {failure.outcome.reply.text}"
        if NO_SERVER not in text:
            return unknown(
                text,
                "many providers let no office dial port 25; else look at the firewall there",
            ).of(peer.name)
        if port != SMTP_PORT:
            return None
        return bad(text, "start the server there, and let it listen on port 25").of(peer.name)
    return ok(f"{host} port {port} can be reached from here").of(peer.name)


async def relaying(examined: Examined) -> AsyncIterator[Result]:
    """Try, as a stranger, to relay through the hosts that we dial."""
    for peer in _dialled(examined.settings):
        host = peer.next_hop.next_hop
        try:
            seen = await examined.probe.session(_stranger(peer, SMTP_PORT), RELAYING)
        except HopFailure:
            yield unknown(f"{host} port {SMTP_PORT} can't be tried from here").of(peer.name)
            continue
        refusal = first_refusal(seen.replies)
        if refusal is None and len(seen.replies) < len(RELAYING):
            yield unknown(f"{host} does not answer in time", "try again").of(peer.name)
        elif refusal is None:
            yield bad(
                f"{host} takes mail from strangers to strangers: an open relay",
                "there: look at `relay.networks`, which must not have the office's address",
            ).of(peer.name)
        else:
            yield ok(f"{host} refuses to relay for strangers").of(peer.name)


async def senders(examined: Examined) -> AsyncIterator[Result]:
    """Look whether the host that our mail leaves by takes our senders.

    Notices have no reverse-path, and forwarded mail has one of a domain of ours.
    """
    settings = examined.settings
    hop, peer = _way_out(settings)
    if hop is None:
        return
    domains = list(settings.domains)[:MAX_DOMAINS]
    commands = ["MAIL FROM:<>", "RSET"]
    for domain in domains:
        commands += [f"MAIL FROM:<postmaster@{domain}>", "RSET"]
    try:
        seen = await examined.probe.session(hop, commands)
    except HopFailure as failure:
        yield unknown(f"{hop.next_hop} can't be tried: {failure.outcome.reply.text}").of(peer)
        return
    names = ["notices, from <>", *(f"mail and forwards from {domain}" for domain in domains)]
    for name, reply in zip(names, seen.replies[::2], strict=False):
        yield _taken(name, hop.next_hop, reply).of(peer)


def _taken(name: str, host: str, reply: Reply) -> Result:
    if reply.is_positive:
        return ok(f"{host} takes {name}")
    if reply.code < 500:
        return unknown(f"{host} does not take {name} now: {reply}")
    return bad(
        f"{host} refuses {name}: {reply}",
        "let that host take mail of the domain from our user: `domains` of the peer there",
    )


async def told(examined: Examined) -> AsyncIterator[Result]:
    """Read what peers that dial in have seen of us."""
    settings = examined.settings
    files = LookFiles(Path(settings.spool))
    for peer in settings.peers.values():
        if peer.connect is not None:
            continue
        look = await examined.in_thread(files.read, peer.name)
        if look is None:
            yield unknown(f"{peer.name} has not looked at us yet", "there: mta doctor")
            continue
        age = max(0.0, time.time() - look.at)
        when = f"{age / DAY:.0f} days ago" if age > 2 * DAY else f"{age / HOUR:.0f} hours ago"
        if age > OLD_LOOK:
            yield unknown(f"{peer.name} looked at us {when}", "there: mta doctor")
            continue
        for each in look.observations:
            remedy = f"seen {when}; mta doctor there looks again"
            yield Result(State(each.state), f"{peer.name} saw: {each.text}", remedy)


async def look(examined: Examined) -> None:
    """Look at peers that want to hear of it."""
    able = {}
    for peer in _dialled(examined.settings):
        with suppress(HopFailure):
            if KEYWORD in (await examined.probe.session(peer.next_hop)).keywords:
                able[peer.name] = peer
    examined = replace(examined, settings=replace(examined.settings, peers=able))
    checks = (ports, relaying, senders) if able else ()
    await tell(examined, [result for check in checks async for result in check(examined)])


async def tell(examined: Examined, results: Sequence[Result]) -> None:
    """Tell each peer that we dial what was seen of it.

    It need not know what is told, nor be there.
    """
    for peer in _dialled(examined.settings):
        seen = [
            Observation(each.state.value, each.text) for each in results if each.peer == peer.name
        ]
        if not seen:
            continue
        with suppress(HopFailure):
            await examined.probe.session(peer.next_hop, [tell_command(seen)], KEYWORD)


def _dialled(settings: Settings) -> Sequence[Peer]:
    return [peer for peer in settings.peers.values() if peer.connect is not None]


def _stranger(peer: Peer, port: int) -> Hop:
    """The way to a peer's host without a log-in."""
    security = Security.OPPORTUNISTIC
    return Hop(
        Agent.SMTP, peer.next_hop.next_hop, port, implicit_tls=port == 465, security=security
    )


def _way_out(settings: Settings) -> tuple[Hop | None, str]:
    """The host that all our mail leaves by, and its peer.

    None: there is no such host."""
    hop = settings.default_route
    peer = settings.peers.get(hop.next_hop)
    if hop.agent is Agent.HOLD and peer is not None and peer.connect is not None:
        return peer.next_hop, peer.name
    return (hop, "") if hop.agent is Agent.SMTP else (None, "")
