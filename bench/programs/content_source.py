"""As smtp-source, with content of a file, by many messages a connection.

``python -m bench.programs.content_source PORT SESSIONS MESSAGES FILE RECIPIENT SENDER``
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path


async def _session(port: int, left: Iterator[int], envelope: bytes, content: bytes) -> None:
    """One connection, for as long as there are messages left."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def hear(number: int) -> None:
        while number:
            line = await reader.readline()
            if line[:1] not in (b"2", b"3"):
                raise RuntimeError(f"refused: {line!r}")
            number -= line[3:4] == b" "

    await hear(1)
    writer.write(b"EHLO client.example\r\n")
    await hear(1)
    for _ in left:
        writer.write(envelope)
        await hear(3)
        writer.write(content)
        await hear(1)
    writer.write(b"QUIT\r\n")
    await hear(1)
    writer.close()


async def _load(port: int, sessions: int, messages: int, envelope: bytes, content: bytes) -> None:
    left = iter(range(messages))
    await asyncio.gather(*(_session(port, left, envelope, content) for _ in range(sessions)))


if __name__ == "__main__":
    port, sessions, messages = map(int, sys.argv[1:4])
    file, recipient, sender = sys.argv[4:7]
    envelope = f"MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode()
    content = Path(file).read_bytes() + b".\r\n"
    asyncio.run(_load(port, sessions, messages, envelope, content))
