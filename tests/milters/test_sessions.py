"""What a filter hears of sessions, and what its answers do."""

from __future__ import annotations

import struct

from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from mta.interfaces import IInspector, IMessageInspector, ISessionInspector
from mta.mail import MailArgument, Mailbox
from mta.milters.replies import CLOSING, REJECTED, TRY_LATER
from mta.session import LOCAL_ADDRESS, UNKNOWN_ADDRESS, UNKNOWN_ORIGIN, Session
from mta.settings import ListenerTLS, Milter, MilterTimeouts, OnFailure, Service
from mta.smtp.replies import NO_SUCH_USER
from mta.testing import FakeClientNames, FakeReverseNames, FakeUsers
from tests.milters.filters import MESSAGE, SOCKET, FilterCase, ScriptedFilter

BEFORE_OTHERS = (b"L", b"B")  # commands that go out with what follows them


def port(number: int) -> bytes:
    """A port, as it is told."""
    return struct.pack("!H", number)


class SessionTests(FilterCase):
    """From the connection to its end."""

    def test_interfaces(self) -> None:
        """All implementations of the seams."""
        inspector = self.inspector(Milter(SOCKET, "test"))
        session = inspector.session(Session(Service.SMTP, "192.0.2.1", None))
        self.successResultOf(Deferred.fromCoroutine(session.connected()))
        argument = MailArgument(Mailbox("a", "x.example"))
        message = self.successResultOf(
            Deferred.fromCoroutine(session.message("1", argument, UNKNOWN_ORIGIN))
        )
        self.assertTrue(verifyObject(IInspector, inspector))
        self.assertTrue(verifyObject(ISessionInspector, session))
        self.assertTrue(verifyObject(IMessageInspector, message))

    def test_the_offer(self) -> None:
        """Version 6, all actions, and all of the protocol."""
        self.begin()
        self.assertEqual(self.filter.offered, (6, 0x1FF, 0x1FFFFF))

    def test_all_of_a_session(self) -> None:
        """Each thing once and in order, over one connection; good-bye at the end."""
        self.assertEqual(self.run_session(), ["250", "250", "354", "250"])
        self.assertEqual(self.send(), ["250", "250", "354", "250"])
        self.quit()
        self.assertEqual(self.filter.commands, b"CHMRTLLNBEAMRTLLNBEAQ")
        self.assertEqual(
            self.filter.seen[:10],
            [
                (b"C", b"host.client.example\0004" + port(54321) + b"192.168.1.1\0"),
                (b"H", b"client.example\0"),
                (b"M", b"<a@x.example>\0"),
                (b"R", b"<b@mta.example>\0"),
                (b"T", b""),
                (b"L", b"Subject\0test\0"),
                (b"L", b"X-Old\0001\0"),
                (b"N", b""),
                (b"B", b"body\r\n"),
                (b"E", b""),
            ],
        )
        self.assertEqual(len(self.filter.connections), 1)
        self.assertFalse(self.filter.connections[0].is_open)
        self.assertEqual(self.results, [("test", "accepted")] * 2)

    def test_one_connection_for_each_session(self) -> None:
        """libmilter closes when the client is gone; so do we."""
        for count in (1, 2):
            self.run_session()
            self.quit()
            self.assertEqual(len(self.filter.connections), count)
            self.assertFalse(any(each.is_open for each in self.filter.connections))

    def test_clients(self) -> None:
        """The name or the address in brackets, the family, and where they are."""
        for client, session_port, name, expected in (
            ("192.0.2.7", 7, "", b"[192.0.2.7]\0004" + port(7) + b"192.0.2.7\0"),
            ("192.0.2.7", 7, "h.example", b"h.example\0004" + port(7) + b"192.0.2.7\0"),
            ("2001:db8::7", 7, "", b"[2001:db8::7]\0006" + port(7) + b"2001:db8::7\0"),
            (LOCAL_ADDRESS, 0, "", b"localhost\0L" + port(0) + b"localhost\0"),
            (UNKNOWN_ADDRESS, 0, "", b"unknown\0U"),
        ):
            session = Session(Service.SMTP, client, None, port=session_port, name=name)
            inspector = self.inspector(Milter(SOCKET, "test")).session(session)
            self.successResultOf(Deferred.fromCoroutine(inspector.connected()))
            self.assertEqual(self.filter.told(b"C")[-1], expected)

    def test_told_clients(self) -> None:
        """Each message that a proxy tells the client of has a connection of its own."""
        self.begin(names=FakeClientNames(teller="192.168.1.1"))
        self.say(b"EHLO proxy.example")
        for address in (b"198.51.100.7", b"198.51.100.8"):
            self.say(b"XFORWARD ADDR=%b NAME=spike.example PORT=7 HELO=spike" % address)
            self.assertEqual(self.send(), ["250", "250", "354", "250"])
        self.assertEqual(self.send(), ["250", "250", "354", "250"])
        self.quit()
        self.assertEqual(len(self.filter.connections), 3)
        self.assertFalse(any(each.is_open for each in self.filter.connections))
        self.assertEqual(
            self.filter.told(b"C")[1:],
            [b"spike.example\0004" + port(7) + b"198.51.100.%d\0" % last for last in (7, 8)],
        )
        self.assertEqual(self.filter.told(b"H")[1:], [b"spike\0"] * 2)

    def test_told_clients_that_would_be_near(self) -> None:
        """Filters spare our networks: a client that was told is in none of them."""
        self.names = FakeReverseNames({})
        for address in (
            *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.0.1", "0.0.0.0"),
            *("::1", "::", "fd00::1", "fe80::1", "::ffff:127.0.0.1"),
        ):
            self.begin(names=FakeClientNames(teller="192.168.1.1"))
            self.say(b"EHLO proxy.example")
            self.say(b"XFORWARD ADDR=%b NAME=localhost HELO=localhost" % address.encode())
            self.assertEqual(self.send(), ["250", "250", "354", "250"])
            self.assertEqual(self.filter.told(b"C")[-1], b"unknown\0U", address)
            told = self.filter.macros[b"C"]
            self.assertEqual(
                (told["{client_addr}"], told["{client_name}"], told["{client_ptr}"], told["_"]),
                ("unknown", "unknown", "unknown", "unknown [unknown]"),
            )
            self.quit()

    def test_parameters(self) -> None:
        """MAIL and RCPT are told with all that the client gave."""
        self.begin()
        self.say(
            b"EHLO client.example",
            b"MAIL FROM:<a@x.example> SIZE=7 BODY=8BITMIME RET=HDRS ENVID=a+2Bb SMTPUTF8",
            b"RCPT TO:<b@mta.example> NOTIFY=FAILURE,DELAY ORCPT=rfc822;x+2By@z.example",
            b"RCPT TO:<c@mta.example> NOTIFY=NEVER",
        )
        self.assertEqual(
            self.filter.told(b"M"),
            [b"<a@x.example>\0SIZE=7\0BODY=8BITMIME\0RET=HDRS\0ENVID=a+2Bb\0SMTPUTF8\0"],
        )
        self.assertEqual(
            self.filter.told(b"R"),
            [
                b"<b@mta.example>\0NOTIFY=DELAY,FAILURE\0ORCPT=rfc822;x+2By@z.example\0",
                b"<c@mta.example>\0NOTIFY=NEVER\0",
            ],
        )

    def test_the_null_reverse_path(self) -> None:
        """It is told in its brackets."""
        self.begin()
        self.hello()
        self.say(b"MAIL FROM:<>")
        self.assertEqual(self.filter.told(b"M"), [b"<>\0"])

    def test_what_the_access_policy_refuses(self) -> None:
        """The filter does not hear of it."""
        self.begin()
        self.hello()
        self.say(b"MAIL FROM:<spammer@x.example>", b"MAIL FROM:<a@x.example>")
        self.say(b"RCPT TO:<nobody@mta.example>")
        self.assertEqual(self.filter.commands, b"CHM")

    def test_a_filter_that_wants_to_hear_of_it(self) -> None:
        """It is told by the macros of a recipient; what it says of that one does not count."""
        for answer in (b"c", b"r", b"t", b"y250 2.1.5 Welcome\0"):
            self.setUp()
            self.filter.negotiated = (6, 0x1FF, 0x800, b"")
            self.filter.answers[b"R"] = [answer, b"c"]
            self.begin()
            self.hello()
            self.say(b"MAIL FROM:<a@x.example>")
            (reply,) = self.say(b"RCPT TO:<nobody@mta.example> NOTIFY=NEVER")
            self.assertEqual(reply, str(NO_SUCH_USER), answer)
            self.assertEqual(self.filter.told(b"R"), [b"<nobody@mta.example>\0NOTIFY=NEVER\0"])
            self.assertEqual(self.filter.macros[b"R"]["{rcpt_mailer}"], "error")
            self.assertEqual(self.filter.macros[b"R"]["{rcpt_host}"], "5.1.1")
            self.assertEqual(self.filter.macros[b"R"]["{rcpt_addr}"], NO_SUCH_USER.text)
            if answer in b"crt":
                self.assertEqual(self.say(b"RCPT TO:<b@mta.example>")[0][:3], "250")
                self.assertEqual(self.filter.macros[b"R"]["{rcpt_mailer}"], "local")
                self.assertEqual(self.results, [])

    def test_a_recipient_that_another_filter_refuses(self) -> None:
        """Those behind it hear of that, where they want to."""
        second = self.reactor.filters[11333] = ScriptedFilter(negotiated=(6, 0x1FF, 0x800, b""))
        third = self.reactor.filters[11334] = ScriptedFilter()
        self.filter.answers[b"R"] = [b"y451 4.7.1 Come again\0"]
        self.begin(*(Milter(f"inet:127.0.0.1:{port}", str(port)) for port in (11332, 11333, 11334)))
        self.hello()
        self.assertEqual(
            self.say(b"MAIL FROM:<a@x.example>", b"RCPT TO:<b@mta.example>")[1],
            "451 4.7.1 Come again",
        )
        self.assertEqual(second.macros[b"R"]["{rcpt_addr}"], "Come again")
        self.assertEqual(third.commands, b"CHM")

    def test_a_filter_that_fails_at_such_a_recipient(self) -> None:
        """The reply stays; the next recipient is refused for want of the filter."""
        self.filter.negotiated = (6, 0x1FF, 0x800, b"")
        self.filter.answers[b"R"] = [b""]
        self.begin()
        self.hello()
        self.say(b"MAIL FROM:<a@x.example>")
        replies = self.say(b"RCPT TO:<nobody@mta.example>", b"RCPT TO:<b@mta.example>")
        self.assertEqual(replies, [str(NO_SUCH_USER), str(TRY_LATER)])
        self.assertEqual(self.say(b"RCPT TO:<nobody@mta.example>"), [str(NO_SUCH_USER)])

    def test_abort(self) -> None:
        """After each transaction that came to no end."""
        for end in (b"RSET", b"EHLO again.example"):
            self.setUp()
            self.begin()
            self.hello()
            self.say(b"MAIL FROM:<a@x.example>", b"RCPT TO:<b@mta.example>", end)
            self.assertTrue(self.filter.commands.startswith(b"CHMRA"), end)
        self.quit()
        self.assertEqual(self.filter.commands, b"CHMRAHQ")

    def test_unknown_commands(self) -> None:
        """They are told as they came; the filter may have another reply."""
        self.begin()
        self.assertEqual(self.say(b"FROB nicate")[0][:3], "500")
        self.assertEqual(self.filter.told(b"U"), [b"FROB nicate\0"])
        self.filter.answers[b"U"] = [b"t"]
        self.assertEqual(self.say(b"FROB"), [str(TRY_LATER)])

    def test_a_place(self) -> None:
        """A port or a socket, with the time to get there."""
        other = self.reactor.filters["/run/filter"] = ScriptedFilter()
        timeouts = MilterTimeouts(connect=7)
        self.begin(
            Milter("inet:[::1]:11332", "a", timeouts=timeouts),
            Milter("unix:/run/filter", "b", timeouts=timeouts),
        )
        self.assertEqual(self.reactor.connects, [(11332, 7), ("/run/filter", 7)])
        self.assertEqual(self.filter.commands + other.commands, b"CC")


