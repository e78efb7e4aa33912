"""The rows of a report, each for messages that fared alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mta.authentication import dkim, spf
from mta.authentication.decision import Action, Decision
from mta.authentication.dkim import DKIMResult
from mta.authentication.dmarc import DMARCResult, Policy, Record, Result
from mta.authentication.judged import Judged

MAX_PROBLEM = 100  # characters: strangers could make each row another one by long texts


@dataclass(frozen=True, slots=True)
class Published:
    """The policy that a domain published.

    `rua` are the URIs that it wants reports at.
    """

    domain: str
    policy: str
    subdomains: str
    nonexistent: str
    strict_dkim: bool
    strict_spf: bool
    fo: str
    is_test: bool
    rua: tuple[str, ...]

    @classmethod
    def of(cls, domain: str, record: Record) -> Published:
        """The policy that stands in a record.  What it does not say has its default."""
        below = record.subdomains or record.policy
        return cls(
            domain,
            record.policy.value,
            below.value,
            (record.nonexistent or below).value,
            record.strict_dkim,
            record.strict_spf,
            ":".join(sorted(record.fo)),
            record.is_test,
            record.rua,
        )


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of SPF, or of one signature, without DMARC.

    `selector` is empty for SPF.
    """

    domain: str
    selector: str
    result: str
    problem: str


@dataclass(frozen=True, slots=True)
class Row:
    """All that a report says of some messages but for their number.

    `is_signed` and `is_sent`: DKIM and SPF vouch for the author's domain.  `reason` says, in a word
    of the RFC, why `disposition` is not what the domain asked for.
    """

    client: str
    disposition: str
    is_signed: bool
    is_sent: bool
    reason: str
    comment: str
    author: str
    reverse_path: str
    signatures: tuple[CheckResult, ...]
    spf: CheckResult | None


def row_of(judged: Judged, decision: Decision) -> tuple[Published, Row] | None:
    """The row for a message, and the policy that it belongs to.

    None: its domain wants no reports, or it is to come again.
    """
    found = judged.dmarc
    if found is None or found.record is None or found.result not in (Result.PASS, Result.FAIL):
        return None
    wants_reports = any(uri.lower().startswith("mailto:") for uri in found.record.rua)
    if not wants_reports or decision.action is Action.DEFER:
        return None
    disposition = _disposition(found, decision)
    reason, comment = _reason(found, judged, disposition)
    checked = judged.spf
    is_of_sender = checked is not None and checked.identity is spf.Identity.MAIL_FROM
    row = Row(
        judged.client,
        disposition,
        bool(found.aligned_dkim),
        bool(found.aligned_spf),
        reason,
        comment,
        found.domain,
        checked.domain if checked is not None and is_of_sender else "",
        _signatures(judged.dkim or (), found.domain),
        _spf(checked) if checked is not None and is_of_sender else None,
    )
    return Published.of(found.policy_domain, found.record), row


def _disposition(found: DMARCResult, decision: Decision) -> str:
    if decision.action is Action.REJECT:
        return "reject"
    if decision.action is Action.JUNK:
        return "quarantine"
    is_enforced = found.policy is not Policy.NONE and found.result is Result.PASS
    return "pass" if is_enforced else "none"


def _reason(found: DMARCResult, judged: Judged, disposition: str) -> tuple[str, str]:
    """The reason to do otherwise than its domain asked, and a comment."""
    if found.result is Result.PASS:
        return ("", "") if disposition in ("none", "pass") else ("local_policy", "")
    if judged.override:
        return "trusted_forwarder", ""
    if disposition != found.policy.value:
        comment = "junk rather than a refusal" if disposition == "quarantine" else ""
        return "local_policy", comment
    return ("policy_test_mode", "") if found.is_test else ("", "")


def _signatures(found: Sequence[DKIMResult], author: str) -> tuple[CheckResult, ...]:
    """The results of signatures, those first that tell most."""

    def rank(each: DKIMResult) -> tuple[bool, bool]:
        return each.result is not dkim.ResultCode.PASS, each.domain != author

    known = [each for each in found if each.domain and each.selector]
    return tuple(
        CheckResult(each.domain, each.selector, each.result.value, each.problem[:MAX_PROBLEM])
        for each in sorted(known, key=rank)
    )


def _spf(checked: spf.SPFResult) -> CheckResult:
    return CheckResult(checked.domain, "", checked.result.value, checked.problem[:MAX_PROBLEM])
