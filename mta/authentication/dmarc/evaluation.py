"""The evaluation of DMARC for one message (RFC 9989 section 5.3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from mta.authentication.dmarc.record import Policy, Record
from mta.authentication.dmarc.tree_walk import Applied, TreeWalk
from mta.interfaces import ResolutionFailed
from mta.mail import canonical_domain


class Result(Enum):
    """The results of DMARC, in the words of RFC 9989 section 9.2."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    NONE = "none"
    PERMERROR = "permerror"
    TEMPERROR = "temperror"


@dataclass(frozen=True, slots=True)
class Identifiers:
    """The domains that SPF and DKIM vouch for.

    `spf` is that of the reverse-path, empty where SPF did not pass, or MAIL named none.  Those that
    are `unknown` might have passed, had the DNS answered.
    """

    spf: str = ""
    dkim: tuple[str, ...] = ()
    unknown_spf: str = ""
    unknown_dkim: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DMARCResult:
    """The result for one domain of an author.

    `policy` is the wish for this message, were it to fail, with ``sp``, ``np`` and ``t`` minded.
    `policy_domain` has the `record`; both are empty where there is none.  `organisational_domain`
    is empty where alignment did not depend on it.
    """

    result: Result
    domain: str = ""
    policy: Policy = Policy.NONE
    policy_domain: str = ""
    organisational_domain: str = ""
    record: Record | None = None
    aligned_spf: str = ""
    aligned_dkim: tuple[str, ...] = ()
    problem: str = ""

    @property
    def is_test(self) -> bool:
        """Tell whether the domain tests its policy (``t=y``)."""
        return self.record is not None and self.record.is_test

    @property
    def disposition(self) -> Policy:
        """The policy to apply: that of a message that failed, else none."""
        return self.policy if self.result is Result.FAIL else Policy.NONE


async def evaluate(walk: TreeWalk, domain: str, identifiers: Identifiers) -> DMARCResult:
    """Evaluate DMARC for one domain of an author.  It is in canonical form."""
    return await _Evaluation(walk, domain).result(identifiers)


async def evaluate_all(
    walk: TreeWalk, domains: Sequence[str], identifiers: Identifiers
) -> DMARCResult:
    """Evaluate DMARC for all domains of the authors: the worst result counts.

    Else a second author would make the policy of the first one void.
    """
    if len(domains) == 1:
        return await evaluate(walk, domains[0], identifiers)
    found = [await evaluate(walk, domain, identifiers) for domain in domains]
    return max(found, key=_gravity, default=DMARCResult(Result.NONE, problem="no author"))


_GRAVITY = {Result.PASS: 0, Result.NONE: 1, Result.PERMERROR: 1, Result.TEMPERROR: 3}
_GRAVITY_OF_FAILURE = {Policy.NONE: 2, Policy.QUARANTINE: 4, Policy.REJECT: 5}


def _gravity(found: DMARCResult) -> int:
    if found.result is Result.FAIL:
        return _GRAVITY_OF_FAILURE[found.policy]
    return _GRAVITY[found.result]


class _Evaluation:
    """Evaluates one domain of an author."""

    def __init__(self, walk: TreeWalk, domain: str) -> None:
        self._walk = walk
        self._domain = domain
        self._organisation = ""

    async def result(self, identifiers: Identifiers) -> DMARCResult:
        domain = self._domain
        try:
            applied = await self._walk.applied(domain)
            if applied is None:
                return DMARCResult(Result.NONE, domain, problem="no record")
            if not applied.record.applies:
                return DMARCResult(Result.NONE, domain, problem="a record without a valid policy")
            policy = await self._policy(applied)
        except ResolutionFailed as failure:
            return DMARCResult(Result.TEMPERROR, domain, problem=str(failure))
        record = applied.record
        spf, spf_failed = await self._aligned([identifiers.spf], record.strict_spf)
        dkim, dkim_failed = await self._aligned(identifiers.dkim, record.strict_dkim)
        result, problem = Result.PASS, ""
        if not (spf or dkim):
            problem = spf_failed or dkim_failed or await self._missed(identifiers, record)
            result = Result.TEMPERROR if problem else Result.FAIL
        return DMARCResult(
            result,
            domain,
            policy,
            applied.domain,
            self._organisation,
            record,
            "".join(spf),
            tuple(dkim),
            problem,
        )

    async def _policy(self, applied: Applied) -> Policy:
        """The policy for the domain, by its own record or another."""
        record = applied.record
        policy = record.policy
        if applied.domain != self._domain:
            exists = True
            if record.nonexistent not in (None, record.policy_for_subdomain(exists=True)):
                exists = await self._walk.exists(self._domain)
            policy = record.policy_for_subdomain(exists=exists)
        return policy.milder if record.is_test else policy

    async def _missed(self, identifiers: Identifiers, record: Record) -> str:
        """Return the failure of the DNS without which the message might pass.

        Empty: there was none.
        """
        for domains, strict, name in (
            ([identifiers.unknown_spf], record.strict_spf, "SPF"),
            (identifiers.unknown_dkim, record.strict_dkim, "DKIM"),
        ):
            aligned, failed = await self._aligned(domains, strict)
            if failed or aligned:
                return failed or f"no result of {name} for {aligned[0]}"
        return ""

    async def _aligned(self, domains: Iterable[str], strict: bool) -> tuple[list[str], str]:
        """Return the aligned ones of the domains.

        With them comes a failure of the DNS to say more of others, or nothing.
        """
        aligned, failed = [], ""
        for each in dict.fromkeys(domains):
            identifier = canonical_domain(each).rstrip(".")
            try:
                if identifier == self._domain or (
                    identifier and not strict and await self._is_related(identifier)
                ):
                    aligned.append(identifier)
            except ResolutionFailed as failure:
                failed = str(failure)
        return aligned, failed

    async def _is_related(self, identifier: str) -> bool:
        """Tell whether both domains are of one organisation.

        What is not below our organisational domain is not looked up: a stranger's name servers
        have no say in this.
        """
        if identifier.rpartition(".")[2] != self._domain.rpartition(".")[2]:
            return False
        if not self._organisation:
            self._organisation = await self._walk.organisational_domain(self._domain)
        organisation = self._organisation
        if identifier != organisation and not identifier.endswith(f".{organisation}"):
            return False
        return await self._walk.organisational_domain(identifier) == organisation
