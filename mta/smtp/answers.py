"""The answers to the commands about sessions: everything but mail itself."""

from __future__ import annotations

from mta.interfaces import IReversal, IRole
from mta.mail import Reply
from mta.session import Session
from mta.settings import Service
from mta.smtp import far_look, grammar, link_kind, mailbox_list, replies, sasl
from mta.smtp.conversation import Answer, Conversation, EndOfRole, Restart, sasl_response
from mta.smtp.errors import Refusal
from mta.smtp.grammar import ProxiedClient
from mta.smtp.transactions import MAX_TRANSACTIONS, peer_parameters

UNAVAILABLE_DELAY = 5.0  # seconds before a 454: a client that comes again at once waits so long

# --- sessions


async def helo(conversation: Conversation, argument: bytes) -> Answer:
    """HELO: a session without extensions (RFC 5321 section 4.1.1.1)."""
    await _begin_session(conversation, argument, extended=False)
    return Reply(250, "", (conversation.config.hostname,))


async def ehlo(conversation: Conversation, argument: bytes) -> Answer:
    """EHLO and LHLO: a session with extensions."""
    await _begin_session(conversation, argument, extended=True)
    return Reply(250, "", (conversation.config.hostname, *await _extensions(conversation)))


async def _begin_session(conversation: Conversation, argument: bytes, *, extended: bool) -> None:
    hello = grammar.parse_hello(argument)
    conversation.drop_transaction()
    conversation.session.hello = hello
    conversation.session.extended = extended
    if conversation.inspection is not None:
        try:
            await conversation.inspection.hello()
        except Refusal:
            conversation.session.hello = ""
            raise


async def _extensions(conversation: Conversation) -> list[str]:
    """The EHLO keywords: what this session may use now, and nothing else."""
    config, session = conversation.config, conversation.session
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
    if conversation.offers_tls:
        keywords.append("STARTTLS")
    if conversation.may_expand:
        keywords.append("EXPN")
    if conversation.is_proxied and config.service is not Service.ODMR:
        keywords.append(" ".join(("XCLIENT", *grammar.XCLIENT_ATTRIBUTES)))
    if conversation.takes_origins and config.service is not Service.ODMR:
        keywords.append(" ".join(("XFORWARD", *grammar.XFORWARD_ATTRIBUTES)))
    keywords += _of_links(conversation)
    if mechanisms := await conversation.mechanisms():
        keywords.append(" ".join(("AUTH", *mechanisms)))
    return [*keywords, "HELP"]


def _of_links(conversation: Conversation) -> list[str]:
    """The EHLO keywords of hosts that change roles."""
    config, session = conversation.config, conversation.session
    keywords: list[str] = []
    if config.service is not Service.ODMR:
        keywords += peer_parameters(conversation)
    if config.reversal is not None:
        keywords += config.reversal.methods(session)
    if session.turned_peer:
        return keywords
    if config.mailboxes is not None and config.mailboxes.is_offered:
        keywords.append(mailbox_list.KEYWORD)
    if config.far_looks is not None and config.far_looks.is_offered:
        keywords.append(far_look.KEYWORD)
    return keywords


async def starttls(conversation: Conversation, argument: bytes) -> Answer:
    """STARTTLS (RFC 3207): what came with it in plain text is dropped."""
    _no_argument(argument)
    if not conversation.offers_tls:
        raise Refusal(replies.BAD_SEQUENCE)
    return Restart(replies.START_TLS, after_tls=True)


async def xclient(conversation: Conversation, argument: bytes) -> Answer:
    """XCLIENT: a proxy names its client, and the session begins anew."""
    if not conversation.is_proxied:
        raise Refusal(replies.NOT_IMPLEMENTED)
    return Restart(client=grammar.parse_xclient(argument, conversation.client or ProxiedClient()))


async def quit(conversation: Conversation, argument: bytes) -> Answer:
    """QUIT (RFC 5321 section 4.1.1.10)."""
    _no_argument(argument)
    return EndOfRole(replies.closing(conversation.config.hostname))


# --- log-ins


async def auth(conversation: Conversation, argument: bytes) -> Answer:
    """AUTH (RFC 4954 section 4)."""
    config, session = conversation.config, conversation.session
    access, users = config.access, config.users
    if users is None:
        raise Refusal(replies.NOT_IMPLEMENTED)
    if session.identity:
        raise Refusal(replies.BAD_SEQUENCE)
    mechanisms = await conversation.mechanisms()
    name, _, initial = argument.partition(b" ")
    mechanism = name.decode("ascii", "replace").upper()
    if mechanism not in mechanisms:
        raise Refusal(_not_offered(mechanism, session))

    await access.auth(session)
    try:
        response = sasl_response(initial) if initial else None
        identity = await users.authenticate(session, mechanism, response, conversation.challenge)
    except sasl.AuthenticationFailed as failed:
        await conversation.channel.sleep(access.auth_failed(session, failed.user, failed.is_known))
        raise Refusal(replies.AUTH_FAILED) from None
    except sasl.AuthenticationUnavailable:
        await conversation.channel.sleep(UNAVAILABLE_DELAY)
        raise Refusal(replies.AUTH_UNAVAILABLE) from None
    if delay := access.authenticated(session, identity):
        await conversation.channel.sleep(delay)
    session.identity, session.mechanism = identity, mechanism
    return replies.AUTH_OK


