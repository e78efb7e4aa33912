"""Mail that leaves with our signatures, as other programs see it."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import yaml
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mta.authentication.dkim import PrivateKey
from tests.authentication.dkim_cases import ED25519_KEY, RSA_KEY, DKIMCase, resolver
from tests.interop.reversal import BOB, BOBS, Provider, office, run_mta
from tests.interop.sink import Sink
from tests.interop.verifiers import Dkimpy, OpenDKIM, Rspamd
from tests.processes import Server, configuration, header_of, local_domain, wait_until

MIB = 2**20
LETTER = (
    "From: Alice <alice@example.com>\r\nTo: bob@partner.example\r\nSubject: Grüße  aus\r\n"
    " der Ferne\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    "Content-Transfer-Encoding: 8bit\r\n\r\nSchöne  Grüße \t \r\n\r\n.\r\n\r\n"
).encode()
ASCII = (
    LETTER.replace("ü".encode(), b"ue").replace("ö".encode(), b"oe").replace("ß".encode(), b"ss")
)


def write(path: Path, key: PrivateKey) -> None:
    """Write a key as the server reads it."""
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)


class SigningCase(DKIMCase):
    """Servers that sign for example.com."""

    def setUp(self) -> None:
        self.verifiers: list[Dkimpy | OpenDKIM | Rspamd] = [
            Dkimpy(resolver()),
            OpenDKIM(self, resolver()),
        ]

    def keys(self, folder: Path) -> list[dict[str, str]]:
        """The keys in a folder, which are made, for `dkim` of a domain."""
        for name, key in (("rsa", RSA_KEY), ("ed", ED25519_KEY)):
            write(folder / f"{name}.pem", key)
        return [{"selector": name, "key": f"{name}.pem"} for name in ("rsa", "ed")]

    def server(self, port: int, **domain: object) -> Server:
        """A server that sends mail for partner.example to a port."""
        server = Server(self, configuration())
        domains = {"example.com": local_domain(dkim=self.keys(server.folder), **domain)}
        server.configure(
            configuration(
                hostname="mail.example.com",
                domains=domains,
                routes={
                    "partner.example": f"smtp://127.0.0.1:{port}",
                    "full.example": "pipe:/bin/sh -c 'exit 67'",
                    "default": "reject:Not here",
                },
            )
        )
        server.start()
        return server

    def assert_signed(self, octets: bytes) -> None:
        """Both signatures pass: we say so, dkimpy and OpenDKIM."""
        octets = octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        self.assertEqual(self.words(octets, now=time.time()), ["pass", "pass"], octets[:2000])
        for verifier in self.verifiers:
            self.assertEqual(verifier.words(octets), ["pass", "pass"], octets[:2000])


class RelayTests(SigningCase):
    """A server that sends to other hosts."""

    def test_all_forms(self) -> None:
        """A peer with 8BITMIME, and one without, which gets another message."""
        self.verifiers.append(Rspamd(self, resolver()))
        for is_7bit in (False, True):
            sink = Sink(self, is_7bit=is_7bit)
            server = self.server(sink.port)
            for count, content in enumerate((LETTER, ASCII, LETTER.partition(b"\r\n\r\n")[0]), 1):
                if is_7bit:
                    content = content.replace("Grüße  aus".encode(), b"Gruesse  aus")
                server.send(content, "bob@partner.example", reverse_path="alice@example.com")
                received = sink.wait_for_mail(count)[-1]
                self.assertEqual(received.isascii(), is_7bit or content.isascii())
                self.assert_signed(received)
            server.stop()

    def test_a_notice(self) -> None:
        """It comes from this host, whose name is below our domain."""
        sink = Sink(self)
        server = self.server(sink.port)
        server.send(ASCII, "bob@full.example", reverse_path="carol@partner.example")
        (notice,) = sink.wait_for_mail()
        self.assertIn(b"multipart/report", notice)
        self.assert_signed(notice)

    def test_after_a_hold(self) -> None:
        """Mail is signed when it leaves, and not before."""
        self.verifiers.append(Rspamd(self, resolver()))
        sink = Sink(self)
        server = self.server(sink.port)
        filter = ("--domain", "partner.example")
        run_mta(server, "queue", "hold", "--new", *filter)
        server.send(ASCII, "bob@partner.example", reverse_path="alice@example.com")
        assert server.process is not None
        id = server.process.wait_for(r"(\w+) is on hold")[1]
        self.assertNotIn(b"DKIM", run_mta(server, "queue", "show", "--content", id).encode())
        run_mta(server, "queue", "release", "--new", *filter)
        self.assert_signed(sink.wait_for_mail()[0])

    def test_from_elsewhere(self) -> None:
        """What is forwarded is not ours, whatever its From: says."""
        sink = Sink(self)
        server = self.server(sink.port, forward={"list": ["bob@partner.example"]})
        server.send(ASCII, "list@example.com", reverse_path="mallory@elsewhere.example")
        (forwarded,) = sink.wait_for_mail()
        self.assertEqual(header_of(forwarded, "DKIM-Signature"), [])

    def test_large_mail(self) -> None:
        """It is not read into memory."""
        sink = Sink(self)
        server = self.server(sink.port)
        server.send(ASCII, "bob@partner.example", reverse_path="alice@example.com")
        sink.wait_for_mail()
        before = server.most_memory
        large = ASCII + (b"x " * 38 + b"\r\n") * (25 * MIB // 78)
        server.send(large, "bob@partner.example", reverse_path="alice@example.com")
        self.assert_signed(sink.wait_for_mail(2)[-1])
        self.assertLess(server.most_memory - before, 16 * MIB)

    def test_other_keys(self) -> None:
        """They sign from the next reload on."""
        sink = Sink(self)
        server = self.server(sink.port)
        entries = yaml.safe_load(server.config.read_text())
        entries["domains"]["example.com"]["dkim"][0]["state"] = "retiring"
        server.configure(entries)
        assert server.process is not None
        server.process.signal(signal.SIGHUP)
        server.process.wait_for("read again")
        server.send(ASCII, "bob@partner.example", reverse_path="alice@example.com")
        (result,) = self.verify(sink.wait_for_mail()[0], now=time.time())
        self.assertEqual((result.result.value, result.selector), ("pass", "ed"))

    def test_a_key_that_is_gone(self) -> None:
        """The mail waits, the queue and the log say why; it leaves when the key is back."""
        sink = Sink(self)
        server = self.server(sink.port)
        server.stop()
        (server.folder / "ed.pem").unlink()
        server.start()
        server.send(ASCII, "bob@partner.example", reverse_path="alice@example.com")
        assert server.process is not None
        server.process.wait_for(r"mail of example.com is not signed, and waits: .*/ed.pem: No such")
        reason = "451 4.7.5 The DKIM key ed of example.com can't be used"
        wait_until(lambda: reason in run_mta(server, "queue", "list"), "the reason is listed")
        self.assertEqual(sink.mail, [])
        write(server.folder / "ed.pem", ED25519_KEY)
        self.assert_signed(sink.wait_for_mail()[0])


class ReversalTests(SigningCase):
    """A relay and its office: the office signs, or the relay, which has other keys."""

    def provider(self, port: int = 25, **keys: object) -> Provider:
        """A relay that sends mail for partner.example to a port, and holds that of the office."""
        return Provider(
            self,
            {"domains": ["office.example", "example.com"]},
            routes={"partner.example": f"smtp://127.0.0.1:{port}"},
            domains={
                "example.com": {"deliver": "hold:office"},
                "office.example": {"deliver": "hold:office"},
            },
            **keys,
        )

    def office(self, provider: Provider) -> Server:
        """An office with the mailboxes of example.com."""
        domains = {"example.com": local_domain(), "office.example": local_domain()}
        return office(self, provider, keys={"domains": domains})

    def give_keys(self, server: Server, count: int = 2) -> None:
        """Have a server sign for example.com."""
        entries = yaml.safe_load(server.config.read_text())
        entries["domains"]["example.com"]["dkim"] = self.keys(server.folder)[:count]
        server.configure(entries)

    def write(self, customer: Server) -> None:
        """Hand in a message at the office, and take it to the relay."""
        text = ASCII.replace(b"\r\n", b"\n").decode()
        run_mta(customer, "sendmail", "-f", "alice@example.com", "bob@partner.example", stdin=text)
        self.assertEqual(run_mta(customer, "turn", "provider"), "sent 1, received 0\n")

    def test_what_an_office_fetches(self) -> None:
        """By ATRN, the mail of the relay's own users is signed."""
        self.verifiers.append(Rspamd(self, resolver()))
        provider = self.provider()
        self.give_keys(provider)
        provider.start()
        customer = self.office(provider)
        provider.send(ASCII, BOB, reverse_path="alice@example.com")
        self.assertEqual(run_mta(customer, "turn", "provider"), "sent 0, received 1\n")
        self.assert_signed(customer.wait_for_mail(BOBS)[0])

    def test_what_came_from_elsewhere(self) -> None:
        """It waits for the office unsigned, whatever its From: says."""
        provider = self.provider(relay={"networks": []})
        self.give_keys(provider)
        provider.start()
        customer = self.office(provider)
        provider.send(ASCII, BOB, reverse_path="mallory@elsewhere.example")
        run_mta(customer, "turn", "provider")
        (received,) = customer.wait_for_mail(BOBS)
        self.assertEqual(header_of(received, "DKIM-Signature"), [])

    def test_the_office_signs(self) -> None:
        """What it hands to a relay without keys goes on as it is."""
        sink = Sink(self)
        provider = self.provider(sink.port)
        provider.start()
        customer = self.office(provider)
        self.give_keys(customer)
        self.write(customer)
        self.assert_signed(sink.wait_for_mail()[0])

    def test_the_relay_signs(self) -> None:
        """It signs what has no signature of the domain, and leaves alone what has one."""
        sink = Sink(self)
        provider = self.provider(sink.port)
        self.give_keys(provider)
        provider.start()
        customer = self.office(provider)
        self.write(customer)
        self.assert_signed(sink.wait_for_mail()[0])
        self.give_keys(customer, 1)
        self.write(customer)
        received = sink.wait_for_mail(2)[1]
        self.assertEqual(self.words(received, now=time.time()), ["pass"])
