"""The opening of a session: greeting, EHLO, STARTTLS, AUTH."""

from __future__ import annotations

import re
from dataclasses import replace

from zope.interface.verify import verifyObject

from mta.interfaces import IMailSource, IRole
from mta.mail import NULL_PATH, Security, Status
from mta.queued import HopFailure
from mta.session import HandshakeFailed
from mta.smtp.sender import Sender
from mta.testing import FakeMailSource
from tests.senders import US, Exchange, SenderTestCase, mail


class OpeningTests(SenderTestCase):
    """From the greeting to the first MAIL."""

    def test_it_is_a_role(self) -> None:
        """And the source is a source."""
        self.assertTrue(verifyObject(IRole, Sender(FakeMailSource(), US)))
        self.assertTrue(verifyObject(IMailSource, FakeMailSource()))

    def test_a_reply_that_drips(self) -> None:
        """All lines of a reply together have the time of one."""
        exchange = Exchange([mail()])
        exchange.talk(
            """
            S: 220-stay
            T: 200
            S: 220-a little
            T: 99
            S: 220-longer
            C:
            T: 1
            C: (closed)
            """
        )
        self.assert_unusable(exchange, "Connection lost while waiting for the greeting")

    def test_no_mail(self) -> None:
        """The session ends politely."""
        exchange = self.opened([])
        exchange.talk(
            """
            C: QUIT
            S: 221 bye
            C: (closed)
            """
        )
        self.assertIsNone(exchange.failure)

    def test_greeting_and_ehlo_of_many_lines(self) -> None:
        """Replies may come in any pieces."""
        exchange = Exchange()
        for octet in b"220-peer.example\r\n220-no spam\r\n220\r\n":
            exchange.say(bytes([octet]))
        exchange.talk("C: EHLO us.example")
        for octet in b"250-peer.example hello\r\n250-\r\n250 HELP\r\n":
            exchange.say(bytes([octet]))
        exchange.talk("C: QUIT")

    def test_helo(self) -> None:
        """A server of RFC 821 does not know EHLO."""
        exchange = Exchange([mail()])
        exchange.talk(
            """
            S: 220 peer.example
            C: EHLO us.example
            S: 500 what?
            C: HELO us.example
            S: 250 peer.example
            C: MAIL FROM:<alice@us.example>
            """
        )

    def test_the_peer_does_not_want_us(self) -> None:
        """Its greeting, or its answers to EHLO and HELO, say why.

        Only 521 and 554 as greetings say that it never will (RFC 7504, RFC 5321 section 3.1).
        """
        for script, reply, status in (
            ("S: 554 no service", "554 no service", Status.FAILED),
            ("S: 521 no mail", "521 no mail", Status.FAILED),
            ("S: 550 not you", "550 not you", Status.DEFERRED),
            ("S: 421 4.3.2 busy", "421 4.3.2 busy", Status.DEFERRED),
            ("S: 220 x | 550 no EHLO | 550 5.7.1 no HELO", "550 5.7.1 no HELO", Status.DEFERRED),
            ("S: 220 x | 421 later", "421 later", Status.DEFERRED),
        ):
            exchange = Exchange([mail()])
            exchange.talk(script)
            self.assert_unusable(exchange, reply)
            failure = exchange.failure
            assert isinstance(failure, HopFailure)
            self.assertEqual(failure.outcome.status, status, script)
            self.assertEqual(len(exchange.source.waiting), 1)

    def test_lmtp(self) -> None:
        """LHLO, and nothing instead of it (RFC 2033)."""
        lmtp = replace(US, lmtp=True)
        self.opened([], config=lmtp).talk("C: QUIT")
        exchange = Exchange([mail()], lmtp)
        exchange.talk(
            """
            S: 220 x
            C: LHLO us.example
            S: 500 what?
            """
        )
        self.assert_unusable(exchange, "500 what?")

    def test_a_peer_that_speaks_something_else(self) -> None:
        """Garbage, other codes within a reply, endless lines and replies: no peer for us."""
        for octets in (
            b"HTTP/1.1 400 Bad Request\r\n",
            b"220-a\r\n250 b\r\n",
            b"999 x\r\n",
            b"\0\r\n",
            b"220 " + b"x" * 5000 + b"\r\n",
            b"220-x\r\n" * 200,
        ):
            exchange = Exchange([mail()])
            exchange.say(octets)
            self.assert_unusable(
                exchange, "451 4.5.0 Protocol error while waiting for the greeting"
            )

    def test_the_connection_is_lost(self) -> None:
        """Before anything was sent."""
        for script, place in (
            ("E: lost", "while waiting for the greeting"),
            ("S: 220 x \n E: lost", "in reply to EHLO"),
        ):
            exchange = Exchange([mail()])
            exchange.talk(script)
            self.assert_unusable(exchange, f"451 4.4.2 Connection lost {place}")

    def test_time_outs(self) -> None:
        """Five minutes each (RFC 5321 section 4.5.3.2)."""
        for script, place in (
            ("", "while waiting for the greeting"),
            ("S: 220 x", "in reply to EHLO"),
        ):
            exchange = Exchange([mail()])
            exchange.talk(script + "\nT: 299")
            self.assertEqual(exchange.ended, [])
            exchange.talk("T: 1")
            self.assert_unusable(exchange, f"Connection lost {place}: timed out")


