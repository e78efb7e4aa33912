"""The answers to the commands about sessions: everything but mail itself."""

from __future__ import annotations

from base64 import b64decode, b64encode

from mta.interfaces import IReversal, IRole
from mta.mail import Reply
from mta.session import Session
from mta.settings import Service
from mta.smtp import grammar, replies, sasl
from mta.smtp.conversation import Answer, Conversation, Parting, Restart
from mta.smtp.errors import Refusal
from mta.smtp.grammar import ProxiedClient
from mta.smtp.transactions import MAX_TRANSACTIONS

# --- sessions


async def helo(talk: Conversation, argument: bytes) -> Answer:
    """HELO: a session without extensions (RFC 5321 section 4.1.1.1)."""
    await _begin_session(talk, argument, extended=False)
    return Reply(250, "", (talk.config.hostname,))


async def ehlo(talk: Conversation, argument: bytes) -> Answer:
    """EHLO and LHLO: a session with extensions."""
    await _begin_session(talk, argument, extended=True)
    return Reply(250, "", (talk.config.hostname, *await _extensions(talk)))


async def _begin_session(talk: Conversation, argument: bytes, *, extended: bool) -> None:
    hello = grammar.parse_hello(argument)
    talk.drop_transaction()
    talk.session.hello = hello
    talk.session.extended = extended
    if talk.inspection is not None:
        try:
            await talk.inspection.hello()
        except Refusal:
            talk.session.hello = ""
            raise


async def _extensions(talk: Conversation) -> list[str]:
    """The EHLO keywords: what this session may use now, and nothing else."""
    config, session = talk.config, talk.session
    keywords = ["ENHANCEDSTATUSCODES", "PIPELINING"]
    if config.service is not Service.ODMR:
        keywords += [
            f"SIZE {config.limits.message_size}",
            "8BITMIME",
            "SMTPUTF8",
            "CHUNKING",
            "BINARYMIME",
            "DSN",
            f"LIMITS MAILMAX={MAX_TRANSACTIONS} RCPTMAX={config.limits.recipients}",
        ]
        if session.tls is not None:
            keywords.append("REQUIRETLS")
    if talk.offers_tls:
        keywords.append("STARTTLS")
    if talk.may_expand:
        keywords.append("EXPN")
    if talk.is_proxied and config.service is not Service.ODMR:
        keywords.append(" ".join(("XCLIENT", *grammar.XCLIENT_ATTRIBUTES)))
    if config.reversal is not None:
        keywords += config.reversal.methods(session)
    if mechanisms := await talk.mechanisms():
        keywords.append(" ".join(("AUTH", *mechanisms)))
    return [*keywords, "HELP"]


async def starttls(talk: Conversation, argument: bytes) -> Answer:
    """STARTTLS (RFC 3207): what came with it in plain text is dropped."""
    _no_argument(argument)
    if not talk.offers_tls:
        raise Refusal(replies.BAD_SEQUENCE)
    return Restart(replies.START_TLS, after_tls=True)


async def xclient(talk: Conversation, argument: bytes) -> Answer:
    """XCLIENT: a proxy says for whom it speaks, and the session begins anew."""
    if not talk.is_proxied:
        raise Refusal(replies.NOT_IMPLEMENTED)
    return Restart(client=grammar.parse_xclient(argument, talk.client or ProxiedClient()))


async def quit(talk: Conversation, argument: bytes) -> Answer:
    """QUIT (RFC 5321 section 4.1.1.10)."""
    _no_argument(argument)
    return Parting(replies.closing(talk.config.hostname))


# --- log-ins


