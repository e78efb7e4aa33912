"""XDOCTOR: two hosts that change roles look at each other.

It is our own command, for peers that have logged in under TLS.  ``ASK`` names a question and its
argument, and each line of the reply is one observation: a state, and a text.  ``TELL`` brings, as
JSON in base64, what the client has seen of the server.  No right comes of either: what is told
is only shown to operators.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from mta.mail import Reply
from mta.session import Observation
from mta.smtp import replies
from mta.smtp.errors import Refusal

KEYWORD = "XDOCTOR"
STATES = ("ok", "unknown", "warn", "bad")
QUESTIONS = ("clock", "domains", "exchanger", "link", "mailboxes", "spf", "version")
MAX_ARGUMENT = 4000  # octets: within one line of the receiver's
MAX_TEXT = 300  # characters: with its state, within one line of a reply
MAX_OBSERVATIONS = 40  # of one look: more, no person reads
MAX_DOCUMENT = 9000  # octets: 12000 in base64, within one line of the receiver's

UNKNOWN_QUESTION = Reply(504, "5.5.4", ("That question is not known here",))

_ASK = re.compile(rb"ASK ([a-z]{1,20})(?: ([!-~]{1,%d}))?" % MAX_ARGUMENT)
_TELL = re.compile(rb"TELL ([A-Za-z0-9+/=]{1,12288})")
_LINE = re.compile(f"({'|'.join(STATES)}) (.+)")


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and what it is about."""

    name: str
    argument: str = ""

    @property
    def command(self) -> str:
        """The command that asks it."""
        return f"{KEYWORD} ASK {self.name} {self.argument}".rstrip()


def parse(argument: bytes) -> Question | Sequence[Observation]:
    """Return what is asked, or what is told.  Raises Refusal."""
    if asked := _ASK.fullmatch(argument):
        name = asked[1].decode()
        if name not in QUESTIONS:
            raise Refusal(UNKNOWN_QUESTION)
        return Question(name, (asked[2] or b"").decode())
    if told := _TELL.fullmatch(argument):
        return _told(told[1])
    raise Refusal(replies.BAD_ARGUMENT)


def _told(encoded: bytes) -> Sequence[Observation]:
    try:
        pairs = json.loads(b64decode(encoded, validate=True))
        return bounded([Observation(state, text) for state, text in pairs])
    except (ValueError, TypeError, RecursionError):
        raise Refusal(replies.BAD_ARGUMENT) from None


def bounded(observations: Sequence[Observation]) -> Sequence[Observation]:
    """Return them in a form that may be shown and kept.

    Raises ValueError or TypeError for what is none.
    """
    if not all(each.state in STATES and _is_text(each.text) for each in observations):
        raise ValueError("no observations")
    return [
        Observation(each.state, "".join(_shown(sign) for sign in each.text[:MAX_TEXT]))
        for each in observations[:MAX_OBSERVATIONS]
    ]


def _is_text(text: object) -> bool:
    return isinstance(text, str) and bool(text)


def _shown(sign: str) -> str:
    return sign if sign.isascii() and sign.isprintable() else "?"


def tell_command(observations: Sequence[Observation]) -> str:
    """The command that tells observations, as many as there is room for."""
    pairs = [(each.state, each.text) for each in bounded(observations)]
    while len(document := json.dumps(pairs).encode()) > MAX_DOCUMENT:
        pairs.pop()
    return f"{KEYWORD} TELL {b64encode(document).decode()}"


def reply_of(observations: Sequence[Observation]) -> Reply:
    """The reply with an answer."""
    lines = tuple(f"{each.state} {each.text}" for each in bounded(observations))
    return Reply(250, "2.0.0", lines)


def answer_in(reply: Reply) -> Sequence[Observation]:
    """The answer in a reply, as far as it is understood."""
    if reply.code != 250:
        return [Observation("unknown", str(reply)[:MAX_TEXT])]
    found = [_LINE.fullmatch(line) for line in reply.lines]
    return bounded([Observation(each[1], each[2]) for each in found if each])
