"""Domains whose MX records lead back to the running server: their mail goes round not once."""

from __future__ import annotations

import contextlib
import smtplib
import socket
import threading

from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from tests.processes import Server, configuration, header_of

ADDRESSES = {
    "loopback.example": "127.0.0.1",
    "another.example": "127.9.9.9",
    "unspecified.example": "0.0.0.0",
    "six.example": "::1",
    "mapped.example": "::ffff:127.0.0.1",
}
NAMES = {"localhost.example": "localhost", "named.example": "mail.office.example"}
SENDER = "alice@office.example"


class NameServer:
    """A name server on UDP, which knows one MX record of each domain, and one address for that."""

    def __init__(self, case: SynchronousTestCase) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._socket.getsockname())
        thread = threading.Thread(target=self._serve, daemon=True)
        thread.start()
        case.addCleanup(self._socket.close)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                octets, client = self._socket.recvfrom(4096)
                question = dns.Message()
                question.fromStr(octets)
                self._socket.sendto(self._answer(question).toStr(), client)

    def _answer(self, question: dns.Message) -> dns.Message:
        answer = dns.Message(question.id, answer=1, recAv=1)
        answer.queries = question.queries
        [query] = question.queries
        name = query.name.name.decode()
        record = self._record(name, query.type)
        if record is not None:
            answer.answers = [dns.RRHeader(name.encode(), query.type, dns.IN, 60, record)]
        return answer

    def _record(self, name: str, kind: int) -> dns.IRecord | None:
        if kind == dns.MX and name in (*ADDRESSES, *NAMES):
            return dns.Record_MX(10, NAMES.get(name, f"mx.{name}").encode(), 60)
        address = ADDRESSES.get(name.removeprefix("mx."), "")
        if kind == dns.A and "." in address and ":" not in address:
            return dns.Record_A(address, 60)
        if kind == dns.AAAA and ":" in address:
            return dns.Record_AAAA(address, 60)
        return None


class LoopTests(SynchronousTestCase):
    """The sender hears of it at once."""

    def setUp(self) -> None:
        resolver = [NameServer(self).address]
        self.server = Server(self, configuration(resolver=resolver))
        self.server.start()

    def test_by_mx(self) -> None:
        """Each way home is seen before anything is dialled."""
        domains = [*ADDRESSES, *NAMES]
        for domain in domains:
            self.server.send(b"Subject: x\r\n\r\nx\r\n", f"bob@{domain}", reverse_path=SENDER)
        notices = self.server.wait_for_mail("office.example/alice", len(domains))
        self.assertEqual(len(notices), len(domains))
        for notice in notices:
            self.assertIn(b"5.4.6", notice)
            self.assertEqual(len(header_of(notice, "Received")), 0)
        self.assertNotIn("Cannot connect", self.server.log)

    def test_by_literal(self) -> None:
        """It is refused in reply to RCPT."""
        with smtplib.SMTP("127.0.0.1", self.server.ports["smtp"], timeout=30) as client:
            client.ehlo()
            for literal in ("[127.0.0.1]", "[IPv6:::1]", "[0.0.0.0]", "[IPv6:::ffff:127.0.0.1]"):
                client.mail(SENDER)
                code, text = client.rcpt(f"bob@{literal}")
                self.assertEqual((code, text[:5]), (554, b"5.4.6"), literal)
                client.rset()
