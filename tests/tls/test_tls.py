"""TLS between our own two sides, in memory."""

from __future__ import annotations

import errno
import os
import resource
import stat
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test import iosim
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mta.interfaces import IClientTLS, ITLSContext
from mta.mail import Security
from mta.session import TLSInfo
from mta.settings import CertificatePair, TLSSettings
from mta.tls import CertificateRefused, ClientTLS, ServerTLS, TLSFault, TLSUnreadable, tls_info
from tests.certificates import Authority, fingerprint_of

P = TypeVar("P", bound=Protocol)

VERIFY, OPPORTUNISTIC = Security.VERIFY, Security.OPPORTUNISTIC


@implementer(IHandshakeListener)
class Side(Protocol):
    """One side of a connection: what its handshake proved, or why it ended."""

    tls: TLSInfo | None = None
    reason: Failure | None = None

    def handshakeCompleted(self) -> None:
        self.tls = tls_info(self.transport)  # type: ignore[arg-type]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason


class TLSTestCase(SynchronousTestCase):
    """What the tests share: a folder, an authority, a handshake."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.authority = Authority(self.folder)
        self.pair = self.authority.issue("mail.example")
        self.server = self.serve(self.pair)

    def serve(self, *pairs: CertificatePair, **settings: Any) -> ServerTLS:
        """A server with these certificates."""
        pins = settings.pop("pins", ())
        first, *others = pairs
        chosen = TLSSettings(first, tuple(others), **settings)
        return ServerTLS(chosen, self.folder, "mail.example", pins)

    def client(self, **settings: Any) -> ClientTLS:
        """A client that trusts our authority."""
        return ClientTLS(TLSSettings(ca=self.authority.path, **settings))

    def shake_hands(
        self,
        hostname: str = "mail.example",
        security: Security = VERIFY,
        *,
        pin: str = "",
        client: ClientTLS | None = None,
        server: Any = None,
    ) -> tuple[Side, Side]:
        """Both sides after the handshake: client, server."""
        demand = (client or self.client()).for_host(hostname, security, pin)
        return handshake(demand, server or self.server)


def handshake(demand: Any, server: Any) -> tuple[Side, Side]:
    """Let two TLS sides meet in memory; returns client, server."""
    return meet(demand, Side(), server)


def meet(creator: Any, client: P, server: Any) -> tuple[P, Side]:
    """Connect `client`, with TLS as `creator` makes it, to a server."""
    clock, serving = Clock(), Side()
    ours = TLSMemoryBIOFactory(creator, True, _factory(client), clock)
    theirs = TLSMemoryBIOFactory(server, False, _factory(serving), clock)
    outer_client, outer_server = ours.buildProtocol(None), theirs.buildProtocol(None)
    iosim.connect(
        outer_server,
        iosim.makeFakeServer(outer_server),
        outer_client,
        iosim.makeFakeClient(outer_client),
    ).flush()
    return client, serving


def _factory(protocol: Protocol) -> Factory:
    """A factory of one protocol."""
    factory = Factory()
    factory.protocol = lambda: protocol
    return factory


class VerificationTests(TLSTestCase):
    """What a client demands of a server."""

    def refused(self, client: Side) -> str:
        """Why the client refused the server's certificate."""
        self.assertIsNone(client.tls)
        assert client.reason is not None
        client.reason.trap(CertificateRefused)
        return str(client.reason.value)

    def test_name_and_chain(self) -> None:
        """A certificate of a trusted authority for the right name is taken, with TLS 1.3."""
        client, server = self.shake_hands()
        assert client.tls is not None and server.tls is not None
        self.assertEqual(client.tls.version, "TLSv1.3")
        self.assertEqual(client.tls.certificate, fingerprint_of(self.pair))
        self.assertEqual(server.tls.certificate, "")

    def test_another_name(self) -> None:
        """A certificate for another name is refused."""
        client, _ = self.shake_hands("other.example")
        self.assertIn("other.example: it is for mail.example", self.refused(client))

    def test_another_authority(self) -> None:
        """A certificate whose issuer we don't trust is refused."""
        stranger = Authority(self.folder, "stranger").issue("mail.example", file="strange")
        client, _ = self.shake_hands(server=self.serve(stranger))
        self.assertIn("issuer is not known", self.refused(client))

    def test_expired(self) -> None:
        """A certificate that has expired is refused."""
        old = self.authority.issue("mail.example", file="old", days=-1)
        client, _ = self.shake_hands(server=self.serve(old))
        self.assertIn("expired", self.refused(client))

    def test_address(self) -> None:
        """A server that is named by its address needs a certificate for the address."""
        pair = self.authority.issue("192.0.2.1")
        client, _ = self.shake_hands("192.0.2.1", server=self.serve(pair))
        self.assertIsNotNone(client.tls)
        client, _ = self.shake_hands("192.0.2.2", server=self.serve(pair))
        self.assertIn("it is for 192.0.2.1", self.refused(client))

    def test_internationalised(self) -> None:
        """Names are what IDNA 2008 makes of them, for SNI and for the certificate (RFC 5890)."""
        sharp, double = "xn--fa-hia.example", "fass.example"
        server = self.serve(self.authority.issue(double), self.authority.issue(sharp))
        for name in ("faß.example", "FAß.example.", sharp):
            with self.subTest(name):
                client, _ = self.shake_hands(name, server=server)
                self.assertIsNotNone(client.tls)
        client, _ = self.shake_hands("faß.example", server=self.serve(self.authority.issue(double)))
        self.assertIn(f"{sharp}: it is for {double}", self.refused(client))

    def test_a_name_that_can_not_be(self) -> None:
        """What is no host name has no certificate, and is no fault of ours."""
        for name in ("-a-.example", "a_b.example", "☃" * 70, "x" * 300):
            with self.subTest(name):
                client, _ = self.shake_hands(name)
                self.assertIn("it is for mail.example", self.refused(client))

    def test_self_signed(self) -> None:
        """It says which pin would do."""
        server = ServerTLS(TLSSettings(), self.folder, "mail.example")
        client, _ = self.shake_hands(server=server)
        path = self.folder / "self-signed.pem"
        pin = fingerprint_of(CertificatePair(path, path))
        self.assertIn("self-signed; if that host is yours", self.refused(client))
        self.assertIn(f"`pin: sha256:{pin}`", self.refused(client))

    def test_no_tls_at_all(self) -> None:
        """A host that talks first, in the clear, is told from one whose TLS fails."""
        client, context = Side(), self.client().for_host("mail.example", VERIFY)
        factory = TLSMemoryBIOFactory(context, True, _factory(client), Clock())
        protocol = factory.buildProtocol(None)
        protocol.makeConnection(StringTransport())
        protocol.dataReceived(b"220 mail.example Service ready\r\n")
        protocol.connectionLost(Failure(ConnectionDone()))
        assert client.reason is not None
        self.assertIn("does not speak TLS there", client.reason.getErrorMessage())

    def test_pin(self) -> None:
        """A pinned certificate is taken whatever its name and issuer; no other is."""
        stranger = Authority(self.folder, "stranger").issue("else.example")
        pin = fingerprint_of(stranger)
        client, _ = self.shake_hands(pin=pin, server=self.serve(stranger))
        assert client.tls is not None
        self.assertEqual(client.tls.certificate, pin)
        client, _ = self.shake_hands(pin=pin)
        self.assertIn("pinned", self.refused(client))

    def test_opportunistic(self) -> None:
        """Where nothing is demanded anything is taken, and what it proves is noted."""
        stranger = Authority(self.folder, "stranger").issue("mail.example", file="strange")
        other = self.authority.issue("other.example")
        old = self.authority.issue("mail.example", file="old", days=-1)
        for pair, proved in ((stranger, ""), (other, ""), (old, ""), (self.pair, "this")):
            client, _ = self.shake_hands(security=OPPORTUNISTIC, server=self.serve(pair))
            assert client.tls is not None
            self.assertEqual(client.tls.certificate, proved and fingerprint_of(pair))

    def test_system_authorities(self) -> None:
        """Without `ca` the system's authorities count, and ours is none of them."""
        client, _ = self.shake_hands(client=ClientTLS(TLSSettings()))
        self.assertIn("issuer is not", self.refused(client))


