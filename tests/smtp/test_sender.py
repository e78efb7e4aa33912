"""The sender role against peers that play a script."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from unittest.mock import patch

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mta.interfaces import Delivery, HandshakeFailed, HopFailure, IContent, IMailSource, IRole
from mta.link import Link
from mta.mail import NULL_PATH, Body, Envelope, Mailbox, Notify, Recipient, Reply, Security, Status
from mta.smtp import outgoing
from mta.smtp.errors import PeerFault
from mta.smtp.opening import SenderConfig
from mta.smtp.pipelining import HostRecord, Pipelining
from mta.smtp.sender import Sender, Turn
from tests.doubles import FakeSource, FakeTLS, Transport, Turned, delivery

CONTENT = b"Subject: x\r\n\r\nbody\r\n"
ALICE = Mailbox("alice", "us.example")
US = SenderConfig("us.example")
STREAMING = "250-PIPELINING | 250 CHUNKING"


def mail(
    name: str = "M1",
    *local_parts: str,
    content: bytes = CONTENT,
    reverse_path: Mailbox = ALICE,
    body: Body = Body.SEVEN_BIT,
    smtputf8: bool = False,
) -> Delivery:
    """A message from alice to those people at peer.example."""
    recipients = tuple(
        Recipient(Mailbox(local_part, "peer.example")) for local_part in local_parts or ("bob",)
    )
    return delivery(name, content, Envelope(reverse_path, recipients, body, smtputf8=smtputf8))


class Exchange:
    """A sender on a Link, and the peer that a script plays."""

    def __init__(
        self,
        deliveries: Sequence[Delivery] = (),
        demands: SenderConfig = US,
        *,
        turn: Turn | None = None,
        waits: bool = False,
        secured: bool = False,
        certificate: str = "abcd",
        known: Pipelining = Pipelining.UNKNOWN,
    ) -> None:
        self.host = HostRecord(known)
        demands = replace(demands, host=self.host)
        self.source = FakeSource(deliveries, waits=waits)
        self.clock, self.transport = Clock(), Transport(lenient=True)
        self.ended: list[object] = []
        self.link = Link(
            lambda _: Sender(self.source, demands, turn),
            self.clock,
            FakeTLS(certificate),
            tls_at_once=secured,
        )
        self.link.ended.addBoth(self.ended.append)
        self.link.makeConnection(self.transport)
        if secured:
            self.link.handshakeCompleted()

    def talk(self, script: str) -> None:
        """Play a script of lines: ``S: a | b`` the peer says two lines, one after the other, and
        ``P: a | b`` in one piece, ``C: a | b`` it heard just these since, ``T: 300`` seconds
        pass, ``E: event``.  A line may go on with ``|``."""
        script = re.sub(r"\n\s+\|", " |", script)
        for line in filter(None, map(str.strip, script.splitlines())):
            kind, text = line[:2], line[3:].strip()
            match kind, text:
                case "S:", _:
                    for one in text.split("|"):
                        self.say(one.strip().encode() + b"\r\n")
                case "P:", _:
                    self.say(b"".join(one.strip().encode() + b"\r\n" for one in text.split("|")))
                case "C:", "(closed)":
                    assert self.transport.disconnecting and not self.transport.value(), self.hear()
                case "C:", _:
                    expected = [one.strip() for one in text.split("|")] if text else []
                    heard = self.hear()
                    assert heard == expected, f"{line}: heard {heard}"
                case "T:", _:
                    self.clock.advance(float(text))
                case "E:", "lost":
                    self.lose()
                case "E:", "TLS begins":
                    self.link.handshakeCompleted()
                case "E:", "the service stops":
                    self.link.close_gently()
                case _:
                    raise AssertionError(line)

    def say(self, octets: bytes) -> None:
        """The peer sends octets."""
        self.link.dataReceived(octets)

    def hear(self) -> list[str]:
        """The lines that the peer got since the last time."""
        return self.transport.taken().decode().replace("\r\n", "\n").splitlines()

    def lose(self) -> None:
        """The connection ends."""
        self.transport.disconnecting = True
        self.link.connectionLost(Failure(ConnectionDone()))

    def outcomes(self, name: str = "M1") -> list[str]:
        """What became of a message, for each target."""
        return [f"{outcome.status.value} {outcome.reply}" for outcome in self.source.outcomes[name]]

    @property
    def failure(self) -> BaseException | None:
        """What ended the conversation."""
        (result,) = self.ended
        return result.value if isinstance(result, Failure) else None


@implementer(IContent)
class Broken:
    """Content on a disk that fails after it was read once."""

    size = 300_000  # more than is kept in memory
    is_ascii = True

    def __init__(self) -> None:
        self._is_good = True

    async def pieces(self) -> AsyncIterator[bytes]:
        """One piece, and once the rest."""
        yield b"Subject: x\r\n"
        if not self._is_good:
            raise OSError("input/output error")
        self._is_good = False
        yield b"x" * (self.size - 12)


@implementer(IContent)
class Damaged:
    """Content of which the spool says a wrong size."""

    is_ascii = True

    def __init__(self, size: int) -> None:
        self.size = size

    async def pieces(self) -> AsyncIterator[bytes]:
        """Twenty octets."""
        yield b"x" * 20


class SenderTestCase(SynchronousTestCase):
    """What the tests share."""

    def opened(
        self,
        deliveries: Sequence[Delivery],
        keywords: str = "250 HELP",
        demands: SenderConfig = US,
        *,
        turn: Turn | None = None,
        waits: bool = False,
        known: Pipelining = Pipelining.UNKNOWN,
    ) -> Exchange:
        """An exchange after EHLO (or LHLO) and its reply with these keywords."""
        exchange = Exchange(deliveries, demands, turn=turn, waits=waits, known=known)
        verb = "LHLO" if demands.lmtp else "EHLO"
        exchange.talk(
            f"""
            S: 220 peer.example ESMTP
            C: {verb} us.example
            S: 250-peer.example | {keywords}
            """
        )
        return exchange

    def assert_unusable(self, exchange: Exchange, reply: str) -> None:
        """The peer can't be used, for that reason; no mail was touched.

        Where the peer still listens, it is told (RFC 5321 section 4.1.1.10).
        """
        if not exchange.ended:
            self.assertEqual(exchange.hear()[-1], "QUIT")
            exchange.talk("S: 221 bye")
        failure = exchange.failure
        assert isinstance(failure, HopFailure), failure
        self.assertIn(reply, str(failure.outcome.reply))
        self.assertTrue(exchange.transport.disconnecting)
        self.assertEqual(exchange.source.unsettled, [])


class OpeningTests(SenderTestCase):
    """From the greeting to the first MAIL."""

    def test_it_is_a_role(self) -> None:
        """And the source is a source."""
        self.assertTrue(verifyObject(IRole, Sender(FakeSource(), US)))
        self.assertTrue(verifyObject(IMailSource, FakeSource()))

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
            self.assertEqual(exchange.source.left, 1)

    def test_lmtp(self) -> None:
        """LHLO, and nothing instead of it (RFC 2033)."""
        lmtp = replace(US, lmtp=True)
        self.opened([], demands=lmtp).talk("C: QUIT")
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
        """It could only pretend to be said under TLS."""
        for forged in ("250 forged", "250-forged", "25", "eh?"):
            exchange = self.opened([mail()], "250 STARTTLS")
            exchange.talk(f"P: 220 go | {forged}")
            self.assert_unusable(exchange, "451 4.5.0 Protocol error in reply to STARTTLS")

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
        demands = replace(US, security=Security.VERIFY)
        self.assert_unusable(self.opened([mail()], demands=demands), "451 4.7.5")
        exchange = self.opened([mail()], "250 STARTTLS", demands)
        exchange.talk("S: 454 not now")
        self.assert_unusable(exchange, "451 4.7.5")

    def test_implicit_tls(self) -> None:
        """TLS is not begun twice."""
        exchange = Exchange([mail()], replace(US, security=Security.VERIFY), secured=True)
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
        self.assertEqual(exchange.source.left, 1)

    def test_mail_that_must_not_travel_without_tls(self) -> None:
        """Only to a peer that promises the same, and that we know (RFC 8689)."""
        strict = mail()
        strict = replace(
            strict,
            message=replace(
                strict.message, envelope=replace(strict.message.envelope, require_tls=True)
            ),
        )
        for keyword, proved, secured, sent in (
            ("REQUIRETLS", True, True, True),
            ("REQUIRETLS", False, True, False),
            ("HELP", True, True, False),
            ("REQUIRETLS", True, False, False),
        ):
            demands = replace(US, proved=proved)
            exchange = Exchange([strict], demands, secured=secured, certificate="")
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

    def logging_in(self, keywords: str, *, secured: bool = True) -> Exchange:
        """An exchange that is to log in, after EHLO."""
        demands = replace(US, user="us", secret="geheim")
        exchange = Exchange([mail()], demands, secured=secured)
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
        exchange = self.logging_in("250 AUTH CRAM-MD5", secured=False)
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
        exchange = Exchange([mail()], replace(US, user="us"), secured=True)
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
        exchange = self.logging_in("250 AUTH PLAIN LOGIN", secured=False)
        self.assert_unusable(exchange, "454 4.7.4")
        self.assert_unusable(self.logging_in("250 HELP"), "454 4.7.4")


class PlainTests(SenderTestCase):
    """A peer without extensions: one command after the other."""

    def test_a_message(self) -> None:
        """Each reply is awaited; dots are stuffed."""
        exchange = self.opened([mail("M1", "bob", "carol", content=b"A: b\r\n\r\n.x\r\nend")])
        exchange.talk(
            """
            C: MAIL FROM:<alice@us.example>
            S: 250 ok
            C: RCPT TO:<bob@peer.example>
            S: 250 ok
            C: RCPT TO:<carol@peer.example>
            S: 251 will forward
            C: DATA
            S: 354 go
            C: A: b | | ..x | end | .
            S: 250 2.0.0 taken as 7
            C: QUIT
            S: 221 bye
            C: (closed)
            """
        )
        self.assertEqual(exchange.outcomes(), ["relayed 250 2.0.0 taken as 7"] * 2)
        outcome = exchange.source.outcomes["M1"][0]
        self.assertEqual((outcome.remote, outcome.notifies), ("peer.example", False))

    def test_several_messages(self) -> None:
        """On one connection, without RSET between good ones."""
        exchange = self.opened([mail("M1"), mail("M2", "carol", reverse_path=NULL_PATH)])
        exchange.talk(
            """
            S: 250 mail | 250 rcpt | 354 go
            C: MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example> | DATA | Subject: x |
               | body | .
            S: 250 first
            C: MAIL FROM:<>
            S: 250 mail
            C: RCPT TO:<carol@peer.example>
            S: 250 rcpt
            C: DATA
            S: 354 go
            C: Subject: x | | body | .
            S: 250 second
            C: QUIT
            """
        )
        self.assertEqual(exchange.outcomes("M1"), ["relayed 250 first"])
        self.assertEqual(exchange.outcomes("M2"), ["relayed 250 second"])

    def test_some_recipients_are_refused(self) -> None:
        """The others get the message, and each has its own outcome."""
        exchange = self.opened([mail("M1", "bob", "nobody", "later", "carol")])
        exchange.talk(
            """
            S: 250 mail | 250 rcpt | 550 5.1.1 who? | 450 4.2.1 busy | 250 rcpt | 354 go
               | 250 taken
            S: 221 bye
            """
        )
        self.assertEqual(
            exchange.outcomes(),
            [
                "relayed 250 taken",
                "failed 550 5.1.1 who?",
                "deferred 450 4.2.1 busy",
                "relayed 250 taken",
            ],
        )

    def test_all_recipients_are_refused(self) -> None:
        """There is no DATA, and RSET comes before the next message."""
        exchange = self.opened([mail("M1", "bob", "carol"), mail("M2")])
        exchange.talk(
            """
            S: 250 mail | 550 no | 450 later
            C: MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example>
               | RCPT TO:<carol@peer.example> | RSET
            S: 250 reset
            C: MAIL FROM:<alice@us.example>
            """
        )
        self.assertEqual(exchange.outcomes(), ["failed 550 no", "deferred 450 later"])

    def test_the_message_is_refused(self) -> None:
        """At MAIL, at DATA or at its end, for all recipients; the next one is sent after RSET."""
        for script, replies in (
            ("S: {0}", ""),
            ("S: 250 mail | 250 rcpt | 250 rcpt | {0}", ""),
            ("S: 250 mail | 250 rcpt | 250 rcpt | 354 go | {0}", ""),
        ):
            for reply, outcome in (
                ("451 4.3.0 later", "deferred 451 4.3.0 later"),
                ("554 5.6.0 never", "failed 554 5.6.0 never"),
            ):
                exchange = self.opened([mail("M1", "bob", "carol"), mail("M2")])
                exchange.talk(script.format(reply) + replies)
                self.assertEqual(exchange.outcomes(), [outcome] * 2)
                self.assertEqual(exchange.hear()[-1], "RSET")
                exchange.talk(
                    """
                    S: 250 reset | 250 mail | 250 rcpt | 354 go | 250 taken
                    S: 221 bye
                    """
                )
                self.assertEqual(exchange.outcomes("M2"), ["relayed 250 taken"])

    def test_a_positive_reply_to_data_other_than_354(self) -> None:
        """Content is not sent."""
        exchange = self.opened([mail()])
        exchange.talk("S: 250 mail | 250 rcpt | 250 eh?")
        self.assertNotIn("body", exchange.hear())
        self.assertEqual(
            exchange.outcomes(),
            ["deferred 451 4.5.0 Protocol error in reply to DATA: 250 eh?"],
        )

    def test_too_many_recipients(self) -> None:
        """What 452 refused is sent in another transaction (RFC 5321 section 4.5.3.1.10)."""
        exchange = self.opened([mail("M1", "bob", "carol", "dave")])
        exchange.talk(
            """
            S: 250 mail | 250 rcpt | 452 4.5.3 too many | 452 4.5.3 too many | 354 go
               | 250 first
            """
        )
        self.assertEqual(exchange.source.outcomes, {})
        exchange.hear()
        exchange.talk(
            """
            S: 250 mail
            C: RCPT TO:<carol@peer.example>
            S: 250 rcpt | 250 rcpt | 354 go | 250 second
            S: 221 bye
            """
        )
        self.assertEqual(
            exchange.outcomes(), ["relayed 250 first", "relayed 250 second", "relayed 250 second"]
        )

    def test_too_many_recipients_from_the_first_one(self) -> None:
        """452 to all is no reason to begin again."""
        exchange = self.opened([mail("M1", "bob", "carol")])
        exchange.talk("S: 250 mail | 452 4.2.2 full | 452 4.2.2 full")
        self.assertEqual(exchange.outcomes(), ["deferred 452 4.2.2 full"] * 2)

    def test_a_hundred_recipients_at_once(self) -> None:
        """More than any server must take go in several transactions."""
        people = [f"user{number}" for number in range(150)]
        exchange = self.opened([mail("M1", *people)])
        for rcpts, text in ((100, "first"), (50, "second")):
            exchange.talk("S: 250 mail" + " | 250 rcpt" * rcpts + f" | 354 go | 250 {text}")
            heard = exchange.hear()
            self.assertEqual(sum(line.startswith("RCPT") for line in heard), rcpts)
        outcomes = exchange.outcomes()
        self.assertEqual(outcomes, ["relayed 250 first"] * 100 + ["relayed 250 second"] * 50)


class LossTests(SenderTestCase):
    """The connection is lost, closed or silent: nothing is lost with it."""

    STEPS = (
        ("", "in reply to MAIL", 300),
        ("S: 250 mail", "in reply to RCPT", 300),
        ("S: 250 mail | 250 rcpt", "in reply to DATA", 120),
        (
            "S: 250 mail | 250 rcpt | 354 go",
            "after the end of content: the message may be sent more than once",
            600,
        ),
    )

    def assert_deferred(self, exchange: Exchange, reply: str, *, over_content: bool) -> None:
        """The message waits, for that reason; nothing was taken before, so the hop failed, where it
        was not `over_content`, which may be the message's own fault."""
        self.assertEqual(exchange.outcomes(), [f"deferred {reply}"])
        [outcome] = exchange.source.outcomes["M1"]
        self.assertEqual(outcome.broke, over_content)
        if over_content:
            self.assertIsNone(exchange.failure)
        else:
            self.assertTrue(outcome.elsewhere)
            self.assert_unusable(exchange, reply)

    def test_lost(self) -> None:
        """At each step; after the content it may have been taken all the same."""
        for script, phrase, _ in self.STEPS:
            exchange = self.opened([mail()])
            exchange.talk(script)
            exchange.lose()
            self.assert_deferred(
                exchange,
                f"451 4.4.2 Connection lost {phrase}: Connection was closed cleanly.",
                over_content="354" in script,
            )

    def test_silent(self) -> None:
        """At each step, for as long as RFC 5321 section 4.5.3.2 says."""
        for script, phrase, seconds in self.STEPS:
            exchange = self.opened([mail()])
            exchange.talk(f"{script}\nT: {seconds - 1}")
            self.assertEqual(exchange.ended, [])
            exchange.talk("T: 1")
            self.assert_deferred(
                exchange,
                f"451 4.4.2 Connection lost {phrase}: timed out",
                over_content="354" in script,
            )

    def test_closing(self) -> None:
        """421 at each step, in the peer's words."""
        for script, _, _ in self.STEPS:
            exchange = self.opened([mail()])
            exchange.talk(f"{script}\nS: 421 4.3.2 going down")
            self.assert_deferred(exchange, "421 4.3.2 going down", over_content="354" in script)

    def test_garbage(self) -> None:
        """At each step."""
        for script, phrase, _ in self.STEPS:
            exchange = self.opened([mail()])
            exchange.talk(f"{script}\nS: eh?")
            self.assert_deferred(
                exchange,
                f"451 4.5.0 Protocol error {phrase}: not a reply: b'eh?'",
                over_content="354" in script,
            )

    def test_the_peer_does_not_take_the_content(self) -> None:
        """Three minutes for each piece (RFC 5321 section 4.5.3.2.5)."""
        exchange = self.opened([mail()])
        exchange.talk("S: 250 mail | 250 rcpt")
        exchange.transport.is_full = True
        exchange.talk(
            """
            S: 354 go
            T: 179
            """
        )
        self.assertEqual(exchange.ended, [])
        exchange.talk("T: 1")
        self.assert_deferred(
            exchange,
            "451 4.4.2 Connection lost while sending content: timed out",
            over_content=True,
        )

    def test_what_was_taken_before_stays_taken(self) -> None:
        """And the hop has not failed: it took something."""
        exchange = self.opened([mail("M1"), mail("M2"), mail("M3")])
        exchange.talk("S: 250 mail | 250 rcpt | 354 go | 250 taken")
        exchange.lose()
        self.assertEqual(exchange.outcomes("M1"), ["relayed 250 taken"])
        self.assertIn("deferred 451 4.4.2", exchange.outcomes("M2")[0])
        self.assertEqual(exchange.source.left, 1)
        self.assertIsNone(exchange.failure)

    def test_what_was_refused_before_stays_refused(self) -> None:
        """Whatever becomes of the connection then."""
        for script, bob, carol in (
            ("S: 250 mail | 550 who? | 250 rcpt", "failed 550 who?", "deferred 451 4.4.2"),
            ("S: 550 not you", "failed 550 not you", "failed 550 not you"),
        ):
            exchange = self.opened([mail("M1", "bob", "carol")], "250 PIPELINING")
            exchange.talk(f"{script}\nE: lost")
            outcomes = exchange.outcomes()
            self.assertEqual(outcomes[0], bob)
            self.assertIn(carol, outcomes[1])

    def test_recipients_still_to_be_tried(self) -> None:
        """Those that one transaction settled keep their outcome."""
        exchange = self.opened([mail("M1", "bob", "carol", "dave")])
        exchange.talk("S: 250 mail | 250 rcpt | 550 no | 452 too many | 354 go | 250 taken")
        exchange.lose()
        relayed, failed, deferred = exchange.outcomes()
        self.assertEqual((relayed, failed), ("relayed 250 taken", "failed 550 no"))
        self.assertIn("deferred 451 4.4.2 Connection lost in reply to MAIL", deferred)

    def test_quit_is_only_polite(self) -> None:
        """Whatever becomes of it, the mail is settled and nothing is wrong."""
        for script in ("E: lost", "T: 5", "S: 500 what?", "S: 421 yes", "S: eh?"):
            exchange = self.opened([])
            exchange.talk(script)
            self.assertIsNone(exchange.failure)

    def test_the_content_can_not_be_read(self) -> None:
        """The spool's fault is not the peer's: the message is deferred, the hop is good."""

        for keywords, script in (
            ("250 HELP", "S: 250 mail | 250 rcpt | 354 go"),
            (STREAMING, ""),
        ):
            whole = mail()
            broken = replace(whole, message=replace(whole.message, content=Broken()))
            exchange = self.opened([broken], keywords)
            exchange.talk(script)
            self.assertEqual(
                exchange.outcomes(),
                ["deferred 451 4.3.0 Requested action aborted: local error in processing"],
            )
            self.assertIsNone(exchange.failure)
            self.assertTrue(exchange.transport.disconnecting)
            self.assertNotIn(".", exchange.hear())

    def marks(self, exchange: Exchange, name: str = "M1") -> str:
        """Whether another host may have the message at once, and whether the content is suspect."""
        [outcome] = exchange.source.outcomes[name]
        marks = {"elsewhere": outcome.elsewhere, "broke": outcome.broke}
        return " ".join(mark for mark, is_set in marks.items() if is_set)

    def test_what_another_host_may_have(self) -> None:
        """All that this one did not take for now, unless it may have taken it all the same."""
        groups, chunks = "250 PIPELINING", STREAMING
        for keywords, script, marks in (
            (groups, "S: 451 later | 503 what? | 503 what?", "elsewhere"),
            (groups, "S: 250 mail | 450 greylisted | 503 what?", "elsewhere"),
            (groups, "S: 250 mail | 250 rcpt | 451 no", "elsewhere"),
            (groups, "S: 250 mail | 250 rcpt | 354 go | 451 no", "elsewhere"),
            (groups, "S: 250 mail | 550 who? | 503 what?", ""),
            (groups, "S: 250 mail | 250 rcpt | 354 go | 554 spam", ""),
            (groups, "S: 250 mail\nE: lost", "elsewhere"),
            (groups, "S: 250 mail | 421 going", "elsewhere"),
            (groups, "S: 250 mail | 250 rcpt | 354 go | 421 going", "elsewhere broke"),
            (groups, "S: 250 mail | 250 rcpt | 354 go\nE: lost", "broke"),
            (chunks, "E: lost", "elsewhere broke"),  # it had not even read MAIL
            (chunks, "S: 421 going", "elsewhere"),
            (chunks, "T: 300", "broke"),
            (chunks, "S: 250 mail\nE: lost", "broke"),
        ):
            exchange = self.opened([mail()], keywords)
            exchange.talk(script)
            self.assertEqual(self.marks(exchange), marks, (keywords, script))

    def test_what_another_host_may_have_of_half_a_message(self) -> None:
        """The peer can't have taken what it has not got."""
        exchange = self.opened([mail()])
        exchange.talk("S: 250 mail | 250 rcpt")
        exchange.transport.is_full = True
        exchange.talk("S: 354 go\nE: lost")
        self.assertEqual(self.marks(exchange), "elsewhere broke")

    def test_what_another_host_may_have_as_this_one_lacks_something(self) -> None:
        """Though it fails, where no other host is left."""
        exchange = self.opened([mail("M1", "b\u00fc", smtputf8=True)])
        self.assertEqual(self.marks(exchange), "elsewhere")
        self.assertEqual(exchange.source.outcomes["M1"][0].status, Status.FAILED)

    def test_what_goes_before_content_that_can_not_be_read(self) -> None:
        """Its replies are awaited: it has its own outcome."""
        whole = mail("M2")
        broken = replace(whole, message=replace(whole.message, content=Broken()))
        exchange = self.opened([mail("M1"), broken, mail("M3")], STREAMING, known=Pipelining.AHEAD)
        exchange.talk("S: 250 mail | 250 rcpt | 250 taken | 250 reset")
        self.assertEqual(exchange.outcomes("M1"), ["relayed 250 taken"])
        self.assertIn("deferred 451 4.3.0", exchange.outcomes("M2")[0])
        self.assertEqual(self.marks(exchange, "M2"), "")
        self.assertEqual(exchange.source.left, 1)
        self.assertIsNone(exchange.failure)
        broken = replace(whole, message=replace(whole.message, content=Broken()))
        exchange = self.opened([mail("M1"), broken], STREAMING, known=Pipelining.AHEAD)
        exchange.lose()
        self.assertEqual(self.marks(exchange, "M1"), "")

    def test_an_address_that_no_path_can_hold(self) -> None:
        """Nothing of it is sent, and the mail behind it goes on."""
        exchange = self.opened([mail("M1", "b\r\nRSET"), mail("M2")])
        exchange.talk("C: MAIL FROM:<alice@us.example>")
        self.assertIn("deferred 451 4.3.0 Local error", exchange.outcomes()[0])
        exchange.talk("S: 250 mail | 250 rcpt | 354 go | 250 taken")
        self.assertEqual(exchange.outcomes("M2"), ["relayed 250 taken"])


