"""TLS and AUTH with programs that others wrote: as our clients, and as our servers."""

from __future__ import annotations

import contextlib
import os
import re
import smtplib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mta.settings import CertificatePair
from mta.users.file import UserFile
from tests.certificates import Authority, fingerprint_of
from tests.interop.dovecot import Dovecot
from tests.interop.postfix import DOMAIN, Postfix
from tests.interop.sink import Sink
from tests.processes import (
    DEADLINE,
    ROOT,
    Server,
    body_of,
    configuration,
    header_of,
    listener,
    local_domain,
    need_program,
    temporary_folder,
    wait_until,
)

ALICE = "alice@office.example"
BOB = "bob@office.example"
SECRET = "wonderland"
SECRET_IN_BASE64 = ("d29uZGVybGFuZA==", "AGFsaWNlAHdvbmRlcmxhbmQ=")  # LOGIN, PLAIN
BODY = b"hello\r\n"
CONTENT = b"From: alice@office.example\r\nSubject: x\r\n\r\n" + BODY
PROXY_HEADER = b"PROXY TCP4 198.51.100.7 192.0.2.1 4711 25\r\n"
NAMES = ("mail.office.example", "localhost", "127.0.0.1")


class SecureCase(SynchronousTestCase):
    """A server with a certificate and users, and what the tests ask of it.

    `ports` has its listeners: ``smtp`` (STARTTLS offered), ``submission`` (STARTTLS demanded),
    ``implicit``, and ``proxied`` and ``proxied implicit`` behind the PROXY protocol.
    """

    def setUp(self) -> None:
        self.folder = temporary_folder(self)
        self.authority = Authority(self.folder)
        self.pair = self.authority.issue(*NAMES, file="server")

    def start(self, **keys: Any) -> Server:
        """The server, with alice among its users, and further keys of its configuration."""
        proxied = {
            "endpoint": "haproxy:tcp:0:interface=127.0.0.1",
            "service": "smtp",
            "tls": "opportunistic",
        }
        listeners = {
            "smtp": listener("smtp", "opportunistic"),
            "submission": listener("submission", "required"),
            "implicit": listener("submission", "implicit"),
            "proxied": proxied,
            "proxied implicit": proxied | {"tls": "implicit"},
        }
        users = UserFile(self.folder / "users.yaml")
        users.add("alice", SECRET, [ALICE], cram_md5=True)
        self.server = Server(
            self,
            configuration(
                listen=list(listeners.values()),
                users=str(self.folder / "users.yaml"),
                tls=self.tls_keys(self.pair),
                relay={"networks": []},
            )
            | keys,
        )
        self.server.start()
        found = re.findall(r"listening on (?:haproxy:)?tcp:(\d+)", self.server.log)
        self.ports = dict(zip(listeners, map(int, found), strict=True))
        return self.server

    def tls_keys(self, pair: CertificatePair) -> dict[str, str]:
        """The `tls` section for a certificate, with the tests' authority trusted."""
        return {
            "certificate": str(pair.certificate),
            "key": str(pair.key),
            "ca": str(self.authority.path),
        }

    @property
    def trust(self) -> ssl.SSLContext:
        """What a client of Python's needs to know."""
        return ssl.create_default_context(cafile=str(self.authority.path))

    def run_client(self, *command: str, standard_input: bytes = b"", fails: bool = False) -> str:
        """Run a program to its end; its exit status must be what is expected."""
        ended = subprocess.run(
            command,
            input=standard_input,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=DEADLINE,
            env=os.environ | {"HOME": str(self.folder), "SSL_CERT_FILE": str(self.authority.path)},
            check=False,
        )
        output = ended.stdout.decode("utf-8", "replace")
        self.assertEqual(bool(ended.returncode), fails, output)
        return output

    def mutt(self, implicit: bool, *, fails: bool = False, **settings: str) -> str:
        """Send a message with mutt, as Debian has it but for these settings."""
        scheme = "smtps" if implicit else "smtp"
        port = self.ports["implicit" if implicit else "submission"]
        lines = {
            "smtp_url": f"{scheme}://alice@localhost:{port}/",
            "smtp_pass": SECRET,
            "ssl_ca_certificates_file": str(self.authority.path),
            "ssl_force_tls": "yes",
            "from": ALICE,
            "copy": "no",
        } | settings
        config = self.folder / "muttrc"
        config.write_text("".join(f'set {name}="{lines[name]}"\n' for name in lines))
        program = need_program(self, "mutt")
        return self.run_client(
            *(program, "-n", "-F", str(config), "-s", "x", BOB), standard_input=BODY, fails=fails
        )

    def assert_arrived(self, count: int) -> None:
        """So many messages came in over TLS from somebody who logged in."""
        arrived = self.server.wait_for_mail("office.example/bob", count)
        self.assertEqual(len(arrived), count)
        for content in arrived:
            self.assertEqual(body_of(content).strip(), BODY.strip())
            trace = header_of(content, "Received")[0]
            self.assertRegex(trace, r"\(TLSv1\.[23] \w.*\) by .* with ESMTPSA ")
        for secret in (SECRET, *SECRET_IN_BASE64):
            self.assertNotIn(secret, self.server.log)


