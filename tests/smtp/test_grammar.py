"""Tests of `mta.smtp.grammar`."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mta.mail import (
    NULL_PATH,
    Body,
    MailArgument,
    Mailbox,
    Notify,
    Recipient,
    Reply,
    canonical_domain,
)
from mta.smtp import grammar, replies
from mta.smtp.errors import LocalFault, Refusal
from mta.smtp.grammar import Command, addresses

MAIL = frozenset({"SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "AUTH", "REQUIRETLS"})
RCPT = frozenset({"NOTIFY", "ORCPT"})
NOTHING: frozenset[str] = frozenset()

ALICE = Mailbox("alice", "example.com")

# --- what a mailbox, a domain and printable text may be ------------------------------

NON_ASCII = st.characters(
    min_codepoint=0xA0,
    exclude_categories=["Cs"],
    exclude_characters="\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e"
    "\u2066\u2067\u2068\u2069\u3002\uff0e\uff61",
)
VISIBLE = st.characters(min_codepoint=0x20, max_codepoint=0x7E) | NON_ASCII
LOCAL_PARTS = st.text(VISIBLE, max_size=20).filter(lambda text: len(text.encode()) <= 64)
LABELS = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9_])?", fullmatch=True) | st.text(
    NON_ASCII, min_size=1, max_size=5
).map(str.lower)
DOMAINS = st.lists(LABELS, min_size=1, max_size=3).map(".".join).map(canonical_domain)
LITERALS = st.ip_addresses(v=4).map(lambda address: f"[{address}]") | st.ip_addresses(v=6).map(
    lambda address: f"[IPv6:{address}]"
)
MAILBOXES = st.builds(Mailbox, LOCAL_PARTS, DOMAINS | LITERALS)
PRINTABLE = st.text(VISIBLE, min_size=1, max_size=20)


def mail_argument(line: bytes) -> bytes:
    """What follows the verb of a MAIL or RCPT command."""
    return grammar.parse_command(line.removesuffix(b"\r\n")).argument


class GrammarTestCase(SynchronousTestCase):
    """Knows how to expect a refusal."""

    def refused(self, reply: Reply, parse: Callable[[bytes], object], argument: bytes) -> None:
        """Expect that very reply."""
        self.assertEqual(reply, self.assertRaises(Refusal, parse, argument).reply)

    def mail_refused(self, reply: Reply, argument: bytes, offered: frozenset[str] = MAIL) -> None:
        """Expect that reply to MAIL."""
        self.refused(reply, lambda octets: grammar.parse_mail(octets, offered), argument)

    def rcpt_refused(self, reply: Reply, argument: bytes, offered: frozenset[str] = RCPT) -> None:
        """Expect that reply to RCPT."""
        self.refused(
            reply, lambda octets: grammar.parse_rcpt(octets, offered, smtputf8=False), argument
        )

    def forward_path(self, path: str) -> Mailbox:
        """The mailbox that a forward-path names."""
        return grammar.parse_rcpt(f"TO:{path}".encode(), RCPT, smtputf8=True).forward_path


class ArbitraryOctetsTests(GrammarTestCase):
    """Whatever arrives is understood or refused."""

    @given(
        st.binary(max_size=60)
        | st.builds(
            bytes.__add__,
            st.sampled_from([b"FROM:<", b"TO:<", b"FROM:<> ", b"TO:<a@b> ORCPT=", b"FROM:<> A"]),
            st.binary(max_size=40),
        )
        | st.from_regex(rb"(?:FROM|TO):<[@a-c.:\[\]\"\\]*> (?:[A-Z0-9]+=?[^ ]* )*", fullmatch=True)
    )
    def test_only_refusals(self, octets: bytes) -> None:
        """No parser raises anything but a refusal."""
        for parse in (
            grammar.parse_command,
            grammar.parse_hello,
            grammar.parse_bdat,
            grammar.parse_domains,
            grammar.parse_etrn,
            lambda argument: grammar.parse_mail(argument, MAIL),
            lambda argument: grammar.parse_rcpt(argument, RCPT, smtputf8=True),
        ):
            try:
                parse(octets)
            except Refusal as refusal:
                self.assertTrue(refusal.reply.is_permanent)

    @given(st.text(max_size=30))
    def test_only_value_errors(self, text: str) -> None:
        """Text from files and command lines is understood or a ValueError."""
        for parse in (grammar.parse_mailbox, grammar.parse_domain, grammar.decode_xtext):
            try:
                parse(text)
            except ValueError as error:
                self.assertNotIn("\n", str(error))


class CommandTests(GrammarTestCase):
    """A command line (RFC 5321 section 4.1.1)."""

    def test_verb_and_argument(self) -> None:
        """The verb may come in any case; space around the argument means nothing."""
        for line, command in [
            (b"QUIT", Command("QUIT", b"")),
            (b"quit  \t", Command("QUIT", b"")),
            (b"Mail FROM:<>", Command("MAIL", b"FROM:<>")),
            (b"NOOP   a b \t", Command("NOOP", b"a b")),
            (b"X-CUSTOM 1", Command("X-CUSTOM", b"1")),
            (b"VRFY caf\xe9", Command("VRFY", b"caf\xe9")),
        ]:
            self.assertEqual(command, grammar.parse_command(line))

    def test_malformed(self) -> None:
        """No word at the start, or an octet that no command line holds: 500 5.5.2."""
        for line in (
            b"",
            b" QUIT",
            b"\xc3\x89HLO x",
            b"NOOP a\0",
            b"NOOP\ra",
            b"NOOP a\nb",
            b"A\tb",
        ):
            self.refused(replies.MALFORMED, grammar.parse_command, line)

    @given(
        st.from_regex(r"[A-Z0-9-]+", fullmatch=True),
        st.binary(max_size=30).filter(lambda octets: not set(octets) & set(b"\0\r\n")),
    )
    def test_inverse(self, verb: str, argument: bytes) -> None:
        """Verb, space and argument are read as they were written."""
        argument = argument.strip(b" \t")
        line = verb.encode() + b" " + argument
        self.assertEqual(Command(verb, argument), grammar.parse_command(line))


class PathTests(GrammarTestCase):
    """Reverse-path and forward-path (RFC 5321 section 4.1.2)."""

    @given(MAILBOXES)
    def test_inverse(self, mailbox: Mailbox) -> None:
        """What was sent is read as it was, in both commands and out of text."""
        mail = grammar.parse_mail(
            mail_argument(grammar.mail_command(mailbox, ["SMTPUTF8"])), frozenset({"SMTPUTF8"})
        )
        self.assertEqual(mailbox, mail.reverse_path)
        argument = mail_argument(grammar.rcpt_command(mailbox, []))
        recipient = grammar.parse_rcpt(argument, NOTHING, smtputf8=True)
        self.assertEqual(Recipient(mailbox), recipient)
        self.assertEqual(mailbox, grammar.parse_mailbox(str(mailbox)))

    def test_forms(self) -> None:
        """Each form of an address, and the mailbox that it means."""
        for path, mailbox in [
            ("<alice@example.com>", ALICE),
            (" <alice@EXAMPLE.com>", ALICE),
            ("<Alice@example.com>", Mailbox("Alice", "example.com")),
            ("<@a.example,@b.example:alice@example.com>", ALICE),
            ('<"alice"@example.com>', ALICE),
            ('<"a \\"b\\\\> "@x>', Mailbox('a "b\\> ', "x")),
            ('<""@x>', Mailbox("", "x")),
            ("<o'neil+tag@my_host>", Mailbox("o'neil+tag", "my_host")),
            ("<a@[192.0.2.1]>", Mailbox("a", "[192.0.2.1]")),
            ("<a@[ipv6:2001:DB8:0:0::1]>", Mailbox("a", "[IPv6:2001:db8::1]")),
            ("<jörg@BÜCHER.example>", Mailbox("jörg", "xn--bcher-kva.example")),
            ("<Postmaster>", Mailbox("Postmaster")),
            ("<POSTMASTER>", Mailbox("POSTMASTER")),
        ]:
            self.assertEqual(mailbox, self.forward_path(path))

    def test_null_reverse_path(self) -> None:
        """<> is a reverse-path, and never a forward-path."""
        self.assertEqual(MailArgument(NULL_PATH), grammar.parse_mail(b"FROM:<>", NOTHING))
        self.rcpt_refused(replies.BAD_FORWARD_PATH, b"TO:<>")
        self.assertEqual(b"MAIL FROM:<>\r\n", grammar.mail_command(NULL_PATH, []))

    def test_postmaster(self) -> None:
        """An address without a domain is for RCPT alone, and the postmaster's alone."""
        self.mail_refused(replies.BAD_REVERSE_PATH, b"FROM:<postmaster>")
        self.rcpt_refused(replies.BAD_FORWARD_PATH, b"TO:<root>")
        self.rcpt_refused(replies.BAD_FORWARD_PATH, "TO:<po\u017ftmaster>".encode())
        self.assertEqual(
            b"RCPT TO:<Postmaster>\r\n", grammar.rcpt_command(Mailbox("Postmaster"), [])
        )

    def test_bad_paths(self) -> None:
        """What is no path is refused with 501 5.1.7 or 5.1.3."""
        for path in (
            b"",
            b"a@b",
            b"<a@b",
            b"<a@b>x",
            b"<a@b>SIZE=1",
            b"< a@b>",
            b"<a b@c>",
            b"<a@>",
            b"<@b>",
            b"<a@b@c>",
            b"<a@-b>",
            b"<a@b->",
            b"<a@b..c>",
            b"<a@b.>",
            b"<a@b>\r\nRCPT TO:<c@d>",
            b'<"a@b>',
            b'<"a\0"@b>',
            b'<"a\n"@b>',
            b'<"a"b@c>',
            b"<@a.b.c>",
            b"<@a@b:c@d>",
            b"<@a,:c@d>",
            b"<a\xff@b>",
            b"<a@\xed\xa0\x80>",
            "<a\x85@b>".encode(),
            "<a\u2028@b>".encode(),
            "<a\u202e@b>".encode(),
            "<a\u2066@b>".encode(),
            "<a@b\u200fc>".encode(),
            b"<" + b"a" * 509 + b"@b>",
            "<a@b\u3002c>".encode(),
            b"<a@[]>",
            b"<a@[1.2.3]>",
            b"<a@[1.2.3.04]>",
            b"<a@[300.2.3.4]>",
            b"<a@[IPv6:1.2.3.4]>",
            b"<a@[IPv6:fe80::1%eth0]>",
            b"<a@[2001:db8::1]>",
            b"<a@[x400:foo]>",
            b"<a@[1.2.3.4]b>",
        ):
            self.mail_refused(replies.BAD_REVERSE_PATH, b"FROM:" + path)
            self.rcpt_refused(replies.BAD_FORWARD_PATH, b"TO:" + path)

    def test_the_other_word(self) -> None:
        """MAIL wants FROM and RCPT wants TO."""
        self.mail_refused(replies.BAD_REVERSE_PATH, b"TO:<a@b>")
        self.rcpt_refused(replies.BAD_FORWARD_PATH, b"FROM:<a@b>")
        self.mail_refused(replies.BAD_REVERSE_PATH, b"FROM <a@b>")

    def test_limits(self) -> None:
        """A path may be twice as long as any server must take; a label as the DNS has it."""
        longest = "a" * 508
        self.assertEqual(longest, self.forward_path(f"<{longest}@b>").local_part)
        self.rcpt_refused(replies.BAD_FORWARD_PATH, f"TO:<{longest}a@b>".encode())
        label = "b" * 63
        self.assertEqual(label, self.forward_path(f"<a@{label}>").domain)
        self.rcpt_refused(replies.BAD_FORWARD_PATH, f"TO:<a@{label}b>".encode())
        domain = ".".join([label] * 3 + ["b" * 60])
        self.assertEqual(domain, self.forward_path(f"<a@{domain}>").domain)
        self.assertEqual(domain, self.forward_path(f"<@route.example:a@{domain}>").domain)
        self.assertEqual("b.example", self.forward_path("<@a.example:c@B.example>").domain)
        domain = ".".join([label] * 3 + ["b" * 63])
        self.assertEqual(domain, self.forward_path(f"<a@{domain}>").domain)
        self.rcpt_refused(replies.BAD_FORWARD_PATH, f"TO:<a@b.{domain}>".encode())

    def test_dots_anywhere(self) -> None:
        """Addresses that some providers hand out come unquoted, and go out quoted."""
        for local_part in ("a..b", "a.", ".a", "..", "a...b.c."):
            mailbox = self.forward_path(f"<{local_part}@other.example>")
            self.assertEqual(local_part, mailbox.local_part)
            self.assertEqual(f'<"{local_part}"@other.example>'.encode(), grammar.path(mailbox))
            quoted = self.forward_path(f'<"{local_part}"@other.example>')
            self.assertEqual(mailbox, quoted)

    def test_limits_are_octets(self) -> None:
        """A character that takes two octets counts twice."""
        self.assertRaises(Refusal, self.forward_path, f"<{'é' * 255}@b>")
        self.assertRaises(ValueError, grammar.parse_domain, ".".join(["é" * 60] * 3))

    def test_non_ascii_needs_smtputf8(self) -> None:
        """An internationalised address comes in a transaction with SMTPUTF8 only (RFC 6531)."""
        address = "<jörg@example.com>".encode()
        self.mail_refused(replies.NO_SMTPUTF8, b"FROM:" + address)
        self.rcpt_refused(replies.NO_SMTPUTF8, b"TO:" + address)
        self.rcpt_refused(replies.NO_SMTPUTF8, "TO:<a@b> ORCPT=utf-8;jörg@b".encode())
        mail = grammar.parse_mail(b"FROM:" + address + b" SMTPUTF8", MAIL)
        self.assertEqual(Mailbox("jörg", "example.com"), mail.reverse_path)


