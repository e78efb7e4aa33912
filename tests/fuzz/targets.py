"""The readers of the program, each as a function of octets.

A target lets pass what its reader may raise.  All else that it raises is a fault.  `SEEDS`
are octets to begin with, one line each, as Python writes them in bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import yaml

from mta.authentication.dkim import tags
from mta.authentication.dmarc.author import author_domains
from mta.authentication.dmarc.record import parse_record
from mta.authentication.spf import record as spf_record
from mta.authentication.spf.result import PermError
from mta.config.document import ConfigurationError, Source, parse
from mta.config.schema import read_settings
from mta.delivery.maildir import maildir_paths
from mta.dns_answer import RecordType
from mta.mail import Mailbox
from mta.maildrop.batch import Malformed, read_envelope
from mta.milters import changes, negotiation, packets
from mta.milters import replies as filter_replies
from mta.pairing import token
from mta.resolver import response
from mta.smtp import authors, header
from mta.smtp.content import DotReader, DotWriter, LineCheck
from mta.smtp.errors import PeerFault, Refusal
from mta.smtp.grammar import commands, xforward
from mta.smtp.replies import ReplyParser, encode
from mta.smtp.wire import Wire
from mta.users import form

SEEDS = Path(__file__).with_name("seeds.txt")
OFFERED = frozenset({"SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "NOTIFY", "ORCPT", "REQUIRETLS"})


def grammar(octets: bytes) -> None:
    """Commands: a refusal or a value, and what was read is written as it can be read again."""
    for parse_argument in (
        commands.parse_command,
        commands.parse_hello,
        commands.parse_bdat,
        commands.parse_domains,
        commands.parse_etrn,
        commands.parse_list,
        commands.parse_pairing,
        lambda argument: commands.parse_mail(argument, OFFERED),
        lambda argument: xforward.parse_xforward(argument, xforward.ForwardedClient()),
    ):
        with suppress(Refusal, PeerFault):
            parse_argument(octets)
    with suppress(Refusal):
        found = commands.parse_rcpt(octets, OFFERED, smtputf8=True).forward_path
        written = commands.rcpt_command(found, ())
        argument = written.removeprefix(b"RCPT ").removesuffix(b"\r\n")
        again = commands.parse_rcpt(argument, OFFERED, smtputf8=True)
        assert again.forward_path == found, (found, again)


def wire(octets: bytes) -> None:
    """Lines come the same however they are cut."""
    whole, cut = Wire(), Wire()
    whole.feed(octets)
    expected = _lines(whole)
    found = []
    for octet in octets:
        cut.feed(bytes([octet]))
        found += _lines(cut)
    assert found == expected


def _lines(wire: Wire) -> list[bytes]:
    lines = []
    with suppress(Refusal, PeerFault):
        while (line := wire.line(1000)) is not None:
            lines.append(line)
    return lines


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
    check = LineCheck()
    check.feed(octets[:middle])
    check.feed(octets[middle:])
    check.end()


def headers(octets: bytes) -> None:
    """Fields joined are the section, and authors are mailboxes or a refusal."""
    section, body = header.split(octets)
    assert section + body in (octets, b"\r\n" + octets) or section.endswith(b"\r\n")
    header.count(section, b"received")
    header.without(section, b"bcc")
    author_domains(section)
    with suppress(ValueError):
        header.without_comments(octets.decode("latin-1"))
    with suppress(Refusal, ValueError):
        authors.authors(octets)


def replies(octets: bytes) -> None:
    """A reply that was read is written as it can be read again."""
    parser = ReplyParser()
    for line in octets.split(b"\n"):
        try:
            reply = parser.feed_line(line)
        except PeerFault:
            return
        if reply is not None:
            again, found = ReplyParser(), None
            for line_again in encode(reply).split(b"\r\n")[:-1]:
                found = again.feed_line(line_again)
            assert found is not None
            assert found.code == reply.code


def records(octets: bytes) -> None:
    """What domains publish: SPF, DKIM, DMARC, and responses of name servers."""
    with suppress(ValueError):
        tags.parse(octets)
    spf_record.only_record([octets])
    with suppress(PermError):
        spf_record.parse(octets)
    parse_record(octets)
    for kind in (RecordType.MX, RecordType.TXT, RecordType.A):
        with suppress(response.MalformedResponse):
            response.parse(octets, kind.value)


def filters(octets: bytes) -> None:
    """What a milter says."""
    reader = packets.PacketReader()
    with suppress(packets.FilterFailure):
        for packet in reader.feed(octets):
            for read in (filter_replies.is_verdict, negotiation.agreement):
                with suppress(packets.FilterFailure):
                    read(packet)
            with suppress(packets.FilterFailure):
                filter_replies.reply_of(packet.data)
            filter_replies.reason_of(packet.data)
    for read_data in (changes._change_sender, changes._add_recipient, changes._change_field):
        with suppress(packets.FilterFailure, Refusal):
            read_data(octets)


def configuration(octets: bytes) -> None:
    """A configuration: settings, or problems with their places."""
    with suppress(ConfigurationError, UnicodeDecodeError):
        source = Source(Path("/nowhere/mta.yaml"), {}, False)
        read_settings(parse(octets.decode(), source))


def users(octets: bytes) -> None:
    """The users file: users that are written as they were read, or words for a person."""
    with suppress(ValueError, yaml.YAMLError):
        found = form.read(octets)
        assert form.read(form.written(found)) == found


def maildrop(octets: bytes) -> None:
    """What any user of the host may leave."""
    with suppress(Malformed):
        read_envelope(io.BytesIO(octets))


def tokens(octets: bytes) -> None:
    """What an operator pastes."""
    with suppress(token.TokenFault, UnicodeDecodeError):
        token.decoded(octets.decode())


def maildirs(octets: bytes) -> None:
    """No address names a Maildir outside of its place."""
    text = octets.decode("utf-8", "replace")
    local_part, _, domain = text.rpartition("@")
    with suppress(ValueError):
        for path in maildir_paths("/mail/{domain}/{local}", Mailbox(local_part, domain)):
            parts = Path(path).parts
            assert parts[:2] == ("/", "mail"), path
            assert len(parts) <= 4, path
            assert ".." not in parts, path


TARGETS: Sequence[Callable[[bytes], None]] = (
    *(grammar, wire, content, headers, replies, records, filters),
    *(configuration, users, maildrop, tokens, maildirs),
)


def seeds(target: Callable[[bytes], None]) -> list[bytes]:
    """The octets to begin a target with."""
    lines = SEEDS.read_text("ascii").splitlines()
    pairs = (line.partition(": ") for line in lines if not line.startswith("#"))
    return [
        text.encode("ascii").decode("unicode_escape").encode("latin-1")
        for name, _, text in pairs
        if name == target.__name__
    ]
