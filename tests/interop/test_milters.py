"""Filters: by the real libmilter, and beside Postfix with the same one."""

from __future__ import annotations

import re
import signal
import smtplib
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.filters import ScriptedMilter, milters
from tests.interop.postfix import DOMAIN, REFUSED, Postfix
from tests.processes import (
    DEADLINE,
    Server,
    configuration,
    local_domain,
    source_environment,
    wait_until,
)

SENDER = "alice@client.example"
CONTENT = b"""From: Alice <alice@client.example>\r
Date: Fri, 27 Nov 2026 12:00:00 +0000\r
Message-ID: <1@client.example>\r
Subject: hello\r
X-Twice: one\r
X-Folded: a\r
\t b\r
X-Twice: two\r
\r
First line.\r
.dots\r
\r
Last line.\r
"""
SENDMAIL = "import sys; from mta.commands.sendmail import main; sys.exit(main())"
BY_SERVERS = rb"(?im)^(?:return-path|delivered-to|x-original-to|received):.*\n(?:[ \t].*\n)*"

Script = Mapping[str, Any]

# What a filter says when, and the codes of MAIL, RCPT and content.
REFUSALS: Sequence[tuple[Script, tuple[int, ...]]] = (
    ({"connect": "reject"}, (550,)),
    ({"connect": "tempfail"}, (451,)),
    ({"hello": "reject"}, (550,)),
    ({"hello": "tempfail"}, (451,)),
    ({"envfrom": "reject"}, (550,)),
    ({"envfrom": "tempfail"}, (451,)),
    ({"envfrom": ["554", "5.7.9", "Not", "from you"]}, (554,)),
    ({"envrcpt": "reject"}, (250, 550)),
    ({"envrcpt": "tempfail"}, (250, 451)),
    ({"envrcpt": ["450", "4.2.1", "100%% full"]}, (250, 450)),
    *(
        ({callback: answer}, (250, 250, code))
        for callback in ("data", "header", "eoh", "body", "eom")
        for answer, code in (
            ("reject", 550),
            ("tempfail", 451),
            (["552", "5.7.0", "A", "B", "C"], 552),
        )
    ),
    ({"eom": ["421", "4.7.0", "Bye"]}, (250, 250, 421)),
)
# What a filter does to a message that it lets pass.
CHANGES: Sequence[Script] = (
    {},
    {"connect": "accept"},
    {"hello": "accept"},
    {"envfrom": "accept"},
    {"envrcpt": "accept"},
    {"header": "accept"},
    {"eoh": "accept"},
    {"body": "accept"},
    {"eom": "accept", "calls": [["addheader", "X-New", "1"]]},
    {"body": "skip", "negotiate": {"protocol": 0x400}},
    {"calls": [["addheader", "X-New", "1"]]},
    {"calls": [["addheader", "X-New", "a\n\tb"], ["addheader", "X-New", "2"]]},
    {"calls": [["addheader", "X-New", "1", 1]]},
    {"calls": [["addheader", "X-New", "1", 2], ["addheader", "X-Newer", "1", 99]]},
    {"calls": [["chgheader", "Subject", 1, "*** hello"]]},
    {"calls": [["chgheader", "x-twice", 2, ""]]},
    {"calls": [["chgheader", "X-Twice", 2, "2"], ["chgheader", "X-Twice", 1, ""]]},
    {"calls": [["chgheader", "X-Twice", 1, ""], ["chgheader", "X-Twice", 1, "2"]]},
    {"calls": [["chgheader", "X-Twice", 3, "three"], ["chgheader", "X-None", 1, "x"]]},
    {"calls": [["chgheader", "X-Folded", 1, "c\n d"]]},
    {"calls": [["addheader", "X-New", " 1"]], "negotiate": {"protocol": 0x100000}},
    {"calls": [["chgheader", "X-Folded", 1, "\n c"]], "negotiate": {"protocol": 0x100000}},
    {"calls": [["replacebody", "Another body.\r\n"]]},
    {"calls": [["replacebody", "x" * 70 + "\r\n", 3000], ["replacebody", "end\r\n"]]},
    {"calls": [["progress"], ["addheader", "X-New", "1"], ["progress"]]},
    {"calls": [["chgfrom", "<bob@client.example>"]]},
    {"calls": [["chgfrom", "<>"]]},
    {"negotiate": {"protocol": 0x80}},
    {"negotiate": {"protocol": 0xFF080}, "calls": [["addheader", "X-New", "1"]]},
    {"negotiate": {"protocol": 0x37F}, "calls": [["addheader", "X-New", "1"]]},
)


