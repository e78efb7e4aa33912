"""The clock is set, the hour changes, a process stands still: retries go on at their pace.

`tests.spool.test_time` and `tests.queue.test_wall_clock` have all cases, without processes.
"""

from __future__ import annotations

import signal
import time
from calendar import timegm

from twisted.trial.unittest import SynchronousTestCase

from mta.settings import DAY
from tests.attacks.target import NextHop
from tests.crash.failing import Calls
from tests.processes import Server, configuration, temporary_folder, wait_until

CONTENT = b"Subject: hello\r\n\r\nbody\r\n"
ZONE = "Europe/Berlin"
SPRING = timegm((2026, 3, 29, 0, 59, 58))  # two seconds before the hour is left out there
AUTUMN = timegm((2026, 10, 25, 0, 59, 58))  # and before it comes twice
RETRIES = 1  # that is waited for after each change
MAX_RETRIES = 6  # in each second of that time: a storm would be hundreds


class ClockTests(SynchronousTestCase):
    """A server whose clock is set while mail waits for its next attempt."""

    def setUp(self) -> None:
        folder = temporary_folder(self)
        self.calls = Calls(self, folder)
        self.hop = NextHop(self, refusal=b"451 4.3.2 later")
        self.server = Server(
            self,
            configuration(
                routes={"away.example": f"smtp://127.0.0.1:{self.hop.port}"},
                queue={"retry": ["1s"], "workers": 2},
            ),
            folder=folder,
            environment=self.calls.environment | {"TZ": ZONE},
        )
        self.server.start()

    def tries(self) -> int:
        """How often the next hop was asked to take a recipient."""
        return sum(line[:4].upper() == b"RCPT" for line in self.hop.commands)

    def test_changes(self) -> None:
        """After each, mail is tried again soon and not at once all the time; none is given up."""
        self.server.send(CONTENT, "carol@away.example", reverse_path="bob@office.example")
        wait_until(self.tries, "the first attempt")
        now = time.time()
        for seconds in (DAY, 0, -DAY, SPRING - now, AUTUMN - now):
            self.calls.set_clock(seconds)
            before, since = self.tries(), time.monotonic()
            wait_until(
                lambda before=before: self.tries() >= before + RETRIES, f"{seconds} s: retries"
            )
            tries, passed = self.tries() - before, time.monotonic() - since
            self.assertLessEqual(tries, MAX_RETRIES * max(1.0, passed))
            name = f"bob{self.tries()}"
            self.server.send(CONTENT, f"{name}@office.example")
            self.server.wait_for_mail(f"office.example/{name}")
        self.assertNotIn("Traceback", self.server.log)
        self.assertFalse((self.server.folder / "mail/office.example/bob").exists(), "a notice")

    def test_frozen(self) -> None:
        """What a process had leased stays its own while it stands still; none comes twice."""
        assert self.server.process is not None
        for number in range(20):
            self.server.send(CONTENT, f"u{number}@office.example")
            if number % 5 == 0:
                self.server.process.signal(signal.SIGSTOP)
                time.sleep(0.3)  # a pause is what is tried
                self.server.process.signal(signal.SIGCONT)
        for number in range(20):
            self.assertEqual(len(self.server.wait_for_mail(f"office.example/u{number}")), 1)
        wait_until(lambda: self.server.log.count("removed") >= 20, "all is recorded")
        self.assertEqual(self.server.log.count(" delivered "), 20)
