"""`queue.workers`: several processes on the same listeners and the same spool."""

from __future__ import annotations

import os
import signal
import smtplib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench.tree import children
from mta.queued import Filter
from mta.spool.folder import Folder
from mta.spool.holds import StandingHold, StandingHolds
from mta.spool.tools import SpoolTools
from tests.processes import DEADLINE, Server, configuration, listener, wait_until

CONTENT = b"Subject: hello\r\n\r\nbody\r\n"
READY = r"worker ready"


class WorkersTests(SynchronousTestCase):
    """Two processes."""

    def setUp(self) -> None:
        keys = {"listen": [listener("smtp"), {"endpoint": "unix:lmtp.sock", "service": "lmtp"}]}
        self.server = Server(self, configuration(queue={"workers": 2, "retry": ["1s"]}, **keys))
        self.server.start()
        assert self.server.process is not None
        self.process = self.server.process
        self.process.wait_for(READY)

    @property
    def workers(self) -> Sequence[int]:
        """The process ids of the workers."""
        return children(self.process.pid)

    def test_one_service(self) -> None:
        """Whoever takes a connection: all that was accepted is delivered, once."""
        for _ in range(20):
            with smtplib.SMTP("127.0.0.1", self.server.ports["smtp"], timeout=DEADLINE) as client:
                client.sendmail("a@client.example", ["bob@office.example"], CONTENT)
        self.server.wait_for_mail("office.example/bob", 20)
        self.assertIn(self.server.stop(), (0, -signal.SIGTERM))
        self.assertEqual(20, len(self.server.wait_for_mail("office.example/bob")))

    def test_all_take_connections(self) -> None:
        """While the first process does nothing, its worker answers."""
        self.process.signal(signal.SIGSTOP)
        try:
            self.server.send(CONTENT, "bob@office.example")
            self.server.wait_for_mail("office.example/bob")
        finally:
            self.process.signal(signal.SIGCONT)

    def test_standing_hold(self) -> None:
        """What is on hold for new mail is so in each process, and after a restart."""
        folder = Folder(self.server.folder / "spool")
        hold = StandingHold(domain="office.example")
        StandingHolds(folder).add(hold)
        for _ in range(10):
            self.server.send(CONTENT, "bob@office.example")
        self.assertIn(self.server.stop(), (0, -signal.SIGTERM))
        self.server.start()
        for _ in range(10):
            self.server.send(CONTENT, "bob@office.example")
        wait_until(lambda: self.server.log.count("is on hold: new mail is") == 20, "all are held")
        self.assertFalse((self.server.folder / "mail" / "office.example" / "bob").exists())
        StandingHolds(folder).lift(hold)
        with closing(SpoolTools(folder.path)) as tools:
            kept = [listed.id for listed in tools.listed(Filter(state="on-hold"))]
            self.assertEqual(20, len(tools.release(kept)))
        self.server.wait_for_mail("office.example/bob", 20)

    def test_death_of_a_worker(self) -> None:
        """A worker that dies is started again, in the same place."""
        (worker,) = self.workers
        place = os.sched_getaffinity(worker)
        after = len(self.process.output)
        os.kill(worker, signal.SIGKILL)
        self.process.wait_for(READY, after=after)
        self.assertNotIn(worker, self.workers)
        self.assertEqual(place, os.sched_getaffinity(*self.workers))

    def test_a_file_that_changed(self) -> None:
        """A worker that is started again serves what the first process opened, as it was."""
        (worker,) = self.workers
        listen = [listener("lmtp"), listener("smtp"), listener("submission")]
        self.server.configure(configuration(listen=listen, spool="elsewhere"))
        after = len(self.process.output)
        os.kill(worker, signal.SIGKILL)
        self.process.wait_for(READY, after=after)
        self.test_all_take_connections()
        self.assertFalse((self.server.folder / "elsewhere").exists())

    def test_a_worker_that_can_not_start(self) -> None:
        """It is tried again, ever more slowly, and the first process serves all."""
        (worker,) = self.workers
        self.server.configure("hostname: [")
        os.kill(worker, signal.SIGKILL)
        self.process.wait_for(r"started again in 2 s(?s:.*)started again in 4 s")
        self.server.send(CONTENT, "bob@office.example")
        self.server.wait_for_mail("office.example/bob")

    def test_processors(self) -> None:
        """Two processes on two processors: each has its own, with all of its threads."""
        if len(os.sched_getaffinity(0)) != 2:
            self.skipTest("this machine does not have two processors")
        self.server.send(CONTENT, "bob@office.example")
        self.server.wait_for_mail("office.example/bob")  # now there are threads
        first, second = map(_places, (self.process.pid, *self.workers))
        self.assertEqual((1, 1), (len(first), len(second)))
        self.assertNotEqual(first, second)

    def test_death_of_the_first(self) -> None:
        """No worker outlives the first process."""
        (worker,) = self.workers
        os.kill(self.process.pid, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{worker}").exists(), "the worker ends")

    def test_stop(self) -> None:
        """SIGTERM ends all of them, in peace."""
        (worker,) = self.workers
        self.assertIn(self.server.stop(), (0, -signal.SIGTERM))
        self.assertFalse(Path(f"/proc/{worker}").exists())
        self.assertEqual(2, self.server.log.count("stopped\n"), self.server.log)
        self.assertNotIn("Traceback", self.server.log)

    def test_signals_while_it_starts(self) -> None:
        """SIGHUP does not end a worker that is not ready yet, and is let through when it is."""
        self.server.stop()
        self.server.start()
        assert self.server.process is not None
        process = self.server.process
        process.signal(signal.SIGHUP)
        process.wait_for(READY)
        process.wait_for("read again")
        self.assertNotIn("a worker ended", process.output)
        (worker,) = children(process.pid)
        self.assertIn("SigBlk:\t0000000000000000\n", Path(f"/proc/{worker}/status").read_text())

    def test_signals_are_passed_on(self) -> None:
        """SIGHUP lets all read the configuration again: the worker takes mail for a new domain."""
        text = self.server.config.read_text().replace("office.example", "new.example")
        self.server.configure(text)
        self.process.signal(signal.SIGHUP)
        self.process.wait_for(r"read again")
        self.process.signal(signal.SIGSTOP)
        try:
            wait_until(self._new_domain_is_known, "the worker has read it again")
        finally:
            self.process.signal(signal.SIGCONT)

    def _new_domain_is_known(self) -> bool:
        try:
            self.server.send(CONTENT, "bob@new.example")
        except smtplib.SMTPRecipientsRefused:
            return False
        return True


def _places(process: int) -> set[frozenset[int]]:
    """Where the threads of a process may run."""
    threads = Path(f"/proc/{process}/task").iterdir()
    return {frozenset(os.sched_getaffinity(int(thread.name))) for thread in threads}