class VersionTests(TLSTestCase):
    """Which versions of TLS are spoken."""

    def limited(self, version: int) -> Any:
        """A client that speaks no newer version."""

        @implementer(IOpenSSLClientConnectionCreator)
        class Old:
            def clientConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
                context = SSL.Context(SSL.TLS_METHOD)
                context.set_cipher_list(b"ALL:@SECLEVEL=0")
                context.set_min_proto_version(0)
                context.set_max_proto_version(version)
                return SSL.Connection(context)

        return Old()

    def test_tls_12(self) -> None:
        """TLS 1.2 is spoken; there the exporter is not offered as a channel binding."""
        _, server = meet(self.limited(SSL.TLS1_2_VERSION), Protocol(), self.server)
        assert server.tls is not None
        self.assertEqual(server.tls.version, "TLSv1.2")
        self.assertIn("GCM", server.tls.cipher)
        self.assertEqual(list(server.tls.bindings), ["tls-server-end-point"])

    def test_tls_11(self) -> None:
        """TLS 1.1 is not."""
        _, server = meet(self.limited(SSL.TLS1_1_VERSION), Protocol(), self.server)
        self.assertIsNone(server.tls)


class BindingTests(TLSTestCase):
    """Channel bindings for SCRAM."""

    def test_both_sides_agree(self) -> None:
        """Both sides of one connection know the same data, another connection has other data."""
        client, server = self.shake_hands()
        again, _ = self.shake_hands()
        assert client.tls and server.tls and again.tls
        self.assertEqual(set(client.tls.bindings), {"tls-exporter", "tls-server-end-point"})
        self.assertEqual(client.tls.bindings, server.tls.bindings)
        first = client.tls.bindings["tls-exporter"]
        self.assertEqual(len(first), 32)
        self.assertNotEqual(first, again.tls.bindings["tls-exporter"])


