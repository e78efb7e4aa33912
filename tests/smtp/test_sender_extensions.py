"""What is told only to a peer that offered to hear it, and in which form."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

from mta.mail import Body, Envelope, Mailbox, Notify, Recipient
from mta.queued import Delivery
from mta.smtp import outgoing
from mta.smtp.pipelining import Pipelining
from mta.testing import FakeContent, delivery
from tests.senders import ALICE, CONTENT, STREAMING, SenderTestCase, mail


class ExtensionTests(SenderTestCase):
    """What is told only to a peer that offered to hear it."""

    def first_line(self, delivery: Delivery, keywords: str) -> str:
        """What MAIL says."""
        return self.opened([delivery], keywords).hear()[0]

    def assert_not_sent(self, delivery: Delivery, keywords: str, outcome: str) -> None:
        """The message fails here."""
        exchange = self.opened([delivery], keywords)
        exchange.talk("C: QUIT")
        self.assertEqual(exchange.outcomes(delivery.message.id), [outcome])
        self.assertEqual(exchange.source.outcomes["M1"][0].remote, "")

    def test_size(self) -> None:
        """RFC 1870: told, and compared with what the peer takes; 0 or nothing is no limit."""
        for keywords in ("250 SIZE", "250 SIZE 0", "250 SIZE 20", "250 size x"):
            self.assertEqual(
                self.first_line(mail(), keywords), "MAIL FROM:<alice@us.example> SIZE=20"
            )
        self.assert_not_sent(
            mail(),
            "250 SIZE 19",
            "failed 552 5.3.4 The next server does not take messages of this size",
        )

    def test_eight_bits(self) -> None:
        """RFC 6152: told where there are any, converted for who does not take them."""
        content = b"MIME-Version: 1.0\r\n\r\nsch\xc3\xb6n\r\n"
        eight = mail(content=content, body=Body.EIGHT_BIT)
        self.assertEqual(
            self.first_line(eight, "250 8BITMIME"), "MAIL FROM:<alice@us.example> BODY=8BITMIME"
        )
        exchange = self.opened([eight])
        exchange.talk("S: 250 mail | 250 rcpt | 354 go")
        self.assertIn("sch=C3=B6n", exchange.hear())

    def test_eight_bits_that_nobody_told_of(self) -> None:
        """The content counts, not what MAIL said of it."""
        eight = mail(content=b"MIME-Version: 1.0\r\n\r\n\xff\r\n")
        self.assertIn("BODY=8BITMIME", self.first_line(eight, "250 8BITMIME"))
        self.assertEqual(self.first_line(eight, "250 HELP"), "MAIL FROM:<alice@us.example>")
        ascii_only = mail(body=Body.EIGHT_BIT)
        self.assertNotIn("BODY", self.first_line(ascii_only, "250 8BITMIME"))

    def test_no_conversion(self) -> None:
        """5.6.3 (RFC 6152 section 3)."""
        self.assert_not_sent(
            mail(content="Subject: schön\r\n\r\n".encode()),
            "250 HELP",
            "failed 554 5.6.3 The next server can't take this content as it is,"
            " and it can't be converted without loss",
        )

    def test_binary(self) -> None:
        """RFC 3030: only by BDAT, to who takes it; else converted."""
        content = (
            b"MIME-Version: 1.0\r\nContent-Type: a/b\r\n"
            b"Content-Transfer-Encoding: binary\r\n\r\n\0\n.\n\r"
        )
        binary = mail(content=content, body=Body.BINARY)
        exchange = self.opened([binary], f"250-BINARYMIME | {STREAMING}")
        sent = exchange.transport.taken()
        self.assertIn(b"BODY=BINARYMIME\r\n", sent)
        self.assertTrue(sent.endswith(content))
        for keywords in (STREAMING, "250-BINARYMIME | 250 8BITMIME", "250 HELP"):
            exchange = self.opened([binary], keywords)
            exchange.talk("S: 250 mail | 250 rcpt | 354 go")
            heard = exchange.hear()
            self.assertEqual(heard[0], "MAIL FROM:<alice@us.example>")
            self.assertIn("Content-Transfer-Encoding: base64", heard)

    def test_success_of_an_address_that_an_outsider_did_not_name(self) -> None:
        """The peer is not asked to tell of it: it would name the address; we tell it ourselves."""
        success = frozenset({Notify.SUCCESS})
        for notify, outside, named, expected, notifies in (
            (success, True, "hr", "NEVER", False),
            (success | {Notify.DELAY}, True, "hr", "DELAY", False),
            (success, True, "BOB", "SUCCESS", True),
            (success, False, "hr", "SUCCESS", True),
            (frozenset({Notify.DELAY}), True, "hr", "DELAY", True),
        ):
            whole = mail()
            recipient = Recipient(Mailbox(named, "peer.example"), notify)
            envelope = replace(whole.message.envelope, recipients=(recipient,), outside=outside)
            exchange = self.opened(
                [replace(whole, message=replace(whole.message, envelope=envelope))], "250 DSN"
            )
            exchange.talk("S: 250 mail")
            self.assertIn(f"RCPT TO:<bob@peer.example> NOTIFY={expected}", exchange.hear())
            exchange.talk("S: 250 rcpt | 354 go | 250 taken")
            [outcome] = exchange.source.outcomes["M1"]
            self.assertEqual(outcome.notifies, notifies)

    def test_what_makes_a_message_international(self) -> None:
        """Its header section, and not its body, whatever MAIL said of it."""
        body = "MIME-Version: 1.0\r\n\r\nschön\r\n"
        line = self.first_line(mail(content=body.encode(), smtputf8=True), "250 8BITMIME")
        self.assertEqual(line, "MAIL FROM:<alice@us.example> BODY=8BITMIME")
        for head in ("Subject: schön\r\n", "Subject:\r\n schön\r\n", "X: " + "x" * 10**5 + "ö\r\n"):
            self.assert_not_sent(
                mail(content=(head + body).encode(), smtputf8=True),
                "250 8BITMIME",
                "failed 553 5.6.7 Internationalized address or message not permitted here",
            )

    def test_content_that_has_another_size(self) -> None:
        """A damaged spool must not make commands of content that is longer than it should be."""
        for size in (19, 21):
            for keywords in (STREAMING, f"250-BINARYMIME | {STREAMING}"):
                whole = mail(body=Body.BINARY if "BINARY" in keywords else Body.SEVEN_BIT)
                damaged = replace(whole.message, content=FakeContent(b"x" * 20, size=size))
                exchange = self.opened([replace(whole, message=damaged)], keywords)
                self.assertIn("deferred 451 4.3.0", exchange.outcomes()[0])

    def test_smtputf8(self) -> None:
        """RFC 6531: told where it was said, and needed for addresses and header fields."""
        plain = mail(smtputf8=True)
        self.assertIn(" SMTPUTF8", self.first_line(plain, "250-SMTPUTF8 | 250 8BITMIME"))
        self.assertNotIn("SMTPUTF8", self.first_line(plain, "250 8BITMIME"))
        header = "Subject: schön\r\n\r\n".encode()
        for international in (
            mail("M1", "jürgen", smtputf8=True),
            mail("M1", reverse_path=Mailbox("jürgen", "us.example"), smtputf8=True),
            mail("M1", content=header, smtputf8=True),
        ):
            self.assert_not_sent(
                international,
                "250 8BITMIME",
                "failed 553 5.6.7 Internationalized address or message not permitted here",
            )
        heard = self.opened(
            [mail("M1", "jürgen", smtputf8=True)], "250-SMTPUTF8 | 250 PIPELINING"
        ).hear()
        self.assertEqual(heard[1], "RCPT TO:<jürgen@peer.example>")

    def test_dsn(self) -> None:
        """RFC 3461: the parameters go on as they came, and the duty with them."""
        bob = Recipient(
            Mailbox("bob", "peer.example"),
            frozenset({Notify.SUCCESS, Notify.DELAY}),
            "rfc822;bob+x@p.example",
        )
        carol = Recipient(Mailbox("carol", "peer.example"), frozenset({Notify.NEVER}))
        envelope = Envelope(ALICE, (bob, carol), ret="HDRS", envid="a b")
        aliased = [Mailbox("robert", "peer.example"), carol.forward_path]
        one = delivery(id="M1", content=CONTENT, envelope=envelope, addresses=aliased)
        exchange = self.opened([one], "250-PIPELINING | 250 DSN")
        exchange.talk(
            """
            C: MAIL FROM:<alice@us.example> RET=HDRS ENVID=a+20b
               | RCPT TO:<robert@peer.example> NOTIFY=DELAY,SUCCESS ORCPT=rfc822;bob+2Bx@p.example
               | RCPT TO:<carol@peer.example> NOTIFY=NEVER | DATA
            S: 250 mail | 250 rcpt | 250 rcpt | 354 go | 250 taken
            """
        )
        self.assertTrue(all(outcome.notifies for outcome in exchange.source.outcomes["M1"]))
        exchange = self.opened([one], "250 PIPELINING")
        exchange.talk(
            """
            C: MAIL FROM:<alice@us.example> | RCPT TO:<robert@peer.example>
               | RCPT TO:<carol@peer.example> | DATA
            """
        )

    def test_dsn_where_nothing_was_asked(self) -> None:
        """There is nothing to tell."""
        heard = self.opened([mail()], "250-PIPELINING | 250 DSN").hear()
        self.assertEqual(
            heard, ["MAIL FROM:<alice@us.example>", "RCPT TO:<bob@peer.example>", "DATA"]
        )

    def test_limits(self) -> None:
        """RFC 9422: RCPTMAX in a transaction, MAILMAX on a connection."""
        people = [f"user{number}" for number in range(5)]
        deliveries = [mail("M1", *people), mail("M2")]
        exchange = self.opened(
            deliveries,
            "250-PIPELINING | 250 LIMITS RCPTMAX=2 MAILMAX=3",
            known=Pipelining.GROUPED,
        )
        for rcpts in (2, 2, 1):
            heard = exchange.hear()
            self.assertEqual(sum(line.startswith("RCPT") for line in heard), rcpts)
            exchange.talk("S: 250 mail" + " | 250 rcpt" * rcpts + " | 354 go | 250 taken")
        self.assertEqual(exchange.outcomes(), ["relayed 250 taken"] * 5)
        self.assertEqual(exchange.hear()[-1], "QUIT")
        self.assertEqual(len(exchange.source.waiting), 1)

    def test_limits_that_make_no_sense(self) -> None:
        """They are no limits."""
        for limits in ("RCPTMAX=0", "RCPTMAX=x", "RCPTMAX", "", "MAILMAX=0 X=1", "RCPTMAX=-1"):
            exchange = self.opened([mail()], f"250 LIMITS {limits}")
            exchange.talk("C: MAIL FROM:<alice@us.example>")

    def test_a_very_high_limit(self) -> None:
        """So many replies would block the peer."""
        people = [f"user{number}" for number in range(1500)]
        exchange = self.opened([mail("M1", *people)], "250-PIPELINING | 250 LIMITS RCPTMAX=100000")
        self.assertEqual(sum(line.startswith("RCPT") for line in exchange.hear()), 1000)

    def test_most_transactions(self) -> None:
        """There is an end, also where the peer names none."""
        with patch.object(outgoing, "MAX_TRANSACTIONS", 1):
            exchange = self.opened([mail("M1"), mail("M2")], STREAMING)
            exchange.talk("S: 250 mail | 250 rcpt | 250 taken")
            self.assertEqual(exchange.hear()[-1], "QUIT")
            self.assertEqual(len(exchange.source.waiting), 1)

    def test_the_spool_can_not_be_read(self) -> None:
        """A message that has to be converted is read here already."""

        broken_content = FakeContent(size=100, failure=OSError("input/output error"))
        broken_content.is_ascii = False
        whole = mail()
        broken = replace(whole, message=replace(whole.message, content=broken_content))
        self.assert_not_sent(
            broken,
            "250 HELP",
            "deferred 451 4.3.0 Requested action aborted: local error in processing",
        )
