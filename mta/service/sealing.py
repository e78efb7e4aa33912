"""Sealed mail, as far as the configuration has it."""

from __future__ import annotations

from mta.interfaces import INotices, ISealOpener
from mta.notices import NoticeWriter
from mta.notices.postmaster import Postmaster
from mta.sealing.notices import SealedNotices
from mta.sealing.opener import SealOpener, key_rings
from mta.sealing.seals import Seals
from mta.service.process import Process
from mta.settings import Settings
from mta.smtp.steps import InSteps


def notices(hostname: str, in_steps: InSteps, seals: Seals | None) -> INotices:
    """Return the writer of notices, which are sealed as other mail."""
    writer = NoticeWriter(hostname, in_steps=in_steps)
    return writer if seals is None else SealedNotices(writer, seals)


def opener(settings: Settings, process: Process) -> ISealOpener | None:
    """Return what opens the mail that peers have sealed, if any do.  Raises SealKeyFault."""
    keys = key_rings(settings.peers.values())
    if not keys:
        return None
    return SealOpener(keys, Postmaster(settings.hostname, process.intake, process.accepted_mail))
