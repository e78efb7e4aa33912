"""The text of a notice: the multipart/report of RFC 6522.

It has a part for people, one for programs (RFC 3464), and the message or its header section.
Where addresses are internationalised its parts are those of RFC 6533.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime

from mta.mail import Mailbox, Outcome, Recipient, Status
from mta.notices import kinds
from mta.notices.outsiders import Report, public
from mta.notices.returned import MAX_LINE, Returned
from mta.queued import Message, Target

MAX_TEXT = 2000  # characters: of one reply or address, as a peer chooses how many
WIDTH = 72  # columns: of the part for people
FOLD = 76  # columns: of a field, RFC 5322 section 2.1.1 asks for 78

# Without a domain: the reader of this host's postmaster mail (RFC 5321 section 4.5.1).
POSTMASTER = Recipient(Mailbox("Postmaster"))


@dataclass(frozen=True, slots=True)
class ReportText:
    """One notice while it is written.

    `is_public`: it is for an outsider, and tells nothing of what is behind the addresses that were
    named; `expanded` are then the numbers of the recipients that stand for several.  `expires` and
    `now`: seconds since the epoch.
    """

    hostname: str
    message: Message
    reports: Sequence[Report]
    expires: float
    now: float
    is_public: bool = False
    expanded: Collection[int] = ()
    _is_utf8: bool = field(init=False)

    def __post_init__(self) -> None:
        # Each character of a reply may ask for it.
        object.__setattr__(self, "_is_utf8", self._needs_utf8())

    def steps(self, token: str, returned: Returned | None, made: list[bytes]) -> Iterator[None]:
        """Make the whole notice, a recipient at a time.  `made` gets it, lines ended by CRLF.

        `token` goes into boundary and Message-ID.
        """
        boundary = f"=_{token}"
        delimiter = f"--{boundary}\r\n".encode()
        charset = "utf-8" if self._is_utf8 else "us-ascii"
        status = "message/global-delivery-status" if self._is_utf8 else "message/delivery-status"
        text, fields = list(self._opening()), list(self._message_fields())
        for report in self.reports:
            target, outcome = public(report, self._named(report[0])) if self.is_public else report
            text += ["", *self._outcome_lines(target, outcome)]
            fields += ["", *self._recipient_fields(target, outcome)]
            yield
        text += self._closing()
        parts = [
            self._part(f"text/plain; charset={charset}", _encode(text)),
            self._part(status, _encode(fields)),
        ]
        if returned is not None:
            parts.append(self._part(returned.media_type, returned.octets))
        made += [_encode(self._header(token, boundary)), b"\r\n"]
        made += [delimiter + part for part in parts]
        made.append(f"--{boundary}--\r\n".encode())

    @property
    def _kind(self) -> kinds.Kind:
        if self.message.envelope.reverse_path.is_null:
            return kinds.LOST
        return kinds.TERMS[self.reports[0][1].status].kind

    def _needs_utf8(self) -> bool:
        """Return whether the notice takes the forms of RFC 6533."""
        envelope = self.message.envelope
        targets = [target for target, _ in self.reports]
        shown = [self._named(each) if self.is_public else each.address for each in targets]
        return envelope.smtputf8 or any(
            mailbox.is_internationalised for mailbox in (envelope.reverse_path, *shown)
        )

    def _named(self, target: Target) -> Mailbox:
        """The address that the sender named."""
        return self.message.envelope.recipients[target.number].forward_path

    def _part(self, media_type: str, octets: bytes) -> bytes:
        encoding = "7bit" if octets.isascii() else "8bit"
        fields = f"Content-Type: {media_type}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
        return fields.encode() + octets + b"\r\n"

    def _clean(self, text: str) -> str:
        """One line of printable characters, whatever a peer wrote."""
        text = text[:MAX_TEXT]
        if text.isascii() and text.isprintable():
            return text
        return "".join(
            " " if character.isspace() else character if self._is_shown(character) else "?"
            for character in text
        )

    def _is_shown(self, character: str) -> bool:
        return character.isprintable() and (self._is_utf8 or character.isascii())

    # --- the header section of the notice

    def _header(self, token: str, boundary: str) -> Iterator[str]:
        report_type = "global-delivery-status" if self._is_utf8 else "delivery-status"
        reader = self.message.envelope.reverse_path
        if reader.is_null:
            reader = replace(POSTMASTER.forward_path, domain=self.hostname)
        yield f"From: Mail Delivery System <MAILER-DAEMON@{self.hostname}>"
        yield from _field("To", f"<{self._clean(str(reader))}>")
        yield f"Subject: {self._kind.subject}"
        yield f"Date: {_date(self.now)}"
        yield f"Message-ID: <{token}@{self.hostname}>"
        yield "Auto-Submitted: auto-replied"
        yield "MIME-Version: 1.0"
        yield f"Content-Type: multipart/report; report-type={report_type};"
        yield f' boundary="{boundary}"'

    # --- the part for people

    def _opening(self) -> Iterator[str]:
        yield from _wrapped(f"This is the mail server {self.hostname}.")
        yield ""
        yield from _wrapped(self._kind.opening)

    def _closing(self) -> Iterator[str]:
        if self._kind.closing:
            yield ""
            yield from _wrapped(self._kind.closing)
            yield from _wrapped(f"It is tried until {_date(self.expires)}.")
        if self._kind is kinds.FAILED:
            yield ""
            yield from _wrapped(kinds.GENERAL_ADVICE)
        yield ""
        yield from _wrapped("What follows is for programs, and for your postmaster.")

    def _outcome_lines(self, target: Target, outcome: Outcome) -> Iterator[str]:
        """The lines on the outcome of one address."""
        named = self._clean(str(self._named(target)))
        address = self._clean(str(target.address))
        yield f"  {named}" if address == named else f"  {named} (which stands for {address})"
        if self._kind is kinds.SUCCEEDED:
            delivered = outcome.status is Status.DELIVERED or target.number in self.expanded
            further = "The next server took it over. That one may not tell you more."
            yield from _wrapped("It has arrived." if delivered else further, "    ")
            return
        who = f"The server {self._clean(outcome.remote)} said:" if outcome.remote else "Why:"
        yield from _wrapped(who, "    ")
        yield from _wrapped(self._clean(str(outcome.reply)), "      ")
        if self._kind is kinds.FAILED:
            yield from _wrapped(kinds.advice(outcome), "    ")

    # --- the part for programs

    def _message_fields(self) -> Iterator[str]:
        envelope = self.message.envelope
        yield f"Reporting-MTA: dns; {self.hostname}"
        if envelope.envid:
            yield from _field("Original-Envelope-Id", self._clean(envelope.envid))
        yield f"Arrival-Date: {_date(self.message.arrived)}"

    def _recipient_fields(self, target: Target, outcome: Outcome) -> Iterator[str]:
        original = self.message.envelope.recipients[target.number].original
        if original:
            yield from _field("Original-Recipient", self._clean(original))
        yield from _field("Final-Recipient", self._address(target.address))
        is_expanded = self._kind is kinds.SUCCEEDED and target.number in self.expanded
        yield f"Action: {'expanded' if is_expanded else kinds.TERMS[outcome.status].action}"
        yield f"Status: {kinds.enhanced_status(outcome)}"
        if outcome.remote:
            yield from _field("Remote-MTA", f"dns; {self._clean(outcome.remote)}")
        if self._kind is not kinds.SUCCEEDED:
            yield from _field("Diagnostic-Code", self._diagnostic(outcome))
        yield f"Last-Attempt-Date: {_date(self.now)}"
        if self._kind is kinds.DELAYED:
            yield f"Will-Retry-Until: {_date(self.expires)}"

    def _address(self, address: Mailbox) -> str:
        kind = "utf-8" if address.is_internationalised else "rfc822"
        return f"{kind}; {self._clean(str(address))}"

    def _diagnostic(self, outcome: Outcome) -> str:
        """Return the diagnostic code, typed smtp or x-mta.

        The first is for what a server said (RFC 3464 section 2.3.6), the second for us.
        """
        return f"{'smtp' if outcome.remote else 'x-mta'}; {self._clean(str(outcome.reply))}"


def _date(seconds: float) -> str:
    """RFC 5322 section 3.3."""
    return format_datetime(datetime.fromtimestamp(int(seconds), UTC))


def _wrapped(text: str, indent: str = "") -> list[str]:
    if len(indent) + len(text) <= WIDTH and text == text.strip() != "":
        return [indent + text]  # quickly: a notice may be about thousands of recipients
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent)


def _field(name: str, value: str) -> list[str]:
    """Return a field of one-line text, folded at spaces.

    Within a word it is folded only where it has to be.
    """
    line = f"{name}: {value}"
    if len(line) <= FOLD and line.isascii() and value == value.strip():
        return [line]
    longest = max((len(word.encode()) for word in value.split()), default=0)
    return textwrap.wrap(
        line,
        FOLD,
        subsequent_indent=" ",
        break_on_hyphens=False,
        break_long_words=longest > MAX_LINE - FOLD,
    )


def _encode(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\r\n" for line in lines).encode("utf-8", "replace")