class ClientCertificateTests(TLSTestCase):
    """What a server learns of a client's certificate."""

    def setUp(self) -> None:
        super().setUp()
        self.office = self.authority.issue("office.example")
        self.stranger = Authority(self.folder, "stranger").issue("stranger.example")

    def proved(self, pair: CertificatePair | None, **settings: Any) -> str:
        """What a server with these settings takes for proved about a client with that pair."""
        server = self.serve(self.pair, **settings)
        client = self.client(pair=pair) if pair else self.client()
        _, serving = self.shake_hands(client=client, server=server)
        assert serving.tls is not None
        return serving.tls.certificate

    def test_verified(self) -> None:
        """A certificate that `client_ca` issued proves its fingerprint."""
        proved = self.proved(self.office, client_ca=self.authority.path)
        self.assertEqual(proved, fingerprint_of(self.office))

    def test_none(self) -> None:
        """A client without a certificate is welcome, and proves nothing."""
        self.assertEqual(self.proved(None, client_ca=self.authority.path), "")

    def test_stranger(self) -> None:
        """A client with a certificate of somebody else is welcome, and proves nothing."""
        self.assertEqual(self.proved(self.stranger, client_ca=self.authority.path), "")

    def test_expired(self) -> None:
        """A certificate that has expired proves nothing."""
        old = self.authority.issue("office.example", file="old", days=-1)
        self.assertEqual(self.proved(old, client_ca=self.authority.path), "")

    def test_pinned(self) -> None:
        """A certificate that is known by its fingerprint needs no issuer."""
        known = fingerprint_of(self.stranger)
        self.assertEqual(self.proved(self.stranger, pins=[known]), known)
        self.assertEqual(self.proved(self.office, pins=[known]), "")

    def test_not_asked_for(self) -> None:
        """Where nothing is known about clients, none is asked for a certificate."""
        self.assertEqual(self.proved(self.office), "")

    def test_not_shown_to_strangers(self) -> None:
        """We show our certificate only to servers that we know."""
        server = self.serve(self.pair, client_ca=self.authority.path)
        client = self.client(pair=self.office)
        _, serving = self.shake_hands(security=OPPORTUNISTIC, client=client, server=server)
        assert serving.tls is not None
        self.assertEqual(serving.tls.certificate, "")