def _not_offered(mechanism: str, session: Session) -> Reply:
    """Return why a mechanism can't be used now (RFC 4954 section 6)."""
    if mechanism in sasl.NEEDS_TLS and session.tls is None:
        return replies.ENCRYPTION_NEEDED
    if mechanism == sasl.CRAM_MD5:
        return replies.MECHANISM_TOO_WEAK
    return replies.MECHANISM_UNKNOWN


async def xpair(conversation: Conversation, argument: bytes) -> Answer:
    """XPAIR: another host proves a secret, and hears its password.

    It is our own command, and EHLO does not offer it: a client has the secret from the operator,
    or no use for it.  A wrong one counts as a failed log-in.
    """
    config, session = conversation.config, conversation.session
    if config.pairing is None:
        raise Refusal(replies.NOT_IMPLEMENTED)
    if session.tls is None:
        raise Refusal(replies.TLS_NEEDED)
    request = grammar.parse_pairing(argument)
    await config.access.auth(session)
    lines = await config.pairing.redeem(session, request)
    if not lines:
        delay = config.access.auth_failed(session, request.id, False)
        await conversation.channel.sleep(delay)
        raise Refusal(replies.NO_SUCH_PAIRING)
    return Reply(250, "2.0.0", tuple(lines))


async def xrenew(conversation: Conversation, argument: bytes) -> Answer:
    """XRENEW: a peer that has logged in takes another password."""
    if conversation.config.renewals is None:
        raise Refusal(replies.NOT_IMPLEMENTED)
    return await conversation.config.renewals.take(conversation.session, argument)


async def xmailboxes(conversation: Conversation, argument: bytes) -> Answer:
    """XMAILBOXES: a peer tells its mailboxes."""
    if conversation.config.mailboxes is None:
        raise Refusal(replies.NOT_IMPLEMENTED)
    return await conversation.config.mailboxes.take(conversation.session, argument)


async def xdoctor(conversation: Conversation, argument: bytes) -> Answer:
    """XDOCTOR: a peer asks or tells what is seen of the link."""
    if conversation.config.far_looks is None:
        raise Refusal(replies.NOT_IMPLEMENTED)
    return await conversation.config.far_looks.take(conversation.session, argument)


# --- changing roles


async def xlink(conversation: Conversation, argument: bytes) -> Answer:
    """XLINK: a peer names the use of a link that it turns."""
    reversal = _reversal(conversation)
    reversal.link(conversation.session, link_kind.parse(argument))
    return replies.OK


async def turn(conversation: Conversation, argument: bytes) -> Answer:
    """TURN (RFC 821 section 3.8)."""
    _no_argument(argument)
    return _reversing(conversation, await _reversal(conversation).turn(conversation.session))


async def atrn(conversation: Conversation, argument: bytes) -> Answer:
    """ATRN (RFC 2645 section 5.2.1)."""
    domains = grammar.parse_domains(argument)
    return _reversing(
        conversation, await _reversal(conversation).atrn(conversation.session, domains)
    )


async def etrn(conversation: Conversation, argument: bytes) -> Answer:
    """ETRN (RFC 1985 section 5)."""
    return await _reversal(conversation).etrn(conversation.session, *grammar.parse_etrn(argument))


def _reversing(conversation: Conversation, next_role: IRole) -> Answer:
    if len(conversation.channel.wire):  # it came while the next_role was found
        raise Refusal(replies.BAD_SEQUENCE)
    return EndOfRole(replies.REVERSING, next_role)


def _reversal(conversation: Conversation) -> IReversal:
    if conversation.config.reversal is None:
        raise Refusal(replies.NOT_IMPLEMENTED)
    return conversation.config.reversal


# --- what brings nothing


async def rset(conversation: Conversation, argument: bytes) -> Answer:
    """RSET: forget the transaction (RFC 5321 section 4.1.1.5)."""
    _no_argument(argument)
    conversation.drop_transaction()
    return replies.OK


async def noop(conversation: Conversation, argument: bytes) -> Answer:
    """NOOP (RFC 5321 section 4.1.1.9)."""
    return replies.OK


async def help(conversation: Conversation, argument: bytes) -> Answer:
    """HELP (RFC 5321 section 4.1.1.8)."""
    return Reply(214, "2.0.0", ("Commands: " + " ".join(conversation.verbs),))


async def vrfy(conversation: Conversation, argument: bytes) -> Answer:
    """VRFY without an answer that harvesters could use (RFC 5321 section 7.3)."""
    if not argument:
        raise Refusal(replies.BAD_ARGUMENT)
    return replies.CANNOT_VERIFY


async def expn(conversation: Conversation, argument: bytes) -> Answer:
    """EXPN, for users where it is allowed (RFC 5321 section 3.5)."""
    lists = conversation.config.lists
    if not conversation.may_expand or lists is None:
        raise Refusal(replies.NOT_IMPLEMENTED)
    members = lists.expand(grammar.parse_list(argument))
    return Reply(250, "2.1.5", tuple(f"<{member}>" for member in members))


def _no_argument(argument: bytes) -> None:
    if argument:
        raise Refusal(replies.BAD_ARGUMENT)
