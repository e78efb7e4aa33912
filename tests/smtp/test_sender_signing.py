"""A sender whose mail is signed."""

from __future__ import annotations

from dataclasses import replace

from mta.mail import Body, Reply
from mta.testing import FakeSigner
from tests.senders import CONTENT, US, SenderTestCase, mail


class SigningTests(SenderTestCase):
    """What is sent is what the signer returns."""

    def test_signatures_are_on_top(self) -> None:
        """They count in the size, whatever the form of the message."""
        signer = FakeSigner()
        exchange = self.opened([mail()], "250 SIZE 99", replace(US, signer=signer))
        exchange.talk(
            f"""
            C: MAIL FROM:<alice@us.example> SIZE={len(CONTENT) + len("Signed: 20") + 2}
            S: 250 mail | 250 rcpt | 354 go
            C: RCPT TO:<bob@peer.example> | DATA | Signed: {len(CONTENT)} | Subject: x | | body | .
            S: 250 ok
            """
        )
        self.assertEqual(signer.asked, [("M1", None)])

    def test_what_is_converted(self) -> None:
        """It is signed in the form that is sent."""
        content = "Content-Type: text/plain; charset=utf-8\r\n\r\ngrün\r\n".encode()
        for extensions, body, conversion in (
            ("250 HELP", Body.EIGHT_BIT, Body.SEVEN_BIT),
            ("250 8BITMIME", Body.EIGHT_BIT, None),
            ("250 8BITMIME", Body.BINARY, Body.EIGHT_BIT),
        ):
            signer = FakeSigner()
            exchange = self.opened(
                [mail(content=content, body=body)],
                extensions,
                config=replace(US, signer=signer),
            )
            exchange.talk("S: 250 mail | 250 rcpt | 354 go | 250 ok")
            self.assertEqual(signer.asked, [("M1", conversion)])

    def test_what_can_not_be_signed(self) -> None:
        """It is deferred, or fails, for any host; other mail goes on."""
        for reply, status in (
            (Reply(451, "4.7.5", ("no key",)), "deferred 451 4.7.5 no key"),
            (Reply(550, "5.7.5", ("never",)), "failed 550 5.7.5 never"),
        ):
            exchange = self.opened([mail()], config=replace(US, signer=FakeSigner(reply)))
            self.assertEqual(exchange.outcomes(), [status])
            self.assertFalse(exchange.source.outcomes["M1"][0].try_next_host)

    def test_lmtp(self) -> None:
        """Mailboxes are the end of the way: nothing is signed for them."""
        signer = FakeSigner()
        exchange = self.opened([mail()], config=replace(US, lmtp=True, signer=signer))
        exchange.talk("S: 250 mail | 250 rcpt | 354 go | 250 ok")
        self.assertEqual(exchange.outcomes(), ["delivered 250 ok"])
        self.assertEqual(signer.asked, [])
