"""Log-ins that fail, and log-ins in the clear, with real processes."""

from __future__ import annotations

import contextlib
import signal
import smtplib
import ssl

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.reversal import run_mta
from tests.processes import DEADLINE, Server, configuration, listener

SECRET = "correct horse"
ADDRESS = "a@office.example"


class LogInTests(SynchronousTestCase):
    """A server with two users."""

    def start(self, **keys: object) -> Server:
        """The server, started."""
        server = Server(self, configuration(users="users.yaml", **keys))
        for name in ("alice", "bob"):
            run_mta(server, "user", "add", name, "--password-stdin", stdin=f"{SECRET}\n")
        server.start()
        return server

    def log_in(self, server: Server, user: str, secret: str = SECRET) -> tuple[int, bytes]:
        """The reply to AUTH PLAIN over TLS from the first octet."""
        context = ssl._create_unverified_context()
        port = server.ports["submission"]
        with smtplib.SMTP_SSL("127.0.0.1", port, context=context, timeout=DEADLINE) as client:
            client.ehlo()
            client.user, client.password = user, secret  # type: ignore[attr-defined]
            try:
                return client.auth("PLAIN", client.auth_plain)
            except smtplib.SMTPAuthenticationError as error:
                with contextlib.suppress(smtplib.SMTPServerDisconnected):
                    client.rset()
                return error.smtp_code, error.smtp_error  # type: ignore[return-value]

    def test_a_ban(self) -> None:
        """Its words arrive, mail flows on, a reload and a restart keep it, and a person ends it."""
        server = self.start(
            listen=[listener("smtp"), listener("submission", "implicit")],
            limits={"auth_failures": 2},
        )
        for _ in range(2):
            self.assertEqual(self.log_in(server, "alice", "wrong")[0], 535)
        self.assertEqual(self.log_in(server, "alice")[0], 421)
        self.assertEqual(self.log_in(server, "bob")[0], 235)
        server.send(b"Subject: x\r\n\r\nx\r\n", ADDRESS)
        assert server.process is not None
        server.process.wait_for(r"failed from 127\.0\.0\.1 as alice \(2 of 2 in 10 minutes\)")
        server.process.wait_for(r"no log-ins of alice from 127\.0\.0\.1 for 10 minutes: 2 failed")

        said = len(server.process.output)
        server.process.signal(signal.SIGHUP)
        server.process.wait_for("read again", after=said)
        self.assertEqual(self.log_in(server, "alice")[0], 421)
        server.stop()
        server.start()
        self.assertEqual(self.log_in(server, "alice")[0], 421)

        self.assertIn("no log-ins of alice from 127.0.0.1", run_mta(server, "user", "list"))
        run_mta(server, "user", "unban", "alice")
        self.assertEqual(self.log_in(server, "alice")[0], 235)

    def test_in_the_clear(self) -> None:
        """A proxy on this host may hand on a password, where the listener allows it."""
        clear = listener("submission") | {"allow_cleartext_auth": True}
        server = self.start(listen=[listener("smtp"), clear])
        for service, is_allowed in (("submission", True), ("smtp", False)):
            with smtplib.SMTP("127.0.0.1", server.ports[service], timeout=DEADLINE) as client:
                client.ehlo()
                self.assertEqual("PLAIN" in client.esmtp_features["auth"], is_allowed)
                client.user, client.password = "alice", SECRET  # type: ignore[attr-defined]
                if is_allowed:
                    self.assertEqual(client.auth("PLAIN", client.auth_plain)[0], 235)
                else:
                    with self.assertRaises(smtplib.SMTPAuthenticationError) as caught:
                        client.auth("PLAIN", client.auth_plain)
                    self.assertEqual(caught.exception.smtp_code, 538)
