"""Mail that inspectors took for junk.

`authentication.junk` says what is done with it.  It always bears the
mark: what it is delivered to may be another server, or have filters.
"""

from __future__ import annotations

from dataclasses import replace

from mta.session import Origin
from mta.settings import JunkUse
from mta.smtp import header
from mta.smtp.inspection import Inspected

MARK = b"X-Spam: Yes\r\n"


def marked(inspected: Inspected, use: JunkUse, origin: Origin) -> Origin:
    """Mark a message; returns its origin, which the Maildir agent goes by."""
    inspected.header = MARK + header.without(inspected.header, b"x-spam")
    if use is JunkUse.HOLD:
        reason = f"junk: {inspected.junk}"
        inspected.hold = "; ".join(filter(None, (inspected.hold, reason)))
    return replace(origin, is_junk=True) if use is JunkUse.FOLDER else origin
