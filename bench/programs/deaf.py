"""A server that says its words on each connection, and then reads nothing.

``python -m bench.programs.deaf WORDS`` listens on a port of its own, which it prints.  ``|`` is the
end of a line: the first one is the greeting, and each other one the reply to what comes next.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import StreamReader, StreamWriter

READ = 4096  # octets that are read at once, and at most after the last word


async def main(words: str) -> None:
    """See the module."""
    connections = []

    async def connected(reader: StreamReader, writer: StreamWriter) -> None:
        connections.append(writer)  # which would be closed with the last reference
        lines = words.split("|")[:-1]
        for number, line in enumerate(lines):
            if number and not await reader.read(READ):
                break
            writer.write(f"{line}\r\n".encode())

    options = {"backlog": 1000, "limit": READ}
    async with await asyncio.start_server(connected, "127.0.0.1", 0, **options) as listener:
        print(listener.sockets[0].getsockname()[1], flush=True)
        await listener.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