class SecurityTests(SenderTestCase):
    """STARTTLS and AUTH."""

    def test_starttls_where_it_is_offered(self) -> None:
        """And EHLO again: what was said in the clear counts no more (RFC 3207 section 4.2)."""
        exchange = self.opened([mail()], "250-STARTTLS | 250 SIZE 10")
        exchange.talk(
            """
            C: STARTTLS
            S: 220 go
            C:
            E: TLS begins
            C: EHLO us.example
            S: 250-peer.example | 250 STARTTLS
            C: MAIL FROM:<alice@us.example>
            """
        )

    def test_what_comes_in_the_clear_with_the_reply_to_starttls(self) -> None:
        """It could only pretend to be said under TLS: there is none to be had."""
        for forged in ("250 forged", "250-forged", "25", "eh?"):
            exchange = self.opened([mail()], "250 STARTTLS")
            exchange.talk(f"P: 220 go | {forged}")
            self.assertIsInstance(exchange.failure, HandshakeFailed)
            self.assertTrue(exchange.transport.disconnecting)

    def test_without_tls_where_that_will_do(self) -> None:
        """The peer does not offer it, changes its mind, or we want none."""
        self.opened([mail()]).talk("C: MAIL FROM:<alice@us.example>")
        self.opened([mail()], "250 STARTTLS").talk(
            """
            C: STARTTLS
            S: 454 not now
            C: MAIL FROM:<alice@us.example>
            """
        )
        self.opened([mail()], "250 STARTTLS", replace(US, security=Security.OFF)).talk(
            "C: MAIL FROM:<alice@us.example>"
        )

    def test_no_mail_without_tls_where_it_is_demanded(self) -> None:
        """The hop fails."""
        config = replace(US, security=Security.VERIFY)
        self.assert_unusable(self.opened([mail()], config=config), "451 4.7.5")
        exchange = self.opened([mail()], "250 STARTTLS", config)
        exchange.talk("S: 454 not now")
        self.assert_unusable(exchange, "451 4.7.5")

    def test_implicit_tls(self) -> None:
        """TLS is not begun twice."""
        exchange = Exchange([mail()], replace(US, security=Security.VERIFY), tls=True)
        exchange.talk(
            """
            S: 220 x
            C: EHLO us.example
            S: 250-peer.example | 250 STARTTLS
            C: MAIL FROM:<alice@us.example>
            """
        )

    def test_the_handshake_fails(self) -> None:
        """No mail was touched: whoever dialled may try again without TLS."""
        exchange = self.opened([mail()], "250 STARTTLS")
        exchange.talk(
            """
            C: STARTTLS
            S: 220 go
            T: 60
            C: (closed)
            """
        )
        self.assertIsInstance(exchange.failure, HandshakeFailed)
        self.assertEqual(len(exchange.source.waiting), 1)

    def test_mail_that_must_not_travel_without_tls(self) -> None:
        """Only to a peer that promises the same, and that we know (RFC 8689)."""
        strict = mail()
        strict = replace(
            strict,
            message=replace(
                strict.message, envelope=replace(strict.message.envelope, require_tls=True)
            ),
        )
        for keyword, proved, tls, sent in (
            ("REQUIRETLS", True, True, True),
            ("REQUIRETLS", False, True, False),
            ("HELP", True, True, False),
            ("REQUIRETLS", True, False, False),
        ):
            config = replace(US, proved=proved)
            exchange = Exchange([strict], config, tls=tls, certificate="")
            exchange.talk(
                f"""
                S: 220 x
                C: EHLO us.example
                S: 250-peer.example | 250 {keyword}
                """
            )
            if sent:
                exchange.talk("C: MAIL FROM:<alice@us.example> REQUIRETLS")
            else:
                exchange.talk("C: QUIT")
                self.assertEqual(exchange.source.outcomes["M1"][0].status, Status.FAILED)

    def test_the_demand_for_tls_ends_at_a_mailbox(self) -> None:
        """LMTP is final delivery, with TLS or without it."""
        strict = mail()
        envelope = replace(strict.message.envelope, require_tls=True)
        strict = replace(strict, message=replace(strict.message, envelope=envelope))
        exchange = Exchange([strict], replace(US, lmtp=True))
        exchange.talk(
            """
            S: 220 x
            C: LHLO us.example
            S: 250 peer.example
            C: MAIL FROM:<alice@us.example>
            """
        )

    def test_a_notice_travels_as_well_as_it_can(self) -> None:
        """The null reverse-path is not held back (RFC 8689 section 5)."""
        notice = mail(reverse_path=NULL_PATH)
        notice = replace(
            notice,
            message=replace(
                notice.message, envelope=replace(notice.message.envelope, require_tls=True)
            ),
        )
        self.opened([notice]).talk("C: MAIL FROM:<>")

    def logging_in(self, keywords: str, *, tls: bool = True) -> Exchange:
        """An exchange that is to log in, after EHLO."""
        config = replace(US, user="us", secret="geheim")
        exchange = Exchange([mail()], config, tls=tls)
        exchange.talk(
            f"""
            S: 220 x
            C: EHLO us.example
            S: 250-peer.example | {keywords}
            """
        )
        return exchange

    def test_auth_with_an_initial_response(self) -> None:
        """PLAIN (RFC 4616)."""
        self.logging_in("250 AUTH PLAIN").talk(
            """
            C: AUTH PLAIN AHVzAGdlaGVpbQ==
            S: 235 ok
            C: MAIL FROM:<alice@us.example>
            """
        )

    def test_auth_with_challenges(self) -> None:
        """CRAM-MD5 (RFC 2195), which does without TLS."""
        exchange = self.logging_in("250 AUTH CRAM-MD5", tls=False)
        exchange.talk(
            """
            C: AUTH CRAM-MD5
            S: 334 PDE+
            """
        )
        self.assertTrue(re.fullmatch(r"[A-Za-z0-9+/=]{40,}", *exchange.hear()))
        exchange.talk(
            """
            S: 235 ok
            C: MAIL FROM:<alice@us.example>
            """
        )

    def test_auth_with_an_empty_response(self) -> None:
        """EXTERNAL: the certificate says who we are (RFC 4422 appendix A)."""
        exchange = Exchange([mail()], replace(US, user="us"), tls=True)
        exchange.talk(
            """
            S: 220 x
            C: EHLO us.example
            S: 250-peer.example | 250 AUTH EXTERNAL
            C: AUTH EXTERNAL =
            S: 235 ok
            C: MAIL FROM:<alice@us.example>
            """
        )

    def test_auth_fails(self) -> None:
        """The hop fails: a person has to look at it."""
        for reply, said in (
            ("535 5.7.8 wrong", "535 5.7.8 wrong"),
            ("454 4.7.0 later", "454 4.7.0 later"),
            ("334 Zm9v", "454 4.7.0 Authentication failed"),
            ("334 \xff", "454 4.7.0 Authentication failed"),
            ("334 abc", "454 4.7.0 Authentication failed"),
        ):
            exchange = self.logging_in("250 AUTH PLAIN")
            exchange.talk(f"S: {reply}")
            if "Authentication failed" in said:  # RFC 4954 section 4
                self.assertEqual(exchange.hear()[-1], "*")
                exchange.talk("S: 501 cancelled")
            self.assert_unusable(exchange, said)

    def test_auth_that_succeeds_too_early(self) -> None:
        """A peer that has not proved that it knows us is told nothing more, but QUIT."""
        exchange = self.logging_in("250 AUTH SCRAM-SHA-256")
        exchange.talk("S: 235 welcome")
        self.assert_unusable(exchange, "454 4.7.0 Authentication failed")

    def test_no_mechanism_that_is_safe(self) -> None:
        """A password is not sent in the clear."""
        exchange = self.logging_in("250 AUTH PLAIN LOGIN", tls=False)
        self.assert_unusable(exchange, "454 4.7.4")
        self.assert_unusable(self.logging_in("250 HELP"), "454 4.7.4")
