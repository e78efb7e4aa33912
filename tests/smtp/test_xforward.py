"""XFORWARD as a sender says it: the origin of mail, in front of MAIL."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from mta.queued import Delivery
from mta.session import LOCAL_ADDRESS, UNKNOWN_ADDRESS, Origin
from mta.smtp import grammar
from mta.smtp.grammar import LOCAL, REMOTE, ForwardedClient
from mta.smtp.pipelining import Pipelining
from tests.senders import US, Exchange, mail

ALL = grammar.XFORWARD_ATTRIBUTES
SPIKE = Origin("198.51.100.7", "spike.example", 4711, "spike", "ESMTPS", service="smtp")
TELLS = replace(US, tells_origins=True)
OFFER = "S: 220 x | 250-x | 250-PIPELINING | 250 XFORWARD NAME ADDR PROTO HELO SOURCE"
TOLD = "XFORWARD NAME=spike.example ADDR=198.51.100.7 PROTO=ESMTPS HELO=spike SOURCE=REMOTE"
ENVELOPE = "MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example>"


def from_spike(name: str = "M1", origin: Origin = SPIKE) -> Delivery:
    """A message that spike brought."""
    plain = mail(name)
    envelope = replace(plain.message.envelope, outside=True)
    return replace(plain, message=replace(plain.message, envelope=envelope, origin=origin))


class CommandTests(SynchronousTestCase):
    """An origin as commands, and what a server of ours reads in them."""

    def told(self, origin: Origin, source: str = REMOTE) -> list[str]:
        """The commands, each of which any server takes."""
        commands = grammar.xforward_commands(origin, "7Zk3VqD0", source, ALL)
        for command in commands:
            self.assertLessEqual(len(command), 512)
            self.assertTrue(command.endswith(b"\r\n"))
        return [command.decode("ascii").rstrip() for command in commands]

    def read(self, origin: Origin, source: str = REMOTE) -> ForwardedClient:
        """What a server of ours reads."""
        client = ForwardedClient()
        for command in self.told(origin, source):
            _, _, argument = command.partition(" ")
            client = grammar.parse_xforward(argument.encode(), client)
        return client

    def test_whole(self) -> None:
        """Every attribute that is known is told."""
        self.assertEqual(
            self.told(SPIKE),
            [
                "XFORWARD NAME=spike.example ADDR=198.51.100.7 PORT=4711 PROTO=ESMTPS HELO=spike"
                " IDENT=7Zk3VqD0 SOURCE=REMOTE"
            ],
        )
        expected = ForwardedClient(
            "spike.example", "198.51.100.7", 4711, "ESMTPS", "spike", "7Zk3VqD0", REMOTE
        )
        self.assertEqual(self.read(SPIKE), expected)

    def test_addresses(self) -> None:
        """Those of IPv6 have a prefix and no zone; what is none is not told."""
        for address, said, read in (
            ("2001:db8::7", "IPV6:2001:db8::7", "2001:db8::7"),
            ("fe80::1%eth0", "IPV6:fe80::1", "fe80::1"),
            (LOCAL_ADDRESS, "[UNAVAILABLE]", ""),
            (UNKNOWN_ADDRESS, "[UNAVAILABLE]", ""),
            ("", "[UNAVAILABLE]", ""),
        ):
            origin = Origin(address)
            self.assertIn(f" ADDR={said} ", self.told(origin, LOCAL)[0])
            self.assertEqual(self.read(origin, LOCAL).address, read)
            self.assertEqual(self.read(origin, LOCAL).source, LOCAL)

    def test_xtext(self) -> None:
        """What is no plain character is encoded."""
        self.assertIn("HELO=a+20b+2B+3D+0D+0A", self.told(replace(SPIKE, hello="a b+=\r\n"))[0])

    def test_several_commands(self) -> None:
        """None has more than 512 octets; a value with more than 255 is not told."""
        long = replace(SPIKE, name="n" * 255, hello="h" * 255)
        first, second = self.told(long)
        self.assertEqual(
            first, f"XFORWARD NAME={'n' * 255} ADDR=198.51.100.7 PORT=4711 PROTO=ESMTPS"
        )
        self.assertEqual(second, f"XFORWARD HELO={'h' * 255} IDENT=7Zk3VqD0 SOURCE=REMOTE")
        self.assertIn("HELO=[UNAVAILABLE]", self.told(replace(SPIKE, hello="h" * 256))[0])
        self.assertIn("HELO=[UNAVAILABLE]", self.told(replace(SPIKE, hello="+" * 86))[0])

    def test_what_is_offered(self) -> None:
        """No other attribute is told."""
        commands = grammar.xforward_commands(SPIKE, "X1", REMOTE, {"ADDR", "SHOE"})
        self.assertEqual(commands, [b"XFORWARD ADDR=198.51.100.7\r\n"])
        self.assertEqual(grammar.xforward_commands(SPIKE, "X1", REMOTE, {"SHOE"}), [])


class SenderTests(SynchronousTestCase):
    """XFORWARD among the other commands of a sender."""

    def test_pipelined(self) -> None:
        """It goes with the envelope, and costs no round trip."""
        exchange = Exchange([from_spike()], TELLS)
        exchange.talk(
            f"""{OFFER}
            C: EHLO us.example | {TOLD} | {ENVELOPE} | DATA
            P: 250 told | 250 mail | 250 rcpt | 354 go"""
        )
        self.assertEqual(exchange.hear()[-1], ".")
        exchange.talk("S: 250 taken")
        self.assertEqual(exchange.outcomes(), ["relayed 250 taken"])

    def test_one_command_at_a_time(self) -> None:
        """Without PIPELINING it is awaited, whatever the reply is."""
        exchange = Exchange([from_spike()], TELLS)
        exchange.talk(
            f"""S: 220 x | 250-x | 250 XFORWARD NAME ADDR PROTO HELO SOURCE
            C: EHLO us.example | {TOLD}
            S: 501 5.5.4 bad
            C: MAIL FROM:<alice@us.example>
            S: 250 mail
            C: RCPT TO:<bob@peer.example>
            S: 250 rcpt
            C: DATA
            S: 354 go"""
        )
        exchange.hear()
        exchange.talk("S: 250 taken")
        self.assertEqual(exchange.outcomes(), ["relayed 250 taken"])

    def test_a_refusal(self) -> None:
        """The mail goes on without it, though 503 to another command would end the pipelining."""
        for reply in ("550 5.7.0 no", "503 5.5.1 not now", "451 later"):
            exchange = Exchange([from_spike()], TELLS)
            exchange.talk(f"{OFFER}\nP: {reply} | 250 mail | 250 rcpt | 354 go")
            exchange.talk("S: 250 taken")
            self.assertEqual(exchange.outcomes(), ["relayed 250 taken"], reply)

    def test_what_is_no_reply_to_it(self) -> None:
        """After 354, no reply is sure to be the one to its command."""
        exchange = Exchange([from_spike()], TELLS)
        exchange.talk(f"{OFFER}\nP: 354 go | 250 mail | 250 rcpt | 354 go")
        self.assertEqual(exchange.hear()[-1], "QUIT")
        self.assertEqual(exchange.host.pipelining, Pipelining.STEPWISE)

    def test_behind_content(self) -> None:
        """By BDAT, each message has its own in front of it, after RSET where one is due."""
        exchange = Exchange(
            [from_spike("M1"), from_spike("M2", Origin("2001:db8::7"))],
            TELLS,
            known=Pipelining.AHEAD,
        )
        exchange.talk("S: 220 x | 250-x | 250-PIPELINING | 250-CHUNKING | 250 XFORWARD ADDR SOURCE")
        heard = [line for line in exchange.hear() if line[:4] in ("XFOR", "RSET", "MAIL")]
        self.assertEqual(
            heard,
            [
                "XFORWARD ADDR=198.51.100.7 SOURCE=REMOTE",
                "MAIL FROM:<alice@us.example>",
                "RSET",
                "XFORWARD ADDR=IPV6:2001:db8::7 SOURCE=REMOTE",
                "MAIL FROM:<alice@us.example>",
            ],
        )
        exchange.talk("P: 250 told | 250 mail | 250 rcpt | 250 taken")
        exchange.talk("P: 250 reset | 250 told | 250 mail | 250 rcpt | 250 taken too")
        self.assertEqual(exchange.outcomes("M2"), ["relayed 250 taken too"])

    def test_not_asked_for(self) -> None:
        """Without the keyword, or the wish to tell, nothing is said."""
        for config, offer in ((TELLS, "250 HELP"), (US, "250 XFORWARD ADDR")):
            exchange = Exchange([from_spike()], config)
            exchange.talk(f"S: 220 x | 250-x | 250-PIPELINING | {offer}")
            self.assertEqual(exchange.hear()[1], "MAIL FROM:<alice@us.example>")

    def test_mail_of_ours(self) -> None:
        """What a user or a program of ours wrote is local."""
        own = mail()
        message = replace(own.message, origin=Origin(LOCAL_ADDRESS, service="sendmail"))
        exchange = Exchange([replace(own, message=message)], TELLS)
        exchange.talk("S: 220 x | 250-x | 250-PIPELINING | 250 XFORWARD ADDR SOURCE")
        self.assertEqual(exchange.hear()[1], "XFORWARD ADDR=[UNAVAILABLE] SOURCE=LOCAL")
