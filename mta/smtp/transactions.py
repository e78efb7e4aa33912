"""The answers to the commands that bring mail: MAIL, RCPT, DATA, BDAT (RFC 5321 section 3.3)."""

from __future__ import annotations

from dataclasses import replace

from mta.mail import Body
from mta.settings import Service
from mta.smtp import grammar, replies
from mta.smtp.conversation import Answer, Conversation, Transaction
from mta.smtp.cost import MIN_CHUNK
from mta.smtp.errors import Refusal
from mta.smtp.incoming import IncomingMessage
from mta.smtp.inspection import SessionInspection
from mta.smtp.reading import read_chunk, read_data

MAX_TRANSACTIONS = 100_000  # on one connection; shown as MAILMAX, RFC 9422
MAIL_PARAMETERS = frozenset({"SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "AUTH"})
TLS_MAIL_PARAMETERS = MAIL_PARAMETERS | {"REQUIRETLS"}  # RFC 8689 section 4.1
RCPT_PARAMETERS = frozenset({"NOTIFY", "ORCPT"})


async def mail(talk: Conversation, argument: bytes) -> Answer:
    """MAIL (RFC 5321 section 4.1.1.2)."""
    config, session = talk.config, talk.session
    if talk.transactions >= MAX_TRANSACTIONS:
        raise Refusal(replies.TOO_MANY_TRANSACTIONS)
    parameters = MAIL_PARAMETERS if session.tls is None else TLS_MAIL_PARAMETERS
    parsed = grammar.parse_mail(argument, _offered(talk, parameters))
    if parsed.size is not None and parsed.size > config.limits.message_size:
        raise Refusal(replies.TOO_BIG)
    if config.names is not None:
        reverse_path = config.names.qualified(session, parsed.reverse_path)
        if reverse_path is not parsed.reverse_path:
            parsed = replace(parsed, reverse_path=reverse_path)
    await config.access.mail(session, parsed.reverse_path)
    talk.transactions += 1
    origin = session.origin(smtputf8=parsed.smtputf8)
    transaction = Transaction(parsed, config.spool.draft(), origin)
    if talk.inspection is not None:
        await _begin_inspection(talk.inspection, transaction)
    talk.transaction = transaction
    talk.cost.towards_mail()
    return replies.SENDER_OK


async def _begin_inspection(inspection: SessionInspection, transaction: Transaction) -> None:
    """Let inspectors see the transaction.  Raises Refusal."""
    draft, envelope = transaction.draft, transaction.envelope(outside=False)
    try:
        transaction.inspection = await inspection.message(draft.id, envelope, transaction.origin)
    except BaseException:
        draft.discard()
        raise


async def rcpt(talk: Conversation, argument: bytes) -> Answer:
    """RCPT (RFC 5321 section 4.1.1.3)."""
    config, transaction = talk.config, _transaction(talk)
    if len(transaction.recipients) >= config.limits.recipients:
        raise Refusal(replies.TOO_MANY_RECIPIENTS)
    recipient = grammar.parse_rcpt(
        argument, _offered(talk, RCPT_PARAMETERS), smtputf8=transaction.argument.smtputf8
    )
    await config.access.rcpt(talk.session, transaction.argument.reverse_path, recipient)
    if transaction.inspection is not None:
        await transaction.inspection.recipient(recipient)
    transaction.recipients.append(recipient)
    talk.cost.towards_mail()
    return replies.RECIPIENT_OK


def _offered(talk: Conversation, parameters: frozenset[str]) -> frozenset[str]:
    return parameters if talk.session.extended else frozenset()


async def data(talk: Conversation, argument: bytes) -> Answer:
    """DATA (RFC 5321 section 4.1.1.4)."""
    if argument:
        raise Refusal(replies.BAD_ARGUMENT)
    transaction = _transaction(talk)
    if transaction.argument.body is Body.BINARY:
        raise Refusal(replies.BAD_SEQUENCE)  # RFC 3030 section 3
    if not transaction.recipients:
        lmtp = talk.config.service is Service.LMTP
        raise Refusal(replies.BAD_SEQUENCE if lmtp else replies.NO_RECIPIENTS)  # RFC 2033 4.2
    transaction.incoming = incoming = _incoming(talk, transaction)
    talk.say(replies.START_CONTENT)
    await read_data(talk.channel, talk.config.limits.timeout, incoming)
    return await _end_of_content(talk, transaction, incoming)


async def bdat(talk: Conversation, argument: bytes) -> Answer:
    """BDAT (RFC 3030 section 2)."""
    transaction = _transaction(talk)
    size, last = grammar.parse_bdat(argument)
    if not transaction.recipients:
        await skip_chunk(talk, argument)
        raise Refusal(replies.NO_RECIPIENTS)
    if transaction.incoming is None:
        transaction.incoming = _incoming(talk, transaction)
    await read_chunk(talk.channel, talk.config.limits.timeout, size, transaction.incoming)
    if last or size >= MIN_CHUNK:
        talk.cost.towards_mail()
    if last:
        return await _end_of_content(talk, transaction, transaction.incoming)
    if transaction.incoming.refusal is not None:
        talk.drop_transaction()
        return transaction.incoming.refusal
    return replies.OK


async def skip_chunk(talk: Conversation, argument: bytes) -> None:
    """Take the chunk of a BDAT that is refused: what is in it must not be read as commands."""
    size, _ = grammar.parse_bdat(argument)
    await read_chunk(talk.channel, talk.config.limits.timeout, size, None)


def _transaction(talk: Conversation) -> Transaction:
    """The transaction: the phases of these commands are those that have one."""
    assert talk.transaction is not None
    return talk.transaction


def _incoming(talk: Conversation, transaction: Transaction) -> IncomingMessage:
    config, session = talk.config, talk.session
    envelope = transaction.envelope(outside=config.access.is_outsider(session))
    return IncomingMessage(
        config,
        session,
        transaction.origin,
        envelope,
        transaction.draft,
        transaction.inspection,
    )


async def _end_of_content(
    talk: Conversation, transaction: Transaction, incoming: IncomingMessage
) -> Answer:
    """The place where responsibility passes (RFC 5321 section 6.1)."""
    reply = await incoming.accept()
    talk.transaction = None
    if reply.is_positive:
        talk.cost.message()
    else:
        talk.cost.no_message()
    talk.slices.begin()  # there was a commit to wait for
    if talk.config.service is Service.LMTP:
        return (reply,) * len(transaction.recipients)  # RFC 2033 section 4.2
    return reply