def transcript(port: int, *recipients: str, content: bytes = CONTENT) -> list[tuple[int, bytes]]:
    """The replies to MAIL, each RCPT, and content, up to the first that refuses."""
    with smtplib.SMTP("127.0.0.1", port, "client.example", timeout=DEADLINE) as client:
        client.ehlo()
        replies = [client.mail(SENDER)]
        for recipient in recipients:
            if replies[-1][0] < 300:
                replies.append(client.rcpt(recipient))
        if replies[-1][0] < 300:
            try:
                replies.append(client.data(content))
            except smtplib.SMTPDataError as refused:  # in reply to DATA
                assert isinstance(refused.smtp_error, bytes)
                replies.append((refused.smtp_code, refused.smtp_error))
        return replies


def plain(content: bytes) -> bytes:
    """A delivered message without the fields of those who delivered it."""
    section, end, body = content.partition(b"\n\n")
    return re.sub(BY_SERVERS, b"", section + b"\n") + end[1:] + body


class LibmilterTests(SynchronousTestCase):
    """Every reply and negotiation."""

    def setUp(self) -> None:
        self.filter = ScriptedMilter(self)
        self.server = self.start()

    def start(self, **keys: Any) -> Server:
        """A server with the filter."""
        domains = {DOMAIN: local_domain()}
        filters = milters(self.filter.socket, **keys)
        server = Server(self, configuration(domains=domains, milters=filters))
        server.start()
        return server

    def codes(self, server: Server, **script: Any) -> tuple[int, ...]:
        """The codes of the replies to a message."""
        self.filter.script(**script)
        return tuple(code for code, _ in transcript(server.ports["smtp"], f"inbox@{DOMAIN}"))

    def content_code(self, client: smtplib.SMTP, word: bytes) -> int:
        """The code for a message of this word."""
        client.ehlo_or_helo_if_needed()
        client.mail(SENDER)
        client.rcpt(f"inbox@{DOMAIN}")
        return client.data(b"X-%b: 1\r\n\r\n%b\r\n" % (word.title(), word))[0]

    def test_refusals(self) -> None:
        """Each at its step, with the words of the filter."""
        for script, codes in REFUSALS:
            self.assertEqual(self.codes(self.server, **script), codes, script)
        self.filter.script(envrcpt=["550", "5.7.1", "100%% spam", "Go away"])
        _, (code, text) = transcript(self.server.ports["smtp"], f"inbox@{DOMAIN}")
        self.assertEqual((code, text), (550, b"5.7.1 100% spam\n5.7.1 Go away"))
        self.assertNotIn("accepted <", self.server.log)

    def test_all_that_is_told(self) -> None:
        """libmilter hears all of a session, and each macro where it belongs."""
        symbols = ["i", "j", "{client_addr}", "{auth_authen}", "{mail_addr}", "{rcpt_mailer}"]
        self.filter.script(symbols=symbols)
        transcript(self.server.ports["smtp"], f"inbox@{DOMAIN}")
        (delivered,) = self.server.wait_for_mail(f"{DOMAIN}/inbox")
        found = re.search(rb" id (\S+)\n", delivered)
        assert found is not None
        here, id = "mail.office.example", found[1].decode()
        client = [here, "127.0.0.1", None]
        seen = [each for each in self.filter.seen if each[0] not in ("negotiate", "connect")]
        self.assertEqual(
            seen[:5],
            [
                ["hello", "client.example", None, *client, None, None],
                ["envfrom", f"<{SENDER}>", id, *client, SENDER, None],
                ["envrcpt", f"<inbox@{DOMAIN}>", id, *client, SENDER, "local"],
                ["data", id, *client, SENDER, "local"],
                ["header", "From", "Alice <alice@client.example>", id, *client, SENDER, "local"],
            ],
        )
        self.assertIn("a\n\t b", [each[2] for each in seen if each[0] == "header"])
        (body,) = [each[1] for each in seen if each[0] == "body"]
        self.assertEqual(body.encode(), CONTENT.partition(b"\r\n\r\n")[2])

    def test_lists_of_macros(self) -> None:
        """As `smfi_setsymlist` asks for them."""
        self.filter.script(
            negotiate={"macros": {"2": "{client_port} j"}},
            symbols=["{client_port}", "{mail_addr}", "i"],
        )
        transcript(self.server.ports["smtp"], f"inbox@{DOMAIN}")
        (mail,) = [each for each in self.filter.seen if each[0] == "envfrom"]
        self.assertRegex(mail[-3], r"^\d+$")
        self.assertEqual(mail[-2:], [None, None])

    def test_recipients(self) -> None:
        """Refused one by one; added and removed."""
        self.filter.script(
            envrcpt={f"<b@{DOMAIN}>": "reject"},
            calls=[
                ["addrcpt", f"<c@{DOMAIN}>"],
                ["addrcpt", f"<d@{DOMAIN}>", "NOTIFY=NEVER"],
                ["delrcpt", f"<a@{DOMAIN}>"],
            ],
        )
        with smtplib.SMTP("127.0.0.1", self.server.ports["smtp"], timeout=DEADLINE) as client:
            client.sendmail(SENDER, [f"a@{DOMAIN}", f"b@{DOMAIN}", f"e@{DOMAIN}"], CONTENT)
        for name in "cde":
            self.server.wait_for_mail(f"{DOMAIN}/{name}")
        self.assertIn(
            "changed by filter filter0: 2 recipients added, 1 recipients removed", self.server.log
        )
        self.assertNotIn(f"delivered a@{DOMAIN}", self.server.log)

    def test_mail_that_goes_nowhere(self) -> None:
        """Discarded at each step, or held for the operator."""
        for callback in ("envfrom", "envrcpt", "data", "header", "eoh", "body", "eom"):
            self.assertEqual(self.codes(self.server, **{callback: "discard"}), (250, 250, 250))
        self.assertEqual(self.server.log.count("discarded by filter filter0"), 7)
        self.assertEqual(
            self.codes(self.server, calls=[["quarantine", "a virus"]]), (250, 250, 250)
        )
        self.server.process.wait_for("on hold: filter0: a virus")  # type: ignore[union-attr]
        self.assertNotIn("delivered", self.server.log)

    def test_many_messages(self) -> None:
        """Of one session over one connection."""
        self.filter.script(calls=[["addheader", "X-New", "1"]])
        with smtplib.SMTP("127.0.0.1", self.server.ports["smtp"], timeout=DEADLINE) as client:
            for _ in range(5):
                client.sendmail(SENDER, [f"inbox@{DOMAIN}"], CONTENT)
                client.mail(SENDER)
                client.rset()
        wait_until(lambda: self.filter.callbacks[-1] == "close", "the filter heard good-bye")
        for mail in self.server.wait_for_mail(f"{DOMAIN}/inbox", 5):
            self.assertIn(b"X-New: 1\n", mail)
        self.assertEqual(self.filter.callbacks.count("negotiate"), 1)
        self.assertEqual(self.filter.callbacks.count("abort"), 5)

    def test_verdicts_before_the_last_answer(self) -> None:
        """They count, and those on the next message of the session are of that one."""
        refusals = {"reject": 550, "tempfail": 451, "discard": 250, "accept": 250}
        for (callback, argument), verdict in product(
            (("header", "X-Early"), ("body", "early\r\n")),
            (*refusals, ["552", "5.7.0", "A"]),
        ):
            script: Script = {callback: {argument: verdict}}
            self.filter.script(**script)
            with smtplib.SMTP("127.0.0.1", self.server.ports["smtp"], timeout=DEADLINE) as client:
                codes = [self.content_code(client, word) for word in (b"early", b"late", b"late")]
            self.assertEqual(codes, [refusals.get(str(verdict), 552), 250, 250], script)
            self.assertEqual(self.filter.callbacks.count("eom"), 2, script)
            self.assertEqual(self.filter.callbacks.count("negotiate"), 2, script)

    def test_a_socket_in_a_file(self) -> None:
        """A filter may listen there."""
        self.filter = ScriptedMilter(self, in_file=True)
        server = self.start()
        large = [["replacebody", "y" * 998 + "\r\n", 1000], ["addheader", "X-New", "1"]]
        self.assertEqual(self.codes(server, calls=large), (250, 250, 250))
        (mail,) = server.wait_for_mail(f"{DOMAIN}/inbox")
        self.assertIn(b"X-New: 1\n", mail)
        self.assertEqual(self.codes(server, eom="reject"), (250, 250, 550))

    def test_a_large_message(self) -> None:
        """In both directions, with little memory."""
        self.filter.script(calls=[["replacebody", "y" * 998 + "\r\n", 8000]])
        content = b"Subject: x\r\n\r\n" + (b"x" * 998 + b"\r\n") * 8000
        self.server.send(content, f"inbox@{DOMAIN}")
        (mail,) = self.server.wait_for_mail(f"{DOMAIN}/inbox")
        self.assertTrue(mail.endswith((b"y" * 998 + b"\n") * 8000))
        told = [len(each[1]) for each in self.filter.seen if each[0] == "body"]
        self.assertEqual((sum(told), max(told)), (8_000_000, 65535))