class MacroTests(FilterCase):
    """What filters know besides."""

    def test_usual(self) -> None:
        """All that filters really need, at the stages at which sendmail tells it."""
        self.begin(tls=ListenerTLS.OPPORTUNISTIC, users=FakeUsers())
        self.say(b"EHLO client.example", b"STARTTLS")
        self.link.handshakeCompleted()
        self.say(b"EHLO client.example", b"AUTH PLAIN AGFsaWNlAHdvbmRlcmxhbmQ=")
        self.send(MESSAGE, b"b@mta.example", b"c@far.example")
        macros = self.filter.macros
        client = "host.client.example"
        (message,) = self.accepted
        version = macros[b"C"].pop("v")
        self.assertTrue(version.startswith("mta "))
        self.assertEqual(
            macros[b"C"],
            {
                "j": "mta.example",
                "{daemon_name}": "smtp",
                "_": f"{client} [192.168.1.1]",
                "{client_addr}": "192.168.1.1",
                "{client_name}": client,
                "{client_port}": "54321",
                "{client_ptr}": client,
            },
        )
        self.assertEqual(
            macros[b"H"],
            {
                "{tls_version}": "TLSv1.3",
                "{cipher}": "TLS_AES_256_GCM_SHA384",
                "{cipher_bits}": "256",
            },
        )
        self.assertEqual(
            macros[b"M"],
            {
                "i": message.id,
                "{auth_type}": "PLAIN",
                "{auth_authen}": "alice",
                "{mail_addr}": "a@x.example",
                "{mail_host}": "x.example",
                "{mail_mailer}": "smtp",
            },
        )
        self.assertEqual(
            macros[b"R"],
            {
                "i": message.id,
                "{rcpt_addr}": "c@far.example",
                "{rcpt_host}": "far.example",
                "{rcpt_mailer}": "smtp",
            },
        )
        for command in (b"T", b"N", b"E"):
            self.assertEqual(macros[command], {"i": message.id})
        self.assertNotIn(b"L", macros)
        self.assertNotIn(b"B", macros)

    def test_mailers(self) -> None:
        """By the way that a recipient's mail goes."""
        self.begin()
        self.hello()
        self.say(b"MAIL FROM:<a@x.example>")
        for address, mailer in (
            (b"b@mta.example", "local"),
            (b"b@far.example", "smtp"),
            (b"b@nowhere.example", "error"),
        ):
            self.say(b"RCPT TO:<%b>" % address)
            self.assertEqual(self.filter.macros[b"R"]["{rcpt_mailer}"], mailer)

    def test_no_name(self) -> None:
        """A client whose address has no name is unknown."""
        self.names = type(self.names)({})
        self.begin()
        macros = self.filter.macros[b"C"]
        self.assertEqual(macros["{client_name}"], "unknown")
        self.assertEqual(macros["{client_ptr}"], "unknown")
        self.assertEqual(macros["_"], "unknown [192.168.1.1]")
        self.assertEqual(self.filter.told(b"C")[0][:14], b"[192.168.1.1]\0")

    def test_who_submitted(self) -> None:
        """A trusted host may say it by AUTH=."""
        self.begin()
        self.say(b"EHLO client.example", b"MAIL FROM:<a@x.example> AUTH=b+40x.example")
        self.assertEqual(self.filter.macros[b"M"]["{auth_author}"], "b@x.example")

    def test_asked_for(self) -> None:
        """A filter's own lists take the place of the usual ones, stage by stage."""
        lists = struct.pack("!I", 2) + b"{client_addr}, j {no_such}\0"
        lists += struct.pack("!I", 5) + b"\0" + struct.pack("!I", 99) + b"i\0"
        self.filter.negotiated = (6, 0x1FF, 0, lists)
        self.run_session()
        self.assertEqual(
            self.filter.macros[b"M"], {"{client_addr}": "192.168.1.1", "j": "mta.example"}
        )
        self.assertNotIn(b"E", self.filter.macros)
        self.assertIn("i", self.filter.macros[b"R"])

    def test_each_message_has_its_id(self) -> None:
        """rspamd reads it again each time."""
        self.run_session()
        first = self.filter.macros[b"E"]["i"]
        self.send()
        self.assertEqual(next(message.id for message in self.accepted), first)
        self.assertEqual(
            [message.id for message in self.accepted][1], self.filter.macros[b"E"]["i"]
        )


