"""The findings of SPF, DKIM and DMARC about one message, together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mta.authentication import dkim, spf
from mta.authentication.dkim import DKIMResult
from mta.authentication.dmarc import DMARCResult, Identifiers, Policy, Result
from mta.authentication.results import MethodResult
from mta.authentication.spf import SPFResult


@dataclass(frozen=True, slots=True)
class Judged:
    """The findings about one message.  None: that was not asked.

    `client` is the address that it came from.  `override` says why the policy of DMARC does not
    count, in words; empty: it does.
    """

    client: str
    spf: SPFResult | None = None
    dkim: Sequence[DKIMResult] | None = None
    dmarc: DMARCResult | None = None
    override: str = ""

    @property
    def disposition(self) -> Policy:
        """The policy of DMARC that is to be applied."""
        if self.dmarc is None or self.override:
            return Policy.NONE
        return self.dmarc.disposition

    @property
    def passes_dmarc(self) -> bool:
        """Tell whether the domain of the author vouches for it."""
        return self.dmarc is not None and self.dmarc.result is Result.PASS

    @property
    def author(self) -> str:
        """The domain of the author, empty where there is none."""
        return self.dmarc.domain if self.dmarc is not None else ""

    @property
    def words(self) -> dict[str, str]:
        """The results, each in one word: for DKIM the best one."""
        signatures = [each.result.value for each in self.dkim or ()]
        best = min(signatures, key=_DKIM_ORDER.index, default="none")
        return {
            "spf": self.spf.result.value if self.spf is not None else "off",
            "dkim": best if self.dkim is not None else "off",
            "dmarc": self.dmarc.result.value if self.dmarc is not None else "off",
        }


_DKIM_ORDER = ["pass", "temperror", "fail", "policy", "permerror", "neutral", "none"]


def identifiers(checked: SPFResult | None, signatures: Sequence[DKIMResult] | None) -> Identifiers:
    """Return the domains for DMARC.

    Of SPF, that of MAIL alone counts (RFC 9989 section 4.4.2).
    """
    domain = unknown = ""
    if checked is not None and checked.identity is spf.Identity.MAIL_FROM:
        domain = checked.domain if checked.result is spf.Result.PASS else ""
        unknown = checked.domain if checked.result is spf.Result.TEMPERROR else ""
    found = signatures or ()
    return Identifiers(
        domain,
        tuple(each.domain for each in found if each.result is dkim.ResultCode.PASS),
        unknown,
        tuple(each.domain for each in found if each.result is dkim.ResultCode.TEMPERROR),
    )


def method_results(judged: Judged) -> list[MethodResult]:
    """Return what Authentication-Results says of it."""
    found = []
    if judged.spf is not None:
        found.append(_of_spf(judged.spf))
    if judged.dkim is not None:
        found += map(_of_dkim, judged.dkim) if judged.dkim else [MethodResult("dkim", "none")]
    if judged.dmarc is not None:
        found.append(_of_dmarc(judged.dmarc, judged))
    return found


def _of_spf(checked: SPFResult) -> MethodResult:
    name = f"smtp.{checked.identity.value}"
    properties = ((name, checked.domain),) if checked.domain else ()
    return MethodResult("spf", checked.result.value, properties, checked.problem)


def _of_dkim(signature: DKIMResult) -> MethodResult:
    values = (
        ("header.d", signature.domain),
        ("header.s", signature.selector),
        ("header.a", signature.algorithm),
        ("header.b", signature.signature),
    )
    properties = tuple(each for each in values if each[1])
    comment = "the domain tests this key" if signature.testing else ""
    result = signature.result.value
    return MethodResult("dkim", result, properties, signature.problem, comment)


def _of_dmarc(found: DMARCResult, judged: Judged) -> MethodResult:
    properties = [("header.from", found.domain)] if found.domain else []
    reason = found.problem
    if found.result is Result.FAIL:
        properties.append(("policy.dmarc", judged.disposition.value))
        reason = judged.override
    comment = "the domain tests its policy" if found.is_test else ""
    return MethodResult("dmarc", found.result.value, tuple(properties), reason, comment)