class LocalTests(SynchronousTestCase):
    """Mail that programs of this host hand to sendmail."""

    def test_sendmail(self) -> None:
        """It is seen as a session from this host; what is refused is kept for the operator."""
        filter = ScriptedMilter(self)
        server = Server(
            self,
            configuration(domains={DOMAIN: local_domain()}, milters=milters(filter.socket)),
        )
        server.start()
        filter.script(calls=[["addheader", "X-New", "1"]])
        self.sendmail(server, f"inbox@{DOMAIN}")
        (mail,) = server.wait_for_mail(f"{DOMAIN}/inbox")
        self.assertIn(b"X-New: 1\n", mail)
        self.assertEqual(filter.seen[1][:2], ["connect", "localhost"])
        self.assertIn("127.0.0.1", filter.seen[1][2])
        filter.script(eom=["550", "5.7.1", "Spam"])
        self.sendmail(server, f"inbox@{DOMAIN}")
        assert server.process is not None
        server.process.wait_for("is on hold: refused: 550 5.7.1 Spam")

    def sendmail(self, server: Server, *words: str) -> None:
        """Hand in a message."""
        command = [sys.executable, "-c", SENDMAIL, "-C", str(server.config), *words]
        subprocess.run(
            command, input=b"Subject: x\n\nbody\n", env=source_environment(), check=True, timeout=60
        )