class ParameterTests(GrammarTestCase):
    """What may follow the path."""

    def value_refused(self, keyword: str, value: str) -> None:
        """Expect 501 to a value, in the command that has the parameter."""
        reply = Reply(501, "5.5.4", (f"Bad value for {keyword}",))
        if keyword in MAIL:
            self.mail_refused(reply, f"FROM:<> {keyword}{value}".encode())
        else:
            self.rcpt_refused(reply, f"TO:<a@b> {keyword}{value}".encode())

    def rcpt(self, parameters: str) -> Recipient:
        """The recipient that RCPT with these parameters names."""
        return grammar.parse_rcpt(f"TO:<a@b> {parameters}".encode(), RCPT, smtputf8=True)

    def test_mail(self) -> None:
        """All parameters of MAIL, in any case and with any space between them."""
        argument = (
            b"from:<alice@example.com>  size=01000 Body=8bitmime SMTPUTF8  RET=hdrs"
            b" ENVID=QQ+2B1 REQUIRETLS AUTH=bob+2Bx@Example.COM "
        )
        self.assertEqual(
            MailArgument(
                ALICE, 1000, Body.EIGHT_BIT, True, "HDRS", "QQ+1", True, "bob+x@example.com"
            ),
            grammar.parse_mail(argument, MAIL),
        )

    def test_rcpt(self) -> None:
        """All parameters of RCPT."""
        self.assertEqual(
            Recipient(
                Mailbox("a", "b"),
                frozenset({Notify.SUCCESS, Notify.DELAY}),
                "rfc822;Bob+x@example.com",
            ),
            self.rcpt("NOTIFY=SUCCESS,delay ORCPT=rfc822;Bob+2Bx@example.com"),
        )
        self.assertEqual(frozenset({Notify.NEVER}), self.rcpt("NOTIFY=NEVER").notify)

    def test_auth_unknown(self) -> None:
        """AUTH=<> says that nobody knows who submitted the message."""
        self.assertEqual("<>", grammar.parse_mail(b"FROM:<> AUTH=<>", MAIL).auth)

    def test_bad_values(self) -> None:
        """A value that its parameter can't have: 501 5.5.4."""
        for keyword, values in {
            "SIZE": ["", "=-1", "=x", "=" + "9" * 21],
            "BODY": ["", "=9BIT"],
            "SMTPUTF8": ["=1"],
            "REQUIRETLS": ["=YES"],
            "RET": ["", "=ALL"],
            "ENVID": ["", "=" + "x" * 101, "=a+0D+0Ab", "=a+2", "=+C3+A9", "=+FF"],
            "AUTH": ["", "=+FF", "=a+2"],
            "NOTIFY": ["", "=OFTEN", "=NEVER,FAILURE", "=SUCCESS,"],
            "ORCPT": [
                "",
                "=rfc822",
                "=rfc822;",
                "=;a@b",
                "=r/c;a@b",
                "=rfc822;a+0D+0Ab",
                "=rfc822;a+2b",
                "=rfc822;a+FF",
                "=rfc822;" + "x" * 494,
                "=utf-8;a+2Bb",
                "=utf-8;\\x{0A}",
                "=utf-8;\\x{D800}",
                "=utf-8;\\x{FFFFFF}",
                "=utf-8;\\x{2b}",
            ],
        }.items():
            for value in values:
                self.value_refused(keyword, value)

    def test_bounds(self) -> None:
        """The longest values that the RFCs allow."""
        argument = b"FROM:<> SIZE=" + b"9" * 20 + b" ENVID=" + b"x" * 100
        mail = grammar.parse_mail(argument, MAIL)
        self.assertEqual((10**20 - 1, "x" * 100), (mail.size, mail.envid))
        self.assertEqual(500, len(self.rcpt("ORCPT=rfc822;" + "x" * 493).original))

    def test_unknown(self) -> None:
        """A parameter that is not offered, or that the other command has: 555 5.5.4."""
        self.mail_refused(replies.PARAMETER_UNKNOWN, b"FROM:<> SIZE=1", frozenset({"BODY"}))
        self.mail_refused(replies.PARAMETER_UNKNOWN, b"FROM:<> HOLDFOR=1")
        self.mail_refused(replies.PARAMETER_UNKNOWN, b"FROM:<> NOTIFY=NEVER", MAIL | RCPT)
        self.rcpt_refused(replies.PARAMETER_UNKNOWN, b"TO:<a@b> SIZE=1", MAIL | RCPT)

    def test_twice(self) -> None:
        """A parameter given twice could mean either: 501 5.5.4."""
        twice = Reply(501, "5.5.4", ("SIZE given twice",))
        self.mail_refused(twice, b"FROM:<> SIZE=1 size=1")

    def test_malformed(self) -> None:
        """A word that is no parameter at all: 501 5.5.4."""
        for word in (b"SIZE=", b"=1", b"-A=1", b"A=b=c", b"A=b\tc", b"A=\x7f", b"\xc3\xa9=1"):
            self.mail_refused(replies.BAD_ARGUMENT, b"FROM:<> " + word)

    def test_original_in_utf8(self) -> None:
        """The forms of RFC 6533: embedded code points, with or without octets over 127."""
        for value in ("utf-8;j\\x{F6}rg\\x{2B}x@b", "utf-8;jörg\\x{2B}x@b"):
            self.assertEqual("utf-8;jörg+x@b", self.rcpt(f"ORCPT={value}").original)

    @given(st.sampled_from(["rfc822", "utf-8", "UTF-8", "x400"]), PRINTABLE)
    def test_original_inverse(self, kind: str, address: str) -> None:
        """ORCPT as we send it is read as it was, and is ASCII."""
        original = f"{kind};{address}"
        parameter = f"ORCPT={grammar.encode_original(original)}"
        self.assertTrue(parameter.isascii())
        argument = mail_argument(grammar.rcpt_command(ALICE, [parameter]))
        recipient = grammar.parse_rcpt(argument, RCPT, smtputf8=False)
        self.assertEqual(Recipient(ALICE, original=original), recipient)

    @given(st.text())
    def test_xtext_inverse(self, text: str) -> None:
        """Any Unicode text can go as xtext."""
        encoded = grammar.encode_xtext(text)
        self.assertTrue(encoded.isascii())
        self.assertEqual(text, grammar.decode_xtext(encoded))

    def test_xtext(self) -> None:
        """RFC 3461's own form: upper-case hexadecimal for space, plus, equals and the rest."""
        self.assertEqual("a+20+2B+3D+C3+A9", grammar.encode_xtext("a +=é"))
        for text in ("a b", "a=b", "+2b", "+", "é"):
            self.assertRaises(ValueError, grammar.decode_xtext, text)


