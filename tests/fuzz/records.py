"""Targets: what name servers answer, what domains publish there, and what we make of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address
from random import Random
from xml.etree import ElementTree

import dns.name
from zope.interface import implementer

from mta.authentication import results
from mta.authentication.dkim import tags
from mta.authentication.dkim.algorithms import Algorithm, public_key
from mta.authentication.dkim.key_record import KeyRecord
from mta.authentication.dkim.result import ResultCode, Unverified
from mta.authentication.dkim.signature import signing_domains
from mta.authentication.dkim.verification import Verification
from mta.authentication.dmarc.evaluation import Identifiers, evaluate
from mta.authentication.dmarc.record import parse_record
from mta.authentication.dmarc.tree_walk import TreeWalk
from mta.authentication.reports.destinations import destinations
from mta.authentication.reports.document import Report, Reporter, document
from mta.authentication.reports.rows import CheckResult, Published, Row
from mta.authentication.spf import record as spf_record
from mta.authentication.spf.check import Limits, check_host
from mta.authentication.spf.macros import MAX_NAME
from mta.authentication.spf.result import PermError
from mta.dns_answer import Answer, RecordType
from mta.doctor import sts_policy
from mta.inspectors import list_answers
from mta.interfaces import DomainNotFound, IResolver
from mta.mail import Mailbox
from mta.resolver import query, response
from mta.resolver.records import WIRE_TYPES, value
from mta.smtp import header
from mta.sync import result_of
from tests.fuzz.lines import NOW

MAX_QUESTIONS = 250  # of one check: 10 terms with 10 names each, and some besides
REPORTER = Reporter("mta.example", "postmaster@mta.example", "mta")
POLICY = Published("a.example", "none", "none", "none", False, False, "0", False, ())
NAME = dns.name.from_text("a.example.")


@implementer(IResolver)
class LineResolver:
    """The DNS as lines: each question is answered with the next ones.

    Where a line begins with a blank, the name has no such record; with ``!``, it does not exist.
    """

    def __init__(self, octets: bytes) -> None:
        self._lines = octets.split(b"\n") or [b""]
        self.asked: list[str] = []

    async def query(self, name: str, kind: RecordType) -> Answer:
        """See `IResolver.query`."""
        assert len(name) <= MAX_NAME, name
        line = self._lines[len(self.asked) % len(self._lines)]
        self.asked.append(name)
        if line.startswith(b"!"):
            return Answer(exists=False)
        if line.startswith(b" ") or not line:
            return Answer()
        return Answer(list(self._records(kind, line)))

    def _records(self, kind: RecordType, line: bytes) -> Sequence[object]:
        text = line.decode("ascii", "replace")
        match kind:
            case RecordType.TXT:
                return [line, *self._lines[:1]]
            case RecordType.A:
                return ["192.0.2.1"] * 3
            case RecordType.AAAA:
                return ["2001:db8::1"]
            case RecordType.MX:
                return [(number, text[number:] or "a.example") for number in range(12)]
            case _:
                return [text] * 12

    async def mx(self, domain: str) -> Sequence[tuple[int, str]]:
        """See `IResolver.mx`."""
        found = (await self.query(domain, RecordType.MX)).records
        if not found:
            raise DomainNotFound(domain)
        return found

    async def addresses(self, host: str) -> Sequence[str]:
        """See `IResolver.addresses`."""
        found = (await self.query(host, RecordType.A)).records
        if not found:
            raise DomainNotFound(host)
        return found


def records(octets: bytes) -> None:
    """What domains publish: SPF, DKIM, DMARC, MTA-STS."""
    with suppress(ValueError):
        tags.parse(octets)
    spf_record.only_record([octets])
    with suppress(PermError):
        spf_record.parse(octets)
    with suppress(ValueError):
        key = KeyRecord.parse(octets)
        for algorithm in Algorithm:
            with suppress(Unverified):
                public_key(algorithm, key.key)
            with suppress(Unverified):
                key.ensure_usable(algorithm)
    if (found := parse_record(octets)) is not None:
        Published.of("a.example", found)
    with suppress(sts_policy.PolicyFault):
        sts_policy.parse(octets.decode("utf-8", "replace")).covers("mx.a.example")
    list_answers.clean(octets)


def senders(octets: bytes) -> None:
    """SPF and DMARC come to a result, with a bounded number of questions."""
    head, _, lines = octets.partition(b"\n")
    local_part, _, domain = head.decode("utf-8", "ignore").rpartition("@")
    for address in ("192.0.2.1", "2001:db8::1"):
        resolver = LineResolver(lines)
        found = result_of(
            check_host(
                resolver,
                address=address,
                mail_from=Mailbox(local_part, domain),
                hello="a.example",
                receiver="mta.example",
                limits=Limits(lambda: NOW),
            )
        )
        assert len(resolver.asked) <= MAX_QUESTIONS, len(resolver.asked)
        assert f"{found.explanation}{found.problem}".isprintable(), found
    resolver = LineResolver(lines)
    identifiers = Identifiers(domain, ("a.example",))
    result_of(evaluate(TreeWalk(resolver), "a.b.example", identifiers))
    result_of(destinations(resolver, "a.example", lines.decode("latin-1").split("\n")))
    assert len(resolver.asked) <= MAX_QUESTIONS, len(resolver.asked)


def responses(octets: bytes) -> None:
    """A response of a name server is read, or malformed, whatever was asked for."""
    sent = query.make_query(
        NAME, WIRE_TYPES[RecordType.MX], Random(0), edns=True, validated=True, any_case=False
    )
    if sent.fits(octets):
        sent.keeps_case(octets)
    for kind, wire_type in WIRE_TYPES.items():
        with suppress(response.MalformedResponse):
            found = response.parse(octets, wire_type)
            assert len(found.answer) <= response.MAX_RECORDS
            for record in found.answer:
                assert record.ttl >= 0
                if record.kind == wire_type:
                    value(kind, record.data)


def sender_results(octets: bytes) -> None:
    """Authentication-Results that were read are written as they can be read again."""
    unfolded = header.value(b"Authentication-Results:" + octets)
    results.claims(unfolded, "mta.example")
    results.sort_fields(octets, "mta.example", ["them.example"])
    try:
        found = results.parse(unfolded)
    except ValueError:
        return
    written = results.value_of(found.authserv_id, found.results)
    field = results.NAME + b": " + written + b"\r\n"
    assert header.fields(field) == [field], field
    again = results.parse(header.value(field))
    assert [each.method for each in again.results] == [each.method for each in found.results]
    assert [each.result for each in again.results] == [each.result for each in found.results]
    texts = [found.authserv_id, *(value for each in found.results for _, value in each.properties)]
    texts += [each.reason for each in found.results]
    if all(_is_plain(text) for text in texts):
        assert again == found, (again, found)


def _is_plain(text: str) -> bool:
    return text.isprintable() and text == text.strip() and len(text) <= results.MAX_VALUE


def reports(octets: bytes) -> None:
    """A report is XML, whatever strangers were called, and says that."""
    text = octets.decode("utf-8", "surrogateescape")
    check = CheckResult(text, text, "pass", text)
    row = Row("192.0.2.1", "none", True, True, "other", text, text, text, (check,), check)
    made = document(Report(1, POLICY, [(row, 1)], "id"), REPORTER)
    found = ElementTree.fromstring(made)
    assert len(found.findall(".//{*}record")) == 1, made


def signed_messages(octets: bytes) -> None:
    """A message with signatures has a result for each, and none that nobody made passes."""
    key, _, text = octets.partition(b"\n")
    section, body = header.split(text)
    signing_domains(section)
    verification = Verification(section, NOW)
    for number in range(0, len(body), 7):
        verification.feed(body[number : number + 7])
    for found in result_of(verification.results(LineResolver(key))):
        assert found.result is not ResultCode.PASS, found


def lists(octets: bytes) -> None:
    """Answers of block lists have a meaning."""
    addresses = [str(ip_address(octets[at : at + 4])) for at in range(0, len(octets) - 3, 4)]
    codes = [(int(ip_address("127.0.0.2")), int(ip_address("127.0.0.9")))]
    list_answers.meaning(addresses, codes)
    if len(octets) >= 16:
        assert list_answers.question(ip_address(octets[:16]), "x.example").endswith(".x.example")
