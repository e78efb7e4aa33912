"""Messages that are not judged: ours, and those on turned connections."""

from __future__ import annotations

from collections.abc import Collection

from twisted.logger import Logger
from zope.interface import implementer

from mta.authentication import results
from mta.authentication.decision import ENFORCING
from mta.authentication.results import NOTHING, MethodResult, Sorted
from mta.interfaces import IMessageInspector
from mta.mail import Envelope, Recipient
from mta.settings import Judgement
from mta.verdict import Verdict

_FAILED = {Judgement.QUARANTINE.value, Judgement.REJECT.value}
_log = Logger()


class RelayResults:
    """The results in a message that trusted services found before us.

    `ours` is our authserv-id, and `trusted` are those of such services.  `found` are the fields.
    """

    def __init__(self, id: str, ours: str, trusted: Collection[str], dmarc: Judgement) -> None:
        self._id = id
        self._ours = ours
        self._trusted = trusted
        self._dmarc = dmarc
        self.found = NOTHING

    def look(self, section: bytes) -> Sorted:
        """Look at the fields of a header section."""
        self.found = results.sort_fields(section, self._ours, self._trusted)
        return self.found

    def junk(self) -> str:
        """Return why the message is junk, where they say so.

        What they let pass proves nothing: a relay that does not judge leaves forged fields.
        """
        if self._dmarc not in ENFORCING:
            return ""
        found = (each for believed in self.found.believed for each in believed.results)
        junk = next((_reason(each) for each in found if _has_failed(each)), "")
        if junk:
            _log.info("{queue_id} is junk: {reason}", queue_id=self._id, reason=junk)
        return junk


@implementer(IMessageInspector)
class ExemptMessage:
    """Takes a message for what a trusted service says of it."""

    def __init__(self, relay: RelayResults) -> None:
        self._relay = relay

    async def recipient(self, recipient: Recipient) -> None:
        """Let all recipients pass."""

    async def header(self, envelope: Envelope, section: bytes) -> None:
        """Look for fields with results."""
        self._relay.look(section)

    async def body(self, piece: bytes) -> None:
        """Let the body pass."""

    async def end(self, section: bytes) -> Verdict:
        """Remove claims to be ours, and go by what the other says.

        The message is never refused: that service would have to send a notice.
        """
        return Verdict(self._relay.found.removals, junk=self._relay.junk())

    def abort(self) -> None:
        """Forget nothing: nothing was begun."""


def _has_failed(found: MethodResult) -> bool:
    is_failure = (found.method, found.result) == ("dmarc", "fail")
    return is_failure and found.property("policy.dmarc").lower() in _FAILED


def _reason(found: MethodResult) -> str:
    domain = found.property("header.from") or "its domain"
    return f"DMARC: the relay found that {domain} does not vouch for this mail"
