"""The evaluation of records, within limits.

RFC 7208 sections 4.6, 5 and 6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from math import inf
from typing import Any

from mta.authentication.spf.macros import EXPLANATION_LETTERS, MacroString, fitted
from mta.authentication.spf.record import Address, Mechanism, Record, only_record, parse
from mta.authentication.spf.result import PermError, Result, TempError
from mta.dns_answer import Answer, RecordType
from mta.interfaces import IResolver, ResolutionFailed

MAX_TERMS = 10  # that ask the DNS: RFC 7208 section 4.6.4
MAX_NAMES = 10  # of one MX or PTR answer that are looked up: RFC 7208 section 4.6.4
MAX_VOID = 2  # terms for which the DNS has nothing: RFC 7208 section 4.6.4
MAX_TEXT = 1000  # octets of an explanation, with its macros
MAX_LABEL = 63  # octets, RFC 1035 section 2.3.4
MAX_DOMAIN = 253  # octets, RFC 1035 section 2.3.4


@dataclass(frozen=True, slots=True)
class Limits:
    """The time of a check.

    `now` gives seconds since the epoch, of which macros tell.  Past `deadline`, in the same
    seconds, nothing is asked any more: the result is a temperror.  A look-up that is under way is
    not cut off; callers that wait no longer cancel the check.
    """

    now: Callable[[], float]
    deadline: float = inf


@dataclass(frozen=True, slots=True)
class Decision:
    """A result, and the record that it comes from."""

    result: Result
    domain: str
    record: Record


def is_domain(name: str) -> bool:
    """Return whether a domain can have that name (RFC 7208 section 4.3)."""
    labels = name.split(".")
    return (
        len(labels) > 1
        and len(name) <= MAX_DOMAIN
        and not name.startswith("[")
        and all(0 < len(label) <= MAX_LABEL for label in labels)
    )


class Evaluation:
    """The evaluation of a domain's record for one client.

    It goes on with the records of domains that are named there.
    """

    def __init__(
        self, resolver: IResolver, client: Address, values: Mapping[str, str], limits: Limits
    ) -> None:
        self._resolver = resolver
        self._client = client
        self._values = values
        self._limits = limits
        self._family = RecordType.A if client.version == 4 else RecordType.AAAA
        self._terms = 0
        self._void = 0
        self._names: Sequence[str] | None = None
        self._confirmed: dict[str, bool] = {}

    async def decide(self, domain: str) -> Decision | None:
        """Return the result by the record of a domain.

        None: the domain has no record.  Raises PermError and TempError.
        """
        record = await self._record(domain)
        while record is not None:
            for mechanism in record.mechanisms:
                if await self._matches(mechanism, domain):
                    return Decision(mechanism.result, domain, record)
            if record.redirect is None:
                return Decision(Result.NEUTRAL, domain, record)
            self._count_term()
            target = await self._target(record.redirect, domain)
            if target is None:
                return Decision(Result.NEUTRAL, domain, record)
            record, domain = await self._record(target), target
            if record is None:
                raise PermError(f"redirect={target}: no record")
        return None

    async def explanation(self, decision: Decision) -> str:
        """Return the text for a fail (RFC 7208 section 6.2).

        It is empty where there is none that can be used.
        """
        if decision.record.explanation is None:
            return ""
        try:
            target = await self._target(decision.record.explanation, decision.domain)
            answer = await self._ask(target or "", RecordType.TXT)
            if len(answer.records) != 1 or len(answer.records[0]) > MAX_TEXT:
                return ""
            text = MacroString.parse(answer.records[0].decode("ascii"), EXPLANATION_LETTERS)
            return await self._expanded(text, decision.domain) or ""
        except (PermError, TempError, UnicodeDecodeError):
            return ""

    async def _record(self, domain: str) -> Record | None:
        if not is_domain(domain):
            return None
        answer = await self._ask(domain, RecordType.TXT)
        try:
            octets = only_record(answer.records)
            return None if octets is None else parse(octets)
        except PermError as error:
            raise PermError(f"{domain}: {error}") from None

    async def _matches(self, mechanism: Mechanism, domain: str) -> bool:
        if mechanism.network is not None:
            return self._client in mechanism.network
        if mechanism.name == "all":
            return True
        self._count_term()
        target = domain
        if mechanism.domain is not None:
            expanded = await self._target(mechanism.domain, domain)
            if expanded is None:
                return False
            target = expanded
        match mechanism.name:
            case "include":
                return await self._includes(target)
            case "exists":
                return bool(await self._term_records(target, RecordType.A))
            case "ptr":
                return await self._has_name_below(target)
            case "mx":
                return await self._is_exchanger(target, mechanism)
            case _:
                return self._is_near(await self._term_records(target, self._family), mechanism)

    async def _includes(self, domain: str) -> bool:
        decision = await self.decide(domain)
        if decision is None:
            raise PermError(f"include:{domain}: no record")
        return decision.result is Result.PASS

    async def _is_exchanger(self, domain: str, mechanism: Mechanism) -> bool:
        hosts = await self._term_records(domain, RecordType.MX)
        if len(hosts) > MAX_NAMES:
            raise PermError(f"{domain}: {len(hosts)} MX records, {MAX_NAMES} allowed")
        for _, host in hosts:
            if host and self._is_near((await self._ask(host, self._family)).records, mechanism):
                return True
        return False

    def _is_near(self, addresses: Sequence[str], mechanism: Mechanism) -> bool:
        return any(self._client in mechanism.around(ip_address(each)) for each in addresses)

    async def _has_name_below(self, domain: str) -> bool:
        """Return whether the client is named there (RFC 7208 section 5.5)."""
        is_first = self._names is None
        names = await self._names_of_client()
        if is_first and not names:
            self._count_void("ptr")
        for name in names:
            if _is_below(name, domain) and await self._is_confirmed(name):
                return True
        return False

    async def _name(self, domain: str) -> str:
        """The value of ``p``, a confirmed name (RFC 7208 section 7.3)."""
        domain = domain.lower()
        names = sorted(
            await self._names_of_client(),
            key=lambda name: (name != domain, not _is_below(name, domain)),
        )
        for name in names:
            if await self._is_confirmed(name):
                return name
        return "unknown"

    async def _names_of_client(self) -> Sequence[str]:
        if self._names is None:
            try:
                answer = await self._ask(self._client.reverse_pointer, RecordType.PTR)
                self._names = [name.lower().rstrip(".") for name in answer.records[:MAX_NAMES]]
            except TempError:
                self._names = ()  # RFC 7208 section 5.5: then the mechanism does not match
        return self._names

    async def _is_confirmed(self, name: str) -> bool:
        if name not in self._confirmed:
            try:
                addresses = (await self._ask(name, self._family)).records
            except TempError:
                addresses = ()
            self._confirmed[name] = any(ip_address(each) == self._client for each in addresses)
        return self._confirmed[name]

    async def _target(self, spec: MacroString, domain: str) -> str | None:
        """The name that a term is about; None: it can't be one."""
        expanded = await self._expanded(spec, domain)
        return None if expanded is None else fitted(expanded)

    async def _expanded(self, text: MacroString, domain: str) -> str | None:
        """A text with its macros expanded; None where that is not ASCII."""
        letters = text.letters
        values = {**self._values, "d": domain}
        if "p" in letters:
            values["p"] = await self._name(domain)
        # RFC 8616 section 4: such a local part never matches.
        if not all(values[letter].isascii() for letter in letters):
            return None
        return text.expand(values)

    async def _term_records(self, name: str, kind: RecordType) -> Sequence[Any]:
        records = (await self._ask(name, kind)).records
        if not records:
            self._count_void(name)
        return records

    def _count_term(self) -> None:
        self._terms += 1
        if self._terms > MAX_TERMS:
            raise PermError(f"more than {MAX_TERMS} terms ask the DNS")

    def _count_void(self, name: str) -> None:
        self._void += 1
        if self._void > MAX_VOID:
            raise PermError(f"{name}: more than {MAX_VOID} terms that the DNS has nothing for")

    async def _ask(self, name: str, kind: RecordType) -> Answer:
        if self._limits.now() >= self._limits.deadline:
            raise TempError("it took too long")
        try:
            return await self._resolver.query(name, kind)
        except ResolutionFailed as error:
            raise TempError(str(error)) from None


def _is_below(name: str, domain: str) -> bool:
    domain = domain.lower()
    return name == domain or name.endswith(f".{domain}")
