"""Domains of peers, below others and internationalised, in each form that there is."""

from __future__ import annotations

import smtplib

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.reversal import (
    CAROL,
    Peer,
    Provider,
    customer,
    dial,
    letter,
    numbers,
    plain_login,
    run_mta,
    waiting,
)
from tests.interop.sink import Sink
from tests.processes import DEADLINE, local_domain, wait_until

A_LABEL = "xn--bcher-kva.example"
BELOW = f"a.zweig.{A_LABEL}"
# What an office may say for the first one.
FORMS = (A_LABEL, "XN--Bcher-KVA.example", "bücher.example", "BÜCHER.Example", f"{A_LABEL}.")
# Neither the one nor below ``.zweig.`` of it.
OF_OTHERS = (f"x.{A_LABEL}", f"zweig.{A_LABEL}", "bucher.example", f"not{A_LABEL}", "example")


class DomainTests(SynchronousTestCase):
    """The relay's entry says it in one form, the wire and the office in others."""

    def setUp(self) -> None:
        self.sink = Sink(self)
        self.provider = Provider(
            self,
            {
                "domains": ["Bücher.example", ".Zweig.BÜCHER.example"],
                "etrn": f"smtp://127.0.0.1:{self.sink.port}",
            },
            domains={
                name: {"deliver": "hold:office"}
                for name in ("bücher.EXAMPLE", "a.zweig.bücher.example")
            },
        )
        self.provider.start()

    def logged_in(self, service: str = "submission") -> Peer:
        """A session of the office."""
        peer = dial(self, self.provider, service)
        peer.expect("220 ")
        peer.say("EHLO office.example")
        peer.expect("250")
        peer.say(plain_login())
        peer.expect("235 ")
        return peer

    def put(self) -> None:
        """Letters 1 to 4, to recipients in both forms."""
        with smtplib.SMTP("127.0.0.1", self.provider.ports["smtp"], timeout=DEADLINE) as client:
            for number, recipient in enumerate(
                (
                    f"bob@{A_LABEL}",
                    "bob@BÜCHER.example",
                    f"bob@{BELOW}",
                    "bob@A.zweig.Bücher.example",
                )
            ):
                options = [] if recipient.isascii() else ["SMTPUTF8"]
                client.sendmail(CAROL, recipient, letter(number + 1), options)

    def test_atrn(self) -> None:
        """Its own domains in each form; of another, nothing."""
        self.put()
        for form in (*FORMS, BELOW, f"{A_LABEL},{BELOW}", "a.ZWEIG.bücher.example"):
            peer = self.logged_in()
            peer.say(f"ATRN {form}")
            peer.expect("250 ")
            peer.say("220 office.example")
            peer.expect("EHLO ")
            peer.say("250 office.example")
            peer.expect("MAIL FROM:")
            peer.say("421 later")
        peer = self.logged_in()
        for other in OF_OTHERS:
            peer.say(f"ATRN {other}")
            peer.expect("450 ")
            peer.say(f"ATRN {A_LABEL},{other}")
            peer.expect("450 ")
        self.assertEqual(waiting(self.provider.folder), 4)

    def test_etrn(self) -> None:
        """The same, and with ``@`` those below."""
        self.put()
        peer = self.logged_in()
        for other in OF_OTHERS[:1] + OF_OTHERS[2:]:
            peer.say(f"ETRN {other}")
            peer.expect("459 ")
        peer.say("ETRN @lab.example")
        peer.expect("459 ")
        peer.say("ETRN Bücher.example.")
        peer.expect("253 ")
        self.assertEqual(numbers(self.sink.wait_for_mail(2)), [1, 2])
        peer.say(f"ETRN @ZWEIG.{A_LABEL}")
        peer.expect("253 ")
        self.assertEqual(numbers(self.sink.wait_for_mail(4)), [1, 2, 3, 4])

    def test_reverse_paths(self) -> None:
        """It may send as its own domains, in each form, and as no other."""
        peer = self.logged_in()
        for domain in (*FORMS[:-1], BELOW, "b.zweig.bücher.example"):
            peer.say(f"MAIL FROM:<bob@{domain}>" + ("" if domain.isascii() else " SMTPUTF8"))
            peer.expect("250 ")
            peer.say("RSET")
            peer.expect("250 ")
        for domain in OF_OTHERS:
            peer.say(f"MAIL FROM:<bob@{domain}>")
            peer.expect("55")

    def test_an_office_with_the_other_form(self) -> None:
        """It gets all its mail, and the relay knows its mailboxes in both forms."""
        self.put()
        hop = f"smtps://office:correct%20horse@localhost:{self.provider.ports['submission']}"
        office = customer(
            self,
            {"connect": hop, "pin": self.provider.pin, "domains": [A_LABEL.upper(), BELOW]},
            domains={
                A_LABEL: local_domain(mailboxes=["bob"]),
                "a.zweig.bücher.example": local_domain(mailboxes=["bob"]),
            },
        )
        self.assertEqual(run_mta(office, "turn", "provider"), "sent 0, received 4\n")
        self.assertEqual(waiting(self.provider.folder), 0)
        for domain in (A_LABEL, "BÜCHER.example", BELOW, "a.zweig.bücher.example"):
            wait_until(
                lambda domain=domain: self.rcpt(f"eve@{domain}") == 550, f"{domain} is known"
            )
            self.assertEqual(self.rcpt(f"bob@{domain}"), 250)

    def rcpt(self, address: str) -> int:
        """The code of the reply to RCPT."""
        with smtplib.SMTP("127.0.0.1", self.provider.ports["smtp"], timeout=DEADLINE) as client:
            client.ehlo()
            client.mail(CAROL, ["SMTPUTF8"])
            client.send(f"RCPT TO:<{address}>\r\n".encode())
            return client.getreply()[0]
