"""The room in mailboxes, looked at before mail for them is taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from mta.delivery import quota
from mta.delivery.maildir import maildir_paths
from mta.interfaces import IMailboxQuotas
from mta.mail import Agent, Hop, Mailbox


@implementer(IMailboxQuotas)
class MailboxQuotas:
    """The quotas of Maildirs, in octets by domain."""

    def __init__(self, quotas: Mapping[str, int], in_thread: Callable[..., Deferred[Any]]) -> None:
        self._quotas = quotas
        self._in_thread = in_thread

    async def has_room(self, hop: Hop, address: Mailbox, octets: int) -> bool:
        """See `IMailboxQuotas.has_room`."""
        limit = self._quotas.get(address.domain, 0)
        if not limit or hop.agent is not Agent.MAILDIR:
            return True
        _, maildir = maildir_paths(hop.next_hop, address)
        has_room: bool = await self._in_thread(_has_room, maildir, limit, octets)
        return has_room


def _has_room(maildir: Path, limit: int, octets: int) -> bool:
    try:
        return quota.has_room(maildir, limit, octets)
    except OSError:  # none is there yet, or the delivery will tell
        return octets <= limit