class SeveralCertificatesTests(TLSTestCase):
    """The certificate is chosen by the name that the client asks for."""

    def test_choice(self) -> None:
        """The exact name, a wildcard, and the first one for every other name."""
        other = self.authority.issue("other.example")
        wild = self.authority.issue("*.wild.example")
        server = self.serve(self.pair, other, wild)
        for name, pair in (
            ("mail.example", self.pair),
            ("other.example", other),
            ("a.wild.example", wild),
        ):
            client, serving = self.shake_hands(name, server=server)
            assert client.tls is not None and serving.tls is not None
            self.assertEqual(client.tls.certificate, fingerprint_of(pair))
            self.assertEqual(client.tls.bindings, serving.tls.bindings)
        client, _ = self.shake_hands(
            "unknown.example", pin=fingerprint_of(self.pair), server=server
        )
        self.assertIsNotNone(client.tls)

    def test_client_certificates_under_a_chosen_certificate(self) -> None:
        """Client certificates are verified whichever certificate was chosen."""
        office, other = (
            self.authority.issue("office.example"),
            self.authority.issue("other.example"),
        )
        server = self.serve(self.pair, other, client_ca=self.authority.path)
        _, serving = self.shake_hands(
            "other.example", client=self.client(pair=office), server=server
        )
        assert serving.tls is not None
        self.assertEqual(serving.tls.certificate, fingerprint_of(office))


class RenewalTests(TLSTestCase):
    """Certificates are renewed while we run."""

    def shown(self) -> str:
        """The fingerprint that our server now shows."""
        client, _ = self.shake_hands()
        assert client.tls is not None
        return client.tls.certificate

    def renew(self) -> CertificatePair:
        """Write a new pair in the place of the old one."""
        new = self.authority.issue("mail.example", file="new")
        new.certificate.replace(self.pair.certificate)
        new.key.replace(self.pair.key)
        return self.pair

    def test_renewed(self) -> None:
        """A renewed pair is taken up at the next look."""
        before = self.shown()
        self.renew()
        self.assertEqual(self.shown(), before)
        self.assertTrue(self.server.reload_if_changed())
        self.assertEqual(self.shown(), fingerprint_of(self.pair))

    def test_half_renewed(self) -> None:
        """A certificate whose key has not come yet is told once, and the old pair stays until
        the new one is whole."""
        before = self.shown()
        new = self.authority.issue("mail.example", file="new")
        new.certificate.replace(self.pair.certificate)
        fault = self.assertRaises(TLSFault, self.server.reload_if_changed)
        self.assertIn("is not the key of", str(fault))
        self.assertFalse(self.server.reload_if_changed())
        self.assertEqual(self.shown(), before)
        new.key.replace(self.pair.key)
        self.assertTrue(self.server.reload_if_changed())
        self.assertEqual(self.shown(), fingerprint_of(self.pair))

    def test_unreadable(self) -> None:
        """A renewed pair that can't be read now is told each time, and taken up once it can."""
        client = ClientTLS(TLSSettings(self.pair))
        before = self.shown()
        self.renew()
        for error in (errno.EMFILE, errno.EIO):
            failing = OSError(error, os.strerror(error))
            for side in (self.server, client):
                with patch("mta.tls.files.open_regular", side_effect=failing):
                    for _ in range(2):
                        fault = self.assertRaises(TLSUnreadable, side.reload_if_changed)
                        self.assertIn(os.strerror(error), str(fault))
        self.assertEqual(self.shown(), before)
        for side in (self.server, client):
            self.assertTrue(side.reload_if_changed())
            self.assertFalse(side.reload_if_changed())
        self.assertEqual(self.shown(), fingerprint_of(self.pair))

    def test_authorities_unreadable(self) -> None:
        """OpenSSL opens the file once more: where it can't, that is no fault of the file."""
        client = self.client()
        change = Authority(self.folder, "other")
        change.path.replace(self.authority.path)

        def read(path: Path) -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with patch("mta.tls.context.read", side_effect=read):
            try:
                fault = self.assertRaises(TLSUnreadable, client.reload_if_changed)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.assertIn("can't be read now", str(fault))
        self.assertTrue(client.reload_if_changed())

    def test_client(self) -> None:
        """A client takes up a changed `ca`."""
        client = self.client()
        other = Authority(self.folder, "other")
        other.path.replace(self.authority.path)
        client.reload_if_changed()
        ours, _ = self.shake_hands(client=client)
        self.assertIsNone(ours.tls)


