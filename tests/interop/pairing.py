"""Two servers that are to be paired by one line."""

from __future__ import annotations

import subprocess

from twisted.trial.unittest import SynchronousTestCase

from bench.servers import free_port
from tests.processes import DEADLINE, MTA, Server, source_environment

RELAY = """\
hostname: localhost   # the name in the certificate
spool: spool
listen:
  - {{endpoint: "tcp:{smtp}:interface=127.0.0.1", service: smtp, tls: off}}
  - {{endpoint: "tcp:{port}:interface=127.0.0.1", service: submission, tls: implicit}}
{more}
# Mail of the world.
domains:
  partner.example:   # somebody else
    deliver: maildir:mail/{{domain}}/{{local}}
    mailboxes: [carol]
"""
OFFICE = """\
hostname: office.example.com
spool: spool
listen:
  - {endpoint: "tcp:0:interface=127.0.0.1", service: smtp, tls: off}
domains:
  example.com:
    deliver: maildir:mail/{domain}/{local}   # in the house
    mailboxes: [alice]
    aliases: {postmaster: alice}
routes:
  default: mx   # until there is a relay
"""
SECRET = "peer-relay.secret"
NOT_WHOLE = "mta: the token is not whole: copy it from its first letter to its last\n"
LETTER = b"From: <%s>\r\nSubject: x\r\n\r\nhello\r\n"


def mta(server: Server, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command in a server's folder."""
    return subprocess.run(
        [*MTA, *words, "--config", str(server.config)],
        capture_output=True,
        text=True,
        input=stdin,
        env=source_environment(),
        cwd=server.folder,
        timeout=DEADLINE * 2,
    )


class PairingCase(SynchronousTestCase):
    """A relay with a certificate of its own making, and an office."""

    more = ""  # of the relay's configuration

    def setUp(self) -> None:
        self.smtp, self.port = free_port(), free_port()
        self.relay = Server(self, RELAY.format(smtp=self.smtp, port=self.port, more=self.more))
        self.relay.start()
        self.office = Server(self, OFFICE)

    def line(self, *words: str) -> str:
        """The token in the line that the relay prints."""
        said = len(self.relay.process.output)
        result = mta(self.relay, "pair", *words)
        self.assertEqual(result.returncode, 0, result.stderr)
        (line,) = result.stdout.splitlines()
        self.assertRegex(line, "^mta pair mta1:[A-Za-z0-9_-]+$")
        self.relay.process.wait_for("read again", after=said)
        return line.split()[2]

    def pair(self, token: str, *words: str) -> str:
        """Pair the office; returns what it said."""
        result = mta(self.office, "pair", token, *words)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        return result.stdout

    def failure(self, server: Server, *words: str) -> str:
        """What a command says that fails."""
        result = mta(server, "pair", *words)
        self.assertEqual(result.returncode, 1, result.stdout + result.stderr)
        return result.stderr
