"""Content for a peer that takes 7-bit lines only."""

from __future__ import annotations

from email import message_from_bytes
from email.message import Message
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mta.interfaces import IContent
from mta.smtp import sevenbit
from mta.spool.content import MemoryContent

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


class ConversionTests(SynchronousTestCase):
    """RFC 6152 section 3."""

    def converted(self, octets: bytes) -> bytes | None:
        """The content in 7-bit form."""

        async def convert() -> bytes | None:
            content = await sevenbit.converted(MemoryContent(octets, octets.isascii()))
            if content is None:
                return None
            result = b"".join([piece async for piece in content.pieces()])
            self.assertTrue(verifyObject(IContent, content))
            self.assertTrue(content.is_ascii and result.isascii())
            self.assertEqual(content.size, len(result))
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

    def test_content_too_large_for_memory(self) -> None:
        """It is not even read."""
        with patch.object(sevenbit, "MOST", 10):
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
