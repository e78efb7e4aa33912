"""The office's side of XRENEW: a new password by the old one."""

from __future__ import annotations

from zope.interface import implementer

from mta.interfaces import IChannel, IRole
from mta.smtp.dialogue import AUTH, Dialogue
from mta.smtp.opening import SenderConfig, open_session

_UNKNOWN = frozenset({500, 502})


@implementer(IRole)
class RenewalRole:
    """Logs in, and gives the relay another password for our user.

    No password: it logs in alone.  `refusal` is the reason why the relay did not take it.
    """

    def __init__(self, config: SenderConfig, password: str = "") -> None:
        self._config = config
        self._password = password
        self.refusal = ""

    async def converse(self, channel: IChannel) -> IRole | None:
        """See `IRole.converse`."""
        dialogue = Dialogue(channel)
        await open_session(dialogue, self._config)
        if self._password:
            reply = await dialogue.command(f"XRENEW {self._password}".encode(), AUTH)
            if reply.code in _UNKNOWN:
                self.refusal = "the relay can't do that: it is another program, or an older version"
            elif reply.code != 250:
                self.refusal = f"the relay does not take a new password: {reply}"
        await dialogue.quit()
        return None
