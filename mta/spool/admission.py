"""Tells beforehand whether new mail can be taken in."""

from __future__ import annotations

from dataclasses import dataclass

from zope.interface import implementer

from mta.mail import Envelope
from mta.spool.content import InThread
from mta.spool.folder import Folder
from mta.spool.holds import StandingHolds
from mta.spool.interfaces import IAdmission


@implementer(IAdmission)
@dataclass(frozen=True, slots=True)
class Admission:
    """The admission of mail to a folder."""

    folder: Folder
    holds: StandingHolds
    in_thread: InThread

    async def may_come(self, envelope: Envelope) -> bool:
        """See `IAdmission.may_come`."""
        may_come: bool = await self.in_thread(self._may_come, envelope)
        return may_come

    def _may_come(self, envelope: Envelope) -> bool:
        return self.holds.which(envelope) is None and self.folder.has_room()
