"""Targets: lines that clients, servers and proxies say."""

from __future__ import annotations

import re
from contextlib import suppress
from ipaddress import ip_address

from mta.mail import Envelope, Mailbox, Recipient
from mta.proxy_protocol import client_of
from mta.session import Origin
from mta.smtp import far_look, header, link_kind
from mta.smtp.errors import PeerFault, Refusal
from mta.smtp.extensions import Extensions
from mta.smtp.grammar import commands, parse_mailbox, xclient, xforward
from mta.smtp.replies import MAX_OCTETS, ReplyParser, encode
from mta.smtp.srs import SenderRewriting
from mta.smtp.trace import received
from mta.smtp.wire import LineTooLong, Wire
from tests.fuzz.pieces import pieces

OFFERED = frozenset(
    {"SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "NOTIFY", "ORCPT", "REQUIRETLS", "AUTH"}
    | {"XWAITING", "XSEALED", "XQUESTION"}
)
REPLY_LINE = re.compile(rb"[2-5][0-9]{2}[ -][^\r\n\0]*\r\n")
SRS = SenderRewriting(b"key")
NOW = 1_700_000_000.0


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
        link_kind.parse,
        lambda argument: commands.parse_mail(argument, OFFERED),
    ):
        with suppress(Refusal, PeerFault):
            parse_argument(octets)
    with suppress(Refusal):
        found = commands.parse_rcpt(octets, OFFERED, smtputf8=True).forward_path
        again = written_and_read(found)
        assert again == found, (found, again)


def written_and_read(forward_path: Mailbox) -> Mailbox:
    """The address as another host reads it in our RCPT.  Raises Refusal."""
    written = commands.rcpt_command(forward_path, ())
    argument = written.removeprefix(b"RCPT ").removesuffix(b"\r\n")
    return commands.parse_rcpt(argument, OFFERED, smtputf8=True).forward_path


def origins(octets: bytes) -> None:
    """What other servers say of clients makes one Received: field, whatever it is."""
    told, proxied = xforward.ForwardedClient(), xclient.ProxiedClient()
    for argument in octets.split(b"\n"):
        with suppress(Refusal):
            told = xforward.parse_xforward(argument, told)
        with suppress(Refusal):
            proxied = xclient.parse_xclient(argument, proxied)
    by_proxy = Origin(proxied.address, port=proxied.port, hello=proxied.hello, user=proxied.user)
    by_peer = Origin(
        told.address,
        told.name,
        told.port,
        told.hello,
        told.protocol,
        told_by="office",
        told_id=told.ident,
    )
    envelope = Envelope(Mailbox("a", "b.example"), (Recipient(Mailbox("c", "d.example")),))
    for origin in (by_proxy, by_peer):
        field = received(origin, "mta.example", "0", envelope, NOW)
        assert header.fields(field) == [field], field
        assert field.isascii(), field
        for command in xforward.xforward_commands(
            origin, "0", xforward.REMOTE, xforward.XFORWARD_ATTRIBUTES
        ):
            argument = command.removeprefix(b"XFORWARD ").removesuffix(b"\r\n")
            xforward.parse_xforward(argument, xforward.ForwardedClient())


def wire(octets: bytes) -> None:
    """Lines come the same however they are cut."""
    whole, cut = Wire(), Wire()
    whole.feed(octets)
    expected = _lines(whole)
    found: list[bytes | None] = []
    for piece in pieces(octets):
        cut.feed(piece)
        found += _lines(cut)
    assert found == expected


def _lines(wire: Wire) -> list[bytes | None]:
    """The lines that are complete; None: one that was too long."""
    lines: list[bytes | None] = []
    while True:
        try:
            line = wire.line(1000)
        except LineTooLong:
            lines.append(None)
            continue
        if line is None:
            return lines
        lines.append(line)


def replies(octets: bytes) -> None:
    """A reply that was read is written as it can be read again; what it offers is bounded."""
    parser = ReplyParser()
    for line in octets.split(b"\n"):
        try:
            reply = parser.feed_line(line)
        except PeerFault:
            return
        if reply is None:
            continue
        again, found = ReplyParser(), None
        for line_again in encode(reply).splitlines(keepends=True):
            assert len(line_again) <= MAX_OCTETS, line_again
            assert REPLY_LINE.fullmatch(line_again), line_again
            found = again.feed_line(line_again[:-2])
        assert found is not None
        assert found.code == reply.code, (found, reply)
        assert found.enhanced == reply.enhanced or not reply.enhanced, (found, reply)
        offers = Extensions(reply)
        assert (offers.max_size or 0) < 10**20
        assert 0 < offers.limit("RCPTMAX", 1) < 10**9
        far_look.answer_in(reply)


def looks(octets: bytes) -> None:
    """What one host tells another of it is told on as it came."""
    with suppress(Refusal):
        found = far_look.parse(octets)
        if isinstance(found, far_look.Question):
            argument = found.command.removeprefix(f"{far_look.KEYWORD} ").encode()
            assert far_look.parse(argument) == found, found
        else:
            command = far_look.tell_command(found)
            assert far_look.parse(command.split(" ", 1)[1].encode()) == found, found
            assert found == far_look.answer_in(far_look.reply_of(found)) or not found, found


def proxies(octets: bytes) -> None:
    """A header is read the same however it is cut, and what is behind it stays."""
    try:
        found = client_of(octets)
    except ValueError:
        return
    if found is None:
        return
    client, rest = found
    end = len(octets) - len(rest)
    assert octets[end:] == rest
    assert client_of(octets[:end]) == (client, b"")
    assert client_of(octets[: end - 1]) is None
    assert 0 <= client.port <= 65535, client
    if client.address:
        ip_address(client.address)


def rewritten_senders(octets: bytes) -> None:
    """Local parts: only those that we wrote stand for an address, in whatever case."""
    text = octets.decode("utf-8", "ignore")
    SRS.original(text, NOW)
    try:
        reverse_path = parse_mailbox(text)
    except ValueError:
        return
    once = SRS.rewritten(reverse_path, "us.example", NOW)
    for written in (once.local_part.lower(), once.local_part.upper(), _widened(once.local_part)):
        SRS.original(written, NOW)
    if once.local_part.upper().startswith("SRS0="):
        assert SRS.original(once.local_part, NOW) == reverse_path, once
        twice = SRS.rewritten(once, "them.example", NOW)
        assert SRS.original(twice.local_part, NOW) == once, (twice, once)


def _widened(text: str) -> str:
    """The text in letters that are the same to some readers."""
    return text.translate({ord("K"): "\N{KELVIN SIGN}", ord("S"): "\N{LATIN SMALL LETTER LONG S}"})
