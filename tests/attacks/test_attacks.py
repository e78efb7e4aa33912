"""The tables of attacks, tried on the running program: what must come of each row."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from twisted.trial.unittest import SynchronousTestCase

from tests.attacks.target import Client, NextHop, Target, octets, rows
from tests.interop.reversal import run_mta
from tests.processes import DEADLINE, wait_until

ENOUGH = 50_000  # commands, after which a session that brings no mail has long ended
GROUP = 100  # commands in one segment
MAX_SHOWN = 3000  # characters of a reply that logs and lists may show
SECOND = b"MAIL FROM:<ceo@bank.example>\r\nRCPT TO:<alice@own.example>\r\nDATA\r\nFrom: ceo\r\n"
CLEAN = re.compile(r"[^\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]*")


class AttackCase(SynchronousTestCase):
    """What the tables share."""

    def attack(self, table: str, attempt: Callable[..., str], at_once: int = 1) -> None:
        """Try each row, some of them `at_once`; `attempt` says what went wrong, or nothing."""
        with ThreadPoolExecutor(at_once) as pool:
            problems = pool.map(lambda row: attempt(*row), rows(table))
            found = [
                f"{' | '.join(row)}: {problem}"
                for row, problem in zip(rows(table), problems, strict=True)
                if problem
            ]
        self.assertEqual([], found)

    def expect_calm(self, target: Target) -> None:
        """The server runs, and nothing in its log is a fault of its own."""
        self.assertTrue(target.server.process and target.server.process.is_running)
        self.assertNotIn("Traceback", target.server.log)
        self.assertNotIn("[critical]", target.server.log.lower())

    def expect_empty_queue(self, target: Target) -> None:
        """All that was accepted has come to its end."""
        wait_until(lambda: not run_mta(target.server, "queue", "list", "--json"), "an empty queue")


class StrangerTests(AttackCase):
    """What anybody can try who reaches port 25."""

    def test_relaying(self) -> None:
        """No forward-path leads through us to another server."""
        target = Target(self)

        def attempt(path: str) -> str:
            for service in ("smtp", "lmtp"):
                hello = b"LHLO x" if service == "lmtp" else b"EHLO x"
                with target.session(service, hello) as client:
                    for parameters in (b"", b" SMTPUTF8"):
                        client.say(b"RSET", b"MAIL FROM:<alice@own.example>" + parameters)
                        reply = client.say(b"RCPT TO:" + octets(path))
                        if reply.startswith("2"):
                            return f"{service} said {reply}"
            return ""

        self.attack("relaying", attempt)
        self.assertEqual([], target.next_hop.contents)
        self.expect_calm(target)

    def test_smuggling_in(self) -> None:
        """What one server sees as one message is one message, or none."""
        target = Target(self)
        accepted = 0

        def attempt(_: str, text: str) -> str:
            nonlocal accepted
            content = b"Subject: x\r\n\r\n" + octets(text) + SECOND
            for by_data in (True, False):
                with target.session() as client:
                    client.say(b"MAIL FROM:<a@b.example> BODY=8BITMIME")
                    client.say(b"RCPT TO:<bob@own.example>", b"RCPT TO:<out@own.example>")
                    if by_data:
                        client.say(b"DATA")
                        client.send(content.replace(b"\r\n.", b"\r\n..") + b"\r\n.\r\n")
                    else:
                        client.send(b"BDAT %d LAST\r\n" % len(content) + content)
                    reply = client.reply()
                    if reply.startswith("250"):
                        accepted += 1
                    elif not reply.startswith("554"):
                        return f"replied {reply}"
                    if not client.say(b"RSET").startswith("250"):
                        return "the session is out of step"
            return ""

        self.attack("line_ends", attempt)
        self._expect_no_second_message(target, accepted)

    def test_smuggling_in_by_bare_data(self) -> None:
        """The same, with the dots as they are: what ends content is CRLF.CRLF and nothing else."""
        target = Target(self)

        def attempt(_: str, text: str) -> str:
            with target.session() as client:
                client.say(b"MAIL FROM:<a@b.example>", b"RCPT TO:<out@own.example>", b"DATA")
                client.send(b"Subject: x\r\n\r\n" + octets(text) + SECOND + b"\r\n.\r\n")
                reply = client.reply()
                if not reply.startswith(("250", "554")):
                    return f"replied {reply}"
                if not client.say(b"RSET").startswith("250"):
                    return "the session is out of step"
            return ""

        self.attack("line_ends", attempt)
        self._expect_no_second_message(target)

    def test_smuggling_out(self) -> None:
        """What was converted for a 7-bit hop has no line end but CRLF, no NUL, no bare dot."""
        for keywords in ((), (b"8BITMIME",), (b"PIPELINING", b"8BITMIME", b"CHUNKING")):
            target = Target(self, *keywords)

            def attempt(_: str, text: str, target: Target = target) -> str:
                content = octets(text) + SECOND
                with target.session() as client:
                    client.say(b"MAIL FROM:<> BODY=BINARYMIME")
                    client.say(b"RCPT TO:<out@own.example>", b"RCPT TO:<bob@own.example>")
                    client.send(b"BDAT %d LAST\r\n" % len(content) + content)
                    reply = client.reply()
                return "" if reply[:3] in ("250", "554") else f"replied {reply}"

            self.attack("conversions", attempt)
            self._expect_no_second_message(target)

    def _expect_no_second_message(self, target: Target, accepted: int | None = None) -> None:
        self.expect_empty_queue(target)
        contents = target.next_hop.contents
        if accepted is not None:
            self.assertEqual(accepted, len(contents))
            self.assertEqual(accepted, len(target.own_mail()))
        for content in (*contents, *target.next_hop.chunks):
            self.assertNotRegex(content, rb"\r(?!\n)|(?<!\r)\n|\0")
        for content in contents:
            self.assertNotRegex(content, rb"\r\n\.(?!\.)")
        self.assertFalse([one for one in target.next_hop.commands if b"ceo@bank" in one])
        self.expect_calm(target)

    def test_parameters(self) -> None:
        """No parameter brings a line of its own."""
        target = Target(self)

        def attempt(verb: str, text: str) -> str:
            with target.session() as client:
                if verb == "MAIL":
                    reply = client.say(b"MAIL FROM:" + octets(text))
                else:
                    client.say(b"MAIL FROM:<a@b.example>")
                    reply = client.say(b"RCPT TO:" + octets(text))
            return "" if reply.startswith("5") else f"replied {reply}"

        self.attack("parameters", attempt)
        self.expect_calm(target)

    def test_turns(self) -> None:
        """Nobody turns a connection, or starts a queue, without a right to it."""
        target = Target(self)

        def attempt(who: str, text: str) -> str:
            with target.logged_in() if who == "alice" else target.session() as client:
                reply = client.say(octets(text))
                return "" if reply[:1] in ("4", "5") else f"replied {reply}"

        self.attack("turns", attempt)
        self.expect_calm(target)

    def test_names(self) -> None:
        """Every file is in the Maildir of a mailbox of its domain."""
        target = Target(self)
        accepted = 0

        def attempt(text: str) -> str:
            nonlocal accepted
            local_part = octets(text)
            quoted = local_part.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
            with target.session() as client:
                client.say(b"MAIL FROM:<> SMTPUTF8")
                reply = client.say(b'RCPT TO:<"%b"@any.example>' % quoted)
                if reply.startswith("250"):
                    client.say(b"DATA")
                    client.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
                    accepted += client.reply().startswith("250")
            return "" if reply[:1] in ("2", "5") else f"replied {reply}"

        self.attack("names", attempt)
        self.expect_empty_queue(target)
        folder = target.server.folder / "mail" / "any.example"
        found = target.own_mail()
        self.assertEqual(accepted, len(found))
        for path in found:
            self.assertEqual(folder, path.parent.parent.parent, path)
        self.assertEqual({"any.example"}, {path.name for path in folder.parent.iterdir()})
        self.expect_calm(target)

    def test_floods(self) -> None:
        """Who brings no mail is not listened to for ever, and nobody else waits for him."""
        target = Target(self)

        def attempt(_: str, text: str) -> str:
            command = octets(text)
            with target.session() as client, target.session() as other:
                if text.startswith(("RCPT", "DATA", "BDAT")):
                    client.say(b"MAIL FROM:<a@b.example>")
                return self._flood(client, command + b"\r\n", other)

        self.attack("floods", attempt, at_once=20)
        self.expect_calm(target)

    def _flood(self, client: Client, line: bytes, other: Client) -> str:
        for _ in range(ENOUGH // GROUP):
            client.send(line * GROUP)
            for _ in range(GROUP):
                if not client.reply():
                    return "" if other.is_open else "nobody else is served"
        return "the session does not end"

    def test_first_lines(self) -> None:
        """A request of another protocol is no session, and what is in it no mail."""
        target = Target(self)

        def attempt(_: str, text: str) -> str:
            port = target.server.ports["smtp"]
            with socket.create_connection(("127.0.0.1", port), DEADLINE) as connection:
                client = Client(connection)
                client.send(octets(text))
                connection.shutdown(socket.SHUT_WR)
                while reply := client.reply():
                    if reply.startswith("354"):
                        return "content was asked for"
            return ""

        self.attack("first_lines", attempt)
        self.assertEqual([], target.own_mail())
        self.expect_calm(target)


class UserTests(AttackCase):
    """What somebody can try who logged in."""

    def test_authors(self) -> None:
        """A user writes as nobody else, in the eyes of no reader."""
        target = Target(self)

        def attempt(what: str, text: str) -> str:
            with target.logged_in() as client:
                client.say(b"MAIL FROM:<alice@own.example>", b"RCPT TO:<bob@own.example>", b"DATA")
                client.send(b"Subject: x\r\n" + octets(text) + b"\r\n\r\nx\r\n.\r\n")
                reply = client.reply()
            wanted = "2" if what == "taken" else "5"
            return "" if reply.startswith(wanted) else f"replied {reply}"

        self.attack("authors", attempt)
        self.expect_calm(target)


class NextHopTests(AttackCase):
    """What a server can try to which we send."""

    def test_replies(self) -> None:
        """Whatever it says becomes one short clean line, and the message comes to an end."""
        hostile = {
            name: NextHop(
                self,
                replies=(b"220 x\r\n", b"250 x\r\n", b"250 x\r\n", octets(text), b"221 x\r\n"),
            )
            for name, text in map(tuple, rows("replies"))
        }
        domains = {
            f"d{number}.example": {"deliver": f"smtp://127.0.0.1:{hop.port}"}
            for number, hop in enumerate(hostile.values())
        }
        target = Target(self, domains=domains)
        for domain in domains:
            with target.session() as client:
                path = f"RCPT TO:<x@{domain}>".encode()
                client.say(b"MAIL FROM:<a@away.example>", path, b"DATA")
                client.send(b"Subject: x\r\n\r\nx\r\n.\r\n")
                self.assertTrue(client.reply().startswith("250"))
        for name, hop in hostile.items():
            wait_until(lambda hop=hop: hop.conversations, f"{name}: a conversation")
        for domain in domains:
            told = f" (deferred|failed) x@{re.escape(domain)} "
            wait_until(lambda told=told: re.search(told, target.server.log), f"{domain} is told")
        listed = run_mta(target.server, "queue", "list", "--json")
        for line in (*target.server.log.splitlines(), *listed.splitlines()):
            self.assertTrue(CLEAN.fullmatch(line), line)
            self.assertLess(len(line), MAX_SHOWN)
        for line in listed.splitlines():
            json.loads(line)
        for notice in target.next_hop.contents:
            self.assertLess(len(notice), 10 * MAX_SHOWN)
            self.assertNotRegex(notice, rb"\r(?!\n)|(?<!\r)\n|\0|\x1b")
        self.expect_calm(target)
