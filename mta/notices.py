"""Delivery status notifications: what became of a message, told to its sender.

The multipart/report of RFC 6522 has a part for people, one for programs (RFC 3464), and the
message or its header section.  Where addresses are internationalised its parts are those of RFC
6533.  Peers' replies, addresses and header sections may contain anything: each is cleaned where
it enters a notice.
"""

from __future__ import annotations

import re
import secrets
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime

from twisted.logger import Logger
from zope.interface import implementer

from mta.interfaces import INotices, Message, Notice, Target
from mta.mail import NULL_PATH, Body, Envelope, Mailbox, Notify, Outcome, Recipient, Status
from mta.settings import KIB
from mta.smtp import header

Report = tuple[Target, Outcome]

MOST_CONTENT = 256 * KIB  # octets of a message that are returned; of a longer one, its header
MAX_HEADER = 64 * KIB  # octets of a header section that are returned
MOST_LINE = 998  # octets, RFC 5322 section 2.1.1
MOST_TEXT = 2000  # characters of one reply or address
WIDTH = 72  # columns of the part for people
FOLD = 76  # columns of a field

_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")


@dataclass(frozen=True, slots=True)
class _Kind:
    """How notices of one kind are worded."""

    subject: str
    opening: str
    closing: str = ""


_FAILED = _Kind(
    "Your message could not be delivered",
    "Your message could not be delivered to the following addresses. It will not be tried again.",
)
_LOST = _Kind(
    "A notice could not be delivered",
    "A message without a reverse-path, as notices are, could not be delivered to the following"
    " addresses. It will not be tried again. Its sender can't be told, so you are.",
)
_DELAYED = _Kind(
    "Your message is delayed",
    "Your message has not yet reached the following addresses. It is still being tried.",
    "You need not send it again. You will be told if it can't be delivered in the end.",
)
_SUCCEEDED = _Kind(
    "Your message was delivered",
    "You asked to be told: your message has reached the following addresses.",
)

_KINDS = {
    Status.FAILED: (_FAILED, Notify.FAILURE, "failed", "5.0.0"),
    Status.DEFERRED: (_DELAYED, Notify.DELAY, "delayed", "4.0.0"),
    Status.HELD: (_DELAYED, Notify.DELAY, "delayed", "4.0.0"),
    Status.DELIVERED: (_SUCCEEDED, Notify.SUCCESS, "delivered", "2.0.0"),
    Status.RELAYED: (_SUCCEEDED, Notify.SUCCESS, "relayed", "2.0.0"),
}

# What the sender can do, by the beginning of the enhanced status code (RFC 3463).
_ADVICE = {
    "5.1.8": "The server does not accept your own address; ask your postmaster about it.",
    "5.1.7": "The server does not accept your own address; ask your postmaster about it.",
    "5.1.": "Check the address for mistakes, and send your message again to the right one.",
    "5.2.2": "The mailbox is full; tell its owner by another way, or try again later.",
    "5.2.3": "Your message is too large; send less, or share large files by another way.",
    "5.3.4": "Your message is too large; send less, or share large files by another way.",
    "5.4.7": "The server could not be reached in time; try again later, or by another way.",
    "5.7.": "The server refuses the message by its policy; the recipient may be able to"
    " change that, so try to reach them by another way.",
}
# Without a domain: whoever reads it here (RFC 5321 section 4.5.1).
POSTMASTER = Recipient(Mailbox("Postmaster"))
_GENERAL_ADVICE = "If you can't tell from this what to do, show it to your postmaster."


