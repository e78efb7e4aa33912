"""Offices that dial one relay, log in over TLS, and turn their connections.

``python -m bench.programs.offices PORT NUMBER PASSWORD`` makes `NUMBER` of them: the users
``office0``, ``office1``...  It listens on a port of its own, which it prints; who connects there
reads a line for each link that stands (``up N``) and for each message (``mail N``).
"""

from __future__ import annotations

import asyncio
import sys
from base64 import b64encode

from bench.programs.tls_source import context

AT_ONCE = 50  # log-ins: the relay hashes a password for each, and refuses more than a hundred
_CONTEXT = context()
HOLDER = b"250-office.example\r\n250-PIPELINING\r\n250 SIZE\r\n"


class Offices:
    """The offices, and those who hear of them."""

    def __init__(self, port: int, password: str) -> None:
        self._port = port
        self._password = password
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._listeners: list[asyncio.StreamWriter] = []
        self._told: list[bytes] = []

    def hear(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Tell one more of all that happened, and that will."""
        writer.writelines(self._told)
        self._listeners.append(writer)

    async def keep(self, number: int) -> None:
        """Be one office, until the relay ends the link."""
        async with self._turns:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port, ssl=_CONTEXT)
            name = f"office{number}"
            secret = b64encode(f"\0{name}\0{self._password}".encode()).decode()
            await _heard(reader)
            for said in (f"EHLO {name}.example", f"AUTH PLAIN {secret}", f"ATRN {name}.example"):
                writer.write(said.encode() + b"\r\n")
                await _heard(reader)
            self._tell(b"up %d\n" % number)
        writer.write(b"220 office.example\r\n")
        while line := await reader.readline():
            await self._answer(line[:4].upper(), number, reader, writer)

    async def _answer(
        self, verb: bytes, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if verb == b"EHLO":
            writer.write(HOLDER)
        elif verb == b"DATA":
            writer.write(b"354 go on\r\n")
            await reader.readuntil(b"\r\n.\r\n")
            self._tell(b"mail %d\n" % number)
            writer.write(b"250 OK\r\n")
        else:
            writer.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 OK\r\n")

    def _tell(self, line: bytes) -> None:
        self._told.append(line)
        for writer in self._listeners:
            writer.write(line)


async def _heard(reader: asyncio.StreamReader) -> None:
    """Read a reply.  Raises RuntimeError where it refuses."""
    while (line := await reader.readline())[3:4] == b"-":
        pass
    if line[:1] != b"2":
        raise RuntimeError(f"refused: {line!r}")


async def _run(port: int, number: int, password: str) -> None:
    offices = Offices(port, password)
    server = await asyncio.start_server(offices.hear, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.gather(*map(offices.keep, range(number)))


if __name__ == "__main__":
    asyncio.run(_run(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
