"""The office's side of XPAIR: a secret out, a password in.

Whatever the other side says is bounded and looked at before it is used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from zope.interface import implementer

from mta.interfaces import IChannel, IRole
from mta.mail import Reply, Security
from mta.pairing.pairings import EXPIRED, USED, WRONG_TOO_OFTEN
from mta.pairing.token import Token
from mta.smtp.dialogue import ATTENDED_GREETING, AUTH, Dialogue
from mta.smtp.opening import SenderConfig, open_session

_KEYS = ("TIME", "USER", "PASSWORD")
_LINE = re.compile(r"(TIME(?= [0-9]{1,12}\Z)|USER|PASSWORD) ([!-~]{1,255})")
_REASONS = {
    str(EXPIRED): "the token has expired: print another one on the relay",
    str(USED): "the token was used already: print another one on the relay",
    str(
        WRONG_TOO_OFTEN
    ): "the token is over, as wrong secrets came: print another one on the relay",
}
_REASONS_BY_CODE = {
    535: "the relay knows no such pairing: was it opened there, and is this the newest token?",
    421: "the relay lets this address not log in for some minutes: `mta user unban` there ends it",
    451: "the relay can't read its pairings: its log says why",
    **dict.fromkeys(
        (500, 502), "that server knows no pairing: it is another program, or an older version"
    ),
}


class PairingRefused(Exception):
    """The relay did not pair: the reason, for a person."""


@dataclass(frozen=True, slots=True)
class Granted:
    """The answer of the relay: user, password, and its clock."""

    user: str
    password: str = field(repr=False)
    time: float


@implementer(IRole)
class PairingRole:
    """The office's role on a connection that has been verified.

    `granted` is set, or `refusal` with the reason, when it has ended well.
    """

    def __init__(self, hostname: str, token: Token, nonce: str) -> None:
        self._hostname = hostname
        self._token = token
        self._nonce = nonce
        self.granted: Granted | None = None
        self.refusal = ""

    async def converse(self, channel: IChannel) -> IRole | None:
        """See `IRole.converse`."""
        dialogue = Dialogue(channel)
        opening = SenderConfig(self._hostname, security=Security.VERIFY, greeting=ATTENDED_GREETING)
        await open_session(dialogue, opening)
        token = self._token
        line = f"XPAIR {token.id} {token.secret} {self._nonce}"
        reply = await dialogue.command(line.encode(), AUTH)
        try:
            self.granted = granted(reply)
        except PairingRefused as refused:
            self.refusal = str(refused)
        await dialogue.quit()
        return None


def granted(reply: Reply) -> Granted:
    """Return what a reply to XPAIR says.  Raises PairingRefused."""
    if reply.code != 250:
        raise PairingRefused(
            _REASONS.get(str(reply))
            or _REASONS_BY_CODE.get(reply.code)
            or f"the relay says: {reply}"
        )
    lines = [(match[1], match[2]) for line in reply.lines if (match := _LINE.fullmatch(line))]
    found: dict[str, str] = dict(lines)
    if len(lines) != len(found) or len(found) != len(_KEYS):
        raise PairingRefused("the relay's answer can't be understood: is it a newer version?")
    return Granted(found["USER"], found["PASSWORD"], float(found["TIME"]))
