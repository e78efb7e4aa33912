"""The signing of mail that leaves."""

from __future__ import annotations

from zope.interface import Interface

from mta.mail import Body, Reply
from mta.queued import Delivery, IContent


class ISigner(Interface):
    """Signs what is ours to sign."""

    async def signed(delivery: Delivery, content: IContent, conversion: Body | None) -> IContent:
        """Return the content with our signatures on top, or as it is.

        `content` is what is about to be sent for the delivery; `conversion` says for what kind of
        peer it was converted, None where it was not.  Raises SigningFailed where it must not leave
        without a signature, OSError where it can't be read.
        """


class SigningFailed(Exception):
    """A message can't be signed.

    `reply` says why, and whether to try again.
    """

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply
