"""Forwarded mail: it came for an address of ours that leads elsewhere.

It is sent on with the forwarding address in a Delivered-To: field, which shows the loop when it
comes again, and with a reverse-path of ours, which `mta.routing` makes.
"""

from __future__ import annotations

from dataclasses import replace

from zope.interface import implementer

from mta.interfaces import IHeaderCheck, IRouter
from mta.mail import Envelope, Mailbox
from mta.queued import IContent, Message
from mta.session import Session
from mta.smtp import replies
from mta.smtp.errors import Refusal
from mta.smtp.topped import ToppedContent
from mta.smtp.trace import delivered_before, delivered_to, was_delivered_to


def is_forwarding(router: IRouter, forward_path: Mailbox, address: Mailbox) -> bool:
    """Tell whether mail leaves us on its way to `address`.

    It does where `forward_path` is an address of ours, and `address` is not.
    """
    return (
        address != forward_path
        and not router.is_ours(address.domain)
        and router.is_ours(forward_path.domain)
    )


def is_loop(router: IRouter, envelope: Envelope, header_section: bytes) -> bool:
    """Tell whether every recipient has already forwarded what it would forward now.

    Where only some have, the message is accepted for the others, and the attempt fails for those.
    """
    before = delivered_before(header_section)  # nearly always empty
    return bool(before) and all(
        delivered_to(recipient.forward_path).lower() in before
        and _is_forwarder(router, recipient.forward_path, envelope.reverse_path)
        for recipient in envelope.recipients
    )


def _is_forwarder(router: IRouter, address: Mailbox, reverse_path: Mailbox) -> bool:
    try:
        routed = router.route(address, reverse_path)
    except Refusal:  # its attempt says so
        return False
    return any(is_forwarding(router, address, final) for final, _ in routed)


@implementer(IHeaderCheck)
class ForwardLoopCheck:
    """Refuses mail that all its recipients have forwarded before."""

    def __init__(self, router: IRouter) -> None:
        self._router = router

    def check(self, session: Session, envelope: Envelope, section: bytes) -> None:
        """See `IHeaderCheck.check`."""
        if is_loop(self._router, envelope, section):
            raise Refusal(replies.FORWARD_LOOP)


async def has_forwarded(forwarder: Mailbox, content: IContent) -> bool:
    """Tell whether that address of ours has forwarded the content before.  Raises OSError."""
    return was_delivered_to(forwarder, await content.header())


def forwarded(message: Message, forwarder: Mailbox, reverse_path: Mailbox) -> Message:
    """The message as that address of ours forwards it."""
    field = b"Delivered-To: %b\r\n" % delivered_to(forwarder)
    return replace(
        message,
        envelope=replace(message.envelope, reverse_path=reverse_path),
        content=ToppedContent(field, message.content),
    )