@implementer(INotices)
class NoticeWriter:
    """Writes notices in the name of `hostname`.

    `now` gives seconds since the epoch; `token` a new text that nobody can guess, of letters
    and digits.
    """

    log = Logger()

    def __init__(
        self,
        hostname: str,
        now: Callable[[], float] = time.time,
        token: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self._hostname = hostname
        self._now = now
        self._token = token

    async def notice(
        self, message: Message, reports: Sequence[Report], expires: float
    ) -> Notice | None:
        """See `INotices.notice`; all reports are of one kind: failures, delays or successes."""
        wanted = [report for report in reports if _is_wanted(message, report)]
        if not wanted:
            return None
        is_failure = wanted[0][1].status is Status.FAILED
        envelope = message.envelope
        reader = Recipient(envelope.reverse_path)
        if envelope.reverse_path.is_null:
            if not is_failure:
                return None
            if POSTMASTER in envelope.recipients:
                self.log.error(
                    "{queue_id} can't be delivered, and nobody is left to tell; see that mail to"
                    " the postmaster can be delivered",
                    queue_id=message.id,
                )
                return None
            reader = POSTMASTER
        # What must not travel without TLS does not come back in full (RFC 8689 section 5).
        wants_full = envelope.ret == "FULL" or reader is POSTMASTER
        full = is_failure and wants_full and not envelope.require_tls
        original = await self._original(message, full)
        report = _Report(self._hostname, message, wanted, expires, self._now())
        content = report.content(self._token(), original)
        body = Body.SEVEN_BIT if content.isascii() else Body.EIGHT_BIT
        return Notice(
            Envelope(
                NULL_PATH,
                (reader,),
                body,
                reader.forward_path.is_internationalised,
                require_tls=envelope.require_tls,
            ),
            content,
        )

    async def _original(self, message: Message, full: bool) -> _Original | None:
        """What is returned of the message; None where the spool can't be read.

        A message that was lost is all the more one that its sender should hear of.
        """
        full = full and message.content.size <= MOST_CONTENT
        most = MOST_CONTENT if full else MAX_HEADER
        octets = bytearray()
        try:
            async for piece in message.content.pieces():
                octets += piece
                if len(octets) > most or (not full and b"\r\n\r\n" in octets):
                    break
        except OSError as error:
            self.log.error(
                "{queue_id} can't be read for a notice: {error}",
                queue_id=message.id,
                error=str(error),
            )
            return None
        utf8 = message.envelope.smtputf8
        if full and _is_transparent(octets):
            return _Original("message/global" if utf8 else "message/rfc822", bytes(octets))
        lines = _header_lines(bytes(octets[:MAX_HEADER]), utf8)
        kind = "message/global-headers" if utf8 else "text/rfc822-headers"
        return _Original(kind, b"".join(line + b"\r\n" for line in lines))


@dataclass(frozen=True, slots=True)
class _Original:
    """The third part: its media type and its octets."""

    media_type: str
    octets: bytes


@dataclass(frozen=True, slots=True)
class _Report:
    """One notice while it is written.  `expires` and `now`: seconds since the epoch."""

    hostname: str
    message: Message
    reports: Sequence[Report]
    expires: float
    now: float

    def content(self, token: str, original: _Original | None) -> bytes:
        """The whole notice, lines ended by CRLF; `token` goes into boundary and Message-ID."""
        boundary = f"=_{token}"
        media_type = (
            "message/global-delivery-status" if self._is_utf8 else "message/delivery-status"
        )
        parts = [
            self._part(
                f"text/plain; charset={'utf-8' if self._is_utf8 else 'us-ascii'}",
                _encode(self._text()),
            ),
            self._part(media_type, _encode(self._status_fields())),
        ]
        if original is not None:
            parts.append(self._part(original.media_type, original.octets))
        delimiter = f"--{boundary}\r\n".encode()
        return b"".join(
            [
                _encode(self._header(token, boundary)),
                b"\r\n",
                *(delimiter + part for part in parts),
                f"--{boundary}--\r\n".encode(),
            ]
        )

    @property
    def _kind(self) -> _Kind:
        if self.message.envelope.reverse_path.is_null:
            return _LOST
        return _KINDS[self.reports[0][1].status][0]

    @property
    def _is_utf8(self) -> bool:
        """Whether the notice takes the forms of RFC 6533."""
        envelope = self.message.envelope
        return envelope.smtputf8 or any(
            mailbox.is_internationalised
            for mailbox in (envelope.reverse_path, *(target.address for target, _ in self.reports))
        )

    def _part(self, media_type: str, octets: bytes) -> bytes:
        encoding = "7bit" if octets.isascii() else "8bit"
        fields = f"Content-Type: {media_type}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
        return fields.encode() + octets + b"\r\n"

    def _clean(self, text: str) -> str:
        """One line of printable characters, whatever a peer wrote."""
        return "".join(
            " " if character.isspace() else character if self._is_shown(character) else "?"
            for character in text[:MOST_TEXT]
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

    def _text(self) -> Iterator[str]:
        yield from _wrapped(f"This is the mail server {self.hostname}.")
        yield ""
        yield from _wrapped(self._kind.opening)
        for target, outcome in self.reports:
            yield ""
            yield from self._story(target, outcome)
        if self._kind.closing:
            yield ""
            yield from _wrapped(self._kind.closing)
            yield from _wrapped(f"It is tried until {_date(self.expires)}.")
        if self._kind is _FAILED:
            yield ""
            yield from _wrapped(_GENERAL_ADVICE)
        yield ""
        yield from _wrapped("What follows is for programs, and for your postmaster.")

    def _story(self, target: Target, outcome: Outcome) -> Iterator[str]:
        """What happened to one address."""
        named = self._clean(str(self.message.envelope.recipients[target.number].forward_path))
        address = self._clean(str(target.address))
        yield f"  {named}" if address == named else f"  {named} (which stands for {address})"
        if self._kind is _SUCCEEDED:
            delivered = outcome.status is Status.DELIVERED
            further = "The next server took it over. That one may not tell you more."
            yield from _wrapped("It has arrived." if delivered else further, "    ")
            return
        who = f"The server {self._clean(outcome.remote)} said:" if outcome.remote else "Why:"
        yield from _wrapped(who, "    ")
        yield from _wrapped(self._clean(str(outcome.reply)), "      ")
        if self._kind is _FAILED:
            yield from _wrapped(_advice(_status(outcome)), "    ")

    # --- the part for programs

    def _status_fields(self) -> Iterator[str]:
        envelope = self.message.envelope
        yield f"Reporting-MTA: dns; {self.hostname}"
        if envelope.envid:
            yield from _field("Original-Envelope-Id", self._clean(envelope.envid))
        yield f"Arrival-Date: {_date(self.message.arrived)}"
        for target, outcome in self.reports:
            yield ""
            yield from self._recipient_fields(target, outcome)

    def _recipient_fields(self, target: Target, outcome: Outcome) -> Iterator[str]:
        original = self.message.envelope.recipients[target.number].original
        if original:
            yield from _field("Original-Recipient", self._clean(original))
        yield from _field("Final-Recipient", self._address(target.address))
        yield f"Action: {_KINDS[outcome.status][2]}"
        yield f"Status: {_status(outcome)}"
        if outcome.remote:
            yield from _field("Remote-MTA", f"dns; {self._clean(outcome.remote)}")
        if self._kind is not _SUCCEEDED:
            yield from _field("Diagnostic-Code", self._diagnostic(outcome))
        yield f"Last-Attempt-Date: {_date(self.now)}"
        if self._kind is _DELAYED:
            yield f"Will-Retry-Until: {_date(self.expires)}"

    def _address(self, address: Mailbox) -> str:
        kind = "utf-8" if address.is_internationalised else "rfc822"
        return f"{kind}; {self._clean(str(address))}"

    def _diagnostic(self, outcome: Outcome) -> str:
        """Type smtp is for what a server said (RFC 3464 section 2.3.6), x-mta for us."""
        return f"{'smtp' if outcome.remote else 'x-mta'}; {self._clean(str(outcome.reply))}"


def _is_wanted(message: Message, report: Report) -> bool:
    """Whether the sender wants to hear of this (RFC 3461 section 4.1)."""
    target, outcome = report
    notify = message.envelope.recipients[target.number].notify
    condition = _KINDS[outcome.status][1]
    if not notify:
        return condition is not Notify.SUCCESS
    return condition in notify


def _status(outcome: Outcome) -> str:
    """The enhanced status code, as well as the reply gives it.

    Its class says what is to become of the message, whatever a reply before it was of.
    """
    enhanced, usual = outcome.reply.enhanced, _KINDS[outcome.status][3]
    return usual[0] + enhanced[1:] if _ENHANCED.fullmatch(enhanced) else usual


def _advice(status: str) -> str:
    for beginning, advice in _ADVICE.items():
        if status.startswith(beginning):
            return advice
    return "Try to reach the recipient by another way."


def _date(seconds: float) -> str:
    """RFC 5322 section 3.3."""
    return format_datetime(datetime.fromtimestamp(int(seconds), UTC))


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent)


def _field(name: str, value: str) -> list[str]:
    """A field of one-line text, folded at spaces, and within a word only where it has to be."""
    longest = max((len(word.encode()) for word in value.split()), default=0)
    return textwrap.wrap(
        f"{name}: {value}",
        FOLD,
        subsequent_indent=" ",
        break_on_hyphens=False,
        break_long_words=longest > MOST_LINE - FOLD,
    )


def _encode(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\r\n" for line in lines).encode("utf-8", "replace")


def _is_transparent(octets: bytearray) -> bool:
    """Whether content can be returned as it is: text, in lines that any server takes."""
    bare = octets.replace(b"\r\n", b"")
    if any(octet in bare for octet in (b"\r", b"\n", b"\0")):
        return False
    return all(len(line) <= MOST_LINE for line in octets.split(b"\r\n"))


def _header_lines(octets: bytes, utf8: bool) -> Iterator[bytes]:
    """The lines of the fields, each of text and of bearable length."""
    for line in octets[: header.end_of_fields(octets)].splitlines():
        shown = line[:MOST_LINE]
        text = shown.decode("utf-8", "ignore") if utf8 else shown.decode("ascii", "replace")
        text = "".join(c if c.isprintable() or c == "\t" else "?" for c in text)
        yield text.encode("utf-8" if utf8 else "ascii", "replace")