class NegotiationTests(FilterCase):
    """What filters make of the offer."""

    def test_unwanted(self) -> None:
        """What a filter does not want to hear it does not hear."""
        for bit, commands in (
            (0x01, b"HMRTLLNBEA"),
            (0x02, b"CMRTLLNBEA"),
            (0x04, b"CHRTLLNBEA"),
            (0x08, b"CHMTLLNBEA"),
            (0x10, b"CHMRTLLNEA"),
            (0x20, b"CHMRTNBEA"),
            (0x40, b"CHMRTLLBEA"),
            (0x200, b"CHMRLLNBEA"),
            (0x37F, b"EA"),
        ):
            self.setUp()
            self.filter.negotiated = (6, 0, bit, b"")
            self.assertEqual(self.run_session()[-1], "250")
            self.assertEqual(self.filter.commands, commands, hex(bit))

    def test_unwanted_unknown_commands(self) -> None:
        """They are a thing of their own."""
        self.filter.negotiated = (6, 0, 0x100, b"")
        self.begin()
        self.assertEqual(self.say(b"FROB")[0][:3], "500")
        self.assertEqual(self.filter.commands, b"C")

    def test_mute(self) -> None:
        """A filter that answers nothing but the end, as rspamd, is not waited for."""
        self.filter.negotiated = (6, 0x1FF, 0xFF080, b"")
        self.assertEqual(self.run_session(), ["250", "250", "354", "250"])
        self.assertEqual(self.filter.commands, b"CHMRTLLNBEA")

    def test_more_than_was_offered(self) -> None:
        """Wishes that we do not know are left alone; rspamd says its own whatever was offered."""
        self.filter.negotiated = (6, 0x1FF, 0xF0000800, b"")
        self.assertEqual(self.run_session()[-1], "250")

    def test_lower_versions(self) -> None:
        """DATA came with version 4, unknown commands with 3."""
        for version, commands in ((2, b"CHMRLLNBEA"), (3, b"CUHMRLLNBEA"), (4, b"CUHMRTLLNBEA")):
            self.setUp()
            self.filter.negotiated = (version, 0x3F, 0, b"")
            self.begin()
            self.say(b"FROB")
            self.hello()
            self.send()
            self.assertEqual(self.filter.commands, commands)

    def test_failures(self) -> None:
        """What is no answer to the offer, or takes what was not offered."""
        numbers = struct.pack("!III", 6, 0, 0)
        for answer in (
            b"c",
            b"O",
            b"O" + numbers[:11],
            b"O" + struct.pack("!III", 7, 0, 0),
            b"O" + struct.pack("!III", 1, 0, 0),
            b"O" + struct.pack("!III", 6, 0x200, 0),
            b"O" + numbers + b"\0\0",
            b"O" + numbers + struct.pack("!I", 2) + b"i",
            b"",
        ):
            self.setUp()
            self.filter.answers[b"O"] = [answer]
            self.begin()
            self.hello()
            self.assertEqual(self.say(b"MAIL FROM:<>"), [str(TRY_LATER)], answer)
            self.assertFalse(self.filter.connections[0].is_open)
            self.assertEqual(self.filter.commands, b"")


