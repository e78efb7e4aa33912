"""As smtp-source, with STARTTLS (TLS 1.3): one message a connection.

``python -m bench.programs.tls_source PORT SESSIONS MESSAGES OCTETS RECIPIENT``
"""

from __future__ import annotations

import asyncio
import ssl
import sys


async def _send(port: int, octets: int, recipient: str) -> None:
    """One connection, one message."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def say(line: str) -> None:
        writer.write(line.encode() + b"\r\n")
        await hear()

    async def hear() -> None:
        while (line := await reader.readline())[3:4] == b"-":
            pass
        if line[:1] not in (b"2", b"3"):
            raise RuntimeError(f"refused: {line!r}")

    await hear()
    await say("EHLO client.example")
    await say("STARTTLS")
    await writer.start_tls(_CONTEXT)
    await say("EHLO client.example")
    await say("MAIL FROM:<sender@client.example>")
    await say(f"RCPT TO:<{recipient}>")
    await say("DATA")
    await say("Subject: bench\r\n\r\n" + "x" * octets + "\r\n.")
    await say("QUIT")
    writer.close()


def context() -> ssl.SSLContext:
    """TLS 1.3 with a server whose certificate does not matter."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    return made


_CONTEXT = context()


async def _load(port: int, sessions: int, messages: int, octets: int, recipient: str) -> None:
    left = iter(range(messages))

    async def session() -> None:
        for _ in left:
            await _send(port, octets, recipient)

    await asyncio.gather(*(session() for _ in range(sessions)))


if __name__ == "__main__":
    port, sessions, messages, octets = map(int, sys.argv[1:5])
    asyncio.run(_load(port, sessions, messages, octets, sys.argv[5]))
