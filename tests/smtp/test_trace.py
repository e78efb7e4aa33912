"""The Received: field."""

from __future__ import annotations

from email import message_from_bytes
from email.utils import parsedate_to_datetime

from twisted.trial.unittest import SynchronousTestCase

from mta.mail import NULL_PATH, Envelope, Mailbox, Recipient
from mta.session import Session, TLSInfo
from mta.settings import Service
from mta.smtp import trace

NOW = 784_887_151.9  # Tue, 15 Nov 1994 08:12:31 GMT
TLS = TLSInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384")
ALICE, BOB = Recipient(Mailbox("alice", "a.example")), Recipient(Mailbox("b b", "b.example"))


def session(service: Service = Service.SMTP, tls: TLSInfo | None = None) -> Session:
    """A session after EHLO."""
    return Session(service, "192.0.2.1", tls, hello="client.example", extended=True)


def field(of: Session, *recipients: Recipient, smtputf8: bool = False) -> str:
    """The Received: field for a message."""
    envelope = Envelope(NULL_PATH, recipients, smtputf8=smtputf8)
    origin = of.origin(smtputf8=smtputf8)
    return trace.received(origin, "mta.example", "ID7", envelope, NOW).decode()


class ReceivedTests(SynchronousTestCase):
    """RFC 5321 section 4.4."""

    def test_one_recipient(self) -> None:
        """From, by, with, id, for and the date."""
        self.assertEqual(
            field(session(), ALICE),
            "Received: from client.example ([192.0.2.1])\r\n"
            "\tby mta.example with ESMTP id ID7\r\n"
            "\tfor <alice@a.example>;\r\n"
            "\tTue, 15 Nov 1994 08:12:31 +0000\r\n",
        )

    def test_the_host_among_several(self) -> None:
        """Where they share a queue: a comment, which RFC 5321 allows between `by` and `with`."""
        origin, envelope = session().origin(), Envelope(NULL_PATH, (ALICE,))
        found = trace.received(origin, "mta.example", "ID7", envelope, NOW, "vps1").decode()
        self.assertIn("\tby mta.example (node vps1) with ESMTP id ID7\r\n", found)

    def test_the_name_of_the_address(self) -> None:
        """Where it was looked up, before the address."""
        of = session()
        of.name = "host.client.example"
        self.assertIn("from client.example (host.client.example [192.0.2.1])\r\n", field(of, ALICE))

    def test_several_recipients_are_not_named(self) -> None:
        """One of them may be a blind copy (RFC 5321 section 7.2)."""
        self.assertNotIn("for", field(session(), ALICE, BOB))

    def test_the_recipient_is_quoted_where_needed(self) -> None:
        """The field stays parseable."""
        self.assertIn('for <"b b"@b.example>;', field(session(), BOB))

    def test_tls_is_told(self) -> None:
        """The version and the cipher, and an S in the protocol (RFC 3848)."""
        text = field(session(tls=TLS), ALICE)
        self.assertIn("\r\n\t(TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n", text)
        self.assertIn(" with ESMTPS id ", text)

    def test_the_protocols(self) -> None:
        """The WITH keywords of RFC 3848 and RFC 6531 section 4.3."""
        plain = session()
        plain.extended = False
        known = session(tls=TLS)
        known.identity = "alice"
        lmtp = session(Service.LMTP)
        cases = [
            (plain, False, "SMTP"),
            (session(), True, "UTF8SMTP"),
            (known, False, "ESMTPSA"),
            (known, True, "UTF8SMTPSA"),
            (lmtp, False, "LMTP"),
            (lmtp, True, "UTF8LMTP"),
        ]
        for of, smtputf8, keyword in cases:
            self.assertIn(f" with {keyword} id ", field(of, ALICE, smtputf8=smtputf8))

    def test_it_is_one_header_field(self) -> None:
        """Other programs read it, and its date."""
        octets = field(session(tls=TLS), ALICE).encode()
        message = message_from_bytes(octets + b"Subject: x\r\n\r\n")
        self.assertEqual(message.keys(), ["Received", "Subject"])
        date = parsedate_to_datetime(message["Received"].rpartition(";")[2])
        self.assertEqual(date.timestamp(), int(NOW))

    def test_internationalised_addresses_are_utf8(self) -> None:
        """As RFC 6532 has header fields."""
        text = field(session(), Recipient(Mailbox("jürgen", "köln.example")), smtputf8=True)
        self.assertIn("for <jürgen@xn--kln-sna.example>", text)


class DeliveredToTests(SynchronousTestCase):
    """The addresses that mail was delivered to before."""

    def test_was_delivered_to(self) -> None:
        """Folded or not, in any case."""
        alice = Mailbox("Alice", "a.example")
        for name, value in (
            (b"Delivered-To:", b" alice@a.example"),
            (b"DELIVERED-to :", b"\r\n ALICE@A.EXAMPLE"),
        ):
            section = b"Subject: x\r\n" + name + value + b"\r\n"
            self.assertTrue(trace.was_delivered_to(alice, section))
            self.assertFalse(trace.was_delivered_to(Mailbox("bob", "a.example"), section))
            self.assertTrue(trace.was_delivered_to(alice, b"Delivered-To: x@y\r\n" + section))


class AddressLiteralTests(SynchronousTestCase):
    """The client's address as TCP-info has it."""

    def test_literals(self) -> None:
        """IPv4, IPv6, and a socket of this machine."""
        self.assertEqual(trace.address_literal("192.0.2.1"), "[192.0.2.1]")
        self.assertEqual(trace.address_literal("2001:db8::1"), "[IPv6:2001:db8::1]")
        self.assertEqual(trace.address_literal("unix"), "localhost")