class BesidePostfixTests(SynchronousTestCase):
    """The same filter at Postfix, and here."""

    def test_same(self) -> None:
        """The same message comes out, octet by octet, and the same replies are given."""
        filter = ScriptedMilter(self)
        domains = {DOMAIN: local_domain()}
        server = Server(self, configuration(domains=domains, milters=milters(filter.socket)))
        server.start()
        postfix = Postfix(self, settings={"smtpd_milters": filter.socket})
        for count, script in enumerate(CHANGES, 1):
            filter.script(**script)
            id = b"<%d@client.example>" % count
            for port in (server.ports["smtp"], postfix.port):
                content = CONTENT.replace(b"<1@client.example>", id)
                replies = transcript(port, f"inbox@{DOMAIN}", content=content)
                self.assertEqual([code for code, _ in replies], [250, 250, 250], script)
            (ours,) = [
                mail for mail in server.wait_for_mail(f"{DOMAIN}/inbox", count) if id in mail
            ]
            (theirs,) = [mail for mail in postfix.wait_for_mail(count) if id in mail]
            self.assertEqual(plain(ours), plain(theirs), script)
        for script, codes in REFUSALS[4:]:
            filter.script(**script)
            ours_said, theirs_said = (
                transcript(port, f"inbox@{DOMAIN}") for port in (server.ports["smtp"], postfix.port)
            )
            self.assertEqual([code for code, _ in theirs_said][-1], codes[-1], script)
            self.assertEqual(ours_said[-1], theirs_said[-1], script)

    def test_before_the_content(self) -> None:
        """A filter may refuse at DATA, and hear of recipients that are refused before it."""
        filter = ScriptedMilter(self)
        domains = {DOMAIN: local_domain(mailboxes=["inbox"])}
        server = Server(self, configuration(domains=domains, milters=milters(filter.socket)))
        server.start()
        postfix = Postfix(self, settings={"smtpd_milters": filter.socket})
        for port in (server.ports["smtp"], postfix.port):
            for protocol in (0x800, 0):
                filter.script(
                    data=["552", "5.7.0", "No content"],
                    envrcpt={f"<{REFUSED}>": ["451", "4.7.1", "Overruled"]},
                    negotiate={"protocol": protocol},
                    symbols=["{rcpt_mailer}", "{rcpt_host}", "{rcpt_addr}"],
                )
                with smtplib.SMTP("127.0.0.1", port, timeout=DEADLINE) as client:
                    client.ehlo()
                    client.mail(SENDER)
                    code, text = client.rcpt(REFUSED)
                    self.assertEqual((code, text.split()[0]), (550, b"5.1.1"))
                    self.assertEqual(client.rcpt(f"inbox@{DOMAIN}")[0], 250)
                    self.assertEqual(client.docmd("DATA"), (552, b"5.7.0 No content"))
                told = [each[1:] for each in filter.seen if each[0] == "envrcpt"]
                if protocol:
                    *_, mailer, host, reason = told.pop(0)
                    self.assertEqual((mailer, host), ("error", "5.1.1"), port)
                    self.assertTrue(text.decode().endswith(reason), (port, reason))
                self.assertEqual([path for path, *_ in told], [f"<inbox@{DOMAIN}>"], port)


