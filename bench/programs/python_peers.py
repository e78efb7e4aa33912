"""Servers of other libraries with a Maildir behind them, which have no queue.

``python -m bench.programs.python_peers {aiosmtpd|twisted.mail} MAILDIR`` listens on a port of its
own, which it prints.  A message is in the Maildir, with its file synced, before its 250.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

BACKLOG = 1024
_NUMBERS = itertools.count()


def deliver(maildir: Path, content: bytes) -> None:
    """Put a message into a Maildir; blocks."""
    name = f"{time.time_ns()}.{os.getpid()}_{next(_NUMBERS)}.bench"
    temporary = maildir / "tmp" / name
    try:
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileNotFoundError:
        for folder in ("tmp", "new", "cur"):
            (maildir / folder).mkdir(parents=True, exist_ok=True)
        return deliver(maildir, content)
    try:
        os.write(file, content)
        os.fsync(file)
    finally:
        os.close(file)
    temporary.rename(maildir / "new" / name)
    return None


async def _aiosmtpd(maildir: Path) -> None:
    from aiosmtpd.smtp import SMTP, Envelope, Session

    loop = asyncio.get_running_loop()

    class Handler:
        async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
            received = f"Received: from {session.host_name}; {formatdate()}\r\n".encode()
            assert isinstance(envelope.content, bytes)
            await loop.run_in_executor(None, deliver, maildir, received + envelope.content)
            return "250 OK"

    handler = Handler()
    server = await loop.create_server(
        lambda: SMTP(handler, hostname="aiosmtpd.example", loop=loop),
        "127.0.0.1",
        0,
        backlog=BACKLOG,
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _twisted_mail(maildir: Path) -> None:
    from twisted.internet import reactor as the_reactor
    from twisted.internet.threads import deferToThread
    from twisted.mail.smtp import ESMTP, IMessage, IMessageDelivery, SMTPFactory
    from zope.interface import implementer

    @implementer(IMessage)
    class Message:
        def __init__(self) -> None:
            self._lines: list[bytes] = []

        def lineReceived(self, line: bytes) -> None:
            self._lines.append(line)

        def eomReceived(self) -> Any:
            self._lines.append(b"")
            return deferToThread(deliver, maildir, b"\r\n".join(self._lines))

        def connectionLost(self) -> None:
            pass

    @implementer(IMessageDelivery)
    class Delivery:
        def receivedHeader(self, helo: Any, origin: Any, recipients: Any) -> bytes:
            return f"Received: from {helo[0].decode()}; {formatdate()}".encode()

        def validateFrom(self, helo: Any, origin: Any) -> Any:
            return origin

        def validateTo(self, user: Any) -> Any:
            return Message

    class Factory(SMTPFactory):
        protocol = ESMTP
        domain = b"twisted.example"

        def buildProtocol(self, address: Any) -> Any:
            protocol = super().buildProtocol(address)
            protocol.delivery = Delivery()
            return protocol

    reactor: Any = the_reactor
    port = reactor.listenTCP(0, Factory(), backlog=BACKLOG, interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    reactor.run()


if __name__ == "__main__":
    maildir = Path(sys.argv[2])
    if sys.argv[1] == "aiosmtpd":
        asyncio.run(_aiosmtpd(maildir))
    else:
        _twisted_mail(maildir)
