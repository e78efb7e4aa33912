"""Nodes whose clocks differ, and a database whose clock is set."""

from __future__ import annotations

import time

from mta.settings import DAY
from tests.attacks.target import NextHop
from tests.crash.failing import Calls
from tests.crash.test_clock import CONTENT, MAX_RETRIES, RETRIES
from tests.interop.test_nodes import NodesCase
from tests.processes import DEADLINE, Server, temporary_folder, wait_until
from tests.spool.postgres import Cluster

VARIABLES = ("LD_PRELOAD", "MTA_FAILING")


class NodeClocksTests(NodesCase):
    """A next hop puts mail off, and there are clocks that are a day wrong."""

    def setUp(self) -> None:
        self.calls = Calls(self, temporary_folder(self))
        super().setUp()
        self.hop = NextHop(self, refusal=b"451 4.3.2 later")

    def database(self) -> Cluster:
        """A server whose clock can be set."""
        variables = [f"{name}={self.calls.environment[name]}" for name in VARIABLES]
        made = Cluster(inside=["env", *variables])
        self.addCleanup(made.remove)
        made.make()
        made.start()
        return made

    def relay(self, name: str, **more: object) -> Server:
        """A node that sends to the next hop."""
        routes = {"away.example": f"smtp://127.0.0.1:{self.hop.port}"}
        return self.node(name, routes=routes, queue={"retry": ["1s"]}, **more)

    def tries(self) -> int:
        """How often the next hop was asked to take a recipient."""
        return sum(line[:4].upper() == b"RCPT" for line in self.hop.commands)

    def test_the_clock_of_the_database(self) -> None:
        """Wherever it is set, mail is tried again soon and not at once all the time."""
        node = self.relay("one")
        node.send(CONTENT, "carol@away.example", reverse_path="bob@office.example")
        wait_until(self.tries, "the first attempt")
        for seconds in (DAY, -DAY):
            self.calls.set_clock(seconds)
            [(now,)] = self.sql("SELECT extract(epoch FROM clock_timestamp())::float8")
            self.assertLess(abs(now - time.time() - seconds), DEADLINE)
            if seconds < 0:
                assert node.process is not None
                node.process.wait_for("the clock jumped by -86400 s")
            before = self.tries()
            wait_until(
                lambda before=before: self.tries() >= before + RETRIES, f"{seconds} s: retries"
            )
            self.assertLessEqual(self.tries(), before + MAX_RETRIES)
            node.send(CONTENT, f"bob{self.tries()}@office.example")
        self.assertNotIn("Traceback", node.log)

    def test_the_clock_of_a_node(self) -> None:
        """What a node puts off that is a day ahead, or behind, is tried soon by another one."""
        for number, seconds in enumerate((DAY, -DAY)):
            wrong = Calls(self, temporary_folder(self))
            wrong.set_clock(seconds)
            node = self.relay(f"wrong{number}", environment=wrong.environment)
            before = self.tries()
            node.send(CONTENT, "carol@away.example", reverse_path="bob@office.example")
            wait_until(lambda before=before: self.tries() > before, "its first attempt")
            node.stop()
            before = self.tries()
            right = self.relay(f"right{number}")
            wait_until(lambda before=before: self.tries() >= before + RETRIES, "the other one's")
            self.assertNotIn("Traceback", node.log + right.log)
            right.stop()
