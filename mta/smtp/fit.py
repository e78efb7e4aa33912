"""The form of a message that one peer can take.

RFC 1870, RFC 3030, RFC 3461, RFC 6152, RFC 6531, RFC 8689.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, replace

from zope.interface import implementer

from mta.interfaces import ISigner
from mta.mail import Body, Notify, SealedForm
from mta.queued import Delivery, IContent, Message, Target
from mta.smtp import grammar, header, replies, sealed_form, sevenbit, waiting_senders
from mta.smtp.content import LineCheck
from mta.smtp.errors import UnsendableMessage
from mta.smtp.extensions import Extensions
from mta.smtp.steps import InSteps, at_once

DEFAULT_RCPTMAX = 100  # recipients: what any server takes, RFC 5321 section 4.5.3.1.8
MAX_RECIPIENTS = 1000  # recipients: of one transaction, where the peer names a higher RCPTMAX
MAX_IN_MEMORY = 256 * 1024  # octets: content up to this is kept from the check to the sending


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The capabilities of a peer, as offered and as known before.

    `keeps_tls`: it takes mail that must not travel without TLS (RFC 8689).  `in_steps` does long
    work step by step.  `one_at_a_time`: it was out of step before, and gets one command at a time.
    `origin_attributes`: XFORWARD may tell it these.
    """

    extensions: Extensions
    lmtp: bool
    keeps_tls: bool
    in_steps: InSteps = at_once
    one_at_a_time: bool = False
    origin_attributes: Collection[str] = ()

    @property
    def pipelines(self) -> bool:
        """Tell whether commands go in groups (RFC 2920)."""
        return self.extensions.offers("PIPELINING") and not self.one_at_a_time

    @property
    def streams(self) -> bool:
        """Tell whether content goes by BDAT, ahead of replies (RFC 3030)."""
        return self.pipelines and self.extensions.offers("CHUNKING") and not self.lmtp

    @property
    def may_lose_step(self) -> bool:
        """Tell whether a reply could be taken for that to another command."""
        return self.pipelines or (self.lmtp and not self.one_at_a_time)

    @property
    def max_recipients(self) -> int:
        """The most recipients of one transaction."""
        if self.lmtp and self.one_at_a_time:
            return 1  # and so one reply to its content
        return min(self.extensions.limit("RCPTMAX", DEFAULT_RCPTMAX), MAX_RECIPIENTS)


@dataclass(frozen=True, slots=True)
class Form:
    """Content as a peer takes it, with the BODY parameter for it.

    `conversion` is the kind of peer that it was converted for: one that takes 7-bit, or 8-bit lines
    alone.  `sealed` tells what is in it, where it is sealed.
    """

    content: IContent
    body: Body
    conversion: Body | None = None
    sealed: SealedForm | None = None


@implementer(IContent)
class ContentInMemory:
    """Small content that was checked, and is kept until it is sent."""

    __slots__ = ("_octets", "is_ascii", "size")

    def __init__(self, octets: bytes) -> None:
        self.size = len(octets)
        self.is_ascii = octets.isascii()
        self._octets = octets

    async def header(self) -> bytes:
        """See `IContent.header`."""
        return header.split(self._octets)[0]

    async def body(self) -> AsyncIterator[bytes]:
        """See `IContent.body`."""
        yield header.split(self._octets)[1]

    async def pieces(self) -> AsyncIterator[bytes]:
        """See `IContent.pieces`."""
        yield self._octets


async def fit(delivery: Delivery, peer: Capabilities, signer: ISigner | None = None) -> Form:
    """Return the message in the form that this peer takes.

    It is signed last, as every change would break a signature.  Mailboxes, which LMTP ends in, need
    none.  Raises UnsendableMessage where there is none, OSError where the content can't be read,
    and SigningFailed.
    """
    envelope = delivery.message.envelope
    if not peer.extensions.offers("SMTPUTF8") and await _needs_smtputf8(delivery):
        raise UnsendableMessage(replies.NO_SMTPUTF8)
    # LMTP ends in the mailbox, and a notice goes back as well as it can: RFC 8689 section 5.
    tolerant = peer.lmtp or envelope.reverse_path.is_null
    if envelope.require_tls and not (tolerant or peer.keeps_tls):
        raise UnsendableMessage(replies.TLS_NOT_KEPT)
    if envelope.sealed:
        form = await _sealed_form(delivery.message, peer)
        size = sealed_form.least_content(form.content.size)
    else:
        form = await _form(delivery.message, peer)
        if signer is not None and not peer.lmtp:
            content = await signer.signed(delivery, form.content, form.conversion)
            form = replace(form, content=content)
        size = form.content.size
    max_size = peer.extensions.max_size
    if max_size is not None and max_size < size:
        raise UnsendableMessage(replies.TOO_BIG_FOR_PEER)
    return form


async def _needs_smtputf8(delivery: Delivery) -> bool:
    """Tell whether an address or the header section is internationalised (RFC 6531).

    The header section only counts where the message came with SMTPUTF8.  A body in UTF-8 needs
    8BITMIME only; so do the header sections of its parts, as most clients write those without
    SMTPUTF8.  Raises OSError.
    """
    message = delivery.message
    if message.envelope.reverse_path.is_internationalised or any(
        target.address.is_internationalised for target in delivery.targets
    ):
        return True
    if not message.envelope.smtputf8 or message.content.is_ascii:
        return False
    if message.envelope.sealed:
        return True
    return not (await message.content.header()).isascii()


