"""Targets: content, and what we write on top of it and about it."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Sequence
from contextlib import suppress
from email import message_from_bytes
from quopri import decodestring

from mta.authentication.dkim.body import BodyForm, BodyHasher
from mta.authentication.dkim.fields import Fields, relaxed
from mta.authentication.dmarc.author import author_domains
from mta.commands.addressees import addressees, completed
from mta.mail import Envelope, Mailbox, Outcome, Recipient, Reply, Status
from mta.notices.writer import NoticeWriter
from mta.queued import Target
from mta.smtp import authors, header, sevenbit
from mta.smtp.content import DotReader, DotWriter, LineCheck
from mta.smtp.errors import PeerFault, Refusal
from mta.smtp.field_edits import EditedSection
from mta.smtp.grammar import commands, parse_mailbox
from mta.smtp.mime import Kind, Part, Scanner, TooComplex
from mta.smtp.replies import ReplyParser
from mta.smtp.trace import delivered_before, delivered_to, was_delivered_to
from mta.sync import result_of
from mta.testing.delivery import HOP, FakeContent, message
from mta.verdict import AddField, ChangeField, InsertField
from tests.fuzz.lines import NOW, OFFERED
from tests.fuzz.pieces import pieces

MAX_LINE = 998  # octets, RFC 5322 section 2.1.1
FORMS = (BodyForm(False), BodyForm(True), BodyForm(True, 7))


def content(octets: bytes) -> None:
    """Dots that were added are removed, and a cut changes nothing."""
    writer, reader = DotWriter(), DotReader()
    sent = writer.encode(octets) + writer.end()
    middle = len(sent) // 2
    first, rest = reader.decode(sent[:middle])
    second, _ = reader.decode(rest + sent[middle:])
    body = octets if not octets or octets.endswith(b"\r\n") else octets + b"\r\n"
    if b"\r\n.\r\n" not in octets and not re.search(rb"(?<!\r)\n|\r(?!\n)", octets):
        assert first + second == body, (first, second)
    whole, cut = LineCheck(), LineCheck()
    whole.feed(octets)
    for piece in pieces(octets):
        cut.feed(piece)
    whole.end()
    cut.end()
    assert whole.broken == cut.broken == _is_broken(octets)


def _is_broken(octets: bytes) -> bool:
    bare = octets.replace(b"\r\n", b"")
    return any(octet in bare for octet in (b"\r", b"\n")) or b"\0" in octets


def headers(octets: bytes) -> None:
    """Fields joined are the section, and authors are mailboxes or a refusal."""
    section, body = header.split(octets)
    assert section + body == octets
    fields = header.fields(section)
    assert b"".join(fields) == section[: header.end_of_fields(section)]
    names = [header.name(field) for field in fields]
    for name in {b"received", b"from", *names}:
        assert header.count(section[: header.end_of_fields(section)], name) == names.count(name)
        assert name not in map(header.name, header.fields(header.without(section, name)))
    author_domains(section)
    with suppress(ValueError):
        header.without_comments(octets.decode("latin-1"))
    with suppress(Refusal, ValueError):
        authors.authors(octets)
    gathered, rest = header.HeaderSection(), bytearray()
    for piece in pieces(octets):
        rest += gathered.feed(piece)
    assert (gathered.octets, bytes(rest)) == (section, body)


def addresses(octets: bytes) -> None:
    """Addresses in a field stand in it as they were read, once it is completed."""
    text = octets.decode("utf-8", "surrogateescape")
    completed(text, "us.example")
    with suppress(ValueError):
        found = addressees(text, "us.example")
        again = addressees(", ".join(map(str, found)), "us.example")
        assert again == found, (found, again)


def traces(octets: bytes) -> None:
    """An address that was noted in a field is found there, and no edit makes two of a field."""
    with suppress(ValueError):
        address = parse_mailbox(octets.decode())
        value = delivered_to(address)
        section = b"Received: x\r\nDelivered-To: %b\r\n\r\n" % value
        assert header.fields(section)[1] == b"Delivered-To: %b\r\n" % value
        assert was_delivered_to(address, section), address
    delivered_before(octets)
    edited = EditedSection(b"Received: us\r\n", header.split(octets)[0])
    before = len(header.fields(edited.octets))
    is_cut = header.end_of_fields(edited.octets) < len(edited.octets.removesuffix(b"\r\n"))
    edited.apply([InsertField(0, b"X-Top", octets), AddField(b"X-Last", octets)])
    edited.apply([ChangeField(b"X-Last", 1, octets + b"x"), ChangeField(b"From", 1, b"")])
    if not is_cut and edited.octets.endswith(b"\n"):
        assert len(header.fields(edited.octets)) <= before + 3, edited.octets


def conversions(octets: bytes) -> None:
    """Content in 7-bit lines is what it was, once it is decoded."""
    given = FakeContent(octets[: len(octets) // 2], octets[len(octets) // 2 :])
    made = result_of(sevenbit.converted(given))
    result_of(sevenbit.converted(given, keeps_8bit=True))
    if made is None:
        return
    result = result_of(_read(made))
    assert made.size == len(result)
    assert result.isascii(), result
    assert not _is_broken(result), result
    assert all(len(line) <= MAX_LINE for line in result.split(b"\r\n")) or octets.isascii(), result
    before, after = _leaves(octets), _leaves(result)
    assert len(before) == len(after), (before, after)
    for one, other in zip(before, after, strict=True):
        assert _unended(one) == _unended(other), (one, other)


def _unended(body: bytes) -> bytes:
    return body.replace(b"\r\n", b"\n").removesuffix(b"\n")


async def _read(content: sevenbit.IContent) -> bytes:
    return b"".join([piece async for piece in content.pieces()])


def _leaves(octets: bytes) -> Sequence[bytes]:
    """The bodies of the leaves, decoded where that was for the sake of the wire."""
    scanner = Scanner()
    scanner.feed(octets)
    try:
        parts = scanner.finish()
    except TooComplex:
        return []
    return [_decoded(part, octets) for part in parts if part.kind is Kind.LEAF]


def _decoded(part: Part, octets: bytes) -> bytes:
    body = octets[part.body_start : part.body_end]
    if part.encodings == [b"base64"]:
        with suppress(ValueError):
            return b64decode(body.replace(b"\r\n", b""), validate=True)
    return decodestring(body) if part.encodings == [b"quoted-printable"] else body


def signatures(octets: bytes) -> None:
    """A body has the same hashes however it is cut; fields are relaxed once and for all."""
    whole, cut = BodyHasher(FORMS), BodyHasher(FORMS)
    whole.feed(octets)
    for piece in pieces(octets):
        cut.feed(piece)
    for hasher in (whole, cut):
        hasher.end()
    for form in FORMS:
        assert whole.digest(form) == cut.digest(form), form
        assert whole.length(form) == cut.length(form), form
    section = header.split(octets)[0]
    fields = Fields(section)
    for field in fields.all:
        assert relaxed(relaxed(field)) == relaxed(field), field
    fields.signed([b"from", b"subject", b"from"], b"DKIM-Signature: b=abc;\r\n", is_relaxed=True)
    fields.signed([b"from"], b"DKIM-Signature: b=abc;\r\n", is_relaxed=False)


def notices(octets: bytes) -> None:
    """A notice is well-formed, whatever stands in commands, replies and content."""
    *lines, text = octets.split(b"\n", 3)
    sender, recipient = Mailbox("a", "b.example"), Recipient(Mailbox("c", "d.example"))
    envelope = Envelope(sender, (recipient,), ret="FULL")
    with suppress(Refusal):
        argument = commands.parse_mail(b"FROM:" + b"".join(lines[:1]) + b" RET=FULL", OFFERED)
        envelope = Envelope(argument.reverse_path, (recipient,), smtputf8=argument.smtputf8)
    with suppress(Refusal):
        recipient = commands.parse_rcpt(b"TO:" + b"".join(lines[1:2]), OFFERED, smtputf8=True)
    reply = Reply(550, "5.0.0", ("no",))
    with suppress(PeerFault):
        reply = ReplyParser().feed_line(b"".join(lines[2:3])) or reply
    envelope = Envelope(
        envelope.reverse_path, (recipient,), smtputf8=envelope.smtputf8, ret="FULL", outside=False
    )
    for status in (Status.FAILED, Status.DEFERRED):
        for outside in (False, True):
            _check_notice(text, envelope, Outcome(status, reply, "mx.example"), outside=outside)


def _check_notice(text: bytes, envelope: Envelope, outcome: Outcome, *, outside: bool) -> None:
    queued = message(
        content=text,
        envelope=Envelope(
            envelope.reverse_path,
            envelope.recipients,
            smtputf8=envelope.smtputf8,
            ret=envelope.ret,
            outside=outside,
        ),
    )
    target = Target(0, envelope.recipients[0].forward_path, HOP)
    writer = NoticeWriter("mta.example", lambda: NOW, lambda: "f00" * 10)
    notice = result_of(writer.notice(queued, [(target, outcome)], NOW + 1))
    if notice is None:
        return
    whole = notice.content
    assert not _is_broken(whole), whole
    assert all(len(line) <= MAX_LINE for line in whole.split(b"\r\n")), whole
    assert notice.header.isascii() or envelope.smtputf8 or _is_utf8(envelope), whole
    found = message_from_bytes(whole)
    assert not found.defects, (found.defects, whole)
    parts = found.get_payload()
    assert isinstance(parts, list)
    assert 2 <= len(parts) <= 3, whole
    assert parts[1].get_content_type().endswith("delivery-status"), whole
    status = whole.split(b"--=_", 3)[2].partition(b"\r\n\r\n")[2]
    for group in status.rstrip(b"\r\n").split(b"\r\n\r\n"):
        assert header.end_of_fields(group + b"\r\n") == len(group) + 2, group


def _is_utf8(envelope: Envelope) -> bool:
    paths = (envelope.reverse_path, *(each.forward_path for each in envelope.recipients))
    return any(path.is_internationalised for path in paths)
