"""Documents by HTTPS, from a server on loopback."""

from __future__ import annotations

from pathlib import Path

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import TestCase

from mta.doctor import web
from mta.doctor.examined import DocumentFault
from mta.settings import CertificatePair, TLSSettings
from mta.testing import FakeResolver
from mta.tls import ClientTLS, ServerTLS
from tests.certificates import Authority
from tests.processes import temporary_folder

HOST = "mta-sts.example.com"


class Answering(Protocol):
    """Answers the first octets that come."""

    said = b""

    def dataReceived(self, data: bytes) -> None:
        """Answer, and hang up."""
        assert self.transport is not None
        type(self).said = data
        self.transport.write(self.factory.answer)  # type: ignore[union-attr]
        if self.factory.hangs_up:  # type: ignore[union-attr]
            self.transport.loseConnection()


class WebTests(TestCase):
    """One document."""

    timeout = 60.0

    def setUp(self) -> None:
        """Make an authority that is trusted."""
        self.folder = temporary_folder(self)
        self.authority = Authority(self.folder)

    async def read(
        self,
        answer: bytes,
        names: str = HOST,
        addresses: tuple[str, ...] = ("127.0.0.1",),
        *,
        hangs_up: bool = True,
    ) -> str:
        """Read a document of a server that answers so."""
        pair: CertificatePair = self.authority.issue(names)
        factory = Factory.forProtocol(Answering)
        factory.answer, factory.hangs_up = answer, hangs_up
        context = ServerTLS(TLSSettings(pair), Path(self.folder), names)
        wrapped = TLSMemoryBIOFactory(context, isClient=False, wrappedFactory=factory)
        port = reactor.listenTCP(0, wrapped, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        resolver = FakeResolver({}, {HOST: addresses})
        tls = ClientTLS(TLSSettings(ca=self.authority.path))
        number = port.getHost().port
        return await web.Web(reactor, resolver, tls, number).document(HOST, "/policy.txt")

    async def fault(self, answer: bytes, **options: object) -> tuple[str, bool]:
        """The fault of such a document, and whether its host is there."""
        with self.assertRaises(DocumentFault) as caught:
            await self.read(answer, **options)  # type: ignore[arg-type]
        return str(caught.exception), caught.exception.is_there

    async def test_a_document(self) -> None:
        """It is read whole, from the first address that answers."""
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nmode:"
        self.assertEqual(await self.read(answer, addresses=("127.0.0.2", "127.0.0.1")), "mode:")
        self.assertIn(b"GET /policy.txt HTTP/1.1\r\n", Answering.said)
        self.assertIn(b"Host: mta-sts.example.com\r\n", Answering.said)

    async def test_an_error(self) -> None:
        """No redirection is followed."""
        moved = b"HTTP/1.1 301 Moved\r\nLocation: https://a.example/\r\nContent-Length: 0\r\n\r\n"
        self.assertEqual(await self.fault(moved), ("its server replies 301", True))

    async def test_a_certificate(self) -> None:
        """It has to be for the name."""
        said, is_there = await self.fault(b"", names="elsewhere.example")
        self.assertIn("it is for elsewhere.example", said)
        self.assertTrue(is_there)

    async def test_too_long(self) -> None:
        """Nobody fills our memory."""
        length = web.MAX_DOCUMENT + 1
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + b"x" * length
        said, is_there = await self.fault(answer, hangs_up=False)
        self.assertEqual((said, is_there), ("it is longer than 65536 octets", True))

    async def test_cut_off(self) -> None:
        """A document of which a part is missing is none."""
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nmode:"
        self.assertEqual(await self.fault(answer), ("it is cut off", True))

    async def test_no_server(self) -> None:
        """It may be for us alone that it is not there."""
        said, is_there = await self.fault(b"", addresses=("127.0.0.2",))
        self.assertIn("127.0.0.2 port", said)
        self.assertFalse(is_there)

    async def test_silence(self) -> None:
        """It has its time."""
        self.patch(web, "DOCUMENT_TIMEOUT", 0.2)
        said, is_there = await self.fault(b"", hangs_up=False)
        self.assertFalse(is_there)
        self.assertIn("no answer within", said)