async def _form(message: Message, peer: Capabilities) -> Form:
    """Content as it is, or converted where it must be.

    Raises UnsendableMessage or OSError.
    """
    content, offers = message.content, peer.extensions.offers
    keeps_8bit = offers("8BITMIME")
    if message.envelope.body is Body.BINARY:
        if peer.streams and offers("BINARYMIME"):
            return Form(await _checked(content, as_lines=False), Body.BINARY)
    elif content.is_ascii or keeps_8bit:
        checked = await _checked(content, as_lines=True)
        return Form(checked, _body(checked))
    converted = await sevenbit.converted(content, keeps_8bit=keeps_8bit, in_steps=peer.in_steps)
    if converted is None:
        raise UnsendableMessage(replies.CONVERSION_FAILED)
    conversion = Body.EIGHT_BIT if keeps_8bit else Body.SEVEN_BIT
    return Form(converted, _body(converted), conversion)


async def _sealed_form(message: Message, peer: Capabilities) -> Form:
    """Sealed content, as it is.  Raises UnsendableMessage or OSError."""
    offers = peer.extensions.offers
    if not (peer.streams and offers("BINARYMIME") and offers(sealed_form.KEYWORD)):
        raise UnsendableMessage(replies.SEALED)
    inner = SealedForm(len(await message.content.header()), message.envelope.body)
    content = await _checked(message.content, as_lines=False)
    return Form(content, Body.BINARY, sealed=inner)


def _body(content: IContent) -> Body:
    return Body.SEVEN_BIT if content.is_ascii else Body.EIGHT_BIT


async def _checked(content: IContent, *, as_lines: bool) -> IContent:
    """The content, once its size and, `as_lines`, its line ends are checked.

    They were checked on the way in.  They are again on the way out, wherever the content comes
    from: what goes out in our name must not hold a second message (RFC 5321 section 4.1.1.4).
    Raises UnsendableMessage for other line ends, OSError for another size.
    """
    lines = LineCheck()
    kept: list[bytes] = []
    size = 0
    async for piece in content.pieces():
        if as_lines:
            lines.feed(piece)
        size += len(piece)
        if content.size <= MAX_IN_MEMORY:
            kept.append(piece)
    lines.end()
    if size != content.size:  # behind a chunk, octets too many would be read as commands
        raise OSError(f"{size} octets of content in place of {content.size}")
    if lines.broken:
        raise UnsendableMessage(replies.UNSENDABLE)
    return ContentInMemory(b"".join(kept)) if content.size <= MAX_IN_MEMORY else content


def origin_commands(message: Message, peer: Capabilities) -> list[bytes]:
    """XFORWARD, in as many commands as it takes.

    There are none where the peer is not to know.  Raises LocalFault.
    """
    if not peer.origin_attributes:
        return []
    source = grammar.REMOTE if message.envelope.outside else grammar.LOCAL
    return grammar.xforward_commands(message.origin, message.id, source, peer.origin_attributes)


def envelope_commands(
    delivery: Delivery, indices: Sequence[int], form: Form, peer: Capabilities
) -> list[bytes]:
    """MAIL, and RCPT for the targets with these indices.  Raises LocalFault."""
    rcpts = [_rcpt_command(delivery, delivery.targets[index], peer) for index in indices]
    return [_mail_command(delivery, form, peer), *rcpts]


def _mail_command(delivery: Delivery, form: Form, peer: Capabilities) -> bytes:
    envelope, offers = delivery.message.envelope, peer.extensions.offers
    parameters = []
    if offers("SIZE"):
        parameters.append(f"SIZE={form.content.size}")
    if form.body is not Body.SEVEN_BIT:
        parameters.append(f"BODY={form.body.value}")
    if form.sealed is not None:
        parameters.append(sealed_form.parameter(form.sealed))
    if envelope.smtputf8 and offers("SMTPUTF8"):
        parameters.append("SMTPUTF8")
    if envelope.require_tls and peer.keeps_tls:
        parameters.append("REQUIRETLS")
    if offers("DSN"):
        if envelope.ret:
            parameters.append(f"RET={envelope.ret}")
        if envelope.envid:
            parameters.append(f"ENVID={grammar.encode_xtext(envelope.envid)}")
    if delivery.sender_waits and offers(waiting_senders.KEYWORD):
        parameters.append(waiting_senders.KEYWORD)
    return grammar.mail_command(envelope.reverse_path, parameters)


def _rcpt_command(delivery: Delivery, target: Target, peer: Capabilities) -> bytes:
    parameters = []
    if peer.extensions.offers("DSN"):
        if notify := notices_of_peer(delivery, target):
            conditions = sorted(condition.value for condition in notify)
            parameters.append("NOTIFY=" + ",".join(conditions))
        if original := delivery.recipient(target).original:
            parameters.append(f"ORCPT={grammar.encode_original(original)}")
    return grammar.rcpt_command(target.address, parameters)


def notices_of_peer(delivery: Delivery, target: Target) -> frozenset[Notify]:
    """The NOTIFY conditions that the peer is given for a target.

    Without SUCCESS where an outsider sent the message and the target is another address than the
    outsider named: we report that success ourselves, as one of the address that was named
    (RFC 3461 section 5.2.7).
    """
    recipient = delivery.recipient(target)
    is_private = not target.address.matches(recipient.forward_path)
    if delivery.message.envelope.outside and is_private and Notify.SUCCESS in recipient.notify:
        return recipient.notify - {Notify.SUCCESS} or frozenset({Notify.NEVER})
    return recipient.notify
