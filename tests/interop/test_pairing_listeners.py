"""Pairings by each kind of listener, with several processes behind it, and with other clocks."""

from __future__ import annotations

import signal
import smtplib
import ssl
import sys

from bench.servers import free_port
from tests.interop.pairing import LETTER, OFFICE, RELAY, PairingCase, mta
from tests.processes import Server

IMPLICIT = "service: submission, tls: implicit}"
SYSTEMD = """\
import os, socket, sys
port = int(sys.argv.pop(1))
passed = socket.create_server(("127.0.0.1", port))
os.dup2(passed.fileno(), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x"}
from twisted.scripts.twistd import run; run()
"""
OTHER_CLOCK = """\
import sys, time
difference, now = float(sys.argv.pop(1)), time.time
time.time = lambda: now() + difference
from twisted.scripts.twistd import run; run()
"""


def twistd(script: str, argument: str) -> list[str]:
    """The command of a server that a script starts."""
    return [sys.executable, "-c", script, argument, "--nodaemon", "--pidfile="]


class WorkersTests(PairingCase):
    """A relay of two processes, which share pairings, lists and passwords."""

    more = "queue: {workers: 2}"

    def setUp(self) -> None:
        super().setUp()
        assert self.relay.process is not None
        self.relay.process.wait_for("worker ready")

    def test_mail_in_both_directions(self) -> None:
        """Whichever process takes a call knows what the others know."""
        said = self.pair(self.line("office", "--domain", "example.com"))
        self.assertIn("delivered: mail goes both ways", said)
        self.office.start()
        self.relay.ports["smtp"] = self.smtp
        carol, alice = "carol@partner.example", "alice@example.com"
        for count in range(1, 4):
            self.relay.send(LETTER % carol.encode(), alice, reverse_path=carol)
            self.office.wait_for_mail("example.com/alice", 1 + count)
            self.office.send(LETTER % alice.encode(), carol, reverse_path=alice)
            self.relay.wait_for_mail("partner.example/carol", count)

    def test_five_wrong_tries(self) -> None:
        """All processes count them together; the sixth has the right secret, and is refused."""
        token = self.line("office", "--domain", "example.com")
        (pairing,) = pairings(self.relay)
        context = ssl._create_unverified_context()
        codes = []
        for number in range(5):
            client = smtplib.SMTP_SSL("127.0.0.1", self.port, context=context)
            client.ehlo("office.example")
            codes.append(client.docmd("XPAIR", f"{pairing} {number:032x} {1:032x}")[0])
            client.close()
        self.assertEqual(codes, [535] * 5)
        self.assertIn("as wrong secrets came", self.failure(self.office, token))

    def test_a_new_secret(self) -> None:
        """Every process takes the new one, and none the old one."""
        self.pair(self.line("office", "--domain", "example.com"), "--no-test")
        secret = self.office.folder / "peer-relay.secret"
        old = secret.read_text()
        self.assertEqual(mta(self.office, "pair", "--renew", "relay").returncode, 0)
        context = ssl._create_unverified_context()
        for password, expected in ((secret.read_text(), 235), (old, 535)):
            codes = set()
            for _ in range(4):
                client = smtplib.SMTP_SSL("127.0.0.1", self.port, context=context)
                try:
                    codes.add(client.login("office", password.strip())[0])
                except smtplib.SMTPAuthenticationError as error:
                    codes.add(error.smtp_code)
                client.close()
            self.assertEqual(codes, {expected})

    def test_a_reload_is_told_once(self) -> None:
        """What all processes read alike, one of them says."""
        process = self.relay.process
        assert process is not None
        for _ in range(3):
            said = len(process.output)
            process.signal(signal.SIGHUP)
            process.wait_for("read again", after=said)
        self.relay.stop()
        self.assertEqual(process.output.count("read again"), 3, process.output)


def pairings(relay: Server) -> list[str]:
    """The ids of a relay's pairings."""
    import json

    document = json.loads((relay.folder / "spool" / "pairings.json").read_text())
    return [each["id"] for each in document]


