"""Mail that goes through us, to and from servers that others wrote, stays as it was."""

from __future__ import annotations

from email import message_from_bytes

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.bodies import BODIES, message
from tests.interop.postfix import DOMAIN, REFUSED, Postfix
from tests.interop.sink import Sink
from tests.processes import Server, body_of, configuration, header_of, send, wait_until


def bodies_of(messages: list[bytes]) -> list[bytes]:
    """Their bodies, in an order that does not depend on the way."""
    return sorted(map(body_of, messages))


def expected(*bodies: bytes) -> list[bytes]:
    """What `bodies_of` says of these."""
    return sorted(body.replace(b"\r\n", b"\n") for body in bodies)


def relaying_to(case: SynchronousTestCase, port: int) -> Server:
    """A server of ours that relays everything to a port of this machine."""
    routes = {"default": f"smtp://127.0.0.1:{port}"}
    queue = {"connection_idle": "1m"}  # longer than any step of a test takes
    server = Server(case, configuration(routes=routes, queue=queue))
    server.start()
    return server


class AiosmtpdTests(SynchronousTestCase):
    """We relay to aiosmtpd: SIZE, 8BITMIME, SMTPUTF8, no PIPELINING, no CHUNKING."""

    def setUp(self) -> None:
        self.sink = Sink(self)
        self.server = relaying_to(self, self.sink.port)

    def test_bodies_are_unchanged(self) -> None:
        """Dots, 8-bit octets, long lines and large content come through."""
        for body in BODIES.values():
            self.server.send(message(body), "carol@sink.example")
        self.assertEqual(
            bodies_of(self.sink.wait_for_mail(len(BODIES))), expected(*BODIES.values())
        )

    def test_no_return_path_on_the_way(self) -> None:
        """Relaying adds one Received: and nothing else."""
        self.server.send(message(b"x\r\n"), "carol@sink.example")
        [relayed] = self.sink.wait_for_mail()
        self.assertEqual(header_of(relayed, "Return-Path"), [])
        self.assertEqual(len(header_of(relayed, "Received")), 1)

    def test_recipients_of_one_message_share_a_transaction(self) -> None:
        """Two forward-paths with one hop make one message there."""
        self.server.send(message(b"x\r\n"), "carol@sink.example", "dave@other.example")
        self.server.send(message(b"later\r\n"), "carol@sink.example")
        self.assertEqual(bodies_of(self.sink.wait_for_mail(2)), [b"later\n", b"x\n"])


class IntoPostfixTests(SynchronousTestCase):
    """We relay to Postfix: PIPELINING, CHUNKING, DSN."""

    def setUp(self) -> None:
        self.postfix = Postfix(self)
        self.server = relaying_to(self, self.postfix.port)

    def test_bodies_are_unchanged(self) -> None:
        """Dots, 8-bit octets, long lines and large content come through."""
        for body in BODIES.values():
            self.server.send(message(body), f"carol@{DOMAIN}")
        self.assertEqual(
            bodies_of(self.postfix.wait_for_mail(len(BODIES))), expected(*BODIES.values())
        )

    def test_one_connection(self) -> None:
        """Mail that comes one after the other goes out on one connection, which then ends."""
        for number in range(1, 6):
            self.server.send(message(b"x\r\n"), f"carol@{DOMAIN}")
            # Not when Postfix has it, but when we know: the first replies of a host are awaited
            # with one to RSET, which Postfix may hold back for a moment.
            self.server.process.wait_for(rf"(?s)(?: relayed .*?){{{number}}}")
        self.postfix.wait_for_mail(5)
        self.server.stop()
        wait_until(lambda: " disconnect from " in self.postfix.log, "QUIT")
        self.assertEqual(self.postfix.log.count(" connect from "), 1)
        self.assertIn("mail=5 rcpt=5", self.postfix.log)

    def test_a_refused_recipient_is_reported_to_its_sender(self) -> None:
        """Postfix's 550 to one RCPT comes back as a notice; the other recipient gets the mail."""
        self.server.send(
            message(b"x\r\n"), f"carol@{DOMAIN}", REFUSED, reverse_path="bob@office.example"
        )
        self.assertEqual(bodies_of(self.postfix.wait_for_mail()), [b"x\n"])
        [notice] = self.server.wait_for_mail("office.example/bob")
        self.assertEqual(header_of(notice, "Return-Path"), ["<>"])
        report = message_from_bytes(notice)
        self.assertEqual(report.get_content_type(), "multipart/report")
        self.assertIn(f"rfc822; {REFUSED}".lower(), str(report.get_payload(1)).lower())
        self.assertIn(b"550 5.1.1", notice)


class FromPostfixTests(SynchronousTestCase):
    """Postfix relays into us."""

    def setUp(self) -> None:
        self.server = Server(self, configuration())
        self.server.start()
        self.postfix = Postfix(self, relay_port=self.server.ports["smtp"])

    def test_bodies_are_unchanged(self) -> None:
        """Dots, 8-bit octets, long lines and large content come through."""
        for body in BODIES.values():
            send(self.postfix.port, message(body), "bob@office.example")
        arrived = self.server.wait_for_mail("office.example/bob", len(BODIES))
        self.assertEqual(bodies_of(arrived), expected(*BODIES.values()))
