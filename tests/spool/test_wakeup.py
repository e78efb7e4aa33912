"""Processes that wake each other."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from mta.queued import (
    State,
)
from tests.spool.cases import (
    SpoolTestCase,
    envelope,
    failing,
    settlement,
)


class WakeTests(SpoolTestCase):
    """Work that one process makes is noticed by the others."""

    def setUp(self) -> None:
        super().setUp()
        self.one, self.other = self.process(), self.process()
        self.woken: list[str] = []
        self.one.on_wake = lambda: self.woken.append("one")
        self.other.on_wake = lambda: self.woken.append("other")

    def test_held(self) -> None:
        """Mail held for a peer, whose link another process may have, wakes the others."""
        message = self.commit(self.one)
        self.wait(self.one.settle(settlement(message, self.now() + 9, state=State.HELD, peer="p")))
        self.assertEqual(self.heard(), ["other"])

    def test_deferred(self) -> None:
        """Mail that is due later wakes nobody."""
        self.wait(self.one.settle(settlement(self.commit(self.one), self.now() + 9)))
        self.assertEqual(self.heard(), [])

    def test_released(self) -> None:
        """Mail that is given back wakes the others, once."""
        self.wait(self.one.release({self.commit(self.one).id: 0.0}))
        self.wait(self.one.release({self.commit(self.one).id: 0.0}))
        self.assertEqual(self.heard(), ["other"])

    def test_tools(self) -> None:
        """The tools wake every process."""
        self.tools().enqueue(envelope(), [b"content"])
        self.assertEqual(sorted(self.heard()), ["one", "other"])

    def test_recalled(self) -> None:
        """Who works on what was put on hold or removed hears of it, and can ask what it was."""
        ids = [self.commit(self.one).id for _ in range(3)]
        other = self.commit(self.other).id
        recalls: list[str] = []
        self.one.on_recall = lambda: recalls.append("one")
        tools = self.tools()
        for change, id in ((tools.hold, ids[0]), (tools.delete, ids[1])):
            change([id])
            self.heard()
        self.assertEqual(recalls, ["one", "one"])
        recalled = self.wait(self.one.recalled([*ids, other]))
        self.assertEqual(list(recalled), [ids[0], ids[1], other])

    def test_wanted_now(self) -> None:
        """Who retries or releases wants it tried whatever was unreachable; nobody else does."""
        tools = self.tools()
        name = tools.enqueue(envelope(), [b"content"])
        self.one.on_retry = lambda: self.woken.append("now")
        self.assertEqual(sorted(self.heard()), ["one", "other"])
        for change in (tools.retry, tools.hold, tools.release):
            change([name])
            self.woken.clear()
            wanted = [] if change == tools.hold else ["now"]
            self.assertEqual(sorted(self.heard()), sorted([*wanted, "one", "other"]))

    def test_deaf(self) -> None:
        """A bell whose owner is dead, or has been rung too often, keeps nobody waiting."""
        os.mkfifo(self.path / "owners" / "DEAD.wake")
        for reader in self.clock.readers:
            os.write(reader.fileno(), bytes(65536))  # as much as a FIFO holds
        self.tools().enqueue(envelope(), [b"content"])
        self.assertEqual(sorted(self.heard()), ["one", "other"])

    def heard(self) -> list[str]:
        """Let the reactor read what there is to read."""
        for reader in self.clock.readers:
            with contextlib.suppress(BlockingIOError):  # a bell that was not rung
                reader.doRead()
        return self.woken


class PipeTests(SpoolTestCase):
    """The pipe that wakes a process."""

    def test_it_rings_again(self) -> None:
        """Neither an empty pipe, nor a bug in who is woken, nor its removal makes it deaf."""
        spool = self.process()
        (bell,) = self.clock.readers
        bell.doRead()
        spool.on_wake = failing(ZeroDivisionError())
        self.tools().enqueue(envelope(), [b"content"])
        bell.doRead()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        woken: list[str] = []
        spool.on_wake = lambda: woken.append("woken")
        spool._owner.bell.unlink()
        self.wait(spool.take_over())
        self.tools().enqueue(envelope(), [b"content"])
        (bell,) = self.clock.readers
        bell.doRead()
        self.assertEqual(woken, ["woken"])

    def test_nobody_can_be_woken(self) -> None:
        """What was committed is committed, whether or not others can be told."""
        spool = self.process()
        message = self.commit(spool)
        self.patch(Path, "iterdir", failing(OSError(errno.EMFILE, "Too many open files")))
        self.wait(spool.settle(settlement(message, self.now())))
        self.assertEqual([each.id for each in self.wait(spool.lease_due(9))], [message.id])
        self.wait(spool.release({message.id: 0.0}))
