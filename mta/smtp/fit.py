"""The form in which a message goes to one peer, as the extensions of that allow.

RFC 1870, RFC 3030, RFC 3461, RFC 6152, RFC 6531, RFC 8689.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mta.interfaces import Delivery, IContent
from mta.mail import Body, Reply
from mta.smtp import grammar, replies, sevenbit
from mta.smtp.extensions import Extensions


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a peer can take.

    `streams`: content by BDAT; `keeps_tls`: mail that must not travel without TLS (RFC 8689).
    """

    extensions: Extensions
    lmtp: bool
    keeps_tls: bool

    @property
    def streams(self) -> bool:
        """Whether whole messages may go ahead of the replies to others, by BDAT."""
        return self.extensions.offers("PIPELINING", "CHUNKING") and not self.lmtp


@dataclass(frozen=True, slots=True)
class Form:
    """Content in the form that a peer takes, and the value of BODY that says so."""

    content: IContent
    body: Body


async def fit(delivery: Delivery, peer: Capabilities) -> Form | Reply:
    """The form that this peer can take, or why there is none.

    Raises OSError where the content can't be read.
    """
    content, offers = delivery.message.content, peer.extensions.offers
    envelope = delivery.message.envelope
    international = envelope.reverse_path.is_internationalised or any(
        target.address.is_internationalised for target in delivery.targets
    )
    international = international or (envelope.smtputf8 and not content.is_ascii)
    if international and not offers("SMTPUTF8"):
        return replies.NO_SMTPUTF8
    # LMTP ends in the mailbox, and a notice goes back as well as it can: RFC 8689 section 5.
    tolerant = peer.lmtp or envelope.reverse_path.is_null
    if envelope.require_tls and not (tolerant or peer.keeps_tls):
        return replies.TLS_NOT_KEPT
    if envelope.body is Body.BINARY:
        fits = peer.streams and offers("BINARYMIME")
        body = Body.BINARY
    else:
        fits = content.is_ascii or offers("8BITMIME")
        body = Body.SEVEN_BIT if content.is_ascii else Body.EIGHT_BIT
    if not fits:
        converted = await sevenbit.converted(content)
        if converted is None:
            return replies.CONVERSION_FAILED
        content, body = converted, Body.SEVEN_BIT
    max_size = peer.extensions.max_size
    if max_size is not None and max_size < content.size:
        return replies.TOO_BIG_FOR_PEER
    return Form(content, body)


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
            if recipient.notify:
                conditions = sorted(condition.value for condition in recipient.notify)
                parameters.append("NOTIFY=" + ",".join(conditions))
            if recipient.original:
                parameters.append(f"ORCPT={grammar.encode_original(recipient.original)}")
        commands.append(grammar.rcpt_command(target.address, parameters))
    return commands