class SendingTests(GrammarTestCase):
    """Nothing that we send can be taken for something else."""

    def test_commands(self) -> None:
        """A command line to the octet."""
        self.assertEqual(
            b"MAIL FROM:<alice@example.com> SIZE=10 BODY=8BITMIME\r\n",
            grammar.mail_command(ALICE, ["SIZE=10", "BODY=8BITMIME"]),
        )
        self.assertEqual(
            b'RCPT TO:<"a b"@example.com>\r\n',
            grammar.rcpt_command(Mailbox("a b", "example.com"), []),
        )

    def test_injection(self) -> None:
        """An address that would break out of its line or its brackets is our own fault."""
        for mailbox in (
            Mailbox("a\r\nRSET", "b"),
            Mailbox("a\n", "b"),
            Mailbox("a\0", "b"),
            Mailbox("a\x85", "b"),
            Mailbox("a\ud800", "b"),
            Mailbox("a", "b> SIZE=1"),
            Mailbox("a", "b\r\nQUIT"),
            Mailbox("a", "b\n"),
            Mailbox("a", "b c"),
            Mailbox("a", "b@c"),
            Mailbox("", "b\r\n"),
            Mailbox("a\r\n"),
        ):
            self.assertRaises(LocalFault, grammar.path, mailbox)
            self.assertRaises(LocalFault, grammar.mail_command, mailbox, [])
            self.assertRaises(LocalFault, grammar.rcpt_command, mailbox, [])

    def test_injection_by_parameter(self) -> None:
        """A parameter is one word."""
        for parameter in ("SIZE=1\r\nQUIT", "SIZE=1 BODY=7BIT", "", "SIZE=", "A=\0", "SIZE=1\n"):
            self.assertRaises(LocalFault, grammar.mail_command, ALICE, [parameter])

    def test_no_unicode(self) -> None:
        """A lone surrogate has no octets."""
        self.assertRaises(LocalFault, grammar.encode_xtext, "\ud800")

    @given(st.text(max_size=12), st.text(max_size=12), st.text(max_size=12))
    def test_one_line_or_our_fault(self, local_part: str, domain: str, word: str) -> None:
        """Whatever a mailbox holds, what goes out is one line with one path."""
        try:
            line = grammar.rcpt_command(Mailbox(local_part, domain), [word] if word else [])
        except LocalFault:
            return
        self.assertTrue(line.endswith(b"\r\n"))
        self.assertFalse(set(line[:-2]) & set(b"\r\n\0"))
        self.assertTrue(line.startswith(b"RCPT TO:<"))


