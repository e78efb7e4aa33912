"""Targets: what filters, Dovecot, and processes beside us say."""

from __future__ import annotations

from contextlib import suppress

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from mta.interfaces import NotOpened
from mta.milters import negotiation, packets, replies
from mta.milters.changes import Changes
from mta.sealing import agefile, bech32
from mta.sealing.keys import PrivateKey, PublicKey
from mta.smtp import header
from mta.smtp.errors import Refusal
from mta.smtp.field_edits import EditedSection
from mta.smtp.replies import encode
from mta.users.dovecot_protocol import DovecotLink
from mta.verdict import AddRecipient
from tests.fuzz.lines import REPLY_LINE, written_and_read
from tests.fuzz.pieces import pieces

KEY = PrivateKey(bytes(range(32)))
KEYS = (PrivateKey(bytes(range(1, 33))), KEY)
SECTION = b"From: a@b.example\r\nX-A: 1\r\n\r\n"


def filters(octets: bytes) -> None:
    """What a filter says comes the same however it is cut, and can do no more than it may."""
    whole, cut = packets.PacketReader(), packets.PacketReader()
    with suppress(packets.FilterFailure):
        found = whole.feed(octets)
        again = [each for piece in pieces(octets) for each in cut.feed(piece)]
        assert found == again, (found, again)
        for packet in found:
            _check_packet(packet)
    for command in b"himhe+2-bcy":
        _check_packet(packets.Packet(bytes([command]), octets))


def _check_packet(packet: packets.Packet) -> None:
    with suppress(packets.FilterFailure):
        negotiation.agreement(packet)
    for event in negotiation.EVENTS:
        with suppress(packets.FilterFailure, Refusal):
            replies.decision(event, packet)
    with suppress(packets.FilterFailure):
        for line in encode(replies.reply_of(packet.data)).splitlines(keepends=True):
            assert REPLY_LINE.fullmatch(line), line
    assert "\n" not in replies.reason_of(packet.data)
    changes = Changes()
    with suppress(packets.FilterFailure):
        changes.add(packet)
        _check_changes(changes)


def _check_changes(changes: Changes) -> None:
    verdict = changes.verdict(body=None)
    section = EditedSection(b"Received: us\r\n", SECTION)
    section.apply(verdict.edits)
    assert b"Received: us\r\n" in header.fields(section.octets), section.octets
    assert len(header.fields(section.octets)) <= 4, section.octets
    for edit in verdict.envelope_edits:
        if isinstance(edit, AddRecipient):
            assert written_and_read(edit.recipient.forward_path)


def sealed_files(octets: bytes) -> None:
    """A sealed file is opened as it was; a damaged one never as something else."""
    with suppress(NotOpened):
        opening = agefile.Opening(KEYS)
        made = b"".join(opening.add(piece) for piece in pieces(octets))
        assert agefile.opened(octets, KEYS) == made + opening.end()
    sealed = agefile.sealed(octets, [KEY.public])
    assert agefile.opened(sealed, KEYS) == octets
    place = sum(octets) % len(sealed)
    damaged = bytearray(sealed)
    damaged[place] ^= len(octets) % 255 + 1
    for file in (bytes(damaged), sealed[:place], sealed + octets[:1] + b"x"):
        try:
            assert agefile.opened(file, KEYS) == octets, file
        except NotOpened:
            continue
        raise AssertionError(f"a damaged file was opened: {file!r}")


def keys(octets: bytes) -> None:
    """A key is read as it was written, and what has one wrong letter is none."""
    text = octets.decode("utf-8", "replace")
    for kind in (PublicKey, PrivateKey):
        with suppress(ValueError):
            kind.read(text)
    written = bech32.encoded("age", octets[:50])
    assert bech32.decoded("age", written) == octets[:50]
    assert bech32.decoded("age", written.upper()) == octets[:50]
    wrong = written[:-1] + ("q" if written[-1] != "q" else "p")
    with suppress(ValueError):
        raise AssertionError(bech32.decoded("age", wrong))


def dovecot(octets: bytes) -> None:
    """What Dovecot says ends no more than the exchange that it is about."""
    link, transport = DovecotLink(Clock()), StringTransport()
    link.makeConnection(transport)
    link.when_ready().addErrback(lambda _: None)
    _, answer = link.begin("PLAIN", [b"service=smtp"])
    answers: list[object] = []
    answer.addBoth(answers.append)
    link.dataReceived(octets)
    for found in answers:
        getattr(found, "value", lambda _: None)(b"user")
    if transport.disconnecting:
        link.connectionLost()
