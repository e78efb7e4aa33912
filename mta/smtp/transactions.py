"""The answers to MAIL, RCPT, DATA and BDAT (RFC 5321 section 3.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mta.interfaces import ISpool
from mta.mail import Body, Recipient
from mta.queued import IDraft
from mta.session import Session
from mta.settings import Service
from mta.smtp import asking, grammar, replies, sealed_form, waiting_senders
from mta.smtp.conversation import Answer, Conversation, EndOfRole, Transaction
from mta.smtp.cost import MIN_CHUNK
from mta.smtp.errors import Refusal
from mta.smtp.incoming import IncomingMessage
from mta.smtp.inspection import ForwardedInspection, SessionInspection, for_one_client
from mta.smtp.reading import read_chunk, read_data
from mta.smtp.sealed_message import SealedMessage

MAX_TRANSACTIONS = 100_000  # on one connection; shown as MAILMAX, RFC 9422
MAIL_PARAMETERS = frozenset({"SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "AUTH"})
TLS_MAIL_PARAMETERS = MAIL_PARAMETERS | {"REQUIRETLS"}  # RFC 8689 section 4.1
RCPT_PARAMETERS = frozenset({"NOTIFY", "ORCPT"})


def peer_parameters(conversation: Conversation) -> Iterator[str]:
    """The parameters of MAIL for a peer that has turned the connection."""
    if not conversation.session.turned_peer:
        return
    if conversation.takes_origins:
        yield waiting_senders.KEYWORD
    if conversation.takes_sealed:
        yield sealed_form.KEYWORD
    yield asking.KEYWORD


async def xforward(conversation: Conversation, argument: bytes) -> Answer:
    """XFORWARD: a server tells where the next message comes from (Postfix's XFORWARD_README)."""
    if not conversation.takes_origins:
        raise Refusal(replies.XFORWARD_DENIED)
    conversation.told_origin.add(argument)
    return replies.OK


async def mail(conversation: Conversation, argument: bytes) -> Answer:
    """MAIL (RFC 5321 section 4.1.1.2)."""
    await conversation.await_turn_of_mail()
    session = conversation.session
    session.forwarded = conversation.told_origin.session(
        session, conversation.channel.remote_address
    )
    try:
        return await _mail(conversation, argument)
    except Refusal as refusal:
        reply = for_one_client(refusal.reply) if session.outsider else refusal.reply
        conversation.close_transaction()
        raise Refusal(reply) from None


async def _mail(conversation: Conversation, argument: bytes) -> Answer:
    config, session = conversation.config, conversation.session
    if conversation.transactions >= MAX_TRANSACTIONS:
        raise Refusal(replies.TOO_MANY_TRANSACTIONS)
    parameters = MAIL_PARAMETERS if session.tls is None else TLS_MAIL_PARAMETERS
    parameters = parameters.union(peer_parameters(conversation))
    parsed = grammar.parse_mail(argument, _offered(conversation, parameters))
    if parsed.sealed is not None:
        parsed = sealed_form.inner(parsed)
    if parsed.size is not None and parsed.size > config.limits.message_size:
        raise Refusal(replies.TOO_BIG)
    if config.names is not None:
        reverse_path = config.names.qualified(session, parsed.reverse_path)
        if reverse_path is not parsed.reverse_path:
            parsed = replace(parsed, reverse_path=reverse_path)
    if parsed.is_question:
        session.forwarded = None  # no client is charged with it
    if session.forwarded is not None:
        session.forwarded.sender_waits = parsed.sender_waits
    await config.access.mail(session, parsed.reverse_path)
    conversation.transactions += 0 if parsed.is_question else 1
    origin = (session.forwarded or session).origin(smtputf8=parsed.smtputf8)
    began = conversation.channel.seconds()
    transaction = Transaction(parsed, _draft(config.spool), origin, began)
    if conversation.inspection is not None and not parsed.is_question:
        try:
            await _begin_inspection(conversation.inspection, transaction, session.outsider)
        except BaseException:
            transaction.discard()
            raise
    conversation.transaction = transaction
    conversation.cost.towards_mail()
    return replies.SENDER_OK


def _draft(spool: ISpool) -> IDraft:
    """A place for the body.  Raises Refusal where no mail can be taken now."""
    try:
        return spool.draft()
    except OSError:
        raise Refusal(replies.LOCAL_ERROR) from None


async def _begin_inspection(
    inspection: SessionInspection, transaction: Transaction, client: Session | None
) -> None:
    """Let inspectors see the transaction.  Raises Refusal.

    A client that was told is looked at in place of the server that tells it.
    """
    id, argument, origin = transaction.draft.id, transaction.argument, transaction.origin
    try:
        if client is not None:
            inspection = await ForwardedInspection.begin(inspection, client)
        transaction.inspection = await inspection.message(id, argument, origin)
    except Refusal as refusal:
        if not origin.is_remembered:
            raise
        transaction.refusal = for_one_client(refusal.reply)


async def rcpt(conversation: Conversation, argument: bytes) -> Answer:
    """RCPT (RFC 5321 section 4.1.1.3)."""
    config, transaction = conversation.config, _transaction(conversation)
    if len(transaction.recipients) >= config.limits.recipients:
        raise Refusal(replies.TOO_MANY_RECIPIENTS)
    recipient = grammar.parse_rcpt(
        argument, _offered(conversation, RCPT_PARAMETERS), smtputf8=transaction.argument.smtputf8
    )
    try:
        await _admit(conversation, transaction, recipient)
    except Refusal:
        if not await _is_second_copy(conversation, transaction, [recipient]):
            raise
    transaction.recipients.append(recipient)
    conversation.cost.towards_mail()
    return replies.RECIPIENT_OK


async def _admit(conversation: Conversation, transaction: Transaction, each: Recipient) -> None:
    """Let rules and inspectors see a recipient.  Raises Refusal."""
    inspection, reverse_path = transaction.inspection, transaction.argument.reverse_path
    try:
        if transaction.refusal is not None:
            raise Refusal(transaction.refusal)
        await conversation.config.access.rcpt(conversation.session, reverse_path, each)
    except Refusal as refusal:
        if inspection is not None:
            await inspection.refused(each, refusal.reply)
        raise
    if inspection is not None:
        await inspection.recipient(each)


async def _is_second_copy(
    conversation: Conversation, transaction: Transaction, recipients: Sequence[Recipient]
) -> bool:
    """Tell whether these have the message already, which would be refused now.

    Raises Refusal where that is not known yet.
    """
    copies = conversation.config.second_copies
    reply = await copies.reply(transaction.origin, recipients) if copies is not None else None
    if reply is not None and not reply.is_positive:
        raise Refusal(reply)
    return reply is not None


def _offered(conversation: Conversation, parameters: frozenset[str]) -> frozenset[str]:
    return parameters if conversation.session.extended else frozenset()


async def data(conversation: Conversation, argument: bytes) -> Answer:
    """DATA (RFC 5321 section 4.1.1.4)."""
    if argument:
        raise Refusal(replies.BAD_ARGUMENT)
    transaction = _transaction(conversation)
    has_other_content = transaction.argument.body is Body.BINARY or transaction.argument.sealed
    if has_other_content or transaction.argument.is_question:
        raise Refusal(replies.BAD_SEQUENCE)  # RFC 3030 section 3
    if not transaction.recipients:
        lmtp = conversation.config.service is Service.LMTP
        raise Refusal(replies.BAD_SEQUENCE if lmtp else replies.NO_RECIPIENTS)  # RFC 2033 4.2
    await _announce(conversation, transaction)
    transaction.incoming = incoming = _incoming(conversation, transaction)
    conversation.send(replies.START_CONTENT)
    await read_data(conversation.reader, conversation.channel, incoming)
    return await _end_of_content(conversation, transaction, incoming)


async def bdat(conversation: Conversation, argument: bytes) -> Answer:
    """BDAT (RFC 3030 section 2)."""
    transaction = _transaction(conversation)
    size, last = grammar.parse_bdat(argument)
    if not transaction.recipients or transaction.argument.is_question:
        await skip_chunk(conversation, argument)
        raise Refusal(replies.NO_RECIPIENTS)
    if transaction.incoming is None:
        try:
            await _announce(conversation, transaction)
        except Refusal:
            await skip_chunk(conversation, argument)
            raise
        transaction.incoming = _incoming(conversation, transaction)
    await read_chunk(conversation.reader, size, transaction.incoming)
    if last or size >= MIN_CHUNK:
        conversation.cost.towards_mail()
    if last:
        return await _end_of_content(conversation, transaction, transaction.incoming)
    if transaction.incoming.refusal is not None:
        conversation.drop_transaction()
        return transaction.incoming.refusal
    return replies.OK


async def skip_chunk(conversation: Conversation, argument: bytes) -> None:
    """Take the chunk of a BDAT that is refused.

    What is in it must not be read as commands.
    """
    size, _ = grammar.parse_bdat(argument)
    await read_chunk(conversation.reader, size, None)


async def _announce(conversation: Conversation, transaction: Transaction) -> None:
    """Let inspectors see the whole envelope.  Raises Refusal, with which the transaction ends."""
    if transaction.inspection is None:
        return
    try:
        try:
            await transaction.inspection.data()
        except Refusal:
            if not await _is_second_copy(conversation, transaction, transaction.recipients):
                raise
            transaction.inspection.abort()
            transaction.inspection = None
    except Refusal:
        conversation.drop_transaction()
        raise


def _transaction(conversation: Conversation) -> Transaction:
    """The transaction, which there is in the phases of these commands."""
    assert conversation.transaction is not None
    return conversation.transaction


def _incoming(conversation: Conversation, transaction: Transaction) -> IncomingMessage:
    config, session = conversation.config, conversation.session
    outside = session.outsider is not None or config.access.is_outsider(session)
    envelope = transaction.envelope(outside=outside)
    transaction.draft.address(envelope)
    arguments = (
        config,
        session,
        transaction.origin,
        envelope,
        transaction.draft,
        transaction.inspection,
    )
    form = transaction.argument.sealed
    return SealedMessage(form, *arguments) if form is not None else IncomingMessage(*arguments)


async def _end_of_content(
    conversation: Conversation, transaction: Transaction, incoming: IncomingMessage
) -> Answer:
    """Let responsibility pass, or refuse the message (RFC 5321 section 6.1)."""
    lasted = conversation.channel.seconds() - transaction.began
    waiting_senders.note_time(conversation.session, lasted)
    reply = await incoming.accept()
    conversation.close_transaction()
    if reply.is_positive:
        conversation.cost.message()
        conversation.reader.message()
        conversation.session.has_brought_mail = True
    else:
        conversation.cost.no_message()
    conversation.is_ahead = True
    conversation.time_slice.restart()  # there was a commit to wait for
    lmtp = conversation.config.service is Service.LMTP
    answers = (reply,) * len(transaction.recipients) if lmtp else (reply,)  # RFC 2033 section 4.2
    if reply.code == 421:  # the session ends with the last of them
        for each in answers[1:]:
            conversation.send(each)
        return EndOfRole(reply)
    return answers
