"""Messages that are not judged: ours, and those on turned connections."""

from __future__ import annotations

from collections.abc import Collection

from twisted.logger import Logger
from zope.interface import implementer

from mta.authentication import results
from mta.authentication.decision import ENFORCING
from mta.authentication.results import NO_RESULTS, MethodResult, SortedResults
from mta.interfaces import IMessageInspector
from mta.mail import Envelope, Recipient
from mta.settings import Judgement
from mta.verdict import Verdict

_FAILED = {Judgement.QUARANTINE.value, Judgement.REJECT.value}
_log = Logger()


class RelayResults:
    """The Authentication-Results in a message, as far as they concern us.

    `ours` is our authserv-id, `trusted` are those of services that have judged the message before.
    `found` are the fields.
    """

    def __init__(self, id: str, ours: str, trusted: Collection[str], dmarc: Judgement) -> None:
        self._id = id
        self._ours = ours
        self._trusted = trusted
        self._dmarc = dmarc
        self.found = NO_RESULTS

    def look(self, section: bytes) -> SortedResults:
        """Look at the fields of a header section."""
        self.found = results.sort_fields(section, self._ours, self._trusted)
        return self.found

    def junk(self) -> str:
        """Return why a trusted service failed the message; empty where none did.

        What such a service let pass proves nothing: a relay that does not judge leaves forged
        fields.
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
    """Leaves a message unjudged, and believes the results of trusted services."""

    def __init__(self, relay: RelayResults) -> None:
        self._relay = relay

    async def recipient(self, recipient: Recipient) -> None:
        """Let all recipients pass."""

    async def header(self, envelope: Envelope, section: bytes) -> None:
        """Look for Authentication-Results."""
        self._relay.look(section)

    async def body(self, piece: bytes) -> None:
        """Let the body pass."""

    async def end(self, section: bytes) -> Verdict:
        """Remove results that claim to be ours; call failed messages junk.

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
