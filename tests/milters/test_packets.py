"""Octets to packets and back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mta.milters import changes, negotiation, packets, replies
from mta.milters.packets import MAX_PACKET, FilterFailure, Packet, PacketReader
from mta.smtp.errors import Refusal
from mta.verdict import AddRecipient, ChangeSender, RemoveRecipient
from tests.milters.filters import packet

COMMANDS = st.binary(min_size=1, max_size=1)
PACKETS = st.lists(st.builds(Packet, COMMANDS, st.binary(max_size=300)))


class PacketTests(SynchronousTestCase):
    """The codec."""

    @given(PACKETS, st.lists(st.integers(1, 40)))
    def test_any_cut(self, sent: list[Packet], cuts: list[int]) -> None:
        """Packets come out as they went in, however they are cut."""
        octets = b"".join(packets.encode(*each) for each in sent)
        reader, found = PacketReader(), []
        for size in [*cuts, len(octets) or 1]:
            found += reader.feed(octets[:size])
            octets = octets[size:]
        found += reader.feed(octets)
        self.assertEqual(found, sent)

    @given(st.binary(max_size=400), st.integers(1, 50))
    def test_anything(self, octets: bytes, size: int) -> None:
        """Whatever comes: packets, or a failure, and bounded memory."""
        reader = PacketReader()
        try:
            for start in range(0, len(octets), size):
                for each in reader.feed(octets[start : start + size]):
                    self.assertEqual(len(each.command), 1)
        except FilterFailure:
            return

    def test_lengths(self) -> None:
        """A packet has a command, and a bound."""
        reader = PacketReader()
        self.assertEqual(reader.feed((MAX_PACKET).to_bytes(4)), [])
        for length in (0, MAX_PACKET + 1, 2**32 - 1):
            self.assertRaises(FilterFailure, PacketReader().feed, length.to_bytes(4))

    def test_the_form(self) -> None:
        """As every filter reads it."""
        self.assertEqual(packets.encode(b"H", b"x\0"), packet(b"Hx\0"))
        self.assertEqual(packets.text(b"a", b"", b"b\0c"), b"a\0\0bc\0")
        self.assertEqual(
            packets.macros(b"M", [("i", "1"), ("j", "ü")]), packet("DMi\x001\0j\0ü\0".encode())
        )
        self.assertEqual(packets.macros(b"M", []), b"")

    @given(st.lists(st.binary(max_size=20).filter(lambda each: b"\0" not in each), min_size=1))
    def test_strings(self, strings: list[bytes]) -> None:
        """Text comes back as it was."""
        self.assertEqual(packets.strings_of(packets.text(*strings)), strings)


class AnswerTests(SynchronousTestCase):
    """What filters say makes no other mistake than the ones that are expected."""

    @given(
        st.sampled_from([b"h", b"i", b"m", b"e", b"+", b"2", b"-", b"x"]), st.binary(max_size=60)
    )
    def test_changes(self, command: bytes, data: bytes) -> None:
        """Any packet is a change, or a failure."""
        for each in (
            data,
            data + b"\0",
            b"\0\0\0\1" + data + b"\0",
            b"<a@b.example>\0" + data + b"\0",
        ):
            try:
                changes.Changes().add(Packet(command, each))
            except FilterFailure:
                continue

    @given(st.binary(max_size=1), st.binary(max_size=60))
    def test_verdicts(self, command: bytes, data: bytes) -> None:
        """Any packet is a verdict, a refusal, or a failure."""
        for event in negotiation.EVENTS:
            for each in (data, b""):
                try:
                    replies.decision(event, Packet(command, each))
                except (FilterFailure, Refusal):
                    continue

    @given(st.text(max_size=80))
    def test_replies(self, text: str) -> None:
        """What a filter writes is a reply of the class that it says, or a failure."""
        for words in (text, f"550 {text}", f"451 4.7.1 {text}", f"550-5.1.1 {text}\r\n550 5.1.1 x"):
            try:
                reply = replies.reply_of(words.encode() + b"\0")
            except FilterFailure:
                continue
            self.assertIn(reply.code // 100, (4, 5))
            self.assertIn(reply.enhanced[:1], ("", str(reply.code)[0]))

    @given(st.binary(max_size=80))
    def test_negotiation(self, data: bytes) -> None:
        """Any answer to the offer is an agreement, or a failure."""
        for each in (data, b"\0\0\0\6\0\0\0\1\0\0\0\0" + data):
            try:
                agreement = negotiation.agreement(Packet(b"O", each))
            except FilterFailure:
                continue
            self.assertLessEqual(agreement.version, 6)

    def test_in_words(self) -> None:
        """The log says what was changed."""
        made = changes.Changes()
        self.assertEqual(made.described(), "")
        for each in (
            b"hN\0001\0",
            b"i\0\0\0\1N\0001\0",
            b"m\0\0\0\1N\0\0",
            b"e<>\0",
            b"+a@b\0",
            b"-a@b\0",
        ):
            made.add(Packet(each[:1], each[1:]))
        self.assertEqual(
            made.described(),
            "2 fields added, 1 fields changed, 1 sender changed, 1 recipients added,"
            " 1 recipients removed",
        )
        verdict = made.verdict(body=None)
        self.assertEqual(
            [type(each) for each in verdict.envelope_edits],
            [ChangeSender, AddRecipient, RemoveRecipient],
        )
