"""Mail that is passed through to peers."""

from __future__ import annotations

from mta.interfaces import IFailureWatch, IPassThrough, IRouter
from mta.queue.pass_through import PassingSeams, PassThrough
from mta.service.process import Process
from mta.settings import Settings


def passed_through(settings: Settings) -> set[str]:
    """The peers to which mail is passed through."""
    return {name for name, peer in settings.peers.items() if peer.pass_through}


def pass_through(
    settings: Settings, process: Process, router: IRouter, failures: IFailureWatch | None
) -> IPassThrough | None:
    """Return what passes mail through, if any peer is to have it."""
    peers = passed_through(settings)
    if not peers:
        return None
    seams = PassingSeams(
        process.intake,
        process.runner.uncommitted,
        process.accepted_mail,
        process.peer_counts,
        process.reactor,
    )
    return PassThrough(peers, router, seams, failures)