class ClientTests(SecureCase):
    """Real clients submit: by STARTTLS and by TLS from the start, by every mechanism they know."""

    def setUp(self) -> None:
        super().setUp()
        self.start(log={"level": "debug"})
        self.message = self.folder / "message.eml"
        self.message.write_bytes(CONTENT)

    def each(self, mechanisms: Sequence[str], send: Callable[[bool, int, str], None]) -> None:
        """Send one message for each manner of TLS and each mechanism."""
        for implicit in (False, True):
            port = self.ports["implicit" if implicit else "submission"]
            for mechanism in mechanisms:
                send(implicit, port, mechanism)
        self.assert_arrived(2 * len(mechanisms))

    def test_smtplib(self) -> None:
        """Python's smtplib."""

        def send(implicit: bool, port: int, mechanism: str) -> None:
            with self.smtplib_client(implicit, port) as client:
                client.user, client.password = "alice", SECRET
                name = mechanism.lower().replace("-", "_")
                initial = mechanism != "CRAM-MD5"
                authobject = getattr(client, f"auth_{name}")
                client.auth(mechanism, authobject, initial_response_ok=initial)
                client.sendmail(ALICE, [BOB], CONTENT)

        self.each(("PLAIN", "LOGIN", "CRAM-MD5"), send)

    def smtplib_client(self, implicit: bool, port: int) -> smtplib.SMTP:
        """A client that has TLS and has said EHLO."""
        if implicit:
            client: smtplib.SMTP = smtplib.SMTP_SSL(
                "localhost", port, "client.example", timeout=DEADLINE, context=self.trust
            )
        else:
            client = smtplib.SMTP("localhost", port, "client.example", timeout=DEADLINE)
            client.starttls(context=self.trust)
        client.ehlo()
        return client

    def test_swaks(self) -> None:
        """swaks."""
        swaks = need_program(self, "swaks")

        def send(implicit: bool, port: int, mechanism: str) -> None:
            dialogue = self.run_client(
                *(swaks, "--server", f"127.0.0.1:{port}", "--helo", "client.example"),
                *("--from", ALICE, "--to", BOB, "--data", f"@{self.message}"),
                *("--tls-on-connect" if implicit else "--tls", "--tls-verify"),
                *("--tls-ca-path", str(self.authority.path)),
                *("--auth", mechanism, "--auth-user", "alice", "--auth-password", SECRET),
            )
            self.assertIn("235 2.7.0", dialogue)

        self.each(("PLAIN", "LOGIN", "CRAM-MD5"), send)

    def test_curl(self) -> None:
        """curl."""
        curl = need_program(self, "curl")

        def send(implicit: bool, port: int, mechanism: str) -> None:
            scheme = "smtps" if implicit else "smtp"
            self.run_client(
                *(curl, "--silent", "--show-error", "--noproxy", "*", "--ssl-reqd"),
                *("--cacert", str(self.authority.path), f"{scheme}://localhost:{port}/client"),
                *("--user", f"alice:{SECRET}", "--login-options", f"AUTH={mechanism}"),
                *("--mail-from", ALICE, "--mail-rcpt", BOB, "--upload-file", str(self.message)),
            )

        mechanisms = ["PLAIN", "LOGIN", "CRAM-MD5"]
        if "gsasl" in self.run_client(curl, "--version"):
            mechanisms.append("SCRAM-SHA-256")
        self.each(mechanisms, send)

    def test_msmtp(self) -> None:
        """msmtp, which knows SCRAM and channel bindings."""
        msmtp = need_program(self, "msmtp")
        known = re.search("Authentication library: (.*)", self.run_client(msmtp, "--version"))
        mechanisms = ["plain", "login", "cram-md5"]
        if known and "GNU SASL" in known[1]:
            mechanisms.append("scram-sha-256")

        def send(implicit: bool, port: int, mechanism: str) -> None:
            self.run_client(
                *(msmtp, "--file=/dev/null", "--host=localhost", f"--port={port}"),
                *(f"--from={ALICE}", "--domain=client.example", "--tls=on"),
                *(f"--tls-starttls={'off' if implicit else 'on'}",),
                *(f"--tls-trust-file={self.authority.path}", f"--auth={mechanism}"),
                *("--user=alice", f"--passwordeval=echo {SECRET}", BOB),
                standard_input=CONTENT,
            )

        self.each(mechanisms, send)

    def test_mutt(self) -> None:
        """mutt, which takes what it holds for the strongest mechanism where nobody tells it."""
        self.mutt(implicit=False)
        self.mutt(implicit=True)
        self.assert_arrived(2)

    def test_snail(self) -> None:
        """s-nail."""
        snail = need_program(self, "s-nail")

        def send(implicit: bool, port: int, mechanism: str) -> None:
            scheme = "smtps" if implicit else "smtp"
            settings = {
                "v15-compat": "yes",
                "mta": f"{scheme}://alice:{SECRET}@localhost:{port}",
                "smtp-auth": mechanism,
                "smtp-hostname": "office.example",
                "tls-ca-file": str(self.authority.path),
                "tls-ca-no-defaults": "yes",
                "tls-verify": "strict",
                "DEAD": "/dev/null",
            }
            if not implicit:
                settings["smtp-use-starttls"] = "yes"
            options = [f"-S{name}={value}" for name, value in settings.items()]
            self.run_client(
                snail, "-:/", "-r", ALICE, "-s", "x", *options, BOB, standard_input=b"hello\n"
            )

        self.each(("plain", "login", "cram-md5"), send)

    def test_nodemailer(self) -> None:
        """nodemailer, where it is installed (NODE_PATH)."""
        node = need_program(self, "node")
        found = subprocess.run(
            [node, "-e", "require('nodemailer')"], capture_output=True, check=False
        )
        if found.returncode:
            self.skipTest("nodemailer is not installed")
        script = """
            const [port, secure, method, ca, path] = process.argv.slice(1);
            const read = require('fs').readFileSync;
            require('nodemailer')
                .createTransport({
                    host: 'localhost', port: Number(port), secure: secure == 'true',
                    requireTLS: true, tls: {ca: read(ca)},
                    auth: {user: 'alice', pass: 'wonderland'}, authMethod: method,
                })
                .sendMail({
                    envelope: {from: 'alice@office.example', to: 'bob@office.example'},
                    raw: read(path),
                });
        """

        def send(implicit: bool, port: int, mechanism: str) -> None:
            self.run_client(
                *(node, "-e", script, str(port), str(implicit).lower(), mechanism),
                *(str(self.authority.path), str(self.message)),
            )

        self.each(("PLAIN", "LOGIN", "CRAM-MD5"), send)

    def test_openssl(self) -> None:
        """openssl s_client verifies us, by TLS 1.2 and 1.3; older ones get nothing."""
        openssl = need_program(self, "openssl")

        def connect(port: int, *options: str, fails: bool = False) -> str:
            return self.run_client(
                *(openssl, "s_client", "-connect", f"127.0.0.1:{port}", "-crlf", "-ign_eof"),
                *("-servername", "mail.office.example", "-verify_return_error"),
                *("-CAfile", str(self.authority.path), *options),
                standard_input=b"EHLO client.example\nQUIT\n",
                fails=fails,
            )

        for version in ("1_2", "1_3"):
            for port, options in (
                (self.ports["implicit"], ()),
                (self.ports["smtp"], ("-starttls", "smtp")),
            ):
                output = connect(port, f"-tls{version}", *options)
                self.assertIn("Verify return code: 0 (ok)", output)
                self.assertIn("221 2.0.0", output)
                self.assertIn(f"TLSv{version.replace('_', '.')}, Cipher is ", output)
        connect(self.ports["implicit"], "-tls1_1", "-cipher", "ALL:@SECLEVEL=0", fails=True)
        connect(self.ports["implicit"], "-tls1_2", "-cipher", "AES256-SHA", fails=True)

    def test_wrong_password(self) -> None:
        """A wrong password and a user who does not exist hear the same, by every mechanism."""
        for mechanism in ("PLAIN", "LOGIN", "CRAM_MD5"):
            heard = set()
            for user in ("alice", "nobody"):
                with self.smtplib_client(True, self.ports["implicit"]) as client:
                    client.user, client.password = user, "wrong"
                    authobject = getattr(client, f"auth_{mechanism.lower()}")
                    with self.assertRaises(smtplib.SMTPAuthenticationError) as caught:
                        client.auth(
                            mechanism.replace("_", "-"), authobject, initial_response_ok=False
                        )
                    heard.add((caught.exception.smtp_code, caught.exception.smtp_error))
            self.assertEqual(heard, {(535, b"5.7.8 Authentication credentials invalid")})

    def test_another_author(self) -> None:
        """A user writes as nobody else, neither in MAIL nor in From:."""
        with self.smtplib_client(True, self.ports["implicit"]) as client:
            client.login("alice", SECRET)
            self.assertEqual(client.mail(BOB)[0], 553)
            with self.assertRaises(smtplib.SMTPDataError) as caught:
                client.sendmail(ALICE, [BOB], CONTENT.replace(b"alice@", b"boss@"))
            self.assertEqual(caught.exception.smtp_code, 550)

    def test_nothing_without_tls_and_auth(self) -> None:
        """Before TLS there is no AUTH, before AUTH no MAIL, and strangers relay nowhere."""
        with smtplib.SMTP("localhost", self.ports["submission"], "c", timeout=DEADLINE) as client:
            client.ehlo()
            self.assertNotIn("auth", client.esmtp_features)
            self.assertEqual(client.docmd("AUTH", "PLAIN AGFsaWNlAHdvbmRlcmxhbmQ=")[0], 530)
            client.starttls(context=self.trust)
            client.ehlo()
            self.assertEqual(client.mail(ALICE), (530, b"5.7.0 Authentication required"))
        with smtplib.SMTP("localhost", self.ports["smtp"], "c", timeout=DEADLINE) as client:
            client.ehlo()
            self.assertEqual(client.docmd("AUTH", "PLAIN AGFsaWNlAHdvbmRlcmxhbmQ=")[0], 538)
            client.mail(ALICE)
            for address in (
                "x@elsewhere.example",
                "x%elsewhere.example@office.example",
                "elsewhere.example!x@office.example",
                '"x@elsewhere.example"@office.example',
                "@office.example:x@elsewhere.example",
                "x@[127.0.0.1]",
            ):
                code, _ = client.docmd("RCPT", f"TO:<{address}>")
                relayed = address.endswith("@office.example")  # any local part is a mailbox here
                self.assertEqual(code, 250 if relayed else 550, address)

    def test_behind_a_proxy(self) -> None:
        """With the PROXY protocol, STARTTLS and TLS from the start; the client is the real one."""
        for name in ("proxied", "proxied implicit"):
            connection = socket.create_connection(("localhost", self.ports[name]), DEADLINE)
            connection.sendall(PROXY_HEADER)
            if name == "proxied implicit":
                connection = self.trust.wrap_socket(connection, server_hostname="localhost")
            client = smtplib.SMTP(local_hostname="client.example", timeout=DEADLINE)
            client._host = "localhost"  # type: ignore[attr-defined]  # for the certificate
            client.sock = connection
            with client:
                self.assertEqual(client.getreply()[0], 220)
                if name == "proxied":
                    client.starttls(context=self.trust)
                client.ehlo()
                client.login("alice", SECRET)
                client.sendmail(ALICE, [BOB], CONTENT)
        self.assert_arrived(2)
        for content in self.server.wait_for_mail("office.example/bob", 2):
            self.assertIn("([198.51.100.7])", header_of(content, "Received")[0])