class HelloTests(GrammarTestCase):
    """The argument of HELO, EHLO and LHLO."""

    def test_taken(self) -> None:
        """What real clients call themselves."""
        for name in ("mail.example.com", "localhost", "MY_PC", "[192.0.2.1]", "[IPv6:::1]", "a."):
            self.assertEqual(name, grammar.parse_hello(name.encode()))
        self.assertEqual(255, len(grammar.parse_hello(b"a" * 255)))

    def test_refused(self) -> None:
        """Nothing, or what could deceive the reader of a Received: field: 501 5.5.4."""
        for name in (b"", b"a b", b"a\n", b"a\0", b"a(b)", b"[a", b"a]", b"[]", b"<a>", b"a;b"):
            self.refused(replies.BAD_ARGUMENT, grammar.parse_hello, name)
        self.assertRaises(Refusal, grammar.parse_hello, b"a" * 256)
        self.assertRaises(Refusal, grammar.parse_hello, "bücher.example".encode())


class BdatTests(GrammarTestCase):
    """The argument of BDAT (RFC 3030)."""

    def test_taken(self) -> None:
        """A number of octets, and perhaps LAST."""
        self.assertEqual((0, True), grammar.parse_bdat(b"0 LAST"))
        self.assertEqual((86, False), grammar.parse_bdat(b"86"))
        self.assertEqual((86, True), grammar.parse_bdat(b"86  last"))
        self.assertEqual((10**20 - 1, False), grammar.parse_bdat(b"9" * 20))

    def test_refused(self) -> None:
        """All else: 501 5.5.4."""
        for argument in (b"", b"LAST", b"-1", b"1 FIRST", b"1LAST", b"1\n", b"9" * 21, b"\xd9\xa1"):
            self.refused(replies.BAD_ARGUMENT, grammar.parse_bdat, argument)