class ListenerTests(PairingCase):
    """The kinds of listeners."""

    def use(self, text: str, command: list[str] | None = None) -> None:
        """Let the relay have another configuration."""
        self.relay.kill()
        filled = text.format(smtp=self.smtp, port=self.port, more="")
        self.relay = Server(self, filled, command=command or ())
        self.relay.start()

    def test_starttls(self) -> None:
        """A port of the clear, as 587 is: TLS comes first, and the pin holds there too."""
        for tls in ("required", "opportunistic"):
            self.use(RELAY.replace(IMPLICIT, f"service: submission, tls: {tls}}}"))
            self.office.configure(OFFICE)
            said = self.pair(self.line("office", "--domain", "example.com"))
            self.assertIn("its certificate is the token's", said)
            self.assertIn("delivered: mail goes both ways", said)
            self.assertIn(f"smtp://localhost:{self.port}", self.office.config.read_text())

    def test_starttls_with_another_certificate(self) -> None:
        """Nothing is said after STARTTLS to a server with another one."""
        self.use(RELAY.replace(IMPLICIT, "service: submission, tls: required}"))
        token = self.line("office", "--domain", "example.com")
        self.relay.stop()
        (self.relay.folder / "spool" / "self-signed.pem").unlink()
        self.relay.start()
        said = self.failure(self.office, token)
        self.assertIn("differs from the one in the token, and nothing was said", said)
        self.assertNotIn("pairing", self.relay.process.output)

    def test_which_port(self) -> None:
        """TLS at once before STARTTLS; --port takes the listener there, with its kind of TLS."""
        other = free_port()
        second = f"  - {{{{endpoint: 'tcp:{other}', service: submission, tls: required}}}}\n"
        text = RELAY.replace("interface=127.0.0.1", "interface=0.0.0.0")
        self.use(text.replace("{more}", second))
        by_default = self.line("office", "--domain", "example.com")
        by_port = self.line("office", "--domain", "example.com", "--port", str(other))
        self.assertEqual(place(by_default), (self.port, True))
        self.assertEqual(place(by_port), (other, False))

    def test_local_listeners(self) -> None:
        """One that programs of the host alone can reach is the last choice."""
        other = free_port()
        second = f"  - {{{{endpoint: 'tcp:{other}', service: odmr, tls: required}}}}\n"
        self.use(RELAY.replace("{more}", second))
        token = self.line("office", "--domain", "example.com")
        self.assertEqual(place(token), (other, False))

    def test_sockets_of_systemd(self) -> None:
        """The port is the usual one, or said."""
        endpoint = '"systemd:domain=INET:index=0"'
        text = RELAY.replace('"tcp:{port}:interface=127.0.0.1"', endpoint)
        self.use(text, twistd(SYSTEMD, str(self.port)))
        self.assertEqual(place(self.line("office", "--domain", "example.com")), (465, True))
        token = self.line("office", "--domain", "example.com", "--port", str(self.port))
        self.assertIn("delivered: mail goes both ways", self.pair(token))


class ClockTests(PairingCase):
    """A relay whose clock shows another time."""

    def pair_later(self, seconds: float) -> str:
        """Pair with a relay whose clock is that much ahead; returns what is said."""
        self.relay.stop()
        self.relay.command[:-3] = twistd(OTHER_CLOCK, str(seconds))
        self.relay.start()
        result = mta(self.office, "pair", self.token, "--no-test")
        return result.stdout + result.stderr

    def setUp(self) -> None:
        super().setUp()
        self.token = self.line("office", "--domain", "example.com")

    def test_a_difference(self) -> None:
        """It is named, with its direction, and the pairing goes on."""
        said = self.pair_later(300)
        self.assertRegex(said, "the clock here is (29[0-9]|300) seconds behind the relay's")
        self.assertIn("paired as office", said)

    def test_expired(self) -> None:
        """After a quarter of an hour the line is over."""
        said = self.pair_later(16 * 60)
        self.assertIn("the token has expired: print another one on the relay", said)
        self.assertNotIn("hold:relay", self.office.config.read_text())


def place(token: str) -> tuple[int, bool]:
    """The port in a token, and whether it begins with TLS."""
    from mta.pairing.token import decoded

    found = decoded(token)
    return found.port, found.tls_at_once