class DeathTests(SynchronousTestCase):
    """A filter that dies, or stands still, at each stage."""

    STAGES = (
        "negotiate",
        "connect",
        "hello",
        "envfrom",
        "envrcpt",
        "data",
        "header",
        "eoh",
        "body",
        "eom",
    )

    def setUp(self) -> None:
        self.filter = ScriptedMilter(self)

    def start(self, on_failure: str) -> Server:
        """A server with the filter."""
        filters = milters(
            self.filter.socket,
            on_failure=on_failure,
            timeouts={"connect": "2s", "command": "1s", "content": "1s"},
        )
        server = Server(self, configuration(domains={DOMAIN: local_domain()}, milters=filters))
        server.start()
        return server

    def test_killed(self) -> None:
        """What `on_failure` says happens; nothing is lost, and the next session is filtered."""
        for on_failure, last in (("tempfail", 451), ("accept", 250), ("reject", 550)):
            server = self.start(on_failure)
            taken = 0
            for stage in self.STAGES[1:]:
                self.filter.script(**{stage: "die"})
                replies = transcript(server.ports["smtp"], f"inbox@{DOMAIN}")
                self.assertEqual(replies[-1][0], last, (on_failure, stage))
                taken += last == 250
                self.filter.kill()
                replies = transcript(server.ports["smtp"], f"inbox@{DOMAIN}")
                self.assertEqual(replies[-1][0], last, (on_failure, stage))
                taken += last == 250
                self.filter.start()
            self.filter.script(calls=[["addheader", "X-New", "1"]])
            server.send(CONTENT, f"inbox@{DOMAIN}")
            mail = server.wait_for_mail(f"{DOMAIN}/inbox", taken + 1)
            self.assertEqual(sum(b"X-New: 1\n" in each for each in mail), 1)

    def test_stopped(self) -> None:
        """It is given up in time, and nobody else is delayed."""
        server = self.start("quarantine")
        for stage in self.STAGES[1:]:
            self.filter.script(**{stage: "stall"})
            begun = time.monotonic()
            stalled = threading.Thread(
                target=transcript, args=(server.ports["smtp"], f"inbox@{DOMAIN}")
            )
            stalled.start()
            wait_until(lambda stage=stage: stage in self.filter.callbacks, stage)
            self.filter.script()
            self.assertEqual(
                [code for code, _ in transcript(server.ports["smtp"], f"inbox@{DOMAIN}")],
                [250, 250, 250],
            )
            stalled.join()
            self.assertLess(time.monotonic() - begun, DEADLINE)
        server.wait_for_mail(f"{DOMAIN}/inbox", len(self.STAGES) - 1)
        held = "is on hold: filter filter0 failed: no answer within 1 seconds"
        wait_until(lambda: server.log.count(held) == len(self.STAGES) - 1, held)

    def test_frozen(self) -> None:
        """All of the process stands still: connections are taken, and nothing comes."""
        server = self.start("tempfail")
        self.filter.process.signal(signal.SIGSTOP)
        self.addCleanup(self.filter.process.signal, signal.SIGCONT)
        replies = transcript(server.ports["smtp"], f"inbox@{DOMAIN}")
        self.assertEqual(replies[-1][0], 451)
        self.filter.process.signal(signal.SIGCONT)
        server.send(CONTENT, f"inbox@{DOMAIN}")
        server.wait_for_mail(f"{DOMAIN}/inbox")
