"""Real servers that share a spool in PostgreSQL."""

from __future__ import annotations

import re
import signal
import smtplib
import threading
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import psycopg
from twisted.trial.unittest import SynchronousTestCase

from tests.interop.sink import Sink
from tests.processes import (
    DEADLINE,
    Process,
    Server,
    configuration,
    header_of,
    local_domain,
    mail_in,
    source_environment,
    temporary_folder,
    wait_until,
)
from tests.spool.postgres import Cluster, cluster, execute, outcomes_in, own_cluster

MARK = re.compile(rb"mark-(\d+)")


class NodesCase(SynchronousTestCase):
    """Nodes on one database, whose mailboxes are in one folder."""

    def setUp(self) -> None:
        self.cluster = self.database()
        self.url = self.cluster.new_url()
        self.mail = temporary_folder(self)

    def database(self) -> Cluster:
        """The server of the database."""
        return cluster()

    def node(self, name: str, environment: Mapping[str, str] | None = None, **more: Any) -> Server:
        """A node that runs."""
        domain = local_domain(deliver=f"maildir:{self.mail}/{{domain}}/{{local}}")
        domains = {"office.example": domain, "down.example": {"deliver": "lmtp://127.0.0.1:1"}}
        domains["down.example"]["mailboxes"] = "any"
        keys = {"spool": self.url, "node": name, "domains": domains, "spool_folder": "spool"}
        keys["hostname"] = f"{name}.example"
        server = Server(self, configuration(**keys) | more, environment=environment)
        server.start()
        return server

    def mta(self, server: Server, *words: str) -> str:
        """The output of a command on a node."""
        code = "import sys; from mta.commands import main; sys.exit(main(sys.argv[1:]))"
        command = [server.command[0], "-c", code, *words, "--config", str(server.config)]
        process = Process(command, server.folder, source_environment())
        self.assertEqual(process.wait(), 0, process.output)
        return process.output

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Execute a statement beside the nodes."""
        return execute(self.url, statement)

    def expire(self) -> None:
        """Let the time of all owners run out: those that live beat again."""
        self.sql("UPDATE owner SET alive_until = '-infinity'")

    def marks(self) -> list[bytes]:
        """The marks of the messages that arrived."""
        folder = self.mail / "office.example" / "bob"
        return sorted(match[1] for each in mail_in(folder) if (match := MARK.search(each)))


class NodesTests(NodesCase):
    """Two nodes."""

    def test_mail_leaves_from_another(self) -> None:
        """What one took and could not deliver, another one delivers, and the tools see it."""
        one = self.node("one")
        one.send(b"Subject: x\r\n\r\nmark-1\r\n", "bob@down.example")
        wait_until(lambda: "deferred" in one.log, "it is deferred")
        self.assertIn("bob@down.example", self.mta(one, "queue", "list"))
        self.assertRegex(self.mta(one, "nodes"), r"^one +\S+ +alive .* 0 links$")
        self.assertEqual(self.mta(one, "spool", "check"), "")
        one.stop()
        domain = local_domain(deliver=f"maildir:{self.mail}/office.example/{{local}}")
        other = self.node("other", domains={"down.example": domain})
        self.mta(other, "queue", "retry", "--all")
        wait_until(self.marks, "the other one delivers it")
        [found] = mail_in(self.mail / "office.example" / "bob")
        self.assertIn("by one.example (node one) with", header_of(found, "Received")[-1])

    def test_killed_under_load(self) -> None:
        """kill -9 of a node: what it acknowledged arrives."""
        one, _other = self.node("one"), self.node("other")
        acknowledged: list[bytes] = []
        senders = [
            threading.Thread(target=self.send_on, args=(one, acknowledged, start))
            for start in range(0, 4000, 1000)
        ]
        for sender in senders:
            sender.start()
        wait_until(lambda: len(acknowledged) > 60, "mail is taken")
        one.kill()
        for sender in senders:
            sender.join(DEADLINE)
        self.expire()
        wait_until(lambda: set(acknowledged) <= set(self.marks()), "all of it arrives")

    def send_on(self, server: Server, acknowledged: list[bytes], number: int) -> None:
        """Send until the server is gone."""
        try:
            with smtplib.SMTP("127.0.0.1", server.ports["smtp"], timeout=DEADLINE) as client:
                while True:
                    mark = b"%d" % number
                    content = b"Subject: x\r\n\r\nmark-" + mark + b"\r\n"
                    client.sendmail("a@client.example", ["bob@office.example"], content)
                    acknowledged.append(mark)
                    number += 1
        except (OSError, smtplib.SMTPException):
            return

    def test_frozen(self) -> None:
        """A node that stands still loses its mail to another, and sends nothing of it later."""
        one = self.node("one")
        one.send(b"Subject: x\r\n\r\nmark-1\r\n", "bob@down.example")
        wait_until(lambda: "deferred" in one.log, "it is deferred")
        assert one.process is not None
        one.process.signal(signal.SIGSTOP)
        domain = local_domain(deliver=f"maildir:{self.mail}/office.example/{{local}}")
        other = self.node("other", domains={"down.example": domain})
        self.expire()
        self.mta(other, "queue", "retry", "--all")
        wait_until(self.marks, "the other one delivers it")
        one.process.signal(signal.SIGCONT)
        wait_until(lambda: self.sql("SELECT count(*) FROM schedule") == [(0,)], "it is removed")
        self.assertEqual(self.marks(), [b"1"])
        one.stop()


class AwayTests(NodesCase):
    """A database of the test's own, which is stopped."""

    def database(self) -> Cluster:
        """See `NodesCase.database`."""
        return own_cluster(self)

    def test_away(self) -> None:
        """4xx at MAIL while it is away; all that was acknowledged arrives when it is back."""
        one = self.node("one")
        one.send(b"Subject: x\r\n\r\nmark-1\r\n", "bob@office.example")
        self.cluster.stop("immediate")
        refused = wait_until(lambda: self.refusal(one), "mail is refused")
        self.assertEqual(refused, "MAIL 451")
        self.cluster.start()
        wait_until(lambda: not self.refusal(one), "mail is taken again")
        wait_until(lambda: len(self.marks()) >= 2, "it arrives")
        one.stop()

    def test_a_start_without_it(self) -> None:
        """The server says so once, refuses mail, and takes it when the database is there."""
        self.cluster.stop("immediate")
        one = self.node("one", metrics="tcp:0:interface=127.0.0.1")
        self.assertEqual(wait_until(lambda: self.refusal(one), "it is refused"), "MAIL 451")
        self.assertIn(
            "the database can't be reached", wait_until(lambda: health(one), "it says so")
        )
        self.assertEqual(one.log.count("mail is refused until it can"), 1, one.log)
        self.cluster.start()
        wait_until(lambda: not self.refusal(one), "mail is taken")
        wait_until(self.marks, "it arrives")
        self.assertEqual(health(one), "")

    def test_killed_while_it_is_away(self) -> None:
        """What was delivered meanwhile is known to the next process: there is no second copy."""
        sink = Sink(self)
        sink.signal(signal.SIGSTOP)
        domains = {"out.example": {"deliver": f"smtp://127.0.0.1:{sink.port}", "mailboxes": "any"}}
        one = self.node("one", domains=domains)
        for number in range(3):
            one.send(b"Subject: x\r\n\r\nmark-%d\r\n" % number, "bob@out.example")
        self.cluster.stop("immediate")
        sink.signal(signal.SIGCONT)
        sink.wait_for_mail(3)
        wait_until(lambda: self.noted(one) == 3, "the outcomes are noted")
        one.kill()
        one.start()
        self.cluster.start()
        wait_until(self.is_empty, "nothing waits")
        wait_until(lambda: not self.noted(one), "the journal is gone")
        self.assertEqual(len(sink.mail), 3)

    def noted(self, server: Server) -> int:
        """The number of outcomes that a node has noted, and not recorded."""
        files = (server.folder / "spool" / "owners").glob("*.outcomes")
        return sum(len(outcomes_in(each)) for each in files)

    def is_empty(self) -> bool:
        """Tell whether the database is there, and no mail waits."""
        try:
            return self.sql("SELECT count(*) FROM schedule") == [(0,)]
        except psycopg.OperationalError:
            return False

    def test_refused(self) -> None:
        """A database that is not there, on a server that is: one line, no start."""
        self.url = self.url.replace("/postgres", "/nowhere")
        with self.assertRaisesRegex(AssertionError, "database .nowhere. does not exist"):
            self.node("one")

    def test_sendmail(self) -> None:
        """What a program of this host sends meanwhile waits in the maildrop of its node."""
        one = self.node("one")
        self.cluster.stop("immediate")
        wait_until(lambda: self.refusal(one), "mail is refused")
        message = one.folder / "message"
        message.write_bytes(b"Subject: x\n\nmark-7\n")
        code = (
            "import sys; from mta.commands import main; sys.stdin = open(sys.argv[1]);"
            " sys.exit(main(sys.argv[2:]))"
        )
        words = ("sendmail", "--config", str(one.config), "-v", "bob@office.example")
        command = [one.command[0], "-c", code, str(message), *words]
        process = Process(command, one.folder, source_environment())
        self.assertEqual(process.wait(), 0, process.output)
        self.assertIn("maildrop", process.output)
        self.cluster.start()
        wait_until(lambda: b"7" in self.marks(), "it arrives")

    def refusal(self, server: Server) -> str:
        """The command at which a message was refused, once that is MAIL; empty: none was."""
        try:
            server.send(b"Subject: x\r\n\r\nmark-2\r\n", "bob@office.example")
        except smtplib.SMTPSenderRefused as error:
            return f"MAIL {error.smtp_code}"
        except smtplib.SMTPException:
            return ""
        return ""


def health(server: Server) -> str:
    """The reason why a server is not well, as monitoring sees it; empty: it is."""
    try:
        urlopen(f"http://127.0.0.1:{server.ports['metrics']}/healthz", timeout=DEADLINE).close()
    except HTTPError as error:
        with error:
            return error.read().decode()
    return ""
