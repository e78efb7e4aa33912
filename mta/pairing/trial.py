"""The first messages by a new link, to the office itself."""

from __future__ import annotations

from collections.abc import Sequence
from email.utils import formatdate, make_msgid

from zope.interface import implementer

from mta.interfaces import IChannel, IRole
from mta.mail import Mailbox
from mta.smtp.dialogue import DATA, END, MAIL, RCPT, Dialogue, Stage
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
    """Logs in, and hands over messages from addresses to themselves.

    `refusals` are those that were not taken, each with the command and its reply.
    """

    def __init__(self, config: SenderConfig, addresses: Sequence[Mailbox]) -> None:
        self._config = config
        self._addresses = addresses
        self.refusals: dict[Mailbox, str] = {}

    async def converse(self, channel: IChannel) -> IRole | None:
        """See `IRole.converse`."""
        dialogue = Dialogue(channel)
        await open_session(dialogue, self._config)
        for address in self._addresses:
            if refusal := await _send(dialogue, address):
                self.refusals[address] = refusal
                await dialogue.command(b"RSET", MAIL)
        await dialogue.quit()
        return None


async def _send(dialogue: Dialogue, address: Mailbox) -> str:
    """Hand over a message; returns the refusal, or nothing."""
    steps: Sequence[tuple[str, str, Stage, int]] = (
        ("MAIL", f"MAIL FROM:<{address}>", MAIL, 250),
        ("RCPT", f"RCPT TO:<{address}>", RCPT, 250),
        ("DATA", "DATA", DATA, 354),
        ("the content", _content(address), END, 250),
    )
    for name, line, stage, wanted in steps:
        reply = await dialogue.command(line.encode(), stage)
        if reply.code != wanted:
            return f"the relay refuses {name}: {reply}"
    return ""


def _content(address: Mailbox) -> str:
    """The content up to the dot that ends it."""
    text = _TEXT.format(date=formatdate(), address=address, id=make_msgid(domain=address.domain))
    return text.replace("\n", "\r\n") + "."
