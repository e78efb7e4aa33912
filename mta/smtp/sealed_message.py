"""One sealed message on its way in, opened as it comes."""

from __future__ import annotations

from typing import Any

from mta.interfaces import NotOpened
from mta.mail import Reply, SealedForm
from mta.smtp import replies
from mta.smtp.incoming import IncomingMessage


class SealedMessage(IncomingMessage):
    """Opens the content of one message of a peer.

    What can't be opened stays with the peer, which is told to try again later.
    """

    def __init__(self, form: SealedForm, *incoming: Any) -> None:
        super().__init__(*incoming)
        opener = self._config.opener
        assert opener is not None
        self._opener = opener
        self._opening = opener.opening(self._session.turned_peer, form.header_size)
        self._fault = ""

    async def write(self, piece: bytes) -> None:
        """See `IncomingMessage.write`."""
        if self.refusal is None:
            try:
                octets = self._opening.add(piece)
            except NotOpened as fault:
                self._not_opened(fault)
                return
            if octets:
                await super().write(octets)

    async def accept(self) -> Reply:
        """See `IncomingMessage.accept`."""
        if self.refusal is None:
            try:
                octets = self._opening.end()
            except NotOpened as fault:
                self._not_opened(fault)
            else:
                await super().write(octets)
        if self._fault:
            await self._opener.failed(self._session.turned_peer, self._origin, self._fault)
        return await super().accept()

    def _not_opened(self, fault: NotOpened) -> None:
        self._fault = str(fault)
        self._refuse(replies.NOT_OPENED)