class OtherUsersTests(SecureCase):
    """Who does not log in with a password of the users file."""

    def test_mutt_where_channels_are_bound(self) -> None:
        """What the manual says to write."""
        self.start(log={"level": "debug"}, submission={"channel_binding": True})
        text = (ROOT / "docs" / "config.rst").read_text()
        [(name, value)] = re.findall(r'``set (smtp_authenticators)="([^"]*)"``', text)
        self.assertIn("SASL", self.mutt(implicit=True, fails=True))
        self.mutt(implicit=True, **{name: value})
        self.assert_arrived(1)

    def test_client_certificate(self) -> None:
        """EXTERNAL: curl shows a certificate that stands for a user; without it, or with one that
        does not, EXTERNAL is not even offered."""
        curl = need_program(self, "curl")
        known = self.authority.issue("office.client.example")
        other = self.authority.issue("other.client.example")
        office = {
            "certificate": f"sha256:{fingerprint_of(known)}",
            "user": "office",
            "domains": ["office.example"],
            "methods": ["atrn"],
        }
        self.start(
            peers={"office": office},
            tls=self.tls_keys(self.pair) | {"client_ca": str(self.authority.path)},
        )
        message = self.folder / "message.eml"
        message.write_bytes(CONTENT)

        def send(pair: CertificatePair, *, fails: bool) -> None:
            self.run_client(
                *(curl, "--silent", "--show-error", "--noproxy", "*"),
                *("--cacert", str(self.authority.path), "--cert", str(pair.certificate)),
                *("--key", str(pair.key), f"smtps://localhost:{self.ports['implicit']}/client"),
                *("--user", "office:", "--login-options", "AUTH=EXTERNAL"),
                *("--mail-from", ALICE, "--mail-rcpt", BOB, "--upload-file", str(message)),
                fails=fails,
            )

        send(known, fails=False)
        send(other, fails=True)
        self.assert_arrived(1)

    def test_users_of_dovecot(self) -> None:
        """One user base for IMAP and SMTP: Dovecot says who may log in."""
        dovecot = Dovecot(self, "plain login cram-md5 scram-sha-256")
        self.start(users=f"dovecot:{dovecot.socket}")
        swaks = need_program(self, "swaks")
        message = self.folder / "message.eml"
        message.write_bytes(CONTENT)
        for mechanism, password, fails in (
            ("PLAIN", SECRET, False),
            ("CRAM-MD5", SECRET, False),
            ("LOGIN", "wrong", True),
        ):
            self.run_client(
                *(swaks, "--server", f"localhost:{self.ports['submission']}", "--tls"),
                *("--helo", "client.example", "--from", ALICE, "--to", BOB),
                *("--data", f"@{message}", "--auth", mechanism),
                *("--auth-user", "alice", "--auth-password", password),
                fails=fails,
            )
        self.assert_arrived(2)

    def test_between_ourselves(self) -> None:
        """Our client logs in at our server, by SCRAM-SHA-256-PLUS, bound to the TLS channel."""
        self.start(log={"level": "debug"}, submission={"channel_binding": True})
        near = Server(
            self,
            configuration(
                tls=self.tls_keys(self.pair),
                routes={"default": f"smtps://alice:{SECRET}@localhost:{self.ports['implicit']}"},
                domains={"near.example": local_domain()},
            ),
        )
        near.start()
        near.send(CONTENT, BOB, reverse_path=ALICE)
        self.assert_arrived(1)
        self.assertNotIn(SECRET, near.log)

    def test_lmtp(self) -> None:
        """swaks on a local socket: one reply for each recipient that was taken."""
        path = self.folder / "lmtp.sock"
        domain = {"deliver": "maildir:mail/{domain}/{local}", "mailboxes": ["alice", "bob"]}
        self.server = Server(
            self,
            configuration(
                listen=[listener("smtp"), {"endpoint": f"unix:{path}", "service": "lmtp"}],
                domains={"office.example": domain},
            ),
        )
        self.server.start()
        message = self.folder / "message.eml"
        message.write_bytes(CONTENT)
        dialogue = self.run_client(
            *(need_program(self, "swaks"), "--socket", str(path), "--protocol", "LMTP"),
            *("--helo", "client.example", "--from", ALICE, "--data", f"@{message}"),
            *("--to", f"{ALICE},nobody@office.example,{BOB}"),
        )
        self.assertIn("550 5.1.1", dialogue)
        self.assertEqual(dialogue.count("OK queued as"), 2)
        for name in ("alice", "bob"):
            [content] = self.server.wait_for_mail(f"office.example/{name}")
            self.assertIn(" with LMTP ", header_of(content, "Received")[0])


