"""The rows of a report."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from mta.authentication import spf
from mta.authentication.decision import Action, Decision
from mta.authentication.dkim import DKIMResult, ResultCode
from mta.authentication.dmarc import DMARCResult, Policy, Result, parse_record
from mta.authentication.judged import Judged
from mta.authentication.reports.rows import CheckResult, Published, Row, row_of

RECORD = parse_record(b"v=DMARC1; p=reject; rua=mailto:d@example.com!10m, mailto:e@example.net")
FAILED = DMARCResult(
    Result.FAIL, "mail.example.com", Policy.REJECT, "example.com", "example.com", RECORD
)
PASSED = replace(FAILED, result=Result.PASS, aligned_dkim=("example.com",))
SPF_PASS = spf.SPFResult(spf.Result.PASS, "bounces.example", spf.Identity.MAIL_FROM)
JUDGED = Judged("192.0.2.1", SPF_PASS, [], FAILED)
NOTHING = Decision()
JUNK, REJECT = Decision(Action.JUNK), Decision(Action.REJECT)


def row(judged: Judged, decision: Decision = NOTHING) -> Row:
    """The row for a message."""
    found = row_of(judged, decision)
    assert found is not None
    return found[1]


class PublishedTests(SynchronousTestCase):
    """The policy, as it is reported."""

    def published(self, text: bytes) -> Published:
        """The policy in a record."""
        record = parse_record(b"v=DMARC1; " + text)
        assert record is not None
        return Published.of("example.com", record)

    def test_defaults(self) -> None:
        """What a record leaves out has its default."""
        rua = ("mailto:d@example.com!10m", "mailto:e@example.net")
        self.assertEqual(
            Published("example.com", "reject", "reject", "reject", False, False, "0", False, rua),
            self.published(b"p=reject; rua=mailto:d@example.com!10m, mailto:e@example.net"),
        )
        self.assertEqual(
            Published("example.com", "none", "quarantine", "reject", True, True, "1:d", True, ()),
            self.published(b"p=none; sp=quarantine; np=reject; adkim=s; aspf=s; fo=d:1; t=y"),
        )
        self.assertEqual("quarantine", self.published(b"p=none; sp=quarantine").nonexistent)


class RowTests(SynchronousTestCase):
    """What is told of one message."""

    def test_passed(self) -> None:
        found = row_of(replace(JUDGED, dmarc=PASSED), NOTHING)
        assert found is not None
        self.assertEqual("example.com", found[0].domain)
        self.assertEqual(
            Row(
                "192.0.2.1",
                "pass",
                True,
                False,
                "",
                "",
                "mail.example.com",
                "bounces.example",
                (),
                CheckResult("bounces.example", "", "pass", ""),
            ),
            found[1],
        )

    def test_dispositions(self) -> None:
        """What was done, and why it is not what the domain asked for."""
        record = parse_record(b"v=DMARC1; p=reject; t=y; rua=mailto:d@example.com")
        tested = replace(FAILED, policy=Policy.QUARANTINE, record=record)
        lenient = replace(FAILED, policy=Policy.NONE)
        for dmarc, decision, override, expected in (
            (FAILED, REJECT, "", ("reject", "", "")),
            (FAILED, JUNK, "", ("quarantine", "local_policy", "junk rather than a refusal")),
            (FAILED, NOTHING, "", ("none", "local_policy", "")),
            (FAILED, NOTHING, "trusted forwarder", ("none", "trusted_forwarder", "")),
            (tested, JUNK, "", ("quarantine", "policy_test_mode", "")),
            (lenient, NOTHING, "", ("none", "", "")),
            (replace(PASSED, policy=Policy.NONE), NOTHING, "", ("none", "", "")),
            (PASSED, NOTHING, "", ("pass", "", "")),
            (PASSED, REJECT, "", ("reject", "local_policy", "")),
        ):
            found = row(replace(JUDGED, dmarc=dmarc, override=override), decision)
            self.assertEqual(expected, (found.disposition, found.reason, found.comment))

    def test_signatures(self) -> None:
        """Those first that tell most; what can't be told apart is left out."""
        ok, fail = ResultCode.PASS, ResultCode.FAIL
        signatures = [
            DKIMResult(fail, "example.com", "a", problem="x" * 500),
            DKIMResult(ok, "example.net", "b"),
            DKIMResult(ResultCode.NEUTRAL, "", ""),
            DKIMResult(ok, "mail.example.com", "c"),
        ]
        found = row(replace(JUDGED, dkim=signatures))
        self.assertEqual(
            (
                CheckResult("mail.example.com", "c", "pass", ""),
                CheckResult("example.net", "b", "pass", ""),
                CheckResult("example.com", "a", "fail", "x" * 100),
            ),
            found.signatures,
        )

    def test_null_reverse_path(self) -> None:
        """SPF of HELO has no part in DMARC."""
        helo = replace(SPF_PASS, identity=spf.Identity.HELO)
        found = row(replace(JUDGED, spf=helo))
        self.assertEqual(("", None), (found.reverse_path, found.spf))
        self.assertIsNone(row(replace(JUDGED, spf=None)).spf)

    def test_nothing_to_report(self) -> None:
        """Without a wish for it, without a result, and where mail comes again."""
        silent = replace(FAILED, record=parse_record(b"v=DMARC1; p=reject"))
        by_web = replace(
            FAILED, record=parse_record(b"v=DMARC1; p=none; rua=https://example.com/x")
        )
        for dmarc in (
            None,
            silent,
            by_web,
            replace(FAILED, result=Result.TEMPERROR),
            DMARCResult(Result.NONE, "example.com"),
        ):
            self.assertIsNone(row_of(replace(JUDGED, dmarc=dmarc), NOTHING))
        self.assertIsNone(row_of(JUDGED, Decision(Action.DEFER)))
