"""The life of the process: signals, the log, and what keeps it from starting."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mta.spool.tools import SpoolTools
from mta.users.file import UserFile
from tests.processes import (
    DEADLINE,
    MTA,
    TWISTD,
    Process,
    Server,
    configuration,
    local_domain,
    source_environment,
    temporary_folder,
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

    def test_all_processes_are_told(self) -> None:
        """As systemd does, and once more; each ends in peace all the same."""
        server = self.server(queue={"workers": 2})
        assert server.process is not None
        server.process.wait_for("worker ready")
        os.killpg(server.process.pid, signal.SIGTERM)
        server.process.wait_for("stopping")
        os.killpg(server.process.pid, signal.SIGTERM)
        self.assertIn(server.stop(), ENDED)
        self.assertEqual(2, server.log.count("stopped\n"), server.log)
        self.assertNotIn("Traceback", server.log)

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
        return subprocess.run(
            [*MTA, *words, "--config", str(server.config)],
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


REFUSALS: list[tuple[str, dict[str, Any]]] = [
    (
        r"mta\.yaml:\d+:1: unknown key 'hostnme', did you mean 'hostname'\?",
        {"hostnme": "x.example"},
    ),
    (r"/nowhere\.pem: No such file", {"tls": {"ca": "/nowhere.pem"}}),
    (r"cannot use the spool /proc/nowhere", {"spool": "/proc/nowhere/spool"}),
    (r"cannot use the spool .*/mta\.yaml: .*Not a directory", {"spool": "mta.yaml"}),
    (r"cannot write the log: .*nowhere", {"log": {"file": "nowhere/mta.log"}}),
    (r"cannot write the log: .*Is a directory|Permission", {"log": {"file": "/proc"}}),
    (r"/proc: Is a directory", {"users": "/proc"}),
    (r"this host has no user 'nobdy'", {"run_as": "nobdy"}),
]
ENDPOINTS = {
    "systemd:domain=INET:index=0": "systemd passed no such socket",
    "systemd:domain=INET:name=smtp": "systemd passed no such socket",
    "tcp:0:interface=192.0.2.77": "no interface of this host has that address",
    "tcp:0:interface=no-such-host.invalid": "cannot listen on",
    "unix:nowhere/lmtp.sock": "there is no such folder|its folder must be there",
}


class StartTests(SynchronousTestCase):
    """What keeps the server from starting is one line, and exit status 1."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self)

    def refused(self, words: str, *launcher: str, **keys: Any) -> str:
        """What a server says which does not start; all of it, without a traceback."""
        server = Server(self, configuration(**keys), folder=self.folder, command=launcher)
        run = subprocess.run(
            server.command,
            cwd=self.folder,
            env=source_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE,
        )
        self.assertEqual(run.returncode, 1, run.stdout)
        self.assertNotIn("Traceback", run.stdout)
        self.assertRegex(run.stdout, words)
        return run.stdout

    def test_in_the_foreground(self) -> None:
        """By twistd: one line, and nothing before or behind it."""
        for words, keys in REFUSALS:
            with self.subTest(words):
                said = self.refused(words, **keys)
                self.assertEqual(len(said.splitlines()), 1, said)

    def test_as_a_daemon(self) -> None:
        """Whoever starts it hears of it; what is in its log is no traceback either."""
        daemon = (*TWISTD[:-2], "--pidfile=mta.pid", "--logfile=mta.log")
        for words, keys in [*REFUSALS, *(self.endpoint(*row) for row in ENDPOINTS.items())]:
            if "log" in keys:
                continue  # --logfile counts
            with self.subTest(words):
                self.refused("mta|An error|this host", *daemon, **keys)
                log = self.folder / "mta.log"
                if log.exists():
                    self.assertRegex(log.read_text(), words)
                    self.assertNotIn("Traceback", log.read_text())
                    log.unlink()
                self.assertFalse((self.folder / "mta.pid").exists())

    def test_who_may_not(self) -> None:
        """Whom ``--uid`` names can't use the spool, nor remove what root made before."""
        if os.geteuid():
            self.skipTest("only root can")
        for more in (
            (*TWISTD[:-2], "--nodaemon", "--pidfile="),
            (*TWISTD[:-2], "--pidfile=mta.pid"),
        ):
            launcher = (*more, "--uid", "nobody", "--gid", "nogroup")
            with self.subTest(launcher):
                self.refused("cannot use the spool|An error has occurred", *launcher)
                log = self.folder / "twistd.log"
                self.assertNotIn("Traceback", log.read_text() if log.exists() else "")

    def test_by_twist(self) -> None:
        """Which has no log of ours."""
        twist = (
            sys.executable,
            "-c",
            "import sys; from twisted.application.twist._twist import Twist; Twist.main()",
        )
        for words, keys in [*REFUSALS[2:], *(self.endpoint(*row) for row in ENDPOINTS.items())]:
            with self.subTest(words):
                if "log" not in keys:
                    self.refused(words, *twist, **keys)

    def endpoint(self, endpoint: str, words: str) -> tuple[str, dict[str, Any]]:
        """A row for a listener that can't be opened."""
        return words, {"listen": [{"endpoint": endpoint, "service": "smtp"}]}

    def test_endpoints(self) -> None:
        """Whatever is wrong with one, it is named."""
        for endpoint, words in ENDPOINTS.items():
            with self.subTest(endpoint):
                said = self.refused(words, listen=[{"endpoint": endpoint, "service": "smtp"}])
                self.assertIn(endpoint.partition(":")[0], said)

    def test_port_in_use(self) -> None:
        """The line names the endpoint, and how to find out who has it."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            words = f"cannot listen on {endpoint}: Address already in use; another program has it"
            self.refused(words, listen=[{"endpoint": endpoint, "service": "smtp"}])
            self.refused(words, metrics=endpoint)

    def test_a_newer_spool(self) -> None:
        """It says what to install, and not that the folder were to blame."""
        spool = self.folder / "spool"
        with closing(SpoolTools(spool)):
            pass
        with closing(sqlite3.connect(spool / "queue.sqlite")) as database:
            database.execute("PRAGMA user_version = 99")
        said = self.refused("made by a newer version .* install that version")
        self.assertNotIn("may write", said)

    def test_all_at_once(self) -> None:
        """Several faults are several lines."""
        (self.folder / "users.yaml").mkdir()
        said = self.refused("cannot use the spool", spool="mta.yaml", users="users.yaml")
        self.assertIn("users.yaml: Is a directory", said)

    def test_signals_while_starting(self) -> None:
        """Whenever SIGTERM or SIGINT comes, there is no traceback of ours."""
        for number in (signal.SIGTERM, signal.SIGINT):
            for words in ("listening on", "ready"):
                server = Server(self, configuration(), folder=self.folder)
                server.process = Process(server.command, self.folder, source_environment())
                server.process.wait_for(words)
                server.process.signal(number)
                server.process.wait()
                self.assertNotIn("Traceback", server.log)

    def test_what_others_would_not_like(self) -> None:
        """The server starts, and warns of what `mta check` warns of."""
        UserFile(self.folder / "users.yaml").add("alice", "secret")
        (self.folder / "users.yaml").chmod(0o644)
        keys = {"hostname": "mail", "routes": {"x.example": "smtp://user:word@y.example"}}
        server = Server(self, configuration(**keys), folder=self.folder)
        server.config.chmod(0o644)
        server.start()
        self.assertRegex(server.log, r"warn  .*: .*users.yaml: has password hashes, and is open")
        self.assertRegex(server.log, r"warn  .*: .*mta.yaml: has a secret, and is open to all")
        self.assertRegex(server.log, r"warn  .*mta\.yaml:\d+:\d+: 'mail' is not fully qualified")