class RenewalTests(SecureCase):
    """A certificate is renewed while mail comes in."""

    def test_renewal_under_load(self) -> None:
        """New connections show the new pair; nothing fails, and none that stands is dropped."""
        self.start()
        old = fingerprint_of(self.pair)
        standing = smtplib.SMTP("localhost", self.ports["smtp"], "c", timeout=DEADLINE)
        self.addCleanup(standing.close)
        standing.starttls(context=self.trust)
        standing.ehlo()
        ends = threading.Event()
        sent, problems = [0, 0, 0], []

        def load(number: int) -> None:
            try:
                while not ends.is_set():
                    with self.encrypted() as client:
                        client.sendmail(ALICE, [BOB], CONTENT)
                    sent[number] += 1
            except OSError as error:  # smtplib's are, and ssl's
                problems.append(error)

        threads = [threading.Thread(target=load, args=(number,)) for number in range(len(sent))]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: all(sent), "mail from each thread")
            renewed = self.authority.issue(*NAMES, file="renewed")
            renewed.certificate.replace(self.pair.certificate)
            renewed.key.replace(self.pair.key)
            new = fingerprint_of(self.pair)
            self.assertNotEqual(new, old)
            wait_until(lambda: problems or self.shown() == new, "the new certificate", 60)
        finally:
            ends.set()
            for thread in threads:
                thread.join()
        self.assertEqual(problems, [])
        standing.sendmail(ALICE, [BOB], CONTENT)
        total = sum(sent) + 1
        self.assertEqual(len(self.server.wait_for_mail("office.example/bob", total)), total)

    def encrypted(self) -> smtplib.SMTP:
        """A client that has TLS."""
        client = smtplib.SMTP("localhost", self.ports["smtp"], "c", timeout=DEADLINE)
        client.starttls(context=self.trust)
        return client

    def shown(self) -> str:
        """The fingerprint of the certificate that new connections see."""
        with self.encrypted() as client:
            assert isinstance(client.sock, ssl.SSLSocket)
            shown = client.sock.getpeercert(binary_form=True)
        assert shown is not None
        path = self.folder / "shown.crt"
        path.write_text(ssl.DER_cert_to_PEM_cert(shown))
        return fingerprint_of(CertificatePair(path, path))