class RefusalTests(FilterCase):
    """Refusals, each at its step."""

    def refused(self, command: bytes, answer: bytes) -> list[str]:
        """The codes of a session in which one command gets this answer."""
        self.setUp()
        self.filter.answers[command] = [answer]
        self.begin()
        self.hello()
        replies = self.say(
            b"MAIL FROM:<a@x.example>",
            b"RCPT TO:<b@mta.example>",
            b"DATA",
            MESSAGE + b".",
        )
        return [reply[:3] for reply in replies]

    def test_at_the_beginning(self) -> None:
        """Of the session: each MAIL hears it, and nothing more is told."""
        for command in (b"C", b"H"):
            for answer, reply in ((b"r", REJECTED), (b"t", TRY_LATER)):
                self.setUp()
                self.filter.answers[command] = [answer]
                self.begin()
                self.assertEqual(self.say(b"EHLO client.example")[-1][:3], "250")
                for _ in range(2):
                    self.assertEqual(self.say(b"MAIL FROM:<a@x.example>"), [str(reply)])
                self.assertEqual(self.filter.commands, b"C" if command == b"C" else b"CH")
                self.assertEqual(len(self.spool.messages), 0)

    def test_of_the_message(self) -> None:
        """By the reply to the command, or to the content; the filter forgets it.

        At DATA there is no content: what the client says then is taken for commands.
        """
        for command, codes in (
            (b"M", ["550", "503", "503", "421"]),
            (b"T", ["250", "250", "550", "421"]),
            (b"L", ["250", "250", "354", "550"]),
            (b"N", ["250", "250", "354", "550"]),
            (b"B", ["250", "250", "354", "550"]),
            (b"E", ["250", "250", "354", "550"]),
        ):
            self.assertEqual(self.refused(command, b"r"), codes, command)
            self.assertEqual(command + b"A" in self.filter.commands, command not in BEFORE_OTHERS)
            self.assertEqual(self.accepted, [])
            self.assertTrue(all(draft.discarded for draft in self.spool.drafts))
            self.assertEqual(self.results[0], ("test", "refused"))

    def test_for_now(self) -> None:
        """The same with 451, and the next message is told anew."""
        self.assertEqual(self.refused(b"E", b"t"), ["250", "250", "354", "451"])
        self.assertEqual(self.results, [("test", "deferred")])
        self.filter.answers.clear()
        self.assertEqual(self.send()[-1], "250")
        self.assertEqual(self.filter.commands, b"CHMRTLLNBEAMRTLLNBEA")

    def test_of_a_recipient(self) -> None:
        """Of this one alone."""
        self.filter.answers[b"R"] = [b"r", b"c", b"t"]
        self.begin()
        self.hello()
        codes = self.send(MESSAGE, b"b@mta.example", b"c@mta.example", b"d@mta.example")
        self.assertEqual(codes, ["250", "550", "250", "451", "354", "250"])
        (message,) = self.accepted
        self.assertEqual(
            [str(each.forward_path) for each in message.envelope.recipients], ["c@mta.example"]
        )

    def test_own_words(self) -> None:
        """A reply that the filter has written, in several lines, with signs of per cent."""
        self.filter.answers[b"R"] = [b"y550-5.7.1 100%% spam\r\n550 5.7.1 Go%\0"]
        self.begin()
        self.hello()
        self.transport.taken()
        self.link.dataReceived(b"MAIL FROM:<>\r\nRCPT TO:<b@mta.example>\r\n")
        lines = self.transport.taken().splitlines()[1:]
        self.assertEqual(lines, [b"550-5.7.1 100% spam", b"550 5.7.1 Go"])

    def test_the_end_of_the_session(self) -> None:
        """By two answers, and by 421 in words: at each step."""
        for answer in (b"4", b"f", b"y421 4.7.0 Bye\0"):
            self.filter.answers[b"C"] = [answer]
            self.begin()
            self.assertTrue(self.transport.value().startswith(b"421 4.7.0"), answer)
            self.assertTrue(self.transport.disconnecting)
            for command in (b"H", b"M", b"R", b"B", b"E"):
                self.setUp()
                self.filter.answers[command] = [answer]
                self.begin()
                self.hello()
                self.say(b"MAIL FROM:<>", b"RCPT TO:<b@mta.example>", b"DATA", MESSAGE + b".")
                self.assertTrue(self.transport.disconnecting, command)
                self.assertIn(CLOSING.enhanced, "4.7.0")

    def test_no_reply(self) -> None:
        """What is none counts as a failure."""
        for words in (
            b"",
            b"250 2.0.0 fine",
            b"550",
            b"5505.7.1 x",
            b"550 4.7.1 x",
            b"450 5.7.1 x",
            b"550-5.7.1 x",
            b"550-5.7.1 x\r\n451 4.7.1 y",
            b"550 5.7.1 x\r\n550 5.7.1 y",
            b"\r\n".join([b"550-5.7.1 x"] * 33 + [b"550 5.7.1 x"]),
        ):
            self.assertEqual(self.refused(b"R", b"y" + words + b"\0")[1], "451", words)
            self.assertIn(("test", "failed"), self.results)

    def test_a_reply_without_an_enhanced_code(self) -> None:
        """It is one."""
        self.assertEqual(self.refused(b"E", b"y554 No\0")[-1], "554")


