"""What our TLS does not do: old ciphers, compression, resumption, renegotiation."""

from __future__ import annotations

import contextlib
import ssl

from OpenSSL import SSL

from tests.tls.test_tls import TLSTestCase

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
OF_EACH_CALL = 65536  # octets


class SessionTests(TLSTestCase):
    """A server of ours, and a client that would like to."""

    def context(self, version: ssl.TLSVersion, ciphers: str = "DEFAULT") -> ssl.SSLContext:
        """A client of one version, which trusts our authority."""
        context = ssl.create_default_context(cafile=str(self.authority.path))
        context.minimum_version = context.maximum_version = version
        context.set_ciphers(ciphers)
        return context

    def converse(
        self, context: ssl.SSLContext, session: ssl.SSLSession | None = None
    ) -> ssl.SSLObject:
        """The client after the handshake and what comes behind it.  Raises ssl.SSLError."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(
            incoming, outgoing, server_hostname="mail.example", session=session
        )
        server = self.server.serverConnectionForTLS(None)  # type: ignore[arg-type]
        server.set_accept_state()
        for _ in range(5):
            with contextlib.suppress(ssl.SSLWantReadError):
                client.do_handshake()
                client.read()  # the tickets of TLS 1.3
            if said := outgoing.read():
                server.bio_write(said)
            with contextlib.suppress(SSL.Error):
                server.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                incoming.write(server.bio_read(OF_EACH_CALL))
        return client

    def test_forward_secrecy(self) -> None:
        """Ciphers have it: there is no RSA key exchange."""
        for version in VERSIONS:
            client = self.converse(self.context(version))
            cipher = client.cipher()
            assert cipher is not None
            self.assertTrue(cipher[0].startswith(("ECDHE-", "TLS_")), cipher)
        self.server = self.serve(self.authority.issue("mail.example", is_rsa=True))
        old = self.context(VERSIONS[0], "AES256-GCM-SHA384:AES128-SHA:AES256-SHA:@SECLEVEL=0")
        with self.assertRaises(ssl.SSLError):
            self.converse(old)

    def test_no_compression(self) -> None:
        """Nothing is compressed, by which secrets could be guessed."""
        for version in VERSIONS:
            self.assertIsNone(self.converse(self.context(version)).compression())

    def test_no_resumption(self) -> None:
        """A second connection begins anew, whatever of the first one is shown."""
        for version in VERSIONS:
            context = self.context(version)
            first = self.converse(context)
            self.assertTrue(first.version(), "no handshake")
            second = self.converse(context, first.session)
            self.assertTrue(second.version(), "no handshake")
            self.assertFalse(second.session_reused)

    def test_no_renegotiation(self) -> None:
        """A client that begins a second handshake in a connection gets none."""
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        client = SSL.Connection(context)
        client.set_connect_state()
        server = self.server.serverConnectionForTLS(None)  # type: ignore[arg-type]
        server.set_accept_state()
        self.exchange(client, server)
        self.assertEqual("TLSv1.2", server.get_protocol_version_name())
        handshake = server.get_peer_finished()
        self.assertTrue(client.renegotiate())
        self.exchange(client, server)
        self.assertEqual(handshake, server.get_peer_finished())

    def exchange(self, client: SSL.Connection, server: SSL.Connection) -> None:
        """Let both work on what the other one said."""
        for _ in range(5):
            for one, other in ((client, server), (server, client)):
                with contextlib.suppress(SSL.Error):
                    one.do_handshake()
                with contextlib.suppress(SSL.Error):
                    one.recv(OF_EACH_CALL)
                with contextlib.suppress(SSL.Error):
                    other.bio_write(one.bio_read(OF_EACH_CALL))
