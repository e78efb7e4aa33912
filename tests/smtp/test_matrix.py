"""Every verb in every phase of a session: the code of the first reply."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from twisted.trial.unittest import SynchronousTestCase

from mta.settings import Service
from mta.smtp.receiver import VERBS
from tests.conversations import Conversation

# The phases: greeted, after EHLO, after MAIL, after RCPT, after the first chunk of BDAT.
# Nobody is logged in; TLS, AUTH, TURN, ATRN and ETRN are offered.
SMTP = """
              greeted  hello  mail  rcpt  chunk
EHLO a.example    250    250   250   250    250
HELO a.example    250    250   250   250    250
LHLO a.example    500    500   500   500    500
MAIL FROM:<>      503    250   503   503    503
RCPT TO:<b@c>     503    503   250   250    503
DATA              503    503   554   354    503
BDAT 0            503    503   554   250    250
BDAT 0 LAST       503    503   554   250    250
BDAT              501    501   501   501    501
RSET              250    250   250   250    250
NOOP              250    250   250   250    250
HELP              214    214   214   214    214
VRFY b            252    252   252   252    252
QUIT              221    221   221   221    221
STARTTLS          220    220   503   503    503
AUTH PLAIN        503    538   503   503    503
TURN              503    530   503   503    503
ATRN              503    530   503   503    503
ETRN a.example    503    459   503   503    503
XLINK QUICK       503    530   503   503    503
XCLIENT ADDR=::1  502    502   503   503    503
XFORWARD ADDR=::1 503    550   503   503    503
EXPN b            502    502   502   502    502
XCLIENT ADDR=::1  502    502   503   503    503
SEND FROM:<>      502    502   502   502    502
SOML FROM:<>      502    502   502   502    502
SAML FROM:<>      502    502   502   502    502
XYZZY             500    500   500   500    500
"""
SUBMISSION = f"""{SMTP}\
XPAIR             503    502   503   503    503
XRENEW x          503    502   503   503    503
XMAILBOXES        503    502   503   503    503
XDOCTOR           503    502   503   503    503
"""

LMTP = """
              greeted  hello  mail  rcpt  chunk
LHLO a.example    250    250   250   250    250
EHLO a.example    502    502   502   502    502
HELO a.example    502    502   502   502    502
MAIL FROM:<>      503    250   503   503    503
RCPT TO:<b@c>     503    503   250   250    503
DATA              503    503   503   354    503
BDAT 0            503    503   554   250    250
BDAT 0 LAST       503    503   554   250    250
RSET              250    250   250   250    250
NOOP              250    250   250   250    250
HELP              214    214   214   214    214
VRFY b            252    252   252   252    252
EXPN b            502    502   502   502    502
XCLIENT ADDR=::1  502    502   503   503    503
QUIT              221    221   221   221    221
STARTTLS          220    220   503   503    503
AUTH PLAIN        503    538   503   503    503
XFORWARD ADDR=::1 503    550   503   503    503
XCLIENT ADDR=::1  502    502   503   503    503
EXPN b            502    502   502   502    502
TURN              502    502   502   502    502
ATRN              502    502   502   502    502
ETRN a.example    502    502   502   502    502
XYZZY             500    500   500   500    500
"""

ODMR = """
              greeted  hello
EHLO a.example    250    250
HELO a.example    502    502
MAIL FROM:<>      502    502
RCPT TO:<b@c>     502    502
DATA              502    502
BDAT 0 LAST       502    502
XPAIR             503    502
XRENEW x          503    502
XMAILBOXES        503    502
XDOCTOR           503    502
RSET              250    250
NOOP              250    250
HELP              214    214
VRFY b            502    502
QUIT              221    221
STARTTLS          220    220
AUTH PLAIN        503    538
TURN              502    502
ATRN              503    530
ETRN a.example    502    502
XLINK QUICK       503    530
XYZZY             500    500
"""

PHASES = ("greeted", "hello", "mail", "rcpt", "chunk")
BEFORE = ("{hello} client.example\r\n", "MAIL FROM:<a@b>\r\n", "RCPT TO:<c@d>\r\n", "BDAT 2\r\nhi")


def rows(table: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    """The commands of a table, each with the code in each phase."""
    head, *lines = table.strip().splitlines()
    phases = head.split()
    for line in lines:
        command, *codes = line.rsplit(None, len(phases))
        yield command, dict(zip(phases, codes, strict=True))


class MatrixTests(SynchronousTestCase):
    """The tables above."""

    def reply(self, service: Service, command: str, phase: str) -> str:
        """The code of the first reply to a command in that phase."""
        settings = {
            "service": service.value,
            "tls": "opportunistic",
            "users": "yes",
            "reversal": "yes",
        }
        conversation = Conversation(settings, dripped=False)
        conversation.transport.clear()
        for before in BEFORE[: PHASES.index(phase)]:
            hello = "LHLO" if service is Service.LMTP else "EHLO"
            conversation.send(before.format(hello=hello).encode())
            self.assertTrue(conversation.transport.taken().startswith(b"250"), before)
        conversation.send(command.encode() + b"\r\n")
        return conversation.transport.taken()[:3].decode()

    def assert_table(self, service: Service, table: str) -> None:
        """What is replied is what the table says, and every verb of the listener is in it."""
        for command, codes in rows(table):
            replied = {phase: self.reply(service, command, phase) for phase in codes}
            self.assertEqual(replied, codes, command)
        told = {command.split()[0] for command, _ in rows(table)}
        self.assertEqual(set(VERBS[service]) - told, set())

    def test_smtp(self) -> None:
        """An ordinary listener."""
        self.assert_table(Service.SMTP, SMTP)

    def test_submission(self) -> None:
        """The same verbs, whose users are the access policy's business, and one more."""
        self.assert_table(Service.SUBMISSION, SUBMISSION)

    def test_lmtp(self) -> None:
        """RFC 2033."""
        self.assert_table(Service.LMTP, LMTP)

    def test_odmr(self) -> None:
        """RFC 2645: there are no transactions before the roles have changed."""
        self.assert_table(Service.ODMR, ODMR)