class AcceptTests(FilterCase):
    """The end of filtering, and mail that goes nowhere."""

    def test_the_session(self) -> None:
        """At its beginning nothing more is told of it, and the connection ends."""
        for command in (b"C", b"H"):
            self.setUp()
            self.filter.answers[command] = [b"a"]
            self.assertEqual(self.run_session()[-1], "250")
            self.assertEqual(self.filter.commands, (b"C" if command == b"C" else b"CH") + b"Q")
            self.assertFalse(self.filter.connections[0].is_open)

    def test_the_message(self) -> None:
        """Later nothing more is told of this one; the next one is told."""
        for command in (b"M", b"R", b"T", b"L", b"N", b"B"):
            self.setUp()
            self.filter.answers[command] = [b"a"]
            self.assertEqual(self.run_session()[-1], "250")
            commands = self.filter.commands
            self.assertEqual(commands.endswith(command + b"A"), command not in BEFORE_OTHERS)
            self.send()
            self.assertEqual(self.filter.commands.count(b"M"), 2)
            self.assertEqual(len(self.accepted), 2)

    def test_discard(self) -> None:
        """The client hears of nothing, and nothing is kept."""
        for command in b"MRTLNBE":
            self.setUp()
            self.filter.answers[bytes((command,))] = [b"d"]
            self.assertEqual(self.run_session()[-1], "250")
            self.assertEqual((self.accepted, self.spool.messages), ([], []))
            self.assertTrue(all(draft.discarded for draft in self.spool.drafts))
            self.assertEqual(self.results, [("test", "discarded")])

    def test_no_session_is_discarded(self) -> None:
        """That makes no sense."""
        self.filter.answers[b"H"] = [b"d"]
        self.assertEqual(self.run_session()[0], "451")

    def test_skip(self) -> None:
        """No more of a kind comes."""
        self.filter.answers[b"B"] = [b"s"]
        self.begin()
        self.hello()
        self.assertEqual(self.send(b"\r\n" + b"x" * 78 + b"\r\n" * 65535)[-1], "250")
        self.assertEqual(self.filter.commands.count(b"B"), 1)
        self.assertTrue(self.filter.commands.endswith(b"NBEA"))

    def test_quarantine(self) -> None:
        """It is no verdict: that comes after it."""
        for verdict, codes, kept in ((b"c", "250", 1), (b"a", "250", 1), (b"r", "550", 0)):
            self.setUp()
            self.filter.answers[b"E"] = [[b"qlooks\tlike a\r\nvirus\0", verdict]]
            self.assertEqual(self.run_session()[-1], codes)
            self.assertEqual(
                [each.on_hold for each in self.accepted], ["test: looks like a virus"] * kept
            )


