"""A proxy that lets every octet arrive late: a long-distance line on this machine.

``python -m bench.programs.delay PORT SECONDS`` listens on a port of its own, which it prints, and
passes what comes on to PORT, each way after so many seconds.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, late: float) -> None:
    """Copy one direction."""
    loop = asyncio.get_running_loop()
    while data := await reader.read(2**18):
        loop.call_later(late, writer.write, data)
    loop.call_later(late, writer.close)


async def _connected(
    port: int, late: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    there, back = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.gather(
        _pass_on(reader, back, late), _pass_on(there, writer, late), return_exceptions=True
    )


async def _serve(port: int, late: float) -> None:
    server = await asyncio.start_server(partial(_connected, port, late), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2])))