class ToPostfixTests(SecureCase):
    """We are the client: a Postfix with Dovecot's SASL takes our mail as a smart host."""

    def relay(
        self,
        mechanisms: str,
        *,
        certificate: bool = True,
        tls: str = "verify",
        ca: Path | None = None,
        secret: str = SECRET,
        queue: Mapping[str, Any] | None = None,
    ) -> Postfix:
        """A Postfix that wants AUTH, and a server of ours that was given one message for it."""
        dovecot = Dovecot(self, mechanisms)
        settings = {
            "smtpd_sasl_auth_enable": "yes",
            "smtpd_sasl_type": "dovecot",
            "smtpd_sasl_path": str(dovecot.socket),
            "smtpd_sasl_security_options": "noanonymous",
            "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
            "smtpd_recipient_restrictions": "permit_sasl_authenticated, reject",
        }
        if certificate:
            pair = self.authority.issue("localhost", "127.0.0.1", file="postfix")
            settings |= {
                "smtpd_tls_security_level": "may",
                "smtpd_tls_cert_file": str(pair.certificate),
                "smtpd_tls_key_file": str(pair.key),
                "smtpd_tls_received_header": "yes",
            }
        postfix = Postfix(self, settings=settings | {"smtpd_sasl_authenticated_header": "yes"})
        route = {
            "to": f"smtp://localhost:{postfix.port}",
            "user": "alice",
            "secret": secret,
            "tls": tls,
        }
        keys = self.tls_keys(self.pair) | {"ca": str(ca or self.authority.path)}
        self.server = Server(
            self,
            configuration(routes={"default": route}, tls=keys, queue=queue or {"retry": ["1s"]}),
        )
        self.server.start()
        self.server.send(CONTENT, f"carol@{DOMAIN}", reverse_path=BOB)
        return postfix

    def assert_logged_in(self, postfix: Postfix, mechanism: str, protocol: str) -> None:
        """The message came, from alice, by that mechanism."""
        [content] = postfix.wait_for_mail()
        trace = header_of(content, "Received")[0]
        self.assertIn("(Authenticated sender: alice)", trace)
        self.assertIn(f" with {protocol} ", trace)
        self.assertIn(f"sasl_method={mechanism},", postfix.log)
        self.assertNotIn(SECRET, self.server.log)

    def test_scram(self) -> None:
        """The strongest mechanism is taken."""
        postfix = self.relay("plain login cram-md5 scram-sha-256")
        self.assert_logged_in(postfix, "SCRAM-SHA-256", "ESMTPSA")

    def test_plain(self) -> None:
        """To a server that proved its name the password goes."""
        self.assert_logged_in(self.relay("login plain"), "PLAIN", "ESMTPSA")

    def test_login(self) -> None:
        """LOGIN, where there is nothing else."""
        self.assert_logged_in(self.relay("login"), "LOGIN", "ESMTPSA")

    def test_plain_by_opportunistic_tls(self) -> None:
        """Without a demand the certificate is looked at all the same."""
        self.assert_logged_in(self.relay("plain", tls="opportunistic"), "PLAIN", "ESMTPSA")

    def test_no_password_to_a_stranger(self) -> None:
        """A server whose certificate we can't verify never hears the password."""
        stranger = Authority(self.folder, "stranger")
        postfix = self.relay("plain login", tls="opportunistic", ca=stranger.path)
        wait_until(lambda: "its certificate does not prove" in self.server.log, "the refusal")
        self.assertNotIn("sasl_method", postfix.log)
        self.assertEqual(postfix.mail, [])

    def test_cram_md5_without_tls(self) -> None:
        """Without TLS the secret is proved, not told."""
        postfix = self.relay("plain cram-md5", certificate=False, tls="opportunistic")
        self.assert_logged_in(postfix, "CRAM-MD5", "ESMTPA")

    def test_tls_that_is_demanded(self) -> None:
        """Where TLS is demanded there is nothing without it, and nothing with a stranger."""
        postfix = self.relay("scram-sha-256", certificate=False)
        wait_until(lambda: "does not offer the TLS that we demand" in self.server.log, "no TLS")
        self.assertEqual(postfix.mail, [])

    def test_a_certificate_that_is_demanded(self) -> None:
        """A certificate of somebody else's authority ends the connection."""
        stranger = Authority(self.folder, "stranger")
        postfix = self.relay("scram-sha-256", ca=stranger.path)
        wait_until(lambda: "its issuer is not known" in self.server.log, "the refusal")
        self.assertEqual(postfix.mail, [])

    def test_wrong_secret(self) -> None:
        """The message waits for a person to put the secret right."""
        postfix = self.relay("scram-sha-256 plain", secret="wrong")
        wait_until(lambda: "535 5.7.8" in self.server.log, "the refusal")
        self.assertEqual(postfix.mail, [])


