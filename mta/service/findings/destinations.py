"""Checks of the places that mail goes to."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from mta.mail import Agent, Hop, Mailbox
from mta.routing import Router
from mta.service.findings.finding import Finding, Keys
from mta.service.findings.paths import unix_socket, why_unwritable
from mta.settings import Domain, Settings


def postmasters(settings: Settings) -> Iterator[Finding]:
    """`domains`: each has a postmaster."""
    router = Router.from_settings(settings)
    for name, domain in settings.domains.items():
        steps = router.explain(Mailbox("postmaster", name))
        if domain.alias_of or not steps or steps[0].why not in ("postmaster", "refused"):
            continue
        reads = ", ".join(str(step.final) for step in steps if step.hop) or "nobody"
        yield Finding(
            ("domains", name),
            f"no postmaster (RFC 5321 section 4.5.1): {reads} gets that mail;"
            " add an alias or a mailbox `postmaster`",
        )


def hops(settings: Settings) -> Iterator[Finding]:
    """Next hops: their folders, programs and sockets can be used."""
    for name, domain in settings.domains.items():
        if not domain.alias_of:
            yield from _hop(domain.deliver, ("domains", name, "deliver"), domain)
    for name, hop in settings.routes.items():
        yield from _hop(hop, ("routes", name))
    yield from _hop(settings.default_route, ("routes", "default"))
    for name, hop in settings.senders.items():
        yield from _hop(hop, ("senders", name))


def _hop(hop: Hop, keys: Keys, domain: Domain | None = None) -> Iterator[Finding]:
    if hop.agent is Agent.LMTP and hop.next_hop.startswith("unix:"):
        yield from unix_socket(hop.next_hop.removeprefix("unix:"), keys)
    elif hop.agent is Agent.MAILDIR:
        path = hop.next_hop.replace("{domain}", domain.name) if domain else hop.next_hop
        fixed, is_template, _ = path.partition("{")
        folder = Path(fixed.rpartition("/")[0] or "/") if is_template else Path(fixed)
        if error := why_unwritable(folder):
            yield Finding(keys, f"mail can't be delivered there: {error}; give it to the server")
    elif hop.agent is Agent.PIPE:
        program = shlex.split(hop.next_hop)[0]
        if "{" not in program and shutil.which(program) is None:
            yield Finding(keys, f"{program}: no such program, or none that this user may run")
