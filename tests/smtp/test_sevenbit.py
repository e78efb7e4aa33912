"""Content for a peer that takes 7-bit lines only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from email import message_from_bytes
from email.message import Message
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mta.queued import IContent
from mta.smtp import sevenbit
from mta.smtp.mime import MAX_DEPTH, MAX_PARTS
from tests.smtp.pieces import cut_content, places

HEADER = b"MIME-Version: 1.0\r\nSubject: x\r\n folded\r\n"
MULTIPART = (
    HEADER + b"Content-Type: multipart/mixed; boundary=b\r\n"
    b"Content-Transfer-Encoding: 8bit\r\n\r\n"
    b"preamble\r\n--b\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n"
    b"Content-Transfer-Encoding: 8bit\r\n\r\nsch\xc3\xb6n\r\n--b\r\n"
    b"Content-Type: application/octet-stream\r\n"
    b"Content-Transfer-Encoding: binary\r\n\r\n\0\r\xff\n\r\n--b\r\n"
    b"Content-Type: message/rfc822\r\n\r\n"
    b"Subject: inner\r\n\r\n\xe9\r\n--b\r\n"
    b"Content-Type: image/png\r\n"
    b"Content-Transfer-Encoding: base64\r\n\r\n/w==\r\n--b--\r\n"
)
BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")
SIGNED = (
    b"MIME-Version: 1.0\r\nContent-Type: multipart/%b; boundary=s\r\n"
    b"Content-Transfer-Encoding: 8bit\r\n\r\n"
    b"--s\r\nContent-Type: multipart/mixed; boundary=in\r\n\r\n"
    b"--in\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    b"sch%bn\r\n--in--\r\n--s\r\nContent-Type: application/pgp-signature\r\n\r\nx\r\n--s--\r\n"
)
LYING = st.lists(
    st.sampled_from(
        [
            *(
                b"Content-Type: multipart/mixed; boundary=" + name + b"\r\n"
                for name in (b"a", b"b")
            ),
            b"Content-Type: multipart/mixed\r\n",
            b"Content-Type: multipart/signed; boundary=a\r\n",
            b"Content-Type: message/rfc822\r\n",
            b"Content-Type: text/plain\r\n",
            b"Content-Type: a/b\r\n",
            *(
                b"Content-Transfer-Encoding: " + name + b"\r\n"
                for name in (b"7bit", b"8bit", b"binary", b"base64", b"quoted-printable")
            ),
            *(b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0", b".", b"\xff", b"x", b" "),
            *(b"--a", b"--a--", b"--b", b"--b--", b"\r\n--a\r\n", b"\r\n--b\r\n", b"\r\n--a--"),
        ]
    ),
    max_size=16,
).map(b"".join)


class ConversionTests(SynchronousTestCase):
    """RFC 6152 section 3."""

    def converted(
        self, octets: bytes, *, keeps_8bit: bool = False, at: Sequence[int] = ()
    ) -> bytes | None:
        """The content in lines, of 7 bits or not, when it comes in pieces."""

        async def convert() -> bytes | None:
            source = cut_content(octets, at)
            content = await sevenbit.converted(source, keeps_8bit=keeps_8bit)
            if content is None:
                return None
            result = b"".join([piece async for piece in content.pieces()])
            self.assertTrue(verifyObject(IContent, content))
            body = [piece async for piece in content.body()]
            self.assertEqual(result, await content.header() + b"".join(body))
            self.assertEqual(content.is_ascii, result.isascii())
            self.assertTrue(keeps_8bit or result.isascii())
            self.assertEqual(content.size, len(result))
            self.assertIsNone(BARE.search(result), result)
            return result

        return self.successResultOf(Deferred.fromCoroutine(convert()))

    def message(self, octets: bytes) -> Message:
        """The converted message."""
        converted = self.converted(octets)
        assert converted is not None
        return message_from_bytes(converted)

    def test_text(self) -> None:
        """Text is made quoted-printable; line ends stay line ends, the header as it was."""
        text = b"sch\xc3\xb6n\r\n.\r\ntrailing \r\n\r\nend"
        converted = self.converted(HEADER + b"Content-Transfer-Encoding: 8bit\r\n\r\n" + text)
        self.assertEqual(
            converted,
            HEADER + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n"
            b"sch=C3=B6n\r\n=2E\r\ntrailing=20\r\n\r\nend",
        )

    def test_binary(self) -> None:
        """Everything else is made base64, and is the same octets afterwards."""
        octets = bytes(range(256)) * 3
        message = self.message(
            HEADER + b"Content-Type: application/octet-stream\r\n"
            b"Content-Transfer-Encoding: binary\r\n\r\n" + octets
        )
        self.assertEqual(message["Content-Transfer-Encoding"], "base64")
        self.assertEqual(message.get_payload(decode=True), octets)

    def test_text_with_bare_line_ends(self) -> None:
        """Text that came by BINARYMIME keeps its octets, too."""
        octets = b"a\rb\nc\0\r\n\xff"
        message = self.message(
            HEADER
            + b"Content-Type: text/plain\r\nContent-Transfer-Encoding: binary\r\n\r\n"
            + octets
        )
        self.assertEqual(message.get_payload(decode=True), octets)

    def test_the_leaves_of_a_multipart(self) -> None:
        """Each leaf that needs it is encoded, what is encoded stays, the rest says 7bit."""
        message = self.message(MULTIPART)
        text, binary, inner, image = message.get_payload()
        encodings = [
            part["Content-Transfer-Encoding"]
            for part in (message, text, binary, inner, inner.get_payload(0), image)
        ]
        self.assertEqual(
            encodings, ["7bit", "quoted-printable", "base64", None, "quoted-printable", "base64"]
        )
        self.assertEqual(text.get_payload(decode=True), b"sch\xc3\xb6n")
        self.assertEqual(binary.get_payload(decode=True), b"\0\r\xff\n")
        self.assertEqual(inner.get_payload(0).get_payload(decode=True), b"\xe9")
        self.assertEqual(image.get_payload(), "/w==")
        self.assertEqual(message.preamble, "preamble")

    def test_plain_text_stays(self) -> None:
        """A leaf in 7 bits is not touched, nor is one that says nothing of its encoding."""
        octets = HEADER + b"\r\nplain\r\n"
        self.assertEqual(self.converted(octets), octets)

    def test_a_message_that_is_no_mime(self) -> None:
        """It becomes MIME, or nobody would undo the encoding."""
        message = self.message(b"Subject: x\r\n\r\n\xff\r\n")
        self.assertEqual(message["MIME-Version"], "1.0")
        self.assertEqual(message.get_payload(decode=True), b"\xff\r\n")

    def test_messages_in_messages_that_are_no_mime(self) -> None:
        """Each becomes MIME in which something is encoded, and no other; once."""
        inside = b"Content-Type: message/rfc822\r\n"
        octets = (
            b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
            b"--b\r\n" + inside + b"\r\n" + inside + b"\r\nSubject: x\r\n\r\n\xc3\xa9\r\n"
            b"--b\r\n" + inside + b"\r\nSubject: y\r\n\r\nplain\r\n--b--\r\n"
        )
        converted = self.converted(octets) or b""
        self.assertEqual(converted.count(b"MIME-Version"), 3)
        self.assertIn(inside + b"MIME-Version: 1.0\r\n\r\nSubject: x\r\n", converted)
        self.assertIn(b"Subject: y\r\n\r\nplain\r\n", converted)

    def test_header_fields_with_8_bit_octets(self) -> None:
        """There is no conversion without loss."""
        self.assertIsNone(self.converted("Subject: schön\r\n\r\n".encode()))
        self.assertIsNone(self.converted(MULTIPART.replace(b"Subject: inner", b"Subject: \xff")))

    def test_broken_mime(self) -> None:
        """8-bit octets where nothing can be encoded: between the parts, in what claims to be so."""
        self.assertIsNone(self.converted(MULTIPART.replace(b"preamble", b"\xff")))
        self.assertIsNone(
            self.converted(HEADER + b"Content-Transfer-Encoding: base64\r\n\r\n\xff\r\n")
        )

    def test_signed_parts(self) -> None:
        """What is signed or encrypted stays as it is, or can't be sent, however deep it is."""
        for kind in (b"signed", b"encrypted"):
            eight, seven = SIGNED % (kind, b"\xc3\xb6"), SIGNED % (kind, b"oe")
            self.assertIsNone(self.converted(eight))
            self.assertIsNone(self.converted(eight.replace(b"8bit", b"binary")))
            label = b"Content-Transfer-Encoding: 8bit"
            expected = seven.replace(label, label.replace(b"8bit", b"7bit"), 1)
            self.assertEqual(self.converted(seven), expected)  # only who signed sees a label
            self.assertEqual(self.converted(eight, keeps_8bit=True), eight)
            outer = b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n"
            for more in (outer, b"Content-Type: message/rfc822\r\n\r\n"):
                self.assertIsNone(self.converted(more + eight))
        self.assertIsNone(
            self.converted(SIGNED.replace(b"sch%bn", b"a\0").replace(b"%b", b"signed"))
        )

    def test_comments_beside_the_type(self) -> None:
        """They hide neither what is signed nor its parts (RFC 2045 section 5.1)."""
        signed = SIGNED % (b"signed", b"\xc3\xb6")
        for written in (
            b"(by hand) multipart/signed",
            b"multipart (a (nested) one) / (\\)) signed",
            b"multipart/signed (x; boundary=other)",
        ):
            self.assertIsNone(self.converted(signed.replace(b"multipart/signed", written)))
        plain = HEADER + b"Content-Type: text/plain (no; end\r\n\r\nsch\xc3\xb6n\r\n"
        self.assertIn(b"sch=C3=B6n", self.converted(plain) or b"")

    def test_a_part_beside_what_is_signed(self) -> None:
        """It is encoded as ever; a domain's signature of the whole message does not keep it."""
        signed = (SIGNED % (b"signed", b"oe")).removeprefix(b"MIME-Version: 1.0\r\n")
        octets = (
            b"DKIM-Signature: v=1\r\nMIME-Version: 1.0\r\n"
            b"Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n"
            + signed
            + b"--o\r\n\r\nf\xc3\xbcr alle\r\n--o--\r\n"
        )
        converted = self.converted(octets) or b""
        self.assertIn(signed.partition(b"\r\n\r\n")[2], converted)
        self.assertIn(
            b"Content-Transfer-Encoding: quoted-printable\r\n\r\nf=C3=BCr alle\r\n", converted
        )

    def test_8_bit_lines_for_who_takes_them(self) -> None:
        """What came as BINARYMIME and is lines stays so; what is not is encoded."""
        text = HEADER + b"Content-Transfer-Encoding: 8bit\r\n\r\nsch\xc3\xb6n\r\n"
        self.assertEqual(self.converted(text, keeps_8bit=True), text)
        converted = self.converted(MULTIPART.replace(b"8bit", b"binary"), keeps_8bit=True) or b""
        self.assertIn(b"Content-Transfer-Encoding: 8bit\r\n\r\npreamble", converted)
        self.assertIn(b"sch=C3=B6n", converted)
        self.assertIn(b"\xe9", converted)  # in a part that says nothing of an encoding

    def test_bounds(self) -> None:
        """Neither parts nor depth nor header sections beyond what honest mail has."""
        head = b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
        part = b"--b\r\n\r\n\xff\r\n"
        multipart = b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n"
        inside = b"Content-Type: message/rfc822\r\n\r\n"
        for few, many in (
            (head + part * (MAX_PARTS - 1), head + part * MAX_PARTS),
            (inside * (MAX_DEPTH - 1) + b"\r\n\xff", inside * MAX_DEPTH + b"\r\n\xff"),
            (inside * 50 + b"\r\n\xff", inside * 100_000 + b"\r\n\xff"),
            (
                b"".join(multipart % (n, n) for n in range(MAX_DEPTH - 1)) + b"\r\n\xff",
                b"".join(multipart % (n, n) for n in range(600)) + b"\r\n\xff",
            ),
            (
                head + (b"--b\r\n" + b"X: x\r\n" * 40_000) * 4 + part,
                head + (b"--b\r\n" + b"X: x\r\n" * 40_000) * 5 + part,
            ),
            (head + b"--b\r\nX: " + b"x" * 200_000 + b"\r\n" + part, b"X: x\r\n" * 50_000),
            (head + b"--\r\n" * 400_000 + part, head + b"--\r\n" * 500_000 + part),
        ):
            self.assertIsNotNone(self.converted(few), few[:200])
            self.assertIsNone(self.converted(many), many[:200])

    def test_what_no_reader_could_undo(self) -> None:
        """8-bit content whose structure or encoding is not clear can't be encoded."""
        body = b"\r\n--b\r\n\r\n\xff\r\n--b--\r\n"
        for fields in (
            b"Content-Type: multipart/mixed\r\n",
            b'Content-Type: multipart/mixed; boundary=""\r\n',
            b"Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: base64\r\n",
            b"Content-Type: text/plain\r\nContent-Type: multipart/mixed; boundary=b\r\n",
            b"Content-Type: text/plain; x=" + b"x" * 9000 + b"\r\n",
            b"Content-Type: message/partial\r\n",
            b"Content-Type: message/delivery-status\r\n",
            b"Content-Transfer-Encoding: x-own\r\n",
            b"Content-Transfer-Encoding: 8bit\r\nContent-Transfer-Encoding: 8bit\r\n",
            b"Subject: x\r\nno field\r\n",
            b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
            b"Content-Type: multipart/mixed; boundary=b\r\n",
            b"Content-Type: multipart/mixed; boundary=\xff\r\n",
            b'Content-Type: multipart/mixed; boundary="\\b"\r\n',
            b"Subject: a\nb\r\n",
            b"Subject: a\0b\r\n",
        ):
            self.assertIsNone(self.converted(b"MIME-Version: 1.0\r\n" + fields + body), fields)

    def test_forms_of_a_structure(self) -> None:
        """Quoted boundaries, blanks behind delimiters, digests, odd types, no body, no end."""
        mixed, eight = b"multipart/mixed; boundary=b", b"\r\n\xc3\xa9\r\n"
        for fields, body in (
            (b'multipart/mixed; boundary="b d"', b"--b d \t\r\n" + eight + b"--b d--"),
            (b"multipart/digest; boundary=b", b"--b\r\n\r\nX: y\r\n" + eight + b"--b--\r\n"),
            (b"what is this", b"\xc3\xa9"),
            (mixed, b"--b\r\nX: y\r\n--b\r\n--b\r\n" + eight + b"--b--\r\nend"),
            (mixed, b"--b\r\n\r\n--b\r\n" + eight + b"--b--\r\n--b\r\n"),
            (mixed, b"--b\r\n" + eight + b"--b\r\nX: y"),
            (b"message/global", b"Subject: \xc3\xa9\r\n\r\n"),
        ):
            octets = b"MIME-Version: 1.0\r\nContent-Type: " + fields + b"\r\n\r\n" + body
            expected = [part.get_payload(decode=True) for part in message_from_bytes(octets).walk()]
            converted = self.message(octets)
            found = [part.get_payload(decode=True) for part in converted.walk()]
            if fields == b"message/global":  # which Python reads as a part when it is not encoded
                expected, found = expected[:1], found[:1]
            self.assertEqual(found, expected, fields)

    def test_long_lines(self) -> None:
        """They are broken where they can be, in what is converted anyway, and stay elsewhere."""
        long = b"x" * 2000
        head = HEADER + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n"
        octets = head + b"\xff\r\n--b\r\n\r\n" + long + b"\r\n--b--\r\n"
        _, second = self.message(octets).get_payload()
        self.assertEqual(second["Content-Transfer-Encoding"], "quoted-printable")
        self.assertEqual(second.get_payload(decode=True), long)
        stays = octets.replace(
            b"--b\r\n\r\nx", b"--b\r\nContent-Transfer-Encoding: base64\r\n\r\nx"
        )
        self.assertIn(long, self.converted(stays) or b"")
        line = b"\xc3\xa9" * 100_000
        one = HEADER + b"\r\n" + line
        converted = self.converted(one, at=range(0, len(one), 1000)) or b""
        self.assertLessEqual(max(map(len, converted.split(b"\r\n"))), 76)
        self.assertEqual(
            message_from_bytes(converted).get_payload(decode=True), b"\xc3\xa9" * 100_000
        )

    def test_large_content(self) -> None:
        """In many pieces, of both encodings, cut anywhere."""
        lines, octets = "schön und gut\r\n".encode() * 20_000, bytes(range(256)) * 2000
        for kind, body in ((b"text/plain", lines), (b"a/b", octets)):
            content = HEADER + b"Content-Type: " + kind + b"\r\n\r\n" + body
            whole = self.converted(content)
            self.assertEqual(whole, self.converted(content, at=range(0, len(content), 777)))
            assert whole is not None
            decoded = message_from_bytes(whole).get_payload(decode=True)
            self.assertEqual(decoded, body)

    @given(LYING, places, st.booleans())
    @settings(max_examples=500)
    def test_whatever_it_claims_to_be(self, octets: bytes, at: list[int], keeps_8bit: bool) -> None:
        """No content, however it lies about itself, becomes anything but lines, at any cut."""
        whole = self.converted(octets, keeps_8bit=keeps_8bit)
        self.assertEqual(self.converted(octets, keeps_8bit=keeps_8bit, at=at), whole)

    def test_outbound_smuggling(self) -> None:
        """A second message, behind whatever a next hop takes for the end of the first."""
        more = b"MAIL FROM:<ceo@bank.example>"
        for fields in (
            b"Content-Type: multipart/mixed\r\nContent-Transfer-Encoding: base64\r\n",
            b"Content-Type: multipart/mixed\r\n",
            b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: quoted-printable\r\n",
            b"Content-Transfer-Encoding: base64\r\n",
            b"Content-Transfer-Encoding: quoted-printable\r\n",
            b"Content-Type: multipart/mixed; boundary=b\r\n",
            b"Content-Type: text/plain\r\n",
            b"",
        ):
            for end in (b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r.\r\n", b"\r\n\0.\r\n", b"\0"):
                for place in (b"hello" + end + more, b"\r\n--b\r\n\r\nhello" + end + more, end):
                    for keeps_8bit in (False, True):
                        self.converted(fields + b"\r\n" + place, keeps_8bit=keeps_8bit)

    def test_content_that_is_too_large(self) -> None:
        """It is not even read."""
        with patch.object(sevenbit, "MAX_OCTETS", 10):
            self.assertIsNone(self.converted(b"Subject: long enough\r\n\r\n"))

    @given(
        st.binary(max_size=80),
        st.sampled_from(["text/plain", "application/x-y"]),
        st.sampled_from(["8bit", "binary"]),
    )
    def test_the_octets_come_back(self, body: bytes, kind: str, encoding: str) -> None:
        """Whatever the body is, the reader gets the same after decoding."""
        header = f"MIME-Version: 1.0\r\nContent-Type: {kind}\r\n"
        header += f"Content-Transfer-Encoding: {encoding}\r\n\r\n"
        decoded = self.message(header.encode() + body).get_payload(decode=True)
        assert isinstance(decoded, bytes)
        if kind == "text/plain":
            decoded, body = decoded.replace(b"\r\n", b"\n"), body.replace(b"\r\n", b"\n")
        self.assertEqual(decoded, body)
