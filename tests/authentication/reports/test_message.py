"""The XML of a report, and the mail that brings it."""

from __future__ import annotations

import gzip
import pkgutil
from email import message_from_bytes, policy
from pathlib import Path

import parsedmarc
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree
from twisted.trial.unittest import SynchronousTestCase

from mta.authentication.reports.document import Report, Reporter, document
from mta.authentication.reports.message import file_name, is_report, message, report_id
from mta.authentication.reports.rows import CheckResult, Published, Row
from mta.mail import Mailbox

DAY = 20784  # 2026-11-27
NOW = 1795835106.0  # in the night after it
HOST = "mail.receiver.example"
PUBLISHED = Published(
    "example.com", "reject", "reject", "reject", True, False, "0", False, ("mailto:d@example.com",)
)
ROWS = [
    (
        Row(
            "192.0.2.1",
            "pass",
            True,
            False,
            "",
            "",
            "example.com",
            "bounces.example.net",
            (
                CheckResult("example.com", "2026a", "pass", ""),
                CheckResult("example.net", "s1", "fail", "the body has changed"),
            ),
            CheckResult("bounces.example.net", "", "pass", ""),
        ),
        123,
    ),
    (
        Row(
            "2001:db8::1",
            "quarantine",
            False,
            False,
            "local_policy",
            "junk rather than a refusal",
            "sub.example.com",
            "",
            (),
            None,
        ),
        1,
    ),
]
REPORTER = Reporter(HOST, f"postmaster@{HOST}", "mailturn 1.0")
REPORT = Report(DAY, PUBLISHED, ROWS, report_id(HOST, "example.com", DAY))
TO = [Mailbox("d", "example.com"), Mailbox("e", "example.net")]
SCHEMA = etree.XMLSchema(
    etree.XML(pkgutil.get_data("dmarc", "report/schemas/dmarc-2.0.xsd") or b"")
)
TEXTS = st.text(max_size=20)
RESULTS = st.builds(
    CheckResult, TEXTS, TEXTS.map(lambda text: text or "s"), st.sampled_from(["pass"]), TEXTS
)


class DocumentTests(SynchronousTestCase):
    """The XML."""

    def test_golden(self) -> None:
        """It is the file beside this test, letter by letter, in the order of the RFC."""
        expected = (Path(__file__).parent / "report.xml").read_bytes()
        self.assertEqual(expected.decode(), document(REPORT, REPORTER).decode())

    def test_schema(self) -> None:
        SCHEMA.assertValid(etree.XML(document(REPORT, REPORTER)))

    @given(st.lists(RESULTS, max_size=3), TEXTS, TEXTS, TEXTS)
    def test_any_text(
        self, results: list[CheckResult], author: str, path: str, comment: str
    ) -> None:
        """Whatever strangers write, it is XML, and valid."""
        row = Row(
            "192.0.2.1", "none", True, True, "other", comment, author, path, tuple(results), None
        )
        octets = document(Report(DAY, PUBLISHED, [(row, 1)], REPORT.id), REPORTER)
        SCHEMA.assertValid(etree.XML(octets))


class MessageTests(SynchronousTestCase):
    """The mail."""

    def setUp(self) -> None:
        self.octets = b"".join(message(REPORT, REPORTER, TO, NOW))
        self.message = message_from_bytes(self.octets, policy=policy.default)

    def test_fields(self) -> None:
        """The subject has the grammar of the RFC; the id is the same each time."""
        self.assertEqual(
            f"Report Domain: example.com Submitter: {HOST} Report-ID: <{REPORT.id}>",
            self.message["subject"],
        )
        self.assertEqual(f"<{REPORT.id}>", self.message["message-id"])
        self.assertEqual(f'"DMARC reports of {HOST}" <noreply-dmarc@{HOST}>', self.message["from"])
        to = [each.addr_spec for each in self.message["to"].addresses]
        self.assertEqual([str(each) for each in TO], to)
        self.assertEqual("auto-generated", self.message["auto-submitted"])
        self.assertEqual(REPORT.id, report_id(HOST, "example.com", DAY))
        self.assertNotEqual(REPORT.id, report_id(HOST, "example.com", DAY + 1))
        self.assertNotEqual(REPORT.id, report_id(HOST, "example.net", DAY))

    def test_attachment(self) -> None:
        """It is a gzip file by the name that the RFC demands."""
        text, attached = self.message.iter_parts()
        self.assertEqual("text/plain", text.get_content_type())
        self.assertEqual("application/gzip", attached.get_content_type())
        name = f"{HOST}!example.com!1795737600!1795823999.xml.gz"
        self.assertEqual(name, attached.get_filename())
        self.assertEqual(name, file_name(REPORT, HOST))
        content = attached.get_content()
        self.assertEqual(document(REPORT, REPORTER), gzip.decompress(content))

    def test_the_same_again(self) -> None:
        """A report that is sent once more is the same octets, but for the date."""
        later = b"".join(message(REPORT, REPORTER, TO, NOW))
        self.assertEqual(self.octets, later)

    def test_lines(self) -> None:
        """They are of seven bits, end in CRLF, and none is long."""
        self.assertTrue(self.octets.isascii())
        lines = self.octets.split(b"\r\n")
        self.assertFalse(any(b"\n" in line or b"\r" in line for line in lines))
        self.assertLess(max(map(len, lines)), 100)

    def test_another_reader(self) -> None:
        """parsedmarc reads what we wrote."""
        found = parsedmarc.parse_report_email(self.octets, offline=True)
        self.assertEqual("aggregate", found["report_type"])
        report = found["report"]
        self.assertEqual(f"postmaster@{HOST}", report["report_metadata"]["org_email"])
        self.assertEqual("2026-11-27 00:00:00", report["report_metadata"]["begin_date"])
        self.assertEqual("2026-11-27 23:59:59", report["report_metadata"]["end_date"])
        self.assertEqual("reject", report["policy_published"]["p"])
        first, second = report["records"]
        self.assertEqual((123, True), (first["count"], first["alignment"]["dmarc"]))
        self.assertEqual("192.0.2.1", first["source"]["ip_address"])
        self.assertEqual("quarantine", second["policy_evaluated"]["disposition"])
        self.assertEqual(
            "local_policy", second["policy_evaluated"]["policy_override_reasons"][0]["type"]
        )

    def test_reports_are_known(self) -> None:
        """Ours, and those of others, on which no report is to be made."""
        section = self.octets.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        self.assertTrue(is_report(section))
        for subject, expected in (
            (b"Report domain: example.com Submitter: google.com Report-ID: 123", True),
            (b"Report Domain: example.com\r\n\tSubmitter: google.com", True),
            (b"Report Domain: example.com", False),
            (b"Re: Report Domain: example.com Submitter: google.com", False),
        ):
            field = b"Subject: " + subject + b"\r\n\r\n"
            self.assertEqual(expected, is_report(field), subject)
