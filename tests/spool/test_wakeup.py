"""Processes that wake each other."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from unittest.mock import patch

from mta.queued import (
    State,
)
from mta.spool.folder import Folder
from mta.spool.wakeup import Signal, wake_processes
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

    def test_held(self) -> None:
        """Mail held for a peer, whose link another process may have, wakes the others."""
        message = self.commit(self.one)
        self.wait(self.one.settle(settlement(message, self.now() + 9, state=State.HELD, peer="p")))
        self.assertEqual(self.read(), ([], ["wake"]))

    def test_deferred(self) -> None:
        """Mail that is due later wakes nobody."""
        self.wait(self.one.settle(settlement(self.commit(self.one), self.now() + 9)))
        self.assertEqual(self.read(), ([], []))

    def test_released(self) -> None:
        """Mail that is given back wakes the others, once."""
        self.wait(self.one.release({self.commit(self.one).id: 0.0}))
        self.wait(self.one.release({self.commit(self.one).id: 0.0}))
        self.assertEqual(self.read(), ([], ["wake"]))

    def test_tools(self) -> None:
        """The tools wake every process."""
        self.tools().enqueue(envelope(), [b"content"])
        self.assertEqual(self.read(), (["wake"], ["wake"]))

    def test_recalled(self) -> None:
        """Who works on what was put on hold or removed hears of it, and can ask what it was."""
        ids = [self.commit(self.one).id for _ in range(3)]
        other = self.commit(self.other).id
        tools = self.tools()
        for change, id in ((tools.hold, ids[0]), (tools.delete, ids[1])):
            change([id])
            self.assertEqual(self.read(), (["recall", "wake"],) * 2)
        recalled = self.wait(self.one.recalled([*ids, other]))
        self.assertEqual(list(recalled), [ids[0], ids[1], other])

    def test_wanted_now(self) -> None:
        """Who retries or releases wants it tried whatever was unreachable; nobody else does."""
        tools = self.tools()
        name = tools.enqueue(envelope(), [b"content"])
        self.assertEqual(self.read(), (["wake"], ["wake"]))
        for change in (tools.retry, tools.hold, tools.release):
            change([name])
            expected = "recall" if change == tools.hold else "retry"
            self.assertEqual(self.read(), ([expected, "wake"],) * 2)

    def test_another_configuration(self) -> None:
        """A command that changed it has every process read it again."""
        wake_processes(Folder(self.path), Signal.RELOAD)
        self.assertEqual(self.read(), (["reload", "wake"],) * 2)

    def test_deaf(self) -> None:
        """A FIFO whose owner is dead, or that is full, keeps nothing waiting."""
        os.mkfifo(self.path / "owners" / "DEAD.wake")
        for reader in self.clock.readers:
            os.write(reader.fileno(), bytes(65536))  # as much as a FIFO holds
        self.tools().enqueue(envelope(), [b"content"])
        self.assertEqual(self.read(), (["wake"], ["wake"]))

    def read(self) -> tuple[list[str], list[str]]:
        """Let the reactor read what there is to read; returns what both processes heard."""
        for reader in self.clock.readers:
            reader.doRead()
        return self.heard(self.one), self.heard(self.other)


class PipeTests(SpoolTestCase):
    """The pipe that wakes a process."""

    def test_it_wakes_again(self) -> None:
        """Neither an empty pipe, nor a bug in the listener, nor its removal makes it deaf."""
        spool = self.process()
        (pipe,) = self.clock.readers
        pipe.doRead()
        patched = self.patch(self.listeners[spool], "wake", failing(ZeroDivisionError()))
        self.tools().enqueue(envelope(), [b"content"])
        pipe.doRead()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        patched.restore()
        self.owner(spool).wakeup_pipe.unlink()
        self.wait(spool.take_over())
        self.tools().enqueue(envelope(), [b"content"])
        (pipe,) = self.clock.readers
        pipe.doRead()
        self.assertEqual(self.heard(spool), ["wake"])

    def test_not_opened(self) -> None:
        """A pipe that could not be opened anew is opened as soon as that can be."""
        spool = self.process()
        self.owner(spool).wakeup_pipe.unlink()
        full = OSError(errno.EMFILE, "Too many open files")
        for _ in range(2):
            with patch("mta.spool.wakeup_pipe.os.open", side_effect=full):
                self.assertRaises(OSError, self.wait, spool.take_over())
        self.wait(spool.take_over())
        self.tools().enqueue(envelope(), [b"content"])
        (pipe,) = self.clock.readers
        pipe.doRead()
        self.assertEqual(self.heard(spool), ["wake"])

    def test_nobody_can_be_woken(self) -> None:
        """What was committed is committed, whether or not others can be told."""
        spool = self.process()
        message = self.commit(spool)
        self.patch(Path, "iterdir", failing(OSError(errno.EMFILE, "Too many open files")))
        self.wait(spool.settle(settlement(message, self.now())))
        self.assertEqual([each.id for each in self.wait(spool.lease_due(9))], [message.id])
        self.wait(spool.release({message.id: 0.0}))