class PatternTests(GrammarTestCase):
    """The patterns that take long to compile."""

    def test_compiled_before(self) -> None:
        """A server has them before a client needs them."""
        grammar.compile_patterns()
        before = addresses.compiled.cache_info().misses
        self.forward_path("<a@b.example>")
        grammar.parse_mail(b"FROM:<a@b.example>", NOTHING)
        grammar.parse_mailbox("a@b.example")
        self.assertEqual(before, addresses.compiled.cache_info().misses)


class DomainTests(GrammarTestCase):
    """Domains: in text, in ATRN (RFC 2645) and in ETRN (RFC 1985)."""

    @given(st.lists(DOMAINS, max_size=5), st.sampled_from([",", ", "]))
    def test_inverse(self, domains: list[str], comma: str) -> None:
        """ATRN's list is read as it was written."""
        self.assertEqual(tuple(domains), grammar.parse_domains(comma.join(domains).encode()))
        for domain in domains:
            self.assertEqual(domain, grammar.parse_domain(domain))
            self.assertEqual(("", domain), grammar.parse_etrn(domain.encode()))
            self.assertEqual(("@", domain), grammar.parse_etrn(b"@" + domain.encode()))

    def test_canonical(self) -> None:
        """A domain has one form: A-labels as IDNA 2008 makes them, whatever it was written in."""
        for text, canonical in (
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.Example", "xn--bcher-kva.example"),
            ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
            ("bu\u0308cher.example", "xn--bcher-kva.example"),
            ("faß.example", "xn--fa-hia.example"),
            ("_dmarc.bücher.example", "_dmarc.xn--bcher-kva.example"),
            ("ｅｘａｍｐｌｅ.com", "example.com"),
            ("i❤.example", "i❤.example"),
            ("⒈.example", "⒈.example"),
        ):
            self.assertEqual(canonical, grammar.parse_domain(text))
            self.assertEqual((canonical,), grammar.parse_domains(text.encode()))
            self.assertEqual(canonical, self.forward_path(f"<a@{text}>").domain)
            self.assertEqual(Mailbox("a", canonical), Mailbox("a", text))

    def test_lower_case(self) -> None:
        """Domains are compared in lower case."""
        self.assertEqual("mail.example", grammar.parse_domain("Mail.EXAMPLE"))
        self.assertEqual(("a.example", "b"), grammar.parse_domains(b"A.example,B"))

    def test_longer_in_its_canonical_form(self) -> None:
        """A domain that grows beyond its limit is refused."""
        self.assertRaises(ValueError, grammar.parse_domain, ".".join(["\u0130" * 41] * 3))

    def test_bad_domains(self) -> None:
        """What is no domain."""
        for text in (
            "",
            "a..b",
            ".a",
            "a.",
            "-a",
            "a b",
            "a\n",
            "[1.2.3.4]",
            "@a",
            "a/b",
            "\ud800",
        ):
            self.assertRaises(ValueError, grammar.parse_domain, text)

    def test_bad_lists(self) -> None:
        """A list with an empty or bad name, or too many: 501 5.5.4."""
        for argument in (b",", b"a,", b"a b", b"a,\xff", b"a;b", b",".join([b"a"] * 101)):
            self.refused(replies.BAD_ARGUMENT, grammar.parse_domains, argument)
        self.assertEqual(("a",) * 100, grammar.parse_domains(b",".join([b"a"] * 100)))

    def test_etrn_queue(self) -> None:
        """A queue's name keeps its case."""
        self.assertEqual(("#", "Office_1"), grammar.parse_etrn(b"#Office_1"))

    def test_bad_etrn(self) -> None:
        """No name, or one that could mean something to a shell or a database: 501 5.5.4."""
        for argument in (b"", b"@", b"#", b"#a b", b"#a'b", b"#\xff", b"@@a", b"a'--", b"#" * 9):
            self.refused(replies.BAD_ARGUMENT, grammar.parse_etrn, argument)


class MailboxTests(GrammarTestCase):
    """Addresses in files and on command lines."""

    def test_bad_addresses(self) -> None:
        """What is no address says so."""
        for text in ("", "alice", "<a@b>", "a@b\n", "a@b,c@d", f"{'a' * 510}@b", "a@[1.2.3]"):
            self.assertRaises(ValueError, grammar.parse_mailbox, text)
