"""A next hop as a process of its own: aiosmtpd, which syncs each message before its 250.

``python -m tests.interop.sink FOLDER [7bit]`` says ``listening on PORT``; with ``7bit`` it takes
nothing else.  It is somebody else's code
that our sender has to please, and it keeps what it acknowledged when we are killed.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session
from twisted.trial.unittest import SynchronousTestCase

from tests.processes import Process, mail_in, source_environment, temporary_folder, wait_for_mail


class Sink:
    """The running process; ended after the test.  Its Maildir is `folder`.

    `is_7bit`: it has no 8BITMIME.
    """

    def __init__(self, case: SynchronousTestCase, *, is_7bit: bool = False) -> None:
        self.folder = temporary_folder(case)
        (self.folder / "new").mkdir()
        self._process = Process(
            [sys.executable, "-m", "tests.interop.sink", str(self.folder), *(["7bit"] * is_7bit)],
            self.folder,
            source_environment(),
        )
        case.addCleanup(self._process.kill)
        self.port = int(self._process.wait_for(r"listening on (\d+)")[1])

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal: one that is stopped greets when it goes on."""
        self._process.signal(number)

    @property
    def mail(self) -> list[bytes]:
        """The messages that it acknowledged, and perhaps some that it was about to."""
        return mail_in(self.folder)

    def wait_for_mail(self, count: int = 1) -> list[bytes]:
        """The same, once there are `count`."""
        return wait_for_mail(self.folder, count)


class _Keep:
    """Keeps each message in a file; called by aiosmtpd."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        name = f"{next(self._numbers):06}"
        draft = self._folder / f"{name}.draft"
        content = envelope.content
        assert content is not None
        with draft.open("wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode("ascii"))
            file.flush()
            os.fsync(file.fileno())
        draft.rename(self._folder / "new" / name)
        return "250 2.0.0 kept"


async def _serve(folder: Path, *, is_7bit: bool) -> None:
    keep = _Keep(folder)
    options = {"decode_data": True} if is_7bit else {"enable_SMTPUTF8": True}
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(keep, hostname="sink.example", **options), "127.0.0.1", 0
    )
    print("listening on", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), is_7bit="7bit" in sys.argv))
