"""Mail that goes on: what came for an address of ours, and whose way leads elsewhere.

It bears the address that forwarded it in a Delivered-To: field, by which the loop shows when it
comes again, and a reverse-path of ours, which is the router's business.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from zope.interface import implementer

from mta.interfaces import IRouter
from mta.mail import Envelope, Mailbox
from mta.queued import IContent, Message
from mta.smtp.errors import Refusal
from mta.smtp.header import read_section
from mta.smtp.trace import delivered_before, delivered_to, was_delivered_to


def goes_on(router: IRouter, forward_path: Mailbox, address: Mailbox) -> bool:
    """Whether mail for an address of ours leads elsewhere, to `address`."""
    return (
        address != forward_path
        and not router.is_ours(address.domain)
        and router.is_ours(forward_path.domain)
    )


def is_loop(router: IRouter, envelope: Envelope, header_section: bytes) -> bool:
    """Whether each of the recipients has sent on what it would send on now.

    Where others have not, it is for them, and the attempt fails for those that have.
    """
    before = delivered_before(header_section)  # nearly always nobody
    return bool(before) and all(
        delivered_to(recipient.forward_path).lower() in before
        and _is_forwarder(router, recipient.forward_path, envelope.reverse_path)
        for recipient in envelope.recipients
    )


def _is_forwarder(router: IRouter, address: Mailbox, reverse_path: Mailbox) -> bool:
    try:
        routed = router.route(address, reverse_path)
    except Refusal:  # that is said at its attempt
        return False
    return any(goes_on(router, address, final) for final, _ in routed)


@implementer(IContent)
@dataclass(frozen=True, slots=True)
class ForwardedContent:
    """Content with a field on top of it."""

    top: bytes
    content: IContent

    @property
    def size(self) -> int:
        """Octets."""
        return len(self.top) + self.content.size

    @property
    def is_ascii(self) -> bool:
        """Whether every octet is below 128."""
        return self.top.isascii() and self.content.is_ascii

    async def pieces(self) -> AsyncIterator[bytes]:
        """See `IContent.pieces`."""
        yield self.top
        async for piece in self.content.pieces():
            yield piece


async def has_forwarded(forwarder: Mailbox, content: IContent) -> bool:
    """Whether that address of ours has sent the content on before.  Raises OSError."""
    section = await read_section(content)
    return was_delivered_to(forwarder, section.octets)


def forwarded(message: Message, forwarder: Mailbox, reverse_path: Mailbox) -> Message:
    """The message as that address of ours sends it on."""
    top = b"Delivered-To: %b\r\n" % delivered_to(forwarder)
    return replace(
        message,
        envelope=replace(message.envelope, reverse_path=reverse_path),
        content=ForwardedContent(top, message.content),
    )
