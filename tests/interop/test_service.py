"""The life of the process: signals, the log, and what keeps it from starting."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.processes import (
    DEADLINE,
    Server,
    configuration,
    local_domain,
    source_environment,
    wait_until,
)

# twistd hands the signal on when it has stopped well.
ENDED = (0, -signal.SIGTERM)
CONTENT = b"Subject: hello\r\n\r\nbody\r\n"


class Dialogue:
    """A raw SMTP client."""

    def __init__(self, case: SynchronousTestCase, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), DEADLINE)
        self._lines = self._socket.makefile("rb")
        case.addCleanup(self._socket.close)
        case.addCleanup(self._lines.close)
        self.reply()

    def say(self, text: str) -> str:
        """Send a command, return the last line of the reply."""
        self._socket.sendall(text.encode() + b"\r\n")
        return self.reply()

    def reply(self) -> str:
        """The last line of the next reply; empty at the end of the connection."""
        while True:
            line = self._lines.readline().decode()
            if line[3:4] != "-":
                return line.rstrip()


class ServiceCase(SynchronousTestCase):
    """A server of ours and its process."""

    def server(self, **keys: Any) -> Server:
        server = Server(self, configuration(**keys))
        server.start()
        self.addCleanup(server.kill)
        return server

    def signal(self, server: Server, number: signal.Signals) -> None:
        assert server.process is not None
        server.process.signal(number)


class StopTests(ServiceCase):
    """SIGTERM: nothing new begins, what runs may end."""

    def test_idle_sessions_hear_421(self) -> None:
        """A client that is between transactions is told, and the process ends."""
        server = self.server()
        client = Dialogue(self, server.ports["smtp"])
        client.say("EHLO client.example")
        self.signal(server, signal.SIGTERM)
        self.assertTrue(client.reply().startswith("421 4.3.2"))
        self.assertEqual("", client.reply())
        self.assertIn(server.stop(), ENDED)
        self.assertIn("stopped", server.log)

    def test_a_transaction_may_end(self) -> None:
        """A client in mid-message gets its 250, and the message is there after a restart."""
        server = self.server()
        client = Dialogue(self, server.ports["smtp"])
        client.say("EHLO client.example")
        client.say("MAIL FROM:<a@client.example>")
        client.say("RCPT TO:<bob@office.example>")
        self.assertTrue(client.say("DATA").startswith("354"))
        self.signal(server, signal.SIGTERM)
        assert server.process is not None
        server.process.wait_for("stopping")
        reply = client.say(CONTENT.decode() + ".")
        self.assertTrue(reply.startswith("250 2.0.0"), reply)
        self.assertTrue(client.reply().startswith("421"))
        self.assertIn(server.stop(), ENDED)
        server.start()
        self.assertEqual(1, len(server.wait_for_mail("office.example/bob")))


class ReloadTests(ServiceCase):
    """SIGHUP: the configuration is read again."""

    def reload(self, server: Server, answer: str, **keys: Any) -> None:
        assert server.process is not None
        server.configure(configuration(**keys))
        before = len(server.process.output)
        self.signal(server, signal.SIGHUP)
        server.process.wait_for(answer, after=before)

    def test_a_changed_file_counts(self) -> None:
        """A new domain is served at once, on listeners that stay open."""
        server = self.server()
        client = Dialogue(self, server.ports["smtp"])
        new = {"office.example": local_domain(), "new.example": local_domain()}
        self.reload(server, "read again", domains=new)
        self.assertTrue(client.say("NOOP").startswith("250"))
        server.send(CONTENT, "x@new.example")
        server.wait_for_mail("new.example/x")

    def test_a_bad_file_changes_nothing(self) -> None:
        """The log says what is wrong and where, and the server goes on as before."""
        server = self.server()
        self.reload(server, "stays as it was", hostnme="typo.example")
        self.assertRegex(server.log, r"mta\.yaml:\d+:\d+: unknown key 'hostnme'")
        server.send(CONTENT, "bob@office.example")
        server.wait_for_mail("office.example/bob")


class RecallTests(ServiceCase):
    """What a person takes back from a server that works on it."""

    def test_hold_and_bounce(self) -> None:
        """Mail in memory for a host that does not answer is on hold, and can be given up."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            server = self.server(
                routes={"silent.example": f"smtp://127.0.0.1:{silent.getsockname()[1]}"}
            )
            for _ in range(5):
                server.send(CONTENT, "bob@silent.example", reverse_path="alice@office.example")
            self.assertEqual(self.states(server), {"active"})
            self.mta(server, "queue", "hold", "--all")
            wait_until(lambda: self.states(server) == {"held"}, "all is held")
            self.mta(server, "queue", "bounce", "--to", "bob@silent.example")
            server.wait_for_mail("office.example/alice", 5)

    def states(self, server: Server) -> set[str]:
        """The states of what is queued."""
        lines = self.mta(server, "queue", "list", "--json").splitlines()
        return {json.loads(line)["state"] for line in lines}

    def mta(self, server: Server, *words: str) -> str:
        """Run a command of ours; returns its output."""
        program = "import sys; from mta.commands import main; sys.exit(main())"
        return subprocess.run(
            [sys.executable, "-c", program, *words, "--config", str(server.config)],
            env=source_environment(),
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        ).stdout


class LogTests(ServiceCase):
    """One line an event."""

    def test_json(self) -> None:
        """With `format: json` every line is a JSON object; each step names its queue id."""
        server = self.server(log={"format": "json"})
        server.send(CONTENT, "bob@office.example")
        server.wait_for_mail("office.example/bob")
        assert server.process is not None
        server.process.wait_for('"message": "[0-9A-Z]+ removed"')
        server.stop()
        events = [json.loads(line) for line in server.log.splitlines()]
        accepted = next(event for event in events if " accepted " in event["message"])
        steps = [event for event in events if event.get("queue_id") == accepted["queue_id"]]
        self.assertEqual(3, len(steps), steps)
        self.assertEqual("sender@client.example", accepted["reverse_path"])


class StartTests(SynchronousTestCase):
    """What keeps the server from starting is one line, and exit status 1."""

    def outcome(self, config: dict[str, Any]) -> str:
        """The last line that a server says which does not start."""
        server = Server(self, config)
        self.assertRaises(AssertionError, server.start)
        assert server.process is not None
        self.assertEqual(1, server.process.wait())
        self.assertNotIn("Traceback", server.log)
        return server.log.splitlines()[-1]

    def test_port_in_use(self) -> None:
        """The line names the endpoint."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            line = self.outcome(configuration(listen=[{"endpoint": endpoint, "service": "smtp"}]))
        self.assertIn(f"cannot listen on {endpoint}: ", line)

    def test_no_spool(self) -> None:
        """The line names the folder."""
        folder = Path("/proc/nowhere/spool")
        self.assertIn(
            f"cannot use the spool {folder}", self.outcome(configuration(spool=str(folder)))
        )

    def test_wrong_key(self) -> None:
        """The line says where, and what was meant."""
        line = self.outcome(configuration(hostnme="x.example"))
        self.assertRegex(line, r"mta\.yaml:\d+:1: unknown key 'hostnme', did you mean 'hostname'\?")

    def test_no_certificate(self) -> None:
        """A certificate that is not there is found before anything starts."""
        line = self.outcome(
            configuration(tls={"certificate": "/nowhere.pem", "key": "/nowhere.key"})
        )
        self.assertIn("/nowhere", line)
