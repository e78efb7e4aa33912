"""XSEALED: content that crosses a link as it was sealed.

A host of ours with the key offers it on a link that it has dialled and verified.  The content goes
by BDAT, as it lies in the spool: the sealed header section, and the sealed body behind it::

    MAIL FROM:<a@b.example> BODY=BINARYMIME XSEALED=812,8BITMIME
"""

from __future__ import annotations

from dataclasses import replace

from mta.mail import Body, MailArgument, SealedForm
from mta.smtp import replies
from mta.smtp.errors import Refusal

KEYWORD = "XSEALED"
MAX_OVERHEAD = 64 * 1024  # octets: of two sealed files with many keys, without their chunks
MIN_CHUNK = 4096  # octets: of content for each 16 octets of overhead, and far more in our own


def parameter(form: SealedForm) -> str:
    """The parameter of MAIL for content of this form."""
    return f"{KEYWORD}={form.header_size},{form.body.value}"


def inner(argument: MailArgument) -> MailArgument:
    """The argument of MAIL for what is inside.  Raises Refusal."""
    form = argument.sealed
    assert form is not None
    if argument.body is not Body.BINARY:
        raise Refusal(replies.BAD_ARGUMENT)
    size = None if argument.size is None else least_content(argument.size)
    return replace(argument, body=form.body, size=size)


def least_content(size: int) -> int:
    """The least octets that so many sealed octets may hold.

    A limit is not to refuse what is only too big because it is sealed: what is inside is
    counted when it is opened.
    """
    return max(0, size - MAX_OVERHEAD - size // MIN_CHUNK * 16)
