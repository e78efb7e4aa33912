"""The verb table: the answer to each command, and its conditions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from mta.settings import Service
from mta.smtp import answers, transactions
from mta.smtp.conversation import (
    MAX_AUTH_LINE,
    MAX_LINE,
    MAX_LONG_LINE,
    Answer,
    Conversation,
    Phase,
)

Answering = Callable[[Conversation, bytes], Awaitable[Answer]]


class Unread(Enum):
    """The fate of input that came together with a command.

    Where the meaning of what follows changes, octets sent ahead of our reply may not be
    carried over: they can't be what they pretend to be (RFC 2920 section 3.1, RFC 3207).
    """

    KEPT = auto()
    REFUSED = auto()


@dataclass(frozen=True, slots=True)
class Verb:
    """The treatment of one command.

    `max_line`: octets that it may have.  `is_idle`: it keeps a session alive and brings no mail.
    `before_tls`: it may come where TLS is demanded and not yet there (RFC 3207 section 4).
    `when_turned`: it may come on a turned connection.  `out_of_phase` is called before a
    command in the wrong phase is refused.
    """

    answer: Answering
    services: Collection[Service]
    phases: Phase = Phase.ANY
    unread: Unread = Unread.KEPT
    max_line: int = MAX_LINE
    is_idle: bool = False
    before_tls: bool = False
    when_turned: bool = True
    out_of_phase: Callable[[Conversation, bytes], Awaitable[None]] | None = None


_SMTP = (Service.SMTP, Service.SUBMISSION)
_MAIL = (*_SMTP, Service.LMTP)
_ODMR = (*_SMTP, Service.ODMR)
_LOG_IN = (Service.SUBMISSION, Service.ODMR)
_ALL = tuple(Service)
_STARTED = Phase.MAIL | Phase.RECIPIENTS
_REFUSED = Unread.REFUSED

TABLE: Mapping[str, Verb] = {
    "EHLO": Verb(answers.ehlo, _ODMR, is_idle=True, before_tls=True),
    "HELO": Verb(answers.helo, _SMTP, is_idle=True, before_tls=True),
    "LHLO": Verb(answers.ehlo, (Service.LMTP,), is_idle=True, before_tls=True),
    "STARTTLS": Verb(answers.starttls, _ALL, Phase.IDLE, before_tls=True),
    "AUTH": Verb(answers.auth, _ALL, Phase.READY, _REFUSED, MAX_AUTH_LINE, when_turned=False),
    "MAIL": Verb(transactions.mail, _MAIL, Phase.READY, max_line=MAX_LONG_LINE),
    "RCPT": Verb(transactions.rcpt, _MAIL, _STARTED, max_line=MAX_LONG_LINE),
    "DATA": Verb(transactions.data, _MAIL, _STARTED),
    "BDAT": Verb(
        transactions.bdat,
        _MAIL,
        _STARTED | Phase.CHUNKS,
        out_of_phase=transactions.skip_chunk,
    ),
    "XLINK": Verb(answers.xlink, _ODMR, Phase.READY, is_idle=True, when_turned=False),
    "TURN": Verb(answers.turn, _SMTP, Phase.READY, _REFUSED, when_turned=False),
    "ATRN": Verb(answers.atrn, _ODMR, Phase.READY, _REFUSED, when_turned=False),
    "ETRN": Verb(answers.etrn, _SMTP, Phase.READY, is_idle=True, when_turned=False),
    "XPAIR": Verb(answers.xpair, _LOG_IN, Phase.READY, _REFUSED, is_idle=True, when_turned=False),
    "XRENEW": Verb(answers.xrenew, _LOG_IN, Phase.READY, _REFUSED, when_turned=False),
    "XMAILBOXES": Verb(
        answers.xmailboxes, _LOG_IN, Phase.READY, max_line=MAX_AUTH_LINE, when_turned=False
    ),
    "XDOCTOR": Verb(
        answers.xdoctor, _LOG_IN, Phase.READY, max_line=MAX_AUTH_LINE, when_turned=False
    ),
    "RSET": Verb(answers.rset, _ALL, is_idle=True),
    "NOOP": Verb(answers.noop, _ALL, is_idle=True, before_tls=True),
    "HELP": Verb(answers.help, _ALL, is_idle=True),
    "VRFY": Verb(answers.vrfy, _MAIL, is_idle=True),
    "EXPN": Verb(answers.expn, _MAIL, is_idle=True),
    "XCLIENT": Verb(
        answers.xclient,
        _MAIL,
        Phase.IDLE,
        _REFUSED,
        MAX_LONG_LINE,
        is_idle=True,
        when_turned=False,
    ),
    "XFORWARD": Verb(transactions.xforward, _MAIL, Phase.READY),
    "QUIT": Verb(answers.quit, _ALL, Phase.ANY | Phase.REFUSED, before_tls=True),
}

VERBS: Mapping[Service, Mapping[str, Verb]] = {
    service: {name: verb for name, verb in TABLE.items() if service in verb.services}
    for service in Service
}
# Verbs of the RFCs that a listener may not offer: 502, where an unknown word gets 500.
KNOWN_VERBS = frozenset(VERBS[Service.SMTP]) | {"SEND", "SOML", "SAML"}
