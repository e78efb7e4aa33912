"""Servers that do not speak as RFC 5321 has it: what they mean is understood."""

from __future__ import annotations

from dataclasses import replace

from tests.senders import US, Exchange, SenderTestCase, mail


class DialectTests(SenderTestCase):
    """Nothing of this is taken from clients of ours."""

    def test_bare_line_feeds(self) -> None:
        """They end replies all the same, also in pieces, also some of the lines only."""
        for line_end in (b"\n", b"\r\r\n"):
            exchange = Exchange([mail()])
            for reply in (
                b"220-peer.example\n220 ready\n",
                b"250-peer.example\r\n250-SIZE 9\n250 HELP\n",
            ):
                for octet in reply.replace(b"\n", line_end):
                    exchange.say(bytes([octet]))
            exchange.talk("C: EHLO us.example | QUIT")
            self.assertEqual(
                exchange.outcomes(),
                ["failed 552 5.3.4 The next server does not take messages of this size"],
            )

    def test_a_whole_message(self) -> None:
        """With bare line feeds, with codes alone, and with lines that are empty."""
        for line, reply in (
            ("{} x\n", "250 x"),
            ("{}\n", "250"),
            ("{}\r\n", "250"),
            ("{}-\r\n\r\n{} x\r\n", "250   x"),
        ):
            exchange = Exchange([mail()])
            for code in (220, 250, 250, 250, 354, 250, 221):
                exchange.say(line.format(code, code).encode())
            self.assertEqual(exchange.outcomes(), [f"relayed {reply}"])
            exchange.hear()
            exchange.talk("C: (closed)")

    def test_the_old_way_to_offer_auth(self) -> None:
        """``AUTH=``, in any case."""
        for keyword in ("AUTH=LOGIN PLAIN", "auth=plain", "AUTH=PLAIN | 250 AUTH LOGIN"):
            exchange = Exchange([mail()], replace(US, user="us", secret="geheim"), tls=True)
            exchange.talk(
                f"""
                S: 220 x
                C: EHLO us.example
                S: 250-peer.example | 250-HELP | 250{"-" if "|" in keyword else " "}{keyword}
                C: AUTH PLAIN AHVzAGdlaGVpbQ==
                """
            )

    def test_no_ehlo(self) -> None:
        """Whatever the server says to EHLO but 250 and 421, HELO may do."""
        for code in (500, 501, 502, 503, 504, 550, 554, 451, 220, 354):
            exchange = Exchange([mail()])
            exchange.talk(
                f"""
                S: 220 peer.example
                C: EHLO us.example
                S: {code} what?
                C: HELO us.example
                S: 250
                C: MAIL FROM:<alice@us.example>
                """
            )
