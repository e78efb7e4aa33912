"""The opening of a session by its client: greeting, EHLO, STARTTLS, AUTH.

RFC 5321 section 3.1, RFC 3207, RFC 4954.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass, field

from mta.interfaces import ILinkWatch, IQuestions, ISigner
from mta.mail import Outcome, Reply, Security, Status
from mta.queued import HopFailure
from mta.session import ChannelLost, HandshakeFailed
from mta.smtp import sasl
from mta.smtp.dialogue import AUTH, GREETING, HELLO, MINUTE, TLS, Dialogue, Stage
from mta.smtp.errors import PeerFault
from mta.smtp.extensions import Extensions
from mta.smtp.pipelining import HostRecord
from mta.smtp.steps import InSteps, at_once

NO_MECHANISM = Reply(454, "4.7.4", ("The server offers no way to log in that is safe",))
NO_PROOF = Reply(
    454,
    "4.7.4",
    ("The server wants our password, and its certificate does not prove who it is",),
)
NO_TLS = Reply(451, "4.7.5", ("The server does not offer the TLS that we demand",))
NO_SERVICE = frozenset({521, 554})  # as greetings


@dataclass(frozen=True, slots=True)
class SenderConfig:
    """The identity of a sender, and its demands on the peer.

    `proved`: the peer proved its identity before this role began.  `in_steps` does long work step
    by step.  `host` is the record of the peer's host, `signer` signs what is sent.
    `greeting` is the time that the peer has to say something.  `tells_origins`: a peer that asks
    for it is told who brought the mail.  `watch` hears of the connection.
    """

    hostname: str
    lmtp: bool = False
    security: Security = Security.OPPORTUNISTIC
    user: str = ""
    secret: str = field(default="", repr=False)
    keepalive: float = MINUTE  # seconds between NOOPs while no mail is there
    derive: sasl.Derive = sasl.derive
    in_steps: InSteps = at_once
    proved: bool = False
    host: HostRecord = field(default_factory=HostRecord)
    greeting: Stage = GREETING
    signer: ISigner | None = None
    tells_origins: bool = False
    questions: IQuestions | None = None
    watch: ILinkWatch | None = None


async def open_session(dialogue: Dialogue, config: SenderConfig) -> None:
    """Take the greeting, say EHLO, begin TLS, log in.

    `config` says what of it is demanded.

    Raises HopFailure where the peer can't be used, HandshakeFailed where it failed to begin TLS.
    """
    try:
        _check_greeting(await dialogue.reply(config.greeting), dialogue)
        await _hello(dialogue, config)
        if dialogue.channel.tls is None and config.security is not Security.OFF:
            await _start_tls(dialogue, config)
        if config.user:
            await _authenticate(dialogue, config)
    except HopFailure:
        await dialogue.quit()
        raise
    except HandshakeFailed:
        raise  # without TLS it may go better
    except (ChannelLost, PeerFault) as error:
        reply = dialogue.failure_reply(error)
        outcome = Outcome(Status.DEFERRED, reply, dialogue.remote, throttles=True)
        raise HopFailure(outcome) from error


def _check_greeting(greeting: Reply, dialogue: Dialogue) -> None:
    """Raise HopFailure for any greeting but 220.

    554 and 521 are permanent (RFC 5321 section 3.1, RFC 7504): no mail is taken here.
    """
    dialogue.remote = dialogue.channel.remote_address
    if greeting.code in NO_SERVICE:
        raise HopFailure(Outcome(Status.FAILED, greeting, dialogue.remote))
    dialogue.require(greeting, 220)


async def _hello(dialogue: Dialogue, config: SenderConfig) -> None:
    hostname = config.hostname.encode()
    verb = b"LHLO " if config.lmtp else b"EHLO "
    reply = await dialogue.command(verb + hostname, HELLO)
    dialogue.extensions = Extensions(reply if reply.code == 250 else None)
    if reply.code != 250 and not config.lmtp:
        reply = await dialogue.command(b"HELO " + hostname, HELLO)
    dialogue.require(reply, 250)
    dialogue.remote = (reply.text.split() or [dialogue.channel.remote_address])[0]


async def _start_tls(dialogue: Dialogue, config: SenderConfig) -> None:
    if dialogue.extensions.offers("STARTTLS"):
        reply = await dialogue.command(b"STARTTLS", TLS)
        if reply.code == 220:
            if not dialogue.is_quiet:
                raise HandshakeFailed("octets in the clear behind the reply to STARTTLS")
            await dialogue.channel.start_tls()
            await _hello(dialogue, config)
            return
    if config.security is Security.VERIFY:
        raise HopFailure(Outcome(Status.DEFERRED, NO_TLS, dialogue.remote))


async def _authenticate(dialogue: Dialogue, config: SenderConfig) -> None:
    """Log in by the strongest mechanism that is safe here (RFC 4954)."""
    tls, offers = dialogue.channel.tls, dialogue.extensions.mechanisms
    mechanism = sasl.strongest(offers, tls, config.secret)
    if mechanism is None:
        wants_password = tls is not None and not sasl.NEEDS_TLS.isdisjoint(offers)
        reply = NO_PROOF if wants_password else NO_MECHANISM
        raise HopFailure(Outcome(Status.DEFERRED, reply, dialogue.remote))
    exchange = _AuthExchange(dialogue, mechanism)
    try:
        await sasl.respond(
            mechanism,
            config.user,
            config.secret,
            exchange.send,
            bindings=tls.bindings if tls else sasl.NO_BINDINGS,
            derive=config.derive,
        )
    except (sasl.AuthenticationFailed, ValueError) as error:
        await exchange.cancel()
        reply = Reply(454, "4.7.0", (f"Authentication failed: {error}",))
        raise HopFailure(Outcome(Status.DEFERRED, reply, dialogue.remote)) from error


class _AuthExchange:
    """Responses and challenges of one AUTH (RFC 4954 section 4)."""

    def __init__(self, dialogue: Dialogue, mechanism: str) -> None:
        self._dialogue = dialogue
        self._prefix = f"AUTH {mechanism}".encode()  # of the first response
        self._is_challenged = False

    async def send(self, response: bytes | None) -> bytes | None:
        """Send a response, None for no initial one; returns the next challenge.

        None: the log-in succeeded.  Raises HopFailure where it failed.
        """
        line = b"" if response is None else b64encode(response)
        if self._prefix:
            line = self._prefix if response is None else self._prefix + b" " + (line or b"=")
            self._prefix = b""
        reply = await self._dialogue.command(line, AUTH)
        self._is_challenged = reply.code == 334
        if reply.code == 235:
            return None
        self._dialogue.require(reply, 334)
        return b64decode(reply.text)

    async def cancel(self) -> None:
        """Cancel the exchange, if the server waits for a response."""
        if self._is_challenged:
            await self._dialogue.command(b"*", AUTH)
