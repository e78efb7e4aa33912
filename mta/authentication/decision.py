"""The consequence of what was found out about a message."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from mta.authentication import spf
from mta.authentication.dmarc import AuthorDomains, DMARCResult, Policy, Result
from mta.authentication.judged import Judged
from mta.mail import Reply
from mta.settings import Authentication, Judgement, OnDNSError
from mta.smtp.trace import address_literal

# The codes are those of RFC 7372, and of RFC 7208 section 8.6 for a DNS that does not answer.
MULTIPLE_CHECKS_FAILED = "5.7.26"
SPF_FAILED = "5.7.23"
SPF_ERROR = "4.7.24"
DNS_ERROR = "4.4.3"

AUTHORS_UNCLEAR = Reply(
    550, "5.7.1", ("A message must have one From: field, and few authors (RFC 5322)",)
)
ENFORCING = (Judgement.QUARANTINE, Judgement.REJECT)


class Action(Enum):
    """The action on a message."""

    NONE = "none"
    JUNK = "junk"
    REJECT = "reject"
    DEFER = "defer"


@dataclass(frozen=True, slots=True)
class Decision:
    """An action: with the reply to refuse by, or with a reason."""

    action: Action = Action.NONE
    reply: Reply | None = None
    reason: str = ""


NOTHING = Decision()


def unclear_authors(settings: Authentication, authors: AuthorDomains) -> Decision:
    """Decide on a message by whose authors DMARC could be led round."""
    if authors.is_clear or settings.dmarc not in ENFORCING:
        return NOTHING
    return Decision(Action.REJECT, AUTHORS_UNCLEAR)


def decide(settings: Authentication, judged: Judged) -> Decision:
    """Decide on a message.  What the configuration does not ask for has no consequence."""
    if settings.dmarc in ENFORCING and judged.dmarc is not None:
        decision = _by_dmarc(settings, judged, judged.dmarc)
        if decision is not NOTHING:
            return decision
    if settings.spf is Judgement.REJECT and not (judged.override or judged.passes_dmarc):
        return _by_spf(settings, judged)
    return NOTHING


def _by_dmarc(settings: Authentication, judged: Judged, found: DMARCResult) -> Decision:
    if found.result is Result.TEMPERROR and not judged.override:
        return _unanswered(settings, judged, found.domain)
    if judged.disposition is Policy.NONE:
        return NOTHING
    if judged.disposition is Policy.REJECT and settings.dmarc is Judgement.REJECT:
        return Decision(Action.REJECT, Reply(550, MULTIPLE_CHECKS_FAILED, (_refusal(found),)))
    wish = "rejected" if judged.disposition is Policy.REJECT else "quarantined"
    return Decision(Action.JUNK, reason=f"DMARC: {found.policy_domain} wants mail like this {wish}")


def _refusal(found: DMARCResult) -> str:
    return (
        f"DMARC: this message says that it is from {found.domain}, but neither SPF nor DKIM"
        f" vouches for that, and {found.policy_domain} asks to reject such mail (p=reject)"
    )


def _unanswered(settings: Authentication, judged: Judged, domain: str) -> Decision:
    if settings.on_dns_error is OnDNSError.ACCEPT:
        return NOTHING
    if judged.spf is not None and judged.spf.result is spf.Result.TEMPERROR:
        return _spf_unanswered(judged.spf)
    text = f"The DNS does not answer about {domain}, so that DMARC can't be checked; try later"
    return Decision(Action.DEFER, Reply(451, DNS_ERROR, (text,)))


def _by_spf(settings: Authentication, judged: Judged) -> Decision:
    checked = judged.spf
    if checked is None:
        return NOTHING
    if checked.result is spf.Result.FAIL:
        host = address_literal(judged.client)
        text = f"SPF: {checked.domain} says that {host} may not send its mail"
        lines = (text, f"{checked.domain} explains: {checked.explanation}")
        reply = Reply(550, SPF_FAILED, lines if checked.explanation else lines[:1])
        return Decision(Action.REJECT, reply)
    if checked.result is spf.Result.TEMPERROR and settings.on_dns_error is OnDNSError.DEFER:
        return _spf_unanswered(checked)
    return NOTHING


def _spf_unanswered(checked: spf.SPFResult) -> Decision:
    text = f"The DNS does not answer about {checked.domain}, so that SPF can't be checked;"
    return Decision(Action.DEFER, Reply(451, SPF_ERROR, (f"{text} try later",)))