async def auth(talk: Conversation, argument: bytes) -> Answer:
    """AUTH (RFC 4954 section 4)."""
    session, access, users = talk.session, talk.config.access, talk.config.users
    if users is None:
        raise Refusal(replies.NOT_IMPLEMENTED)
    if session.identity:
        raise Refusal(replies.BAD_SEQUENCE)
    mechanisms = await talk.mechanisms()
    name, _, initial = argument.partition(b" ")
    mechanism = name.decode("ascii", "replace").upper()
    if mechanism not in mechanisms:
        raise Refusal(_not_offered(mechanism, session))

    async def challenge(text: bytes) -> bytes:
        """Send a challenge, return the response.  Raises Refusal when the client cancels."""
        talk.say(Reply(334, "", (b64encode(text).decode(),)))
        line = await talk.line()
        if line == b"*":
            raise Refusal(replies.AUTH_CANCELLED)
        return _response(line)

    await access.auth(session)
    try:
        response = _response(initial) if initial else None
        identity = await users.authenticate(session, mechanism, response, challenge)
    except sasl.AuthenticationFailed as failed:
        await talk.channel.sleep(access.auth_failed(session, failed.user, failed.is_known))
        raise Refusal(replies.AUTH_FAILED) from None
    except sasl.AuthenticationUnavailable:
        raise Refusal(replies.AUTH_UNAVAILABLE) from None
    if delay := access.authenticated(session, identity):
        await talk.channel.sleep(delay)
    session.identity = identity
    return replies.AUTH_OK


def _response(encoded: bytes) -> bytes:
    """A SASL response out of its base64; ``=`` is an empty one (RFC 4954 section 4)."""
    try:
        return b"" if encoded == b"=" else b64decode(encoded, validate=True)
    except ValueError:
        raise Refusal(replies.BAD_BASE64) from None


def _not_offered(mechanism: str, session: Session) -> Reply:
    """Why a mechanism can't be used now (RFC 4954 sections 4 and 6)."""
    if mechanism in sasl.NEEDS_TLS and session.tls is None:
        return replies.ENCRYPTION_NEEDED
    if mechanism == sasl.CRAM_MD5:
        return replies.MECHANISM_TOO_WEAK
    return replies.MECHANISM_UNKNOWN


# --- changing roles


async def turn(talk: Conversation, argument: bytes) -> Answer:
    """TURN (RFC 821 section 3.8)."""
    _no_argument(argument)
    return _reversing(talk, await _reversal(talk).turn(talk.session))


async def atrn(talk: Conversation, argument: bytes) -> Answer:
    """ATRN (RFC 2645 section 5.2.1)."""
    domains = grammar.parse_domains(argument)
    return _reversing(talk, await _reversal(talk).atrn(talk.session, domains))


async def etrn(talk: Conversation, argument: bytes) -> Answer:
    """ETRN (RFC 1985 section 5)."""
    return await _reversal(talk).etrn(talk.session, *grammar.parse_etrn(argument))


def _reversing(talk: Conversation, successor: IRole) -> Answer:
    if len(talk.channel.wire):  # it came while the successor was found
        raise Refusal(replies.BAD_SEQUENCE)
    return Parting(replies.REVERSING, successor)


def _reversal(talk: Conversation) -> IReversal:
    if talk.config.reversal is None:
        raise Refusal(replies.NOT_IMPLEMENTED)
    return talk.config.reversal


# --- what brings nothing


async def rset(talk: Conversation, argument: bytes) -> Answer:
    """RSET: forget the transaction (RFC 5321 section 4.1.1.5)."""
    _no_argument(argument)
    talk.drop_transaction()
    return replies.OK


async def noop(talk: Conversation, argument: bytes) -> Answer:
    """NOOP (RFC 5321 section 4.1.1.9)."""
    return replies.OK


async def help(talk: Conversation, argument: bytes) -> Answer:
    """HELP (RFC 5321 section 4.1.1.8)."""
    return Reply(214, "2.0.0", ("Commands: " + " ".join(talk.verbs),))


async def vrfy(talk: Conversation, argument: bytes) -> Answer:
    """VRFY without an answer that harvesters could use (RFC 5321 section 7.3)."""
    if not argument:
        raise Refusal(replies.BAD_ARGUMENT)
    return replies.CANNOT_VERIFY


async def expn(talk: Conversation, argument: bytes) -> Answer:
    """EXPN, for users only where it is allowed (RFC 5321 sections 3.5 and 7.3)."""
    lists = talk.config.lists
    if not talk.may_expand or lists is None:
        raise Refusal(replies.NOT_IMPLEMENTED)
    members = lists.expand(grammar.parse_list(argument))
    return Reply(250, "2.1.5", tuple(f"<{member}>" for member in members))


def _no_argument(argument: bytes) -> None:
    if argument:
        raise Refusal(replies.BAD_ARGUMENT)
