"""Wakes the processes on all nodes, and is woken by them.

This is done by NOTIFY.  A thread listens on a connection of its own, which never sits in a
transaction.  A server that commits a NOTIFY lets no other commit: so it is a transaction of its
own, after the commit that it tells of, and a few in a second at most.
"""

from __future__ import annotations

import os
import select
import threading
import time
from contextlib import suppress
from typing import Any, ClassVar

import psycopg
from twisted.logger import Logger
from zope.interface import implementer

from mta.interfaces import ISpoolListener
from mta.limited_log import LimitedLog
from mta.spool.interfaces import IWaker
from mta.spool.postgres.server import Connection, Server, Session
from mta.spool.wakeup import Signal, ToolWaker

CHANNEL = "mta"
INTERVAL = 0.2  # seconds between two notifications of a process
RETRY_DELAY = 2.0  # seconds between two attempts to connect
POLL = 10.0  # seconds after which the connection is looked at, though nothing came


@implementer(IWaker)
class Wakeups:
    """One thread, from `start` to `stop`."""

    log: ClassVar[Logger] = Logger()

    def __init__(self, server: Server, reactor: Any, owner: int, listener: ISpoolListener) -> None:
        """`reactor`: IReactorFromThreads."""
        self._server = server
        self._reactor = reactor
        self._owner = owner
        self._listener = listener
        self._limited = LimitedLog(self.log)
        self._has_news = False  # others are to be woken
        self._stopped = False
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="spool wake-ups", daemon=True)

    def start(self) -> None:
        """Listen from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Pass on what waits, and end.  Blocks for a moment."""
        self._stopped = True
        self._poke()
        self._thread.join(RETRY_DELAY)
        if not self._thread.is_alive():
            os.close(self._read)
            os.close(self._write)

    def wake_others(self) -> None:
        """See `IWaker.wake_others`."""
        if not self._has_news:
            self._has_news = True
            self._poke()

    def _poke(self) -> None:
        with suppress(BlockingIOError):  # it is full, so it wakes the thread anyway
            os.write(self._write, b"\n")

    # --- in the thread -----------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopped:
            try:
                with self._server.connect() as connection:
                    self._listen(connection)
            except (OSError, psycopg.Error) as error:
                self._limited.warn("wake-ups", "spool: {error}", error=str(error).strip())
                self._wait(None, RETRY_DELAY)

    def _listen(self, connection: Connection) -> None:
        connection.add_notify_handler(lambda notify: self._hear(notify.payload))
        connection.execute(f"LISTEN {CHANNEL}")
        self._reactor.callFromThread(self._listener.wake)  # what came before
        while True:
            if self._has_news:
                self._has_news = False
                notify(connection, Signal.WORK, self._owner)
                if not self._stopped:
                    time.sleep(INTERVAL)
            if self._stopped:
                return
            self._wait(connection, 0.0 if self._has_news else POLL)
            connection.pgconn.consume_input()
            heard = set()
            while (found := connection.pgconn.notifies()) is not None:
                heard.add(found.extra.decode("utf-8", "replace"))
            for payload in heard:
                self._hear(payload)
            if heard:  # each makes this process look for mail of all its links
                self._wait(None, INTERVAL)

    def _wait(self, connection: Connection | None, timeout: float) -> None:
        """Wait for the server, or for news of our own."""
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        if connection is not None:
            poll.register(connection.pgconn.socket, select.POLLIN)
        poll.poll(timeout * 1000)
        with suppress(BlockingIOError):
            os.read(self._read, 4096)

    def _hear(self, payload: str) -> None:
        """Tell the listener what another process says."""
        name, _, sender = payload.partition(" ")
        if sender != str(self._owner):
            self._reactor.callFromThread(self._tell, name)

    def _tell(self, name: str) -> None:
        if name == Signal.RETRY.name:
            self._listener.retry()
        elif name == Signal.RECALL.name:
            self._listener.recall()
        self._listener.wake()


class NotifyingWaker(ToolWaker):
    """Wakes the processes on all nodes for a tool."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session

    def send(self, signal: Signal) -> None:
        """See `ToolWaker.send`."""
        self._session.call(notify, signal)


def notify(connection: Connection, signal: Signal, sender: int = 0) -> None:
    """Wake all processes on the spool, but for the sender."""
    connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, f"{signal.name} {sender}"))
