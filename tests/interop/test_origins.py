"""True origins by XFORWARD: to an office through its relay, from Postfix and to Postfix."""

from __future__ import annotations

import json
import smtplib
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.filters import ScriptedMilter
from tests.interop.name_server import answering
from tests.interop.postfix import DOMAIN, Postfix
from tests.interop.reversal import BOB, BOBS, Provider, office, run_mta
from tests.processes import (
    DEADLINE,
    Server,
    configuration,
    header_of,
    mail_in,
    wait_for_mail,
    wait_until,
)

SENDER, STRANGER = "198.51.100.7", "198.51.100.9"
NAMES = {
    "bank.example": {"TXT": [f"v=spf1 ip4:{SENDER} -all"]},
    "_dmarc.bank.example": {"TXT": ["v=DMARC1; p=reject"]},
}
LETTER = b"From: ceo@bank.example\r\nTo: bob@office.example\r\nSubject: x\r\n\r\nhello\r\n"
CLIENT = "127.0.0.3"  # of Postfix, or through Postfix


def deliver(
    port: int, to: str, *, behind: str = "", source: str = "127.0.0.1", name: str = "spike.example"
) -> str:
    """Send the letter from one of our addresses; returns the last reply.

    `behind`: the client that a proxy speaks for.
    """
    with smtplib.SMTP("127.0.0.1", port, name, DEADLINE, source_address=(source, 0)) as client:
        client.ehlo()
        if behind:
            client.docmd("XCLIENT", f"ADDR={behind} PORT=4711")
            client.ehlo()
        client.mail("ceo@bank.example")
        client.rcpt(to)
        code, text = client.data(LETTER)
    return f"{code} {text.decode()}"


class OfficeTests(SynchronousTestCase):
    """A relay whose clients come from far away, and an office that judges them."""

    def serve(self, **keys: Any) -> None:
        """Begin to serve at both ends; `keys` are of the office."""
        self.relay = Provider(
            self, {"linger": "1h"}, relay={"networks": [], "xclient": ["127.0.0.1"]}
        )
        self.relay.start()
        self.office = office(
            self,
            self.relay,
            every="1s",
            origin="trust",
            keys={
                "authentication": {"dmarc": "reject"},
                "resolver": [answering(self, NAMES)],
                **keys,
            },
        )
        self.office.start()
        self.inbox = self.office.folder / "mail" / BOBS

    def test_the_office_knows(self) -> None:
        """Received:, log, trace and judgement have the client; one that is no host of the bank's
        brings junk, with no notice to the address that it forged."""
        self.serve()
        there = deliver(self.relay.ports["smtp"], BOB, behind=SENDER).split()[-1]
        (good,) = wait_for_mail(self.inbox, 1)
        received = header_of(good, "Received")
        self.assertRegex(
            received[0],
            r"^from spike.example \(\[198.51.100.7\]\)\s+by office.example"
            r" via provider with ESMTP id",
        )
        self.assertIn("spf=pass", header_of(good, "Authentication-Results")[0])
        self.assertIn("dmarc=pass", header_of(good, "Authentication-Results")[0])
        said = self.office.process.wait_for(
            rf"(\S+) accepted <ceo@bank.example> from {SENDER} by ESMTP: \d+ octets,"
            rf" via provider as {there}"
        )
        log = self.office.folder / "log"
        log.write_text(self.office.log)
        traced = run_mta(self.office, "trace", said[1], "--log", str(log))
        self.assertIn(f"from {SENDER} by ESMTP", traced)
        self.assertIn(f"via provider as {there}", traced)
        self.relay.process.wait_for(f"{there} relayed ")
        log.write_text(self.relay.log)
        traced = run_mta(self.relay, "trace", there, "--log", str(log))
        self.assertRegex(traced, rf"relayed {BOB} .*250 2.0.0 OK queued as {said[1]}")

        deliver(self.relay.ports["smtp"], BOB, behind=STRANGER)
        (junk,) = wait_for_mail(self.inbox / ".Junk", 1)
        self.assertIn(f"([{STRANGER}])", header_of(junk, "Received")[0])
        self.assertIn("spf=fail", header_of(junk, "Authentication-Results")[0])
        self.assertIn("dmarc=fail", header_of(junk, "Authentication-Results")[0])
        self.assertEqual(len(mail_in(self.inbox)), 1)
        self.assertNotIn("notice", self.relay.log)

    def test_what_is_on_hold(self) -> None:
        """The queue has the client and its server, in words and in JSON."""
        self.serve(authentication={"junk": "hold"})
        there = deliver(self.relay.ports["smtp"], BOB, behind=STRANGER).split()[-1]
        wait_until(lambda: "junk" in run_mta(self.office, "queue", "list"), "it is on hold")
        entry = json.loads(run_mta(self.office, "queue", "list", "--json"))
        page = run_mta(self.office, "queue", "show", entry["id"])
        self.assertIn(f"[{STRANGER}]:4711", page)
        self.assertIn(f"told by provider as {there}", page)
        origin = json.loads(run_mta(self.office, "queue", "show", entry["id"], "--json"))["origin"]
        self.assertEqual(
            (origin["address"], origin["told_by"], origin["told_id"], origin["user"]),
            (STRANGER, "provider", there, ""),
        )

    def test_a_filter(self) -> None:
        """It hears of each client over a connection of its own."""
        milter = ScriptedMilter(self)
        self.serve(milters=[{"socket": milter.socket}], authentication={"dmarc": "record"})
        for count, client in enumerate((SENDER, STRANGER), 1):
            deliver(self.relay.ports["smtp"], BOB, behind=client)
            wait_for_mail(self.inbox, count)
        told = [str(event) for event in milter.seen if "connect" in str(event)]
        for client in (SENDER, STRANGER):
            self.assertTrue(any(client in each for each in told), told)