class RequireTLSTests(SecureCase):
    """REQUIRETLS (RFC 8689) end to end."""

    def send(self, to: str) -> None:
        """Alice submits a message that must not travel without TLS."""
        with smtplib.SMTP_SSL(
            "localhost", self.ports["implicit"], "c", timeout=DEADLINE, context=self.trust
        ) as client:
            client.login("alice", SECRET)
            self.assertTrue(client.has_extn("requiretls"))
            client.sendmail(ALICE, [to], CONTENT, ["REQUIRETLS", "RET=FULL"])

    def test_kept(self) -> None:
        """Between servers that prove who they are and offer it, the demand goes along."""
        sink = Sink(self)
        far = Server(
            self,
            configuration(
                hostname="localhost",
                listen=[listener("smtp", "opportunistic")],
                tls=self.tls_keys(self.pair),
                domains={"far.example": local_domain()},
                routes={"default": f"smtp://127.0.0.1:{sink.port}"},
            ),
        )
        far.start()
        self.start(routes={"default": f"smtp://localhost:{far.ports['smtp']}"})
        self.send("carol@far.example")
        [content] = far.wait_for_mail("far.example/carol")
        self.assertIn(" with ESMTPS ", header_of(content, "Received")[0])
        # The far server heard of the demand: what it can't keep it sends back.
        self.send("dave@elsewhere.example")
        wait_until(lambda: "5.7.30" in far.log, "the refusal at the far server")
        self.assertNotIn(BODY.strip(), b"".join(sink.mail))

    def test_not_to_be_kept(self) -> None:
        """A next host without TLS gets nothing: the message comes back, without its body."""
        sink = Sink(self)
        self.start(
            routes={"default": f"smtp://127.0.0.1:{sink.port}"},
            domains={"office.example": local_domain()},
        )
        self.send("carol@far.example")
        [notice] = self.server.wait_for_mail("office.example/alice")
        self.assertIn(b"5.7.30", notice)
        self.assertNotIn(BODY.strip(), notice)
        self.assertEqual(sink.mail, [])


