"""Bodies that programs on the way like to damage."""

from __future__ import annotations

SEVEN_BIT = b"".join(
    [
        b".\r\n",
        b"..\r\n",
        b".leading dot\r\n",
        b"trailing spaces  \t \r\n",
        b"From the start of a line\r\n",
        b"\r\n",
        b"QUIT\r\n",
        b"x" * 997 + b".\r\n",
        b" " + b"." * 77 + b"\r\n",
        b"last line, then empty ones\r\n",
        b"\r\n" * 3,
    ]
)

EIGHT_BIT = "Grüße, \N{SNOWMAN}, naïve\r\n".encode() + bytes(range(128, 256)) + b"\r\n" + SEVEN_BIT

LARGE = b"".join(b".%d " % number + b"large " * 10 + b"\r\n" for number in range(20_000))  # 1.3 MiB

BODIES = {"seven-bit": SEVEN_BIT, "eight-bit": EIGHT_BIT, "large": LARGE}


def message(body: bytes, subject: str = "interop") -> bytes:
    """A message with that body, as it stands between 354 and the final dot, dots not doubled."""
    header = (
        f"From: <sender@client.example>\r\n"
        f"To: <bob@office.example>\r\n"
        f"Subject: {subject}\r\n"
        f"Date: Tue, 24 Nov 2026 12:00:00 +0000\r\n"
        f"Message-ID: <{subject}@client.example>\r\n"
        f"MIME-Version: 1.0\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\n"
        f"Content-Transfer-Encoding: 8bit\r\n"
    )
    return header.encode() + b"\r\n" + body
