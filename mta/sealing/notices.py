"""Notices that are sealed where they wait for a peer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from zope.interface import implementer

from mta.interfaces import INotices
from mta.mail import Outcome
from mta.queued import Message, Notice, Target
from mta.sealing.agefile import sealed
from mta.sealing.seals import Seals


@implementer(INotices)
class SealedNotices:
    """Seals the notices of another writer."""

    def __init__(self, notices: INotices, seals: Seals) -> None:
        self._notices = notices
        self._seals = seals

    async def notice(
        self, message: Message, reports: Sequence[tuple[Target, Outcome]], expires: float
    ) -> Notice | None:
        """See `INotices.notice`."""
        notice = await self._notices.notice(message, reports, expires)
        if notice is None:
            return None
        (recipient,) = notice.envelope.recipients
        keys = self._seals.keys(self._seals.peers(recipient))
        if not keys:
            return notice
        return replace(
            notice,
            envelope=replace(notice.envelope, sealed=True),
            header=sealed(notice.header, keys),
            body=sealed(notice.body, keys),
        )