class StopTests(SenderTestCase):
    """The service stops."""

    def test_the_transaction_is_brought_to_its_end(self) -> None:
        """No other is begun."""
        exchange = self.opened([mail("M1"), mail("M2")])
        exchange.talk(
            """
            S: 250 mail
            E: the service stops
            S: 250 rcpt | 354 go
            C: MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example> | DATA | Subject: x |
               | body | .
            S: 250 taken
            C: QUIT
            S: 221 bye
            C: (closed)
            """
        )
        self.assertEqual(exchange.outcomes(), ["relayed 250 taken"])
        self.assertEqual(exchange.source.left, 1)

    def test_while_no_mail_is_there(self) -> None:
        """The session ends at once."""
        exchange = self.opened([], waits=True)
        exchange.talk(
            """
            C:
            E: the service stops
            C: QUIT
            """
        )


class PipeliningTests(SenderTestCase):
    """RFC 2920: groups of commands."""

    def test_an_envelope_in_one_write(self) -> None:
        """MAIL, RCPTs and DATA together."""
        exchange = Exchange([mail("M1", "bob", "carol")])
        exchange.talk("S: 220 x")
        exchange.transport.writes = 0
        exchange.talk(
            """
            C: EHLO us.example
            S: 250-peer.example | 250 PIPELINING
            C: MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example>
               | RCPT TO:<carol@peer.example> | DATA
            """
        )
        self.assertEqual(exchange.transport.writes, 1)
        exchange.talk(
            """
            S: 250 mail | 250 rcpt | 550 5.1.1 who?
            C:
            S: 354 go
            C: Subject: x | | body | .
            S: 250 taken
            C: QUIT
            """
        )
        self.assertEqual(exchange.outcomes(), ["relayed 250 taken", "failed 550 5.1.1 who?"])

    def test_the_next_envelope_follows_the_final_dot(self) -> None:
        """Without waiting for the reply to it; that reply is still the first one's."""
        deliveries = [mail("M1"), mail("M2", "carol")]
        exchange = self.opened(deliveries, "250 PIPELINING", known=Pipelining.AHEAD)
        exchange.talk(
            """
            C: MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example> | DATA
            S: 250 mail | 250 rcpt | 354 go
            C: Subject: x | | body | . | MAIL FROM:<alice@us.example>
               | RCPT TO:<carol@peer.example> | DATA
            S: 451 4.3.0 not this
            C:
            S: 250 mail | 250 rcpt | 354 go
            C: Subject: x | | body | .
            S: 250 taken
            C: QUIT
            """
        )
        self.assertEqual(exchange.outcomes("M1"), ["deferred 451 4.3.0 not this"])
        self.assertEqual(exchange.outcomes("M2"), ["relayed 250 taken"])

    def test_all_recipients_refused_and_354(self) -> None:
        """Content must follow then: an empty one, that nobody gets."""
        exchange = self.opened([mail("M1"), mail("M2")], "250 PIPELINING")
        exchange.talk(
            """
            S: 250 mail | 550 5.1.1 who? | 354 go
            C: MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example> | DATA | .
            S: 250 thanks for nothing
            C: RSET | MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example> | DATA
            S: 250 reset | 250 mail | 250 rcpt | 354 go | 250 taken
            """
        )
        self.assertEqual(exchange.outcomes("M1"), ["failed 550 5.1.1 who?"])
        self.assertEqual(exchange.outcomes("M2"), ["relayed 250 taken"])

    def test_all_recipients_refused_without_354(self) -> None:
        """The replies to RCPT say why, not the one to DATA."""
        exchange = self.opened([mail("M1"), mail("M2")], "250 PIPELINING")
        exchange.talk(
            """
            S: 250 mail | 550 5.1.1 who? | 554 5.5.1 no recipients
            C: MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example> | DATA | RSET
               | MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example> | DATA
            """
        )
        self.assertEqual(exchange.outcomes(), ["failed 550 5.1.1 who?"])

    def test_mail_refused(self) -> None:
        """The reply to MAIL says why; what follows it is only the consequence."""
        exchange = self.opened([mail("M1", "bob", "carol"), mail("M2")], "250 PIPELINING")
        exchange.talk(
            """
            S: 451 4.7.1 greylisted | 503 what? | 503 what? | 503 what?
            """
        )
        self.assertEqual(exchange.outcomes(), ["deferred 451 4.7.1 greylisted"] * 2)
        self.assertIn("RSET", exchange.hear())

    def test_mail_refused_and_354(self) -> None:
        """A strange peer gets an empty content."""
        exchange = self.opened([mail("M1")], "250 PIPELINING")
        exchange.talk("S: 550 5.7.1 no | 250 rcpt | 354 go | 250 eh")
        self.assertEqual(exchange.outcomes(), ["failed 550 5.7.1 no"])
        self.assertNotIn("body", exchange.hear())

    def test_lost_between_two_messages(self) -> None:
        """The first one may have been taken; both are tried again."""
        exchange = self.opened([mail("M1"), mail("M2")], "250 PIPELINING")
        exchange.talk("S: 250 mail | 250 rcpt | 354 go")
        exchange.lose()
        for name in ("M1", "M2"):
            self.assertIn("may be sent more than once", exchange.outcomes(name)[0])


