"""The judgement of one message from outside.

SPF begins at MAIL, DKIM while the body comes, DMARC at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from twisted.logger import Logger
from zope.interface import implementer

from mta.authentication import results
from mta.authentication.decision import Action, Decision, decide, unclear_authors
from mta.authentication.dkim import DKIMResult, Verification
from mta.authentication.dmarc import (
    AuthorDomains,
    DMARCResult,
    Result,
    TreeWalk,
    author_domains,
    evaluate_all,
)
from mta.authentication.judged import Judged, identifiers, method_results
from mta.authentication.reports.message import is_report
from mta.authentication.spf import SPFResult
from mta.inspectors.exempt import RelayResults
from mta.inspectors.look_ups import LookUps
from mta.interfaces import IMessageInspector, ResolutionFailed
from mta.mail import Envelope, MailArgument, Mailbox, Recipient, Reply
from mta.session import Session
from mta.settings import Judgement
from mta.smtp import header
from mta.smtp.errors import Refusal
from mta.verdict import ChangeField, InsertField, Verdict

if TYPE_CHECKING:
    from mta.inspectors.authentication_config import AuthenticationConfig
    from mta.inspectors.sender_policy import SenderPolicy

MAX_SECONDS = 20.0  # for look-ups, once the content is there: RFC 7208 section 4.6.4
MAX_AT_ONCE = 16 * 1024  # octets that are hashed between other work: at most 0.2 ms
SPAM = b"X-Spam"
HIDDEN_RESULTS = Reply(
    550, "5.7.1", ("Forged Authentication-Results: behind a line that is no header field",)
)

_log = Logger()


@implementer(IMessageInspector)
class JudgedMessage:
    """Judges one message."""

    def __init__(
        self,
        config: AuthenticationConfig,
        session: Session,
        sender_policy: SenderPolicy,
        id: str,
        argument: MailArgument,
        relay: RelayResults,
    ) -> None:
        self._config = config
        self._relay = relay
        self._session = session
        self._sender_policy = sender_policy
        self._id = id
        self._look_ups = LookUps(config.clock)
        self._spf: SPFResult | None = None
        self._verification: Verification | None = None
        self._walk = TreeWalk(config.resolver)
        self._authors = AuthorDomains((), 0)
        self._removals: tuple[ChangeField, ...] = ()
        self._dmarc: DMARCResult | None = None
        self._forged = 0
        if config.settings.spf is not Judgement.OFF:
            self._begin_spf(argument.reverse_path)

    def _begin_spf(self, reverse_path: Mailbox) -> None:
        self._spf = self._sender_policy.remembered(reverse_path)
        if self._spf is None:
            self._spf = self._sender_policy.unanswered(reverse_path)
            self._look_ups.begin(self._check_spf(reverse_path))

    async def _check_spf(self, reverse_path: Mailbox) -> None:
        self._spf = await self._sender_policy.check(reverse_path)

    async def recipient(self, recipient: Recipient) -> None:
        """Let all recipients pass."""

    async def header(self, envelope: Envelope, section: bytes) -> None:
        """Begin to look up keys and policies."""
        config = self._config
        found = self._relay.look(section)
        if found.is_hidden and not self._session.is_acknowledged:
            raise Refusal(HIDDEN_RESULTS)
        self._forged = len(found.removals)
        self._removals = found.removals + (ChangeField(SPAM, 1),) * header.count(
            section, SPAM.lower()
        )
        if config.settings.dkim:
            await self._begin_dkim(section)
        if config.settings.dmarc is not Judgement.OFF:
            self._authors = author_domains(section)
            if self._authors.is_clear:
                for domain in self._authors.domains:
                    self._look_ups.begin(self._find_policy(domain))

    async def _begin_dkim(self, section: bytes) -> None:
        config = self._config
        if len(section) <= MAX_AT_ONCE:
            self._verification = Verification(section, config.now())
        else:
            self._verification = await config.in_thread(Verification, section, config.now())
        for work in self._verification.lookups(config.resolver):
            self._look_ups.begin(work)

    async def _find_policy(self, domain: str) -> None:
        """Find the policy, so that the walk knows it."""
        with suppress(ResolutionFailed):  # it is asked for again, and then that counts
            await self._walk.applied(domain)

    async def body(self, piece: bytes) -> None:
        """Hash it, where there is a signature."""
        verification = self._verification
        if verification is None or not verification.needs_body:
            return
        if len(piece) <= MAX_AT_ONCE:
            verification.feed(piece)
        else:
            await self._config.in_thread(verification.feed, piece)

    async def end(self, section: bytes) -> Verdict:
        """Judge it.  Raises Refusal."""
        until = self._config.clock.seconds() + MAX_SECONDS
        await self._look_ups.finish(until)
        judged = await self._judged(until)
        settings = self._config.settings
        decision = Decision() if judged.override else unclear_authors(settings, self._authors)
        if decision.action is Action.NONE:
            decision = decide(settings, judged)
        if self._session.turned_peer:
            decision = self._for_relay(decision, judged)
        self._tell(judged, decision, section)
        if decision.reply is not None:
            raise Refusal(decision.reply)
        value = results.value_of(self._config.authserv_id, method_results(judged))
        return Verdict((*self._removals, InsertField(0, results.NAME, value)), junk=decision.reason)

    def _for_relay(self, decision: Decision, judged: Judged) -> Decision:
        """Return the decision on mail that a relay brings."""
        if decision.action is Action.REJECT and decision.reply is not None:
            is_late = self._session.is_acknowledged
            return Decision(Action.JUNK, reason=decision.reply.text) if is_late else decision
        if self._relay.found.is_hidden:
            return Decision(Action.JUNK, reason=HIDDEN_RESULTS.text)
        if decision.action is Action.NONE and not (judged.passes_dmarc or judged.override):
            junk = self._relay.junk()
            return Decision(Action.JUNK, reason=junk) if junk else decision
        return decision

    async def _judged(self, until: float) -> Judged:
        session, config = self._session, self._config
        override = "trusted forwarder" if config.is_trusted_forwarder(session) else ""
        signatures = await self._signatures()
        if config.settings.dmarc is not Judgement.OFF:
            if self._authors.is_clear:
                self._look_ups.begin(self._evaluate(signatures))
                await self._look_ups.finish(until)
            self._dmarc = self._dmarc or _unknown(self._authors)
        return Judged(session.client, self._spf, signatures, self._dmarc, override)

    async def _signatures(self) -> Sequence[DKIMResult] | None:
        verification = self._verification
        if verification is None:
            return None
        return await self._config.verifications.check(verification)

    async def _evaluate(self, signatures: Sequence[DKIMResult] | None) -> None:
        self._dmarc = await evaluate_all(
            self._walk, self._authors.domains, identifiers(self._spf, signatures)
        )

    def _tell(self, judged: Judged, decision: Decision, section: bytes) -> None:
        """Log what was found, and tell it to listeners.

        Not that of reports on our own mail: two hosts would report on reports for ever.
        """
        if self._config.listeners and not (judged.passes_dmarc and is_report(section)):
            for listener in self._config.listeners:
                listener.judged(judged, decision)
        forged = f", {self._forged} forged results removed" if self._forged else ""
        words = {**judged.words, "action": decision.action.value}
        self._config.meter.judged(**words)
        _log.info(
            "{queue_id} from {domain}: spf={spf} dkim={dkim} dmarc={dmarc} action={action}{forged}",
            queue_id=self._id,
            domain=judged.author or "nobody",
            **words,
            override=judged.override,
            forged=forged,
        )

    def abort(self) -> None:
        """Look nothing up any more."""
        self._look_ups.cancel()


def _unknown(authors: AuthorDomains) -> DMARCResult:
    """The result where there comes no other."""
    if not authors.is_clear:
        return DMARCResult(Result.PERMERROR, problem="it is not clear who the author is")
    domain = authors.domains[0] if authors.domains else ""
    return DMARCResult(Result.TEMPERROR, domain, problem="the DNS did not answer in time")