class OpportunisticTests(SecureCase):
    """TLS that is only a wish."""

    def serve_badly(self) -> tuple[int, list[str]]:
        """A server that offers STARTTLS and can't do it; returns its port, and what came of it."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        heard: list[str] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection, connection.makefile("rb") as lines:
                        self.converse(connection, lines, heard)

        threading.Thread(target=serve, daemon=True).start()
        return listening.getsockname()[1], heard

    def converse(self, connection: socket.socket, lines: Any, heard: list[str]) -> None:
        """One connection."""
        connection.sendall(b"220 bad.example\r\n")
        for line in lines:
            command = line.split()[0].decode("ascii", "replace").upper()
            heard.append(command)
            match command:
                case "EHLO":
                    connection.sendall(b"250-bad.example\r\n250 STARTTLS\r\n")
                case "STARTTLS":
                    connection.sendall(b"220 go\r\nthis is not TLS\r\n")
                    return
                case "DATA":
                    connection.sendall(b"354 go\r\n")
                    while next(lines) != b".\r\n":
                        pass
                    connection.sendall(b"250 taken\r\n")
                case _:
                    connection.sendall(b"250 fine\r\n")

    def test_a_handshake_that_fails(self) -> None:
        """The next attempt goes without TLS, at once."""
        port, heard = self.serve_badly()
        self.start(
            routes={"default": f"smtp://127.0.0.1:{port}"}, relay={"networks": ["127.0.0.0/8"]}
        )
        self.server.ports["smtp"] = self.ports["smtp"]
        self.server.send(CONTENT, "carol@bad.example")
        wait_until(lambda: "DATA" in heard, "the message")
        self.assertEqual(heard[:5], ["EHLO", "STARTTLS", "EHLO", "MAIL", "RCPT"])

    def test_never_where_tls_was_demanded(self) -> None:
        """With `tls: verify` there is no such attempt."""
        port, heard = self.serve_badly()
        self.start(
            routes={"default": {"to": f"smtp://127.0.0.1:{port}", "tls": "verify"}},
            relay={"networks": ["127.0.0.0/8"]},
        )
        self.server.ports["smtp"] = self.ports["smtp"]
        self.server.send(CONTENT, "carol@bad.example")
        wait_until(lambda: "451 4.7.5 TLS with 127.0.0.1 failed" in self.server.log, "the failure")
        self.assertEqual(heard, ["EHLO", "STARTTLS"])