class ChunkingTests(SenderTestCase):
    """RFC 3030: messages ahead of replies."""

    def test_a_message_in_one_go(self) -> None:
        """No reply is awaited between MAIL and the end of content; dots stay as they are."""
        exchange = self.opened([mail(content=b"A: b\r\n\r\n.x\r\n")], STREAMING)
        exchange.talk(
            """
            C: MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example> | BDAT 12 LAST | A: b
               | | .x
            S: 250 mail | 250 rcpt
            C:
            S: 250 2.0.0 taken
            C: QUIT
            """
        )
        self.assertEqual(exchange.outcomes(), ["relayed 250 2.0.0 taken"])

    def test_messages_ahead_of_replies(self) -> None:
        """All go out at once; RSET makes each begin alike, however the one before it ended."""
        deliveries = [mail("M1"), mail("M2", "nobody"), mail("M3")]
        exchange = self.opened(deliveries, STREAMING, known=Pipelining.AHEAD)
        envelope = "MAIL FROM:<alice@us.example> | RCPT TO:<{0}@peer.example>"
        content = "BDAT 20 LAST | Subject: x | | body"
        exchange.talk(
            f"""
            C: {envelope.format("bob")} | {content} | RSET | {envelope.format("nobody")}
               | {content} | RSET | {envelope.format("bob")} | {content}
            S: 250 mail | 250 rcpt | 250 first
            S: 250 reset | 250 mail | 550 who? | 554 no recipients
            S: 250 reset | 250 mail | 250 rcpt | 250 third
            C: QUIT
            """
        )
        self.assertEqual(exchange.outcomes("M1"), ["relayed 250 first"])
        self.assertEqual(exchange.outcomes("M2"), ["failed 550 who?"])
        self.assertEqual(exchange.outcomes("M3"), ["relayed 250 third"])

    def test_how_much_goes_ahead(self) -> None:
        """No more than half a MiB, nor a hundred messages."""
        big = [mail(f"M{number}", content=b"x" * 200_000) for number in range(4)]
        exchange = self.opened(big, STREAMING, known=Pipelining.AHEAD)
        self.assertEqual(exchange.hear().count("BDAT 200000 LAST"), 2)
        self.assertEqual(exchange.source.left, 1)
        small = [mail(f"M{number}") for number in range(200)]
        exchange = self.opened(small, STREAMING, known=Pipelining.AHEAD)
        self.assertEqual(exchange.hear().count("BDAT 20 LAST"), 100)

    def test_replies_that_would_block_the_peer(self) -> None:
        """Recipients count, too: a peer that can't write its replies stops reading."""
        people = [f"user{number}" for number in range(100)]
        many = [mail(f"M{number}", *people) for number in range(50)]
        exchange = self.opened(many, STREAMING, known=Pipelining.AHEAD)
        self.assertEqual(exchange.hear().count("BDAT 20 LAST"), 10)

    def test_a_large_message_waits_for_the_envelope(self) -> None:
        """So much is sent only where somebody takes it."""
        large = b"Subject: x\r\n\r\n" + b"x" * 600_000 + b"\r\n"
        deliveries = [mail("M1"), mail("M2", content=large), mail("M3", content=large), mail("M4")]
        exchange = self.opened(deliveries, STREAMING)
        exchange.hear()
        exchange.talk(
            """
            S: 250 mail | 250 rcpt | 250 first
            C: MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example>
            S: 250 mail | 550 5.1.1 who?
            C: RSET | MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example>
            S: 250 reset | 250 mail | 250 rcpt
            """
        )
        self.assertEqual(exchange.outcomes("M2"), ["failed 550 5.1.1 who?"])
        self.assertEqual(exchange.hear()[0], "BDAT 600016 LAST")
        exchange.talk(
            """
            S: 250 third | 250 mail | 250 rcpt | 250 fourth
            """
        )
        self.assertEqual(exchange.outcomes("M3"), ["relayed 250 third"])
        self.assertEqual(exchange.outcomes("M4"), ["relayed 250 fourth"])

    def test_a_host_whose_last_connection_broke(self) -> None:
        """It gets content when it has taken an envelope, and ahead of replies when it took one."""
        exchange = self.opened([mail("M1")], STREAMING)
        exchange.lose()
        self.assertTrue(exchange.host.breaks)
        exchange = Exchange([mail("M1"), mail("M2"), mail("M3")])
        exchange.host.breaks = True
        exchange.talk(
            f"""
            S: 220 x
            C: EHLO us.example
            S: 250-peer.example | {STREAMING}
            C: MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example>
            S: 250 mail | 250 rcpt
            C: BDAT 20 LAST | Subject: x | | body
            S: 250 taken
            """
        )
        self.assertEqual(exchange.hear().count("BDAT 20 LAST"), 1)
        exchange.talk("S: 250 mail | 250 rcpt | 250 taken")
        self.assertFalse(exchange.host.breaks)

    def test_a_large_message_that_mail_refuses(self) -> None:
        """Its content stays here."""
        exchange = self.opened([mail(content=b"x" * 600_000)], STREAMING)
        exchange.talk("S: 552 5.3.4 too big | 503 what?")
        self.assertEqual(exchange.outcomes(), ["failed 552 5.3.4 too big"])
        self.assertNotIn("BDAT 600000 LAST", exchange.hear())

    def test_a_peer_that_takes_what_it_refused(self) -> None:
        """A positive reply to content that MAIL refused is the reply to something else."""
        exchange = self.opened([mail()], STREAMING)
        exchange.talk("S: 550 5.7.1 no | 503 what? | 250 fine")
        self.assertEqual(exchange.source.given_back, ["M1"])

    def test_lost_with_messages_on_their_way(self) -> None:
        """What has its reply is settled in the peer's words, all else is deferred."""
        deliveries = [mail("M1"), mail("M2"), mail("M3")]
        exchange = self.opened(deliveries, STREAMING, known=Pipelining.AHEAD)
        exchange.talk("S: 250 mail | 250 rcpt | 250 first | 250 reset | 250 mail")
        exchange.lose()
        self.assertEqual(exchange.outcomes("M1"), ["relayed 250 first"])
        for name in ("M2", "M3"):
            self.assertIn("deferred 451 4.4.2 Connection lost", exchange.outcomes(name)[0])
        self.assertIsNone(exchange.failure)

    def test_the_peer_does_not_take_the_content(self) -> None:
        """Content waits for the peer, three minutes at most (RFC 5321 section 4.5.3.2.5)."""
        exchange = Exchange([mail("M1"), mail("M2")], known=Pipelining.AHEAD)
        exchange.talk("S: 220 x")
        exchange.transport.is_full = True
        exchange.say(b"250-peer.example\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
        self.assertEqual(exchange.hear().count("BDAT 20 LAST"), 1)
        exchange.talk("T: 170")
        exchange.link.resumeProducing()
        self.assertEqual(exchange.hear().count("BDAT 20 LAST"), 1)
        exchange.talk("T: 180")
        for name in ("M1", "M2"):
            self.assertIn("Connection lost while sending content", exchange.outcomes(name)[0])

    def test_lmtp_does_without(self) -> None:
        """One reply for each recipient leaves nothing to run ahead of."""
        exchange = self.opened([mail()], STREAMING, replace(US, lmtp=True))
        exchange.talk("C: MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example> | DATA")


class LMTPTests(SenderTestCase):
    """RFC 2033: a reply for each recipient."""

    LMTP = replace(US, lmtp=True)

    def test_a_reply_for_each_recipient(self) -> None:
        """In the order of the RCPTs that were taken; nobody is tried again at once."""
        for keywords in ("250 HELP", "250 PIPELINING"):
            exchange = self.opened(
                [mail("M1", "bob", "nobody", "carol", "dave", "erin")], keywords, self.LMTP
            )
            exchange.talk(
                """
                S: 250 mail | 250 rcpt | 550 who? | 250 rcpt | 250 rcpt | 250 rcpt | 354 go
                S: 250 2.1.5 bob | 552 5.2.2 full | 452 4.2.2 quota | 250 erin
                S: 221 bye
                """
            )
            self.assertEqual(
                exchange.outcomes(),
                [
                    "delivered 250 2.1.5 bob",
                    "failed 550 who?",
                    "failed 552 5.2.2 full",
                    "deferred 452 4.2.2 quota",
                    "delivered 250 erin",
                ],
            )
            self.assertEqual(exchange.hear()[-1], "QUIT")

    def test_no_recipient_and_354(self) -> None:
        """Nobody knows how many replies would come to it."""
        exchange = self.opened([mail("M1")], "250 PIPELINING", self.LMTP)
        exchange.talk("S: 250 mail | 550 who? | 354 go")
        self.assertEqual(exchange.source.given_back, ["M1"])
        self.assertEqual(exchange.hear()[-2:], ["DATA", "QUIT"])

    def test_lost_between_replies(self) -> None:
        """Those who have their reply keep it."""
        exchange = self.opened([mail("M1", "bob", "carol")], demands=self.LMTP)
        exchange.talk("S: 250 mail | 250 rcpt | 250 rcpt | 354 go | 250 bob")
        exchange.lose()
        delivered, deferred = exchange.outcomes()
        self.assertEqual(delivered, "delivered 250 bob")
        self.assertIn("may be sent more than once", deferred)


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
                damaged = replace(whole.message, content=Damaged(size))
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
        one = delivery("M1", CONTENT, envelope, aliased)
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
        self.assertEqual(exchange.source.left, 1)

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
            self.assertEqual(exchange.source.left, 1)

    def test_the_spool_can_not_be_read(self) -> None:
        """A message that has to be converted is read here already."""

        @implementer(IContent)
        class Broken:
            """Content on a disk that fails."""

            size = 100
            is_ascii = False

            async def pieces(self) -> AsyncIterator[bytes]:
                """None."""
                raise OSError("input/output error")
                yield b""

        whole = mail()
        broken = replace(whole, message=replace(whole.message, content=Broken()))
        self.assert_not_sent(
            broken,
            "250 HELP",
            "deferred 451 4.3.0 Requested action aborted: local error in processing",
        )


class WaitingTests(SenderTestCase):
    """A connection that stays open for mail that is still to come."""

    def test_mail_that_comes_later(self) -> None:
        """It is sent as soon as it is there."""
        for keywords in ("250 PIPELINING", STREAMING):
            exchange = self.opened([], keywords, waits=True)
            exchange.talk("C:")
            exchange.source.give(mail())
            self.assertEqual(exchange.hear()[0], "MAIL FROM:<alice@us.example>")
            exchange.talk("S: 250 mail | 250 rcpt")
            exchange.talk("S: 250 taken" if keywords == STREAMING else "S: 354 go | 250 taken")
            self.assertEqual(exchange.outcomes(), ["relayed 250 taken"])
            exchange.hear()
            exchange.source.finish()
            exchange.talk("C: QUIT")

    def test_a_noop_now_and_then(self) -> None:
        """It keeps the connection alive, and shows whether it is."""
        exchange = self.opened([], waits=True)
        exchange.talk(
            """
            T: 60
            C: NOOP
            S: 250 ok
            C:
            T: 60
            C: NOOP
            T: 30
            C: (closed)
            """
        )
        self.assert_unusable(exchange, "Connection lost in reply to NOOP")

    def test_a_peer_that_says_something_unasked(self) -> None:
        """421 is an ordinary end; anything else makes no sense."""
        exchange = self.opened([], waits=True)
        exchange.talk("S: 421 4.4.2 idle for too long")
        exchange.talk("C: QUIT")
        exchange = self.opened([], waits=True)
        exchange.talk("S: 250 hello?")
        self.assert_unusable(exchange, "Protocol error")

    def test_a_peer_that_went_meanwhile(self) -> None:
        """Mail that meets a connection which is closing is left to another one, undecided."""
        for keywords in ("250 PIPELINING", STREAMING):
            for end in ("E: lost", "S: 421 4.4.2 idle for too long"):
                exchange = self.opened([], keywords, waits=True)
                exchange.source.give(mail())
                exchange.hear()
                exchange.talk(end)
                self.assertIsNone(exchange.failure)
                self.assertEqual(exchange.source.given_back, ["M1"])
                self.assertEqual(exchange.source.outcomes, {})

    def test_a_peer_that_spoke_before_it_went(self) -> None:
        """Then it was there: the message may have been taken, and waits like any other."""
        exchange = self.opened([], "250 PIPELINING", waits=True)
        exchange.source.give(mail())
        exchange.talk("S: 250 mail")
        exchange.talk("E: lost")
        self.assertEqual(exchange.source.given_back, [])
        self.assertIn("Connection lost in reply to RCPT", exchange.outcomes()[0])

    def test_no_more_than_the_limit(self) -> None:
        """When the peer takes no more messages, waiting is vain."""
        exchange = self.opened([mail()], "250-PIPELINING | 250 LIMITS MAILMAX=1", waits=True)
        exchange.talk("S: 250 mail | 250 rcpt | 354 go | 250 taken")
        self.assertEqual(exchange.hear()[-1], "QUIT")


class TurnTests(SenderTestCase):
    """What is asked for when our mail is sent (RFC 821 section 3.8, RFC 2645, RFC 1985)."""

    def asked(self, *commands: str, turned: bool = True) -> tuple[Exchange, list[Reply]]:
        """An exchange that has sent its mail and asks for a turn."""
        told: list[Reply] = []
        turn = Turn(commands, told.append, Turned() if turned else None)
        exchange = self.opened([mail()], turn=turn)
        exchange.talk("S: 250 mail | 250 rcpt | 354 go | 250 taken")
        self.assertEqual(exchange.hear()[-1], commands[0])
        return exchange, told

    def test_the_roles_change(self) -> None:
        """The successor greets."""
        exchange, told = self.asked("ATRN office.example")
        exchange.talk(
            """
            S: 250 2.0.0 turning
            C: 220 turned
            C: (closed)
            """
        )
        self.assertEqual([str(reply) for reply in told], ["250 2.0.0 turning"])

    def test_they_do_not(self) -> None:
        """The reply says why."""
        exchange, told = self.asked("TURN")
        exchange.talk(
            """
            S: 453 4.2.0 You have no mail
            C: QUIT
            """
        )
        self.assertEqual([reply.code for reply in told], [453])

    def test_queue_runs(self) -> None:
        """ETRN is followed by the next one, and by QUIT."""
        exchange, told = self.asked("ETRN a.example", "ETRN b.example", turned=False)
        exchange.talk(
            """
            S: 250 started
            C: ETRN b.example
            S: 458 no
            C: QUIT
            S: 221 bye
            C: (closed)
            """
        )
        self.assertEqual([reply.code for reply in told], [250, 458])

    def test_octets_ahead_of_our_greeting(self) -> None:
        """They could only pretend to be commands."""
        exchange, told = self.asked("TURN")
        exchange.talk("P: 250 turning | EHLO forged")
        self.assertIsInstance(exchange.failure, PeerFault)
        self.assertEqual(told, [])
        exchange.talk("C: (closed)")
