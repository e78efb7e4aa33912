"""The XML of a report (RFC 9990).

Its elements are in the order of the RFC, though the schema leaves some of that open.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from mta.authentication.reports.rows import CheckResult, Published, Row

NAMESPACE = "urn:ietf:params:xml:ns:dmarc-2.0"
DAY = 86400  # seconds: reports are of whole days, in UTC

# What XML 1.0 has no room for, not even escaped.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Reporter:
    """The host that reports, and where it can be asked about that."""

    hostname: str
    contact: str
    generator: str


@dataclass(frozen=True, slots=True)
class Report:
    """The report to a policy domain on one day.

    `day` counts from the epoch.  `rows` come with the number of their messages.
    """

    day: int
    published: Published
    rows: Sequence[tuple[Row, int]]
    id: str

    @property
    def begin(self) -> int:
        """The first second of the day, since the epoch."""
        return self.day * DAY

    @property
    def end(self) -> int:
        """The last second of the day, since the epoch."""
        return self.begin + DAY - 1


def document(report: Report, reporter: Reporter) -> bytes:
    """The XML of a report."""
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<feedback xmlns="{NAMESPACE}">',
        "<version>1.0</version>",
        *_within("report_metadata", _metadata(report, reporter)),
        *_within("policy_published", _policy(report.published)),
    ]
    for row, count in report.rows:
        lines += _within("record", _record(row, count))
    lines += ["</feedback>", ""]
    return "\n".join(lines).encode()


def _metadata(report: Report, reporter: Reporter) -> Iterator[str]:
    yield _element("org_name", reporter.hostname)
    yield _element("email", reporter.contact)
    yield _element("report_id", report.id)
    dates = (_element("begin", str(report.begin)), _element("end", str(report.end)))
    yield from _within("date_range", dates)
    yield _element("generator", reporter.generator)


def _policy(published: Published) -> Iterator[str]:
    yield _element("domain", published.domain)
    yield _element("discovery_method", "treewalk")
    yield _element("p", published.policy)
    yield _element("sp", published.subdomains)
    yield _element("np", published.nonexistent)
    yield _element("fo", published.fo)
    yield _element("adkim", "s" if published.strict_dkim else "r")
    yield _element("aspf", "s" if published.strict_spf else "r")
    yield _element("testing", "y" if published.is_test else "n")


def _record(row: Row, count: int) -> Iterator[str]:
    evaluated = [
        _element("disposition", row.disposition),
        _element("dkim", _passed(row.is_signed)),
        _element("spf", _passed(row.is_sent)),
    ]
    if row.reason:
        comment = [_element("comment", row.comment)] if row.comment else []
        evaluated += _within("reason", [_element("type", row.reason), *comment])
    head = [_element("source_ip", row.client), _element("count", str(count))]
    yield from _within("row", [*head, *_within("policy_evaluated", evaluated)])
    names = [
        _element("header_from", row.author),
        _element("envelope_from", row.reverse_path),
    ]
    yield from _within("identifiers", names)
    results = [line for each in row.signatures for line in _within("dkim", _result(each))]
    if row.spf is not None:
        results += _within("spf", _result(row.spf))
    yield from _within("auth_results", results)


def _result(result: CheckResult) -> Iterator[str]:
    yield _element("domain", result.domain)
    yield _element("selector", result.selector) if result.selector else _element("scope", "mfrom")
    yield _element("result", result.result)
    if result.problem:
        yield _element("human_result", result.problem)


def _passed(is_aligned: bool) -> str:
    return "pass" if is_aligned else "fail"


def _within(name: str, lines: Iterable[str]) -> list[str]:
    return [f"<{name}>", *(f"  {line}" for line in lines), f"</{name}>"]


def _element(name: str, text: str) -> str:
    return f"<{name}>{escape(_FORBIDDEN.sub('?', text), quote=False)}</{name}>"
