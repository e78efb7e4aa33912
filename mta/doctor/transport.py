"""The check of MTA-STS (RFC 8461) and TLSRPT (RFC 8460)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence

from twisted.internet.defer import Deferred, FirstError, gatherResults

from mta.doctor import sts_policy
from mta.doctor.examined import DocumentFault, Examined
from mta.doctor.names import exchanger_hosts, texts_of
from mta.doctor.result import Result, bad, ok, unknown, warn
from mta.interfaces import DomainNotFound, ResolutionFailed

MAX_DOMAINS = 20  # whose policies are read, at the same time
PATH = "/.well-known/mta-sts.txt"  # RFC 8461 section 3.3
_STS = re.compile(r"v=STSv1\s*;\s*id=[A-Za-z0-9]{1,32}\s*(;.*)?")  # RFC 8461 section 3.1
_TLSRPT = re.compile(r"v=TLSRPTv1\s*;\s*rua=(mailto:|https://)\S.*")  # RFC 8460 section 3
_REMEDY = f"see what https://mta-sts.DOMAIN{PATH} has, or remove the record"


async def transport(examined: Examined) -> AsyncIterator[Result]:
    """Look at what domains publish about TLS.

    Where they say nothing, nothing need be said.
    """
    domains = list(examined.settings.domains)[:MAX_DOMAINS]
    looking = [Deferred.fromCoroutine(_answered(examined, domain)) for domain in domains]
    try:
        found: Sequence[Sequence[Result]] = await gatherResults(looking, consumeErrors=True)
    except FirstError as error:
        error.subFailure.raiseException()
    for results in found:
        for result in results:
            yield result


async def _answered(examined: Examined, domain: str) -> Sequence[Result]:
    try:
        return await _domain(examined, domain)
    except ResolutionFailed as error:
        return [unknown(f"the name servers give no answer: {error}", "try again")]


async def _domain(examined: Examined, domain: str) -> Sequence[Result]:
    found = []
    texts = await texts_of(examined, f"_mta-sts.{domain}", "v=stsv1")
    if len(texts) > 1 or any(not _STS.fullmatch(text) for text in texts):
        found.append(
            bad(
                f"_mta-sts.{domain} is not one record of the form v=STSv1; id=...: {texts[0]}",
                "a new id for each change of the policy, of letters and digits",
            )
        )
    elif texts:
        found.append(await _policy(examined, domain))
    texts = await texts_of(examined, f"_smtp._tls.{domain}", "v=tlsrptv1")
    if len(texts) > 1 or any(not _TLSRPT.fullmatch(text) for text in texts):
        found.append(
            bad(
                f"_smtp._tls.{domain} is not one record of the form v=TLSRPTv1; rua=...:"
                f" {texts[0]}",
                "name where reports go, as rua=mailto:ADDRESS",
            )
        )
    elif texts:
        found.append(ok(f"{domain} has TLSRPT: {texts[0]}"))
    return found


async def _policy(examined: Examined, domain: str) -> Result:
    """Read the policy of a domain, as senders do."""
    host = f"mta-sts.{domain}"
    remedy = _REMEDY.replace("DOMAIN", domain)
    try:
        policy = sts_policy.parse(await examined.probe.document(host, PATH))
    except DomainNotFound:
        return bad(
            f"{domain} has MTA-STS, and {host}, which has the policy, no address",
            "publish its address, or remove the record",
        )
    except DocumentFault as fault:
        kind = bad if fault.is_there else unknown
        return kind(f"{domain} has MTA-STS, and its policy can't be read: {fault}", remedy)
    except sts_policy.PolicyFault as fault:
        return bad(f"{domain} has MTA-STS, and what {host} has is no policy: {fault}", remedy)
    return await _compared(examined, domain, policy)


async def _compared(examined: Examined, domain: str, policy: sts_policy.Policy) -> Result:
    """Compare a policy with the MX hosts of its domain."""
    if policy.mode == "none":
        return ok(f"{domain} has MTA-STS, whose policy demands nothing (mode none)")
    hosts = await exchanger_hosts(examined, domain)
    if isinstance(hosts, Result):
        return unknown(f"the policy of {domain} (MTA-STS) has no MX host to be compared with")
    missing = [host for host in hosts if not policy.covers(host)]
    if not missing:
        return ok(f"{domain} has MTA-STS (mode {policy.mode}), with its MX hosts")
    kind = bad if policy.mode == "enforce" else warn
    return kind(
        f"the policy of {domain} (MTA-STS, mode {policy.mode}) does not name its MX host"
        f" {missing[0]}, where others send no mail then",
        "name it in the policy, and publish a new id",
    )
