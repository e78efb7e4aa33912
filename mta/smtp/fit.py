"""The form in which a message goes to one peer, as the extensions of that allow.

RFC 1870, RFC 3030, RFC 3461, RFC 6152, RFC 6531, RFC 8689.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from zope.interface import implementer

from mta.mail import Body, Notify, Reply
from mta.queued import Delivery, IContent, Message, Target
from mta.smtp import grammar, header, replies, sevenbit
from mta.smtp.content import LineCheck
from mta.smtp.extensions import Extensions
from mta.smtp.steps import InSteps, at_once

DEFAULT_RCPTMAX = 100  # recipients that any server takes, RFC 5321 section 4.5.3.1.8
MAX_RECIPIENTS = 1000  # of one transaction, where the peer names a higher RCPTMAX
SMALL = 256 * 1024  # octets of content that are kept from the check to the sending


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a peer can take.

    `keeps_tls`: mail that must not travel without TLS (RFC 8689).  `in_steps` does work that takes
    long, step by step.  `one_at_a_time`: it was out of step, and gets one command at a time.
    """

    extensions: Extensions
    lmtp: bool
    keeps_tls: bool
    in_steps: InSteps = at_once
    one_at_a_time: bool = False

    @property
    def pipelines(self) -> bool:
        """Whether commands go in groups (RFC 2920)."""
        return self.extensions.offers("PIPELINING") and not self.one_at_a_time

    @property
    def streams(self) -> bool:
        """Whether content goes by BDAT, and so ahead of replies (RFC 3030)."""
        return self.pipelines and self.extensions.offers("CHUNKING") and not self.lmtp

    @property
    def may_lose_step(self) -> bool:
        """Whether replies could be taken for those to something else."""
        return self.pipelines or (self.lmtp and not self.one_at_a_time)

    @property
    def max_recipients(self) -> int:
        """How many recipients one transaction has at most."""
        if self.lmtp and self.one_at_a_time:
            return 1  # and so one reply to its content
        return min(self.extensions.limit("RCPTMAX", DEFAULT_RCPTMAX), MAX_RECIPIENTS)


@dataclass(frozen=True, slots=True)
class Form:
    """Content in the form that a peer takes, and the value of BODY that says so."""

    content: IContent
    body: Body


@implementer(IContent)
class Loaded:
    """Small content that was looked at, and is kept until it is sent."""

    __slots__ = ("_octets", "is_ascii", "size")

    def __init__(self, octets: bytes) -> None:
        self.size = len(octets)
        self.is_ascii = octets.isascii()
        self._octets = octets

    async def pieces(self) -> AsyncIterator[bytes]:
        """See `IContent.pieces`."""
        yield self._octets


async def fit(delivery: Delivery, peer: Capabilities) -> Form | Reply:
    """The form that this peer can take, or why there is none.

    Raises OSError where the content can't be read.
    """
    envelope = delivery.message.envelope
    if not peer.extensions.offers("SMTPUTF8") and await _is_international(delivery):
        return replies.NO_SMTPUTF8
    # LMTP ends in the mailbox, and a notice goes back as well as it can: RFC 8689 section 5.
    tolerant = peer.lmtp or envelope.reverse_path.is_null
    if envelope.require_tls and not (tolerant or peer.keeps_tls):
        return replies.TLS_NOT_KEPT
    form = await _form(delivery.message, peer)
    if isinstance(form, Form):
        max_size = peer.extensions.max_size
        if max_size is not None and max_size < form.content.size:
            return replies.TOO_BIG_FOR_PEER
    return form


async def _is_international(delivery: Delivery) -> bool:
    """Whether an address, or the header section of what came with SMTPUTF8, is (RFC 6531).

    A body in UTF-8 needs 8BITMIME only, and so do the header sections of its parts, which
    everybody writes without SMTPUTF8.  Raises OSError.
    """
    message = delivery.message
    if message.envelope.reverse_path.is_internationalised or any(
        target.address.is_internationalised for target in delivery.targets
    ):
        return True
    if not message.envelope.smtputf8 or message.content.is_ascii:
        return False
    section = await header.read_section(message.content)
    return not section.octets.isascii()