class SelfSignedTests(TLSTestCase):
    """Without a configured certificate, one is made."""

    def test_made_once(self) -> None:
        """The pair is made at the first start, for us alone to read, and used ever after."""
        first = ServerTLS(TLSSettings(), self.folder, "mail.example")
        path = self.folder / "self-signed.pem"
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        pin = fingerprint_of(CertificatePair(path, path))
        for server in (first, ServerTLS(TLSSettings(), self.folder, "mail.example")):
            client, _ = self.shake_hands(pin=pin, server=server)
            self.assertIsNotNone(client.tls)
        self.assertEqual(list(self.folder.glob(".self-signed*")), [])

    def test_address(self) -> None:
        """A host without a name gets a certificate for its address."""
        ServerTLS(TLSSettings(), self.folder, "192.0.2.1")

    def test_folder_missing(self) -> None:
        """Where it can't be written, one line says so."""
        missing = self.folder / "missing"
        error = self.assertRaises(TLSFault, ServerTLS, TLSSettings(), missing, "mail.example")
        self.assertIn("missing: no self-signed certificate: No such file", str(error))


class FaultTests(TLSTestCase):
    """A person is told what is wrong with a file, in one line."""

    def told(self, pair: CertificatePair, **settings: Any) -> str:
        """What is said about that pair."""
        error = self.assertRaises(TLSFault, self.serve, pair, **settings)
        self.assertNotIn("\n", str(error))
        return str(error)

    def test_files(self) -> None:
        """Missing files, files with something else in them, files that do not belong together."""
        nothing = self.folder / "nothing.pem"
        text = self.folder / "text.pem"
        text.write_text("hello")
        certificate, key = self.pair.certificate, self.pair.key
        other = self.authority.issue("other.example")
        for pair, words in (
            (CertificatePair(nothing, key), "nothing.pem: No such file"),
            (CertificatePair(certificate, nothing), "nothing.pem: No such file"),
            (CertificatePair(text, key), "text.pem: holds no PEM certificate"),
            (CertificatePair(certificate, text), "text.pem: holds no PEM private key"),
            (CertificatePair(certificate, other.key), "is not the key of"),
        ):
            self.assertIn(words, self.told(pair))
        self.assertIn("holds no PEM", self.told(self.pair, client_ca=text))
        self.assertIn("No such file", self.told(self.pair, client_ca=nothing))

    def test_encrypted_key(self) -> None:
        """A key with a passphrase can't be used without a person."""
        from cryptography.hazmat.primitives import serialization

        secret = self.folder / "secret.key"
        secret.write_bytes(
            ec.generate_private_key(ec.SECP256R1()).private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"x"),
            )
        )
        self.assertIn("passphrase", self.told(CertificatePair(self.pair.certificate, secret)))


class InterfaceTests(TLSTestCase):
    """Both sides fulfil what links, and Twisted's own wrappers, ask for."""

    def test_interfaces(self) -> None:
        """Each begins TLS, and tells what came of it."""
        client = self.client()
        self.assertTrue(verifyObject(IClientTLS, client))
        demands = client.for_host("mail.example", VERIFY)
        for interface, context in (
            (ITLSContext, self.server),
            (IOpenSSLServerConnectionCreator, self.server),
            (ITLSContext, demands),
            (IOpenSSLClientConnectionCreator, demands),
        ):
            self.assertTrue(verifyObject(interface, context))
