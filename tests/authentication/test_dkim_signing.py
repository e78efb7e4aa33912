"""The making of signatures."""

from __future__ import annotations

import re

from mta.authentication.dkim import tags
from mta.authentication.dkim.signing import MAX_FIELDS
from mta.smtp import header
from tests.authentication.dkim_cases import ED25519, NOW, RSA, DKIMCase, signed
from tests.authentication.test_dkim import MESSAGE


def tags_of(content: bytes) -> dict[str, str]:
    """The tags of the first signature."""
    return tags.parse(header.values(content, b"dkim-signature")[0])


class SigningTests(DKIMCase):
    """Fields that sign a message."""

    def test_tags(self) -> None:
        """What a signature says."""
        found = tags_of(signed(MESSAGE, ED25519, lifetime=3600))
        self.assertEqual(
            {name: value for name, value in found.items() if name not in ("h", "b", "bh")},
            {
                "v": "1",
                "a": "ed25519-sha256",
                "c": "relaxed/relaxed",
                "d": "example.com",
                "s": "ed",
                "t": str(int(NOW)),
                "x": str(int(NOW) + 3600),
            },
        )
        self.assertEqual(
            re.sub(r"\s", "", found["h"]),
            "from:from:to:to:cc:subject:subject:date:date:message-id:message-id:reply-to",
        )
        self.assertNotIn("x", tags_of(signed(MESSAGE, RSA)))

    def test_signed_fields(self) -> None:
        """Each field that is there, and those that others might put on top."""
        lists = (
            b"List-Id: <a.example>\r\nlist-unsubscribe: <https://a.example>\r\nResent-To: x@y\r\n"
        )
        names = re.sub(r"\s", "", tags_of(signed(lists + b"Sender: x@y\r\n" + MESSAGE, RSA))["h"])
        self.assertIn(":reply-to:sender:sender:resent-to:list-id:list-unsubscribe", names)
        for name in ("received", "return-path", "bcc", "dkim-signature", "comments"):
            self.assertNotIn(name, names)

    def test_what_may_be_added(self) -> None:
        """Another author, subject or recipient breaks a signature, trace fields do not."""
        content = signed(MESSAGE, RSA, ED25519)
        for field in (b"Received: x\r\n", b"List-Id: <a>\r\n", b"Sender: a@b\r\n", b"X: y\r\n"):
            self.assertEqual(self.words(field + content), ["pass", "pass"], field)
        for name in (b"From", b"To", b"Cc", b"Subject", b"Date", b"Message-ID", b"Reply-To"):
            self.assertEqual(self.words(name + b": x\r\n" + content), ["fail", "fail"], name)

    def test_lines(self) -> None:
        """The fields are folded, and their lines short, however much is signed."""
        many = b"".join(b"To: a%d@b.example\r\n" % number for number in range(150))
        for content in (MESSAGE, many + MESSAGE):
            section, _ = header.split(signed(content, RSA, ED25519))
            fields = header.fields(section)[:2]
            for line in b"".join(fields).splitlines():
                self.assertLess(len(line.expandtabs(8)), 79)
            self.assertTrue(all(field.endswith(b"\r\n") for field in fields))
            self.assertEqual(self.words(signed(content, RSA, ED25519)), ["pass", "pass"])
        names = re.sub(r"\s", "", tags_of(signed(many + MESSAGE, RSA))["h"]).split(":")
        self.assertEqual(names.count("to"), MAX_FIELDS)
