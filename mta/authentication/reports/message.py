"""The mail that brings a report (RFC 9990)."""

from __future__ import annotations

import gzip
import hashlib
import re
from base64 import encodebytes
from collections.abc import Sequence

from mta.authentication.reports.document import Report, Reporter, document
from mta.mail import Mailbox
from mta.smtp import header, trace

AUTHOR = "noreply-dmarc"  # local part of From:, which is no mailbox

_SUBJECT = re.compile(rb"\s*Report\s+Domain:\s+\S+\s+Submitter:\s+\S", re.IGNORECASE)


def report_id(hostname: str, domain: str, day: int) -> str:
    """The unique id of a report, always the same one."""
    digest = hashlib.sha256(f"{domain}!{day}".encode()).hexdigest()
    return f"{digest[:24]}@{hostname}"


def is_report(section: bytes) -> bool:
    """Tell whether a header section is that of a report."""
    return any(_SUBJECT.match(value) for value in header.values(section, b"subject"))


def file_name(report: Report, hostname: str) -> str:
    """The name of the attached file."""
    domain = report.published.domain
    return f"{hostname}!{domain}!{report.begin}!{report.end}.xml.gz"


def message(
    report: Report, reporter: Reporter, recipients: Sequence[Mailbox], now: float
) -> tuple[bytes, bytes]:
    """The mail that brings a report: header section and body."""
    hostname, domain = reporter.hostname, report.published.domain
    boundary = f"=_{report.id.partition('@')[0]}"
    to = ",\r\n ".join(f"<{recipient}>" for recipient in recipients)
    section = (
        f'From: "DMARC reports of {hostname}" <{AUTHOR}@{hostname}>\r\n'
        f"To: {to}\r\n"
        f"Subject: Report Domain: {domain}\r\n"
        f" Submitter: {hostname}\r\n"
        f" Report-ID: <{report.id}>\r\n"
        f"Date: {trace.date(int(now))}\r\n"
        f"Message-ID: <{report.id}>\r\n"
        "Auto-Submitted: auto-generated\r\n"
        "MIME-Version: 1.0\r\n"
        "Content-Type: multipart/mixed;\r\n"
        f' boundary="{boundary}"\r\n'
        "\r\n"
    )
    body = (
        f"--{boundary}\r\n"
        "Content-Type: text/plain; charset=us-ascii\r\n"
        "\r\n"
        f"This is the DMARC aggregate report of {hostname}\r\n"
        f"on mail in the name of {domain}.\r\n"
        f"Questions to {reporter.contact}\r\n"
        f"--{boundary}\r\n"
        "Content-Type: application/gzip\r\n"
        "Content-Transfer-Encoding: base64\r\n"
        "Content-Disposition: attachment;\r\n"
        f' filename="{file_name(report, hostname)}"\r\n'
        "\r\n"
    ).encode()
    # Without a time of its own, a report that is made once more is the same octets.
    packed = encodebytes(gzip.compress(document(report, reporter), mtime=0))
    end = f"--{boundary}--\r\n".encode()
    return section.encode(), body + packed.replace(b"\n", b"\r\n") + end
