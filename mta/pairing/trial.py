"""The first message by a new link, to the office itself."""

from __future__ import annotations

from email.utils import formatdate, make_msgid

from zope.interface import implementer

from mta.interfaces import IChannel, IRole
from mta.mail import Mailbox
from mta.smtp.dialogue import DATA, END, MAIL, RCPT, Dialogue
from mta.smtp.opening import SenderConfig, open_session

_TEXT = """\
Date: {date}
From: <{address}>
To: <{address}>
Subject: The link between this office and its relay works
Message-ID: {id}
Auto-Submitted: auto-generated

This message went from the office to the relay, waited there, and came back by
the office's own call, as mail from elsewhere will.
"""


@implementer(IRole)
class TrialRole:
    """Logs in, and hands over one message from an address to itself.

    `refusal` is what the relay said where it did not take the message.
    """

    def __init__(self, config: SenderConfig, address: Mailbox) -> None:
        self._config = config
        self._address = address
        self.refusal = ""

    async def converse(self, channel: IChannel) -> IRole | None:
        """See `IRole.converse`."""
        dialogue = Dialogue(channel)
        await open_session(dialogue, self._config)
        path = f"<{self._address}>"
        for line, stage, wanted in (
            (f"MAIL FROM:{path}", MAIL, 250),
            (f"RCPT TO:{path}", RCPT, 250),
            ("DATA", DATA, 354),
            (self._content(), END, 250),
        ):
            reply = await dialogue.command(line.encode(), stage)
            if reply.code != wanted:
                self.refusal = str(reply)
                break
        await dialogue.quit()
        return None

    def _content(self) -> str:
        """The content up to the dot that ends it."""
        text = _TEXT.format(
            date=formatdate(), address=self._address, id=make_msgid(domain=self._address.domain)
        )
        return text.replace("\n", "\r\n") + "."