class PostfixTests(SynchronousTestCase):
    """Postfix in front of us, and behind us."""

    def test_from_postfix(self) -> None:
        """What it forwards is known by the client that came to it."""
        server = Server(self, configuration(relay={"networks": [], "xforward": ["127.0.0.1"]}))
        server.start()
        postfix = Postfix(
            self,
            relay_port=server.ports["smtp"],
            settings={"smtp_send_xforward_command": "yes", "smtp_bind_address": "127.0.0.1"},
        )
        there = deliver(postfix.port, BOB, source=CLIENT).split()[-1]
        (content,) = server.wait_for_mail(BOBS)
        self.assertRegex(
            header_of(content, "Received")[0],
            rf"^from spike.example \((\S+ )?\[{CLIENT}\]\)\s+by mail.office.example"
            r" \(via \[127.0.0.1\]\) with ESMTP id",
        )
        self.assertIn(f"from {CLIENT} by ESMTP", server.log)
        self.assertIn(f", via 127.0.0.1 as {there}", server.log)

    def test_its_clients_relay_nothing(self) -> None:
        """Postfix takes mail for anywhere from its networks; we take no more from it for that."""
        server = Server(
            self, configuration(relay={"networks": ["127.0.0.3/32"], "xforward": ["127.0.0.1"]})
        )
        server.start()
        postfix = Postfix(
            self,
            relay_port=server.ports["smtp"],
            settings={"smtp_send_xforward_command": "yes", "smtp_bind_address": "127.0.0.1"},
        )
        deliver(postfix.port, "victim@elsewhere.example", source=CLIENT)
        wait_until(lambda: "550 5.7.1 Relaying denied" in postfix.log, "Postfix was refused")
        self.assertNotIn("accepted <ceo@bank.example>", server.log)

    def test_to_postfix(self) -> None:
        """It logs the client that came to us, where the hop says so."""
        postfix = Postfix(self, settings={"smtpd_authorized_xforward_hosts": "127.0.0.0/8"})
        for tells in (True, False):
            hop = {"to": f"smtp://127.0.0.1:{postfix.port}", "xforward": tells}
            server = Server(self, configuration(routes={"default": hop}))
            server.start()
            seen = len(postfix.mail)
            ours = deliver(server.ports["smtp"], f"carol@{DOMAIN}", source=CLIENT).split()[-1]
            postfix.wait_for_mail(seen + 1)
            told = f"orig_queue_id={ours}, orig_client=" in postfix.log
            self.assertEqual(told, tells, postfix.log)
        self.assertRegex(postfix.log, rf"orig_client=\S*\[{CLIENT}\]")