async def _form(message: Message, peer: Capabilities) -> Form | Reply:
    """Content as it is, where the peer can take it so, or converted.  Raises OSError."""
    content, offers = message.content, peer.extensions.offers
    keeps_8bit = offers("8BITMIME")
    if message.envelope.body is Body.BINARY:
        if peer.streams and offers("BINARYMIME"):
            checked = await _checked(content, as_lines=False)
            return replies.UNSENDABLE if checked is None else Form(checked, Body.BINARY)
    elif content.is_ascii or keeps_8bit:
        checked = await _checked(content, as_lines=True)
        return replies.UNSENDABLE if checked is None else Form(checked, _body(checked))
    converted = await sevenbit.converted(content, keeps_8bit=keeps_8bit, in_steps=peer.in_steps)
    return replies.CONVERSION_FAILED if converted is None else Form(converted, _body(converted))


def _body(content: IContent) -> Body:
    return Body.SEVEN_BIT if content.is_ascii else Body.EIGHT_BIT


async def _checked(content: IContent, *, as_lines: bool) -> IContent | None:
    """Content that has its size and, `as_lines`, consists of lines; None where it does not.

    That was checked when it was taken.  It is again where it leaves, wherever it comes from: what
    goes out in our name must not hold a second message (RFC 5321 section 4.1.1.4).
    Raises OSError.
    """
    lines = LineCheck()
    kept: list[bytes] = []
    size = 0
    async for piece in content.pieces():
        if as_lines:
            lines.feed(piece)
        size += len(piece)
        if content.size <= SMALL:
            kept.append(piece)
    lines.end()
    if size != content.size:  # what is over would be commands, behind a chunk
        raise OSError(f"{size} octets of content in place of {content.size}")
    if lines.broken:
        return None
    return Loaded(b"".join(kept)) if content.size <= SMALL else content


def envelope_commands(
    delivery: Delivery, places: Sequence[int], form: Form, peer: Capabilities
) -> list[bytes]:
    """MAIL, and RCPT for the targets at these places.  Raises LocalFault."""
    envelope, offers = delivery.message.envelope, peer.extensions.offers
    parameters = []
    if offers("SIZE"):
        parameters.append(f"SIZE={form.content.size}")
    if form.body is not Body.SEVEN_BIT:
        parameters.append(f"BODY={form.body.value}")
    if envelope.smtputf8 and offers("SMTPUTF8"):
        parameters.append("SMTPUTF8")
    if envelope.require_tls and peer.keeps_tls:
        parameters.append("REQUIRETLS")
    if offers("DSN"):
        if envelope.ret:
            parameters.append(f"RET={envelope.ret}")
        if envelope.envid:
            parameters.append(f"ENVID={grammar.encode_xtext(envelope.envid)}")
    commands = [grammar.mail_command(envelope.reverse_path, parameters)]
    for place in places:
        target = delivery.targets[place]
        recipient = delivery.recipient(target)
        parameters = []
        if offers("DSN"):
            if notify := notices_of_peer(delivery, target):
                conditions = sorted(condition.value for condition in notify)
                parameters.append("NOTIFY=" + ",".join(conditions))
            if recipient.original:
                parameters.append(f"ORCPT={grammar.encode_original(recipient.original)}")
        commands.append(grammar.rcpt_command(target.address, parameters))
    return commands


def notices_of_peer(delivery: Delivery, target: Target) -> frozenset[Notify]:
    """When the peer is to send notices: to outsiders of no success of an address not named by them.

    We tell of that ourselves, and of no address behind it (RFC 3461 section 5.2.7).
    """
    recipient = delivery.recipient(target)
    is_private = not target.address.matches(recipient.forward_path)
    if delivery.message.envelope.outside and is_private and Notify.SUCCESS in recipient.notify:
        return recipient.notify - {Notify.SUCCESS} or frozenset({Notify.NEVER})
    return recipient.notify