class OrderTests(FilterCase):
    """Several filters."""

    def test_in_order(self) -> None:
        """Each is told of all, until one refuses; the others forget the message."""
        other = self.reactor.filters[2] = ScriptedFilter()
        milters = (Milter(SOCKET, "one"), Milter("inet:127.0.0.1:2", "two"))
        self.assertEqual(self.run_session(*milters)[-1], "250")
        self.assertEqual(self.filter.commands, other.commands)
        self.filter.answers[b"E"] = [b"r"]
        self.assertEqual(self.send()[-1], "550")
        self.assertTrue(self.filter.commands.endswith(b"NBEA"))
        self.assertTrue(other.commands.endswith(b"NA"))
        self.filter.answers.clear()
        other.answers[b"M"] = [b"t"]
        self.assertEqual(self.send()[0], "451")
        self.assertIn(b"EAMA", self.filter.commands)

    def test_one_fails(self) -> None:
        """The others go on."""
        other = self.reactor.filters[2] = ScriptedFilter(is_down=True)
        milters = (
            Milter("inet:127.0.0.1:2", "two", on_failure=OnFailure.ACCEPT),
            Milter(SOCKET, "one"),
        )
        self.assertEqual(self.run_session(*milters)[-1], "250")
        self.assertEqual((other.commands, self.filter.commands), (b"", b"CHMRTLLNBEA"))
